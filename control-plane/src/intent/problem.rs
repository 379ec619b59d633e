//! What is wrong with what people wrote, and where.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is not applied as written. `pillion check` fails.
    Error,
    /// Everything that can be applied is applied, but someone should look.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// What a [`Problem`] comes from, as far as somebody asks for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Anything else.
    #[default]
    Other,
    /// It leads to another namespace, and no `ReferenceGrant` there permits it.
    NotPermitted,
    /// It leads to a kind that cannot be led to.
    InvalidKind,
    /// The listeners of a gateway do not let a route in.
    NotAllowed,
    /// No listener of a gateway is for any host of a route.
    NoMatchingHostname,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file, as it was named to the reader. Empty for what comes from no file.
    pub file: Arc<str>,
    /// 1-based line, 0 where there is none.
    pub line: u32,
    /// 1-based column, 0 where there is none.
    pub column: u32,
    /// 1-based document in the file, 0 where there is none.
    pub document: usize,
    /// How bad it is.
    pub severity: Severity,
    /// The object, as `Kind namespace/name`. Empty where it is not known.
    pub object: String,
    /// Path of the field, such as `spec.rules[0].backendRefs[1].weight`. Empty for a whole document.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What was expected instead, if that can be said in a few words.
    pub expected: Option<String>,
    /// What it comes from.
    #[serde(skip)]
    pub cause: Cause,
}

impl Problem {
    /// A problem that belongs to no place in a file, such as a folder that cannot be read.
    #[must_use]
    pub fn of_file(severity: Severity, file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: 0,
            column: 0,
            document: 0,
            severity,
            object: String::new(),
            field: String::new(),
            message: message.into(),
            expected: None,
            cause: Cause::Other,
        }
    }
}

/// `severity: file:line:column: document 2, Kind ns/name: field: message; expected …`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.severity)?;
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
            if self.line > 0 {
                write!(f, ":{}:{}", self.line, self.column)?;
            }
            f.write_str(": ")?;
        }
        match (self.document, self.object.as_str()) {
            (0, "") => {}
            (0, object) => write!(f, "{object}: ")?,
            (document, "") => write!(f, "document {document}: ")?,
            (document, object) => write!(f, "document {document}, {object}: ")?,
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        match &self.expected {
            Some(expected) => write!(f, "; expected {expected}"),
            None => Ok(()),
        }
    }
}

/// The known name that `written` was probably meant to be: the same but for case, or one or two slips
/// away (a third of its length at the most).
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let written = written.to_lowercase();
    let allowed = (written.chars().count() / 3).clamp(1, 2);
    let scored = known.into_iter().map(|name| (slips(&written, &name.to_lowercase()), name));
    scored.filter(|(slips, _)| *slips <= allowed).min().map(|(_, name)| name)
}

/// Optimal string alignment distance: insert, delete, replace, swap neighbours.
fn slips(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let replace = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_name_that_was_meant() {
        let known = ["weight", "name", "namespace", "port", "filters"];
        assert_eq!(nearest("wieght", known), Some("weight"));
        assert_eq!(nearest("nameSpace", known), Some("namespace"));
        assert_eq!(nearest("ports", known), Some("port"));
        assert_eq!(nearest("colour", known), None);
    }

    #[test]
    fn a_problem_reads_as_one_line() {
        let mut problem = Problem::of_file(Severity::Error, "shop.yaml", "unknown field `wieght`");
        assert_eq!(problem.to_string(), "error: shop.yaml: unknown field `wieght`");
        (problem.line, problem.column, problem.document) = (12, 9, 2);
        problem.object = "HTTPRoute default/catalog".to_owned();
        problem.field = "spec.rules[0]".to_owned();
        problem.expected = Some("one of `a`, `b`".to_owned());
        assert_eq!(
            problem.to_string(),
            "error: shop.yaml:12:9: document 2, HTTPRoute default/catalog: spec.rules[0]: unknown field `wieght`; expected one of `a`, `b`"
        );
    }
}
