//! Reading source files, as far as these rules need it.

use std::fs;
use std::path::Path;

/// One source file, without its tests.
pub(crate) struct File {
    /// Below the repository, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) lines: usize,
    root: String,
    text: String,
}

/// All Rust files below `root`.
pub(crate) fn files(repository: &Path, root: &str) -> Vec<File> {
    let mut found = Vec::new();
    walk(repository, &repository.join(root), root, &mut found);
    assert!(!found.is_empty(), "no source files in {root}");
    found
}

fn walk(repository: &Path, dir: &Path, root: &str, found: &mut Vec<File>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            walk(repository, &path, root, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a readable file");
            let below = path.strip_prefix(repository).expect("below the repository");
            found.push(File::new(&below.to_string_lossy().replace('\\', "/"), root, &text));
        }
    }
}

impl File {
    pub(crate) fn new(path: &str, root: &str, text: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        let for_tests = name == "tests.rs"
            || name == "testing.rs"
            || name.ends_with("_tests.rs")
            || path.contains("/tests/");
        let mut code = String::new();
        // Tests stand last in a file; a test module in a file of its own is one line.
        for line in text.lines().take_while(|line| line.trim() != "mod tests {") {
            if for_tests {
                break;
            }
            let comment = line.trim_start().starts_with("//");
            code.push_str(if comment { "" } else { line });
            code.push('\n');
        }
        let code = match code.find("#[cfg(test)]\nmod tests {") {
            Some(end) => code[..end].to_owned(),
            None => code,
        };
        Self {
            path: path.to_owned(),
            lines: text.lines().count(),
            root: root.to_owned(),
            text: code,
        }
    }

    /// Its code, without comments and tests.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The top-level module that it belongs to; `None` for `lib.rs` and `main.rs`.
    pub(crate) fn module(&self) -> Option<&str> {
        let inner = self.path.strip_prefix(&self.root)?.trim_start_matches('/');
        let first = inner.split('/').next()?;
        let module = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(module, "lib" | "main")).then_some(module)
    }

    /// The top-level modules of its crate that it names, each with its line.
    pub(crate) fn imports(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, _) in self.text.match_indices("crate::") {
            let whole = !self.text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if !whole {
                continue;
            }
            let line = self.text[..at].matches('\n').count() + 1;
            let rest = &self.text[at + "crate::".len()..];
            let names = match rest.strip_prefix('{') {
                Some(group) => heads(group),
                None => vec![identifier(rest)],
            };
            let names = names.into_iter().filter(|name| name.starts_with(char::is_lowercase));
            found.extend(names.map(|name| (line, name)));
        }
        found
    }

    /// Every place that contains one of these words.
    pub(crate) fn mentions(&self, words: &[&str]) -> Vec<String> {
        let lines = self.text.lines().enumerate();
        let mentions = lines.flat_map(|(number, line)| {
            let here = words.iter().filter(move |word| line.contains(**word));
            here.map(move |word| format!("{}:{}: `{word}`", self.path, number + 1))
        });
        mentions.collect()
    }
}

/// The first words of the parts of `a::b, c, d::{e, f}}`.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut fresh) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && !c.is_whitespace() => {
                names.push(identifier(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
