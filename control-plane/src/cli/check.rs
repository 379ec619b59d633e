//! `pillion check`: says what is wrong with mesh files, and where.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::proof;
use crate::intent::{Parsed, Problem, Severity};
use crate::source::files::Files;

/// What to check, and how to say it.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A YAML file, or a folder of them.
    path: PathBuf,
    /// How to print what was found.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people, in colour on a terminal (unless NO_COLOR is set).
    Text,
    /// One JSON object, for scripts.
    Json,
}

/// What was found, for scripts.
#[derive(Debug, Serialize)]
struct Report<'a> {
    files: usize,
    objects: usize,
    errors: usize,
    warnings: usize,
    problems: &'a [Problem],
}

/// Checks the files. Exit code 1 if anything is an error.
#[must_use]
pub fn run(args: &CheckArgs) -> ExitCode {
    // https://no-color.org: any value that is not empty.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = !plain && io::stdout().is_terminal();
    match check(args, colour, &mut io::stdout().lock()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pillion: cannot write the report: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the report and returns the number of errors.
fn check(args: &CheckArgs, colour: bool, out: &mut impl Write) -> io::Result<usize> {
    let mut files = Files::new(&args.path);
    let mut parsed = files.reload().unwrap_or_default();
    parsed.problems.extend(proof::problems(&parsed));
    let (errors, warnings) = parsed.counts();
    let objects = parsed.places.len();
    let problems = parsed.problems.as_slice();
    let report = Report { files: files.count(), objects, errors, warnings, problems };
    match args.output {
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
        }
        Output::Text => {
            let paint = Paint { colour };
            let mut sources = Sources::default();
            for problem in problems {
                print(problem, paint, &mut sources, out)?;
            }
            writeln!(out, "{}", summary(args, &report, &parsed, paint))?;
        }
    }
    Ok(errors)
}

#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn severity(self, severity: Severity) -> String {
        match severity {
            Severity::Error => self.with("1;31", "error"),
            Severity::Warning => self.with("1;33", "warning"),
        }
    }
}

/// The files' lines, read again to show them; a file at a time, as problems come by file.
#[derive(Default)]
struct Sources {
    file: String,
    lines: Vec<String>,
}

impl Sources {
    fn line(&mut self, file: &str, number: u32) -> Option<&str> {
        if self.file != file {
            let content = fs::read_to_string(file).unwrap_or_default();
            (self.file, self.lines) =
                (file.to_owned(), content.lines().map(str::to_owned).collect());
        }
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.lines.get(index).map(String::as_str)
    }
}

fn print(
    problem: &Problem,
    paint: Paint,
    sources: &mut Sources,
    out: &mut impl Write,
) -> io::Result<()> {
    let field =
        if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
    let head = paint.with("1", &format!("{field}{}", one_line(&problem.message)));
    writeln!(out, "{}: {head}", paint.severity(problem.severity))?;
    let mut place = problem.file.to_string();
    if problem.line > 0 {
        place.push_str(&format!(":{}:{}", problem.line, problem.column));
    }
    if problem.document > 0 {
        place.push_str(&format!(" (document {})", problem.document));
    }
    let object =
        if problem.object.is_empty() { String::new() } else { format!(" {}", problem.object) };
    if !place.is_empty() || !object.is_empty() {
        writeln!(out, "  {} {place}{object}", paint.with("1;34", "-->"))?;
    }
    if let Some(line) = sources.line(&problem.file, problem.line) {
        let bar = paint.with("1;34", "|");
        let number = problem.line.to_string();
        let margin = " ".repeat(number.len());
        // The margin keeps the tabs of the line, so that the mark stands below its place.
        let before = line.chars().take(problem.column.saturating_sub(1) as usize);
        let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(out, "  {} {bar} {}", paint.with("1;34", &number), one_line(line))?;
        writeln!(out, "  {margin} {bar} {indent}{}", paint.with("1;31", "^"))?;
    }
    if let Some(expected) = &problem.expected {
        writeln!(out, "  expected {expected}")?;
    }
    writeln!(out)
}

/// Without control characters: what stands in a file must not steer a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn summary(args: &CheckArgs, report: &Report<'_>, parsed: &Parsed, paint: Paint) -> String {
    let count = |number: usize, word: &str| {
        let plural = if number == 1 { "" } else { "s" };
        format!("{number} {word}{plural}")
    };
    let counts = format!(
        "{} in {}: {}, {}",
        count(report.objects, "object"),
        count(report.files, "file"),
        count(report.errors, "error"),
        count(report.warnings, "warning")
    );
    let verdict = match (report.errors, report.warnings) {
        (0, 0) => paint.with("1;32", "ok"),
        (0, _) => paint.with("1;33", "ok, with warnings"),
        _ => paint.with("1;31", "not ok"),
    };
    let intent = &parsed.intent;
    let kinds = format!(
        "{}, {}, {}",
        count(intent.services.len(), "service"),
        count(intent.routes.len(), "route"),
        count(intent.workloads.len(), "workload")
    );
    format!("{}: {verdict} ({counts}; {kinds})", args.path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(content: &str, output: Output) -> (usize, String) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), content).unwrap();
        let args = CheckArgs { path: folder.path().to_owned(), output };
        let mut out = Vec::new();
        let errors = check(&args, false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        (errors, text.replace(&folder.path().display().to_string(), "mesh"))
    }

    const BAD: &str =
        "apiVersion: pillion.io/v1alpha1\nkind: Mesh\nmetadata: {name: m}\nspec: {mtsl: Strict}\n";

    #[test]
    fn an_error_shows_its_line() {
        let (errors, text) = checked(BAD, Output::Text);
        assert_eq!(errors, 1);
        let expected = "\
error: spec.mtsl: unknown field `mtsl`, did you mean `mtls`?
  --> mesh/a.yaml:4:8 (document 1) Mesh default/m
  4 | spec: {mtsl: Strict}
    |        ^
  expected one of `trustDomain`, `mtls`, `outbound`, `tracing`, `accessLog`

mesh: not ok (0 objects in 1 file: 1 error, 0 warnings; 0 services, 0 routes, 0 workloads)
";
        assert_eq!(text, expected);
    }

    #[test]
    fn scripts_get_json() {
        let (errors, text) = checked(BAD, Output::Json);
        assert_eq!(errors, 1);
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["errors"], 1);
        assert_eq!(report["problems"][0]["line"], 4);
        assert_eq!(report["problems"][0]["severity"], "error");
        assert_eq!(report["problems"][0]["file"], "mesh/a.yaml");
    }

    #[test]
    fn good_files_are_one_line() {
        let (errors, text) = checked(&BAD.replace("mtsl", "mtls"), Output::Text);
        assert_eq!(errors, 0);
        assert_eq!(
            text,
            "mesh: ok (1 object in 1 file: 0 errors, 0 warnings; 0 services, 0 routes, 0 workloads)\n"
        );
    }

    #[test]
    fn what_compiling_finds_is_told_too() {
        let content = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: pillion.io/v1alpha1
kind: Workload
metadata: {name: web-1, labels: {app: web}}
spec: {address: 10.0.0.1, ports: {http: 8080}}
";
        let (errors, text) = checked(content, Output::Text);
        assert_eq!(errors, 0, "{text}");
        assert!(text.contains("1 warning") && text.contains("Workload default/web-1"), "{text}");
    }

    #[test]
    fn what_stands_in_a_file_does_not_steer_the_terminal() {
        let (_, text) = checked("kind: \"\u{1b}[2J\u{1b}\"\n", Output::Text);
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
