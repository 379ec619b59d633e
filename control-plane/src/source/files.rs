//! Intent from a file or a folder.
//!
//! [`Files`] remembers the last good version of every document: one that becomes bad stays in force as it
//! was, one that is deleted goes. A folder that cannot be read deletes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use xxhash_rust::xxh3::xxh3_64;

use super::Documents;
use crate::intent::{Document, ObjectId, Parsed, Problem, Severity, read};

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// Deepest folder below the one that is named.
const MAX_DEPTH: usize = 8;
/// A file that was changed so shortly before it was read may change again within the same tick of the clock.
const FRESH: Duration = Duration::from_secs(2);

/// A file or folder of YAML, and what was good in it before.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    known: BTreeMap<PathBuf, Known>,
    root_problem: Option<Problem>,
    loaded: bool,
    unsettled: bool,
}

/// One file as it was last read.
#[derive(Debug, Default)]
struct Known {
    hash: u64,
    /// While the file looks so from outside, it need not be read again.
    stamp: Option<Stamp>,
    /// Good documents, and the last good version of those that are bad now.
    documents: Vec<Document>,
    problems: Vec<Problem>,
    /// It was found empty once: perhaps someone is about to write it.
    emptied: bool,
}

/// What a file looks like from outside. Writing to it, or putting another one in its place, changes that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// None: it is not there, or it was changed just now.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(changed.0.try_into().ok()?);
        // One of the future tells nothing.
        let age = SystemTime::now().duration_since(at).ok()?;
        let inode = (metadata.dev(), metadata.ino());
        (age > FRESH).then_some(Self { inode, size: metadata.size(), changed })
    }
}

impl Files {
    /// A source that has read nothing yet. Of a folder, every `.yaml`, `.yml` and `.json` file in it and below
    /// it counts, apart from names that begin with a dot.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            known: BTreeMap::new(),
            root_problem: None,
            loaded: false,
            unsettled: false,
        }
    }

    /// Reads everything again. `None` if nothing changed since the last time.
    pub fn reload(&mut self) -> Option<Parsed> {
        self.reload_documents().map(|documents| documents.assemble())
    }

    /// The same, before the documents are put together.
    pub fn reload_documents(&mut self) -> Option<Documents> {
        let mut changed = !self.loaded;
        (self.loaded, self.unsettled) = (true, false);
        match list(&self.root) {
            Ok((files, problem)) => {
                changed |= self.root_problem != problem;
                self.root_problem = problem;
                let before = self.known.len();
                self.known.retain(|path, _| files.contains(path));
                changed |= self.known.len() != before;
                for path in files {
                    changed |= self.reload_file(&path);
                }
            }
            Err(error) => {
                let problem = self.unreadable(&error);
                changed |= self.root_problem.as_ref() != Some(&problem);
                self.root_problem = Some(problem);
            }
        }
        changed.then(|| self.documents())
    }

    /// Whether a file looked as if someone is in the middle of writing it, so that it is worth another look
    /// soon.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// How many files there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known.len()
    }

    fn unreadable(&self, error: &io::Error) -> Problem {
        let kept = if self.known.is_empty() { "" } else { "; what was read before stays in force" };
        let message = format!("cannot be read: {error}{kept}");
        Problem::of_file(Severity::Error, &self.root.display().to_string(), message)
    }

    fn reload_file(&mut self, path: &Path) -> bool {
        let name = path.display().to_string();
        let known = self.known.entry(path.to_owned()).or_default();
        // Taken before the file is read: what changes meanwhile is found the next time.
        let stamp = Stamp::of(path);
        if stamp.is_some() && known.stamp == stamp {
            return false;
        }
        known.stamp = None;
        let content = match content(path) {
            Ok(content) => content,
            Err(error) => {
                let mut message = format!("cannot be read: {error}");
                if !known.documents.is_empty() {
                    message.push_str("; what was read before stays in force");
                }
                let problems = vec![Problem::of_file(Severity::Error, &name, message)];
                let changed = known.problems != problems;
                // It must be read again even if it comes back as it was.
                (known.problems, known.hash) = (problems, 0);
                return changed;
            }
        };
        if content.is_empty() && !known.documents.is_empty() && !known.emptied {
            // Many a program empties a file before it writes it.
            (known.emptied, self.unsettled) = (true, true);
            return false;
        }
        known.emptied = false;
        known.stamp = stamp;
        let hash = xxh3_64(content.as_bytes()).max(1);
        if known.hash == hash {
            return false;
        }
        *known = Known { stamp, ..replace(known, &name, &content, hash) };
        true
    }

    fn documents(&self) -> Documents {
        let documents = self.known.values().flat_map(|known| known.documents.iter().cloned());
        let problems = self.known.values().flat_map(|known| known.problems.iter().cloned());
        let problems = problems.chain(self.root_problem.clone());
        Documents::new(documents.collect(), problems.collect())
    }
}

/// Reads a file or folder once.
#[must_use]
pub fn load(path: &Path) -> Parsed {
    let mut files = Files::new(path);
    files.reload().unwrap_or_default()
}

/// The new version of a file, with the last good version of what is bad in it.
fn replace(before: &Known, name: &str, content: &str, hash: u64) -> Known {
    let found = read(name, content);
    let present: BTreeSet<&ObjectId> =
        found.documents.iter().map(|document| &document.id).collect();
    // What is not even YAML could be any of the documents that are missing now.
    let anything = found.rejected.contains(&None);
    let rejected: BTreeSet<&ObjectId> = found.rejected.iter().flatten().collect();
    let stays = |document: &&Document| {
        !present.contains(&document.id) && (anything || rejected.contains(&document.id))
    };
    let kept: Vec<Document> = before.documents.iter().filter(stays).cloned().collect();
    let note = |document: &Document| Problem {
        object: document.id.to_string(),
        ..Problem::of_file(
            Severity::Warning,
            name,
            "its last good version stays in force until this file is repaired",
        )
    };
    let problems = found.problems.iter().cloned().chain(kept.iter().map(note)).collect();
    let documents = found.documents.iter().cloned().chain(kept).collect();
    Known { hash, stamp: None, documents, problems, emptied: false }
}

fn content(path: &Path) -> io::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > MAX_FILE {
        let message = format!("it has {size} bytes, more than {MAX_FILE}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    fs::read_to_string(path)
}

/// The files of a folder, or the one file, and what is odd about the folder.
fn list(root: &Path) -> io::Result<(BTreeSet<PathBuf>, Option<Problem>)> {
    let mut found = BTreeSet::new();
    if !fs::metadata(root)?.is_dir() {
        found.insert(root.to_owned());
        return Ok((found, None));
    }
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                // Editors' scratch files, and the folders behind the links of a mounted ConfigMap.
                continue;
            }
            let path = entry.path();
            // Links are followed; one that leads nowhere is as good as deleted.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if metadata.is_dir() && depth < MAX_DEPTH {
                folders.push((path, depth + 1));
            } else if metadata.is_file() && is_yaml(&path) {
                found.insert(path);
            }
        }
    }
    let nothing = "there is no .yaml, .yml or .json file in this folder";
    let problem = found
        .is_empty()
        .then(|| Problem::of_file(Severity::Warning, &root.display().to_string(), nothing));
    Ok((found, problem))
}

fn is_yaml(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| matches!(extension, "yaml" | "yml" | "json"))
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
