//! Intent from a file or a folder.
//!
//! [`Files`] remembers the last good version of every document: one that becomes bad stays in force as it
//! was, one that is deleted goes. A folder that cannot be read deletes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use xxhash_rust::xxh3::xxh3_64;

use super::Documents;
use crate::intent::{Document, ObjectId, Parsed, Problem, Severity, Sheet, Sheets, read};

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// Deepest folder below the one that is named.
const MAX_DEPTH: usize = 8;
/// The name of no file, for what is said of the root.
const NO_FILE: &str = "\0";
/// A file that was changed so shortly before it was read may change again within the same tick of the clock.
const FRESH: Duration = Duration::from_secs(2);

/// A file or folder of YAML, and what was good in it before.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    /// By path, whose parts are not looked at to find it.
    known: BTreeMap<OsString, Known>,
    /// What is in them, and what is wrong with the root.
    sheets: Sheets,
    loaded: bool,
    unsettled: bool,
    /// Each file has one name only, so that what is written to it is noticed under that name.
    is_plain: bool,
}

/// One file as it was last read.
#[derive(Debug, Default)]
struct Known {
    hash: u64,
    /// While the file looks so from outside, it need not be read again.
    stamp: Option<Stamp>,
    /// Good documents, and the last good version of those that are bad now.
    sheet: Arc<Sheet>,
    /// It was found empty once: perhaps someone is about to write it.
    emptied: bool,
}

/// What is in a folder, or the one file.
struct Listing {
    /// By path.
    files: Vec<(OsString, Metadata)>,
    problem: Option<Problem>,
    is_plain: bool,
}

/// What a file looks like from outside. Writing to it, or putting another one in its place, changes that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// None: it was changed just now.
    fn of(metadata: &Metadata) -> Option<Self> {
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
            sheets: Sheets::default(),
            loaded: false,
            unsettled: false,
            is_plain: false,
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
            Ok(Listing { files, problem, is_plain }) => {
                self.is_plain = is_plain;
                changed |= self.note(problem);
                let is_there = |path: &OsString| files.binary_search_by(|(one, _)| one.cmp(path));
                let gone = self.known.keys().filter(|path| is_there(path).is_err());
                for path in gone.cloned().collect::<Vec<_>>() {
                    changed |= self.forget(path.as_ref());
                }
                for (path, metadata) in files {
                    changed |= self.reload_file(path.as_ref(), &metadata);
                }
            }
            Err(error) => {
                self.is_plain = false;
                changed |= self.note(Some(self.unreadable(&error)));
            }
        }
        changed.then(|| self.documents())
    }

    /// The same after something happened to these paths and to nothing else. Where that could mean more than the files of
    /// these names, everything is looked at.
    pub fn reload_paths(&mut self, paths: &BTreeSet<PathBuf>) -> Option<Documents> {
        let certain =
            self.is_plain && !self.unsettled && !self.sheets.contains_key(&self.root.join(NO_FILE));
        let found: Option<Vec<_>> = paths.iter().map(|path| self.look(path)).collect();
        let Some(found) = found.filter(|_| certain) else { return self.reload_documents() };
        let mut changed = false;
        for (path, metadata) in found.into_iter().flatten() {
            changed |= match metadata {
                Some(metadata) => self.reload_file(&path, &metadata),
                None => self.forget(&path),
            };
        }
        if self.known.is_empty() {
            return self.reload_documents();
        }
        changed.then(|| self.documents())
    }

    /// The file of this name if it counts, and what it looks like if it is there. `None`: more than a file may have
    /// changed.
    fn look(&self, path: &Path) -> Option<Option<(PathBuf, Option<Metadata>)>> {
        let below = match path.strip_prefix(&self.root) {
            Ok(below) => below,
            // Notices name files in full.
            Err(_) => path.strip_prefix(std::path::absolute(&self.root).ok()?).ok()?,
        };
        let mut names = below.components().map(|part| part.as_os_str().to_string_lossy());
        let depth = names.clone().count();
        if depth == 0 || depth > MAX_DEPTH {
            return None;
        }
        if names.any(|name| name.starts_with('.')) {
            return Some(None);
        }
        let path = self.root.join(below);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_file() || metadata.nlink() > 1 => None,
            Ok(metadata) => Some(is_yaml(&path).then_some((path, Some(metadata)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.known.contains_key(path.as_os_str()) {
                    return Some(Some((path, None)));
                }
                let below = path.join("").into_os_string();
                let was_folder = self.known.range(below..).next();
                let was_folder =
                    was_folder.is_some_and(|(next, _)| Path::new(next).starts_with(&path));
                if was_folder { None } else { Some(None) }
            }
            Err(_) => None,
        }
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

    fn reload_file(&mut self, path: &Path, metadata: &Metadata) -> bool {
        // Taken before the file is read: what changes meanwhile is found the next time.
        let stamp = Stamp::of(metadata);
        if stamp.is_some()
            && self.known.get(path.as_os_str()).is_some_and(|known| known.stamp == stamp)
        {
            return false;
        }
        let known = self.known.entry(path.into()).or_default();
        known.stamp = None;
        let name = path.display().to_string();
        let content = match content(path, metadata) {
            Ok(content) => content,
            Err(error) => {
                let mut message = format!("cannot be read: {error}");
                if !known.sheet.documents.is_empty() {
                    message.push_str("; what was read before stays in force");
                }
                let problems = vec![Problem::of_file(Severity::Error, &name, message)];
                let changed = known.sheet.problems != problems;
                // It must be read again even if it comes back as it was.
                known.hash = 0;
                if changed {
                    let documents = known.sheet.documents.clone();
                    known.sheet = Arc::new(Sheet { documents, problems });
                    self.sheets.insert(path.to_owned(), Arc::clone(&known.sheet));
                }
                return changed;
            }
        };
        if content.is_empty() && !known.sheet.documents.is_empty() && !known.emptied {
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
        known.hash = hash;
        known.sheet = Arc::new(replace(&known.sheet, &name, &content));
        self.sheets.insert(path.to_owned(), Arc::clone(&known.sheet));
        true
    }

    /// The file is gone.
    fn forget(&mut self, path: &Path) -> bool {
        self.sheets.remove(path);
        self.known.remove(path.as_os_str()).is_some()
    }

    /// What is wrong with the root itself; whether that is news.
    fn note(&mut self, problem: Option<Problem>) -> bool {
        let place = self.root.join(NO_FILE);
        let Some(problem) = problem else { return self.sheets.remove(&place).is_some() };
        let sheet = Sheet { problems: vec![problem], ..Sheet::default() };
        let before = self.sheets.insert(place, Arc::new(sheet.clone()));
        before.is_none_or(|before| *before != sheet)
    }

    fn documents(&self) -> Documents {
        Documents { sheets: self.sheets.clone() }
    }
}

/// Reads a file or folder once.
#[must_use]
pub fn load(path: &Path) -> Parsed {
    let mut files = Files::new(path);
    files.reload().unwrap_or_default()
}

/// The new version of a file, with the last good version of what is bad in it.
fn replace(before: &Sheet, name: &str, content: &str) -> Sheet {
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
    Sheet { documents, problems }
}

fn content(path: &Path, metadata: &Metadata) -> io::Result<String> {
    let size = metadata.len();
    if size > MAX_FILE {
        let message = format!("it has {size} bytes, more than {MAX_FILE}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    fs::read_to_string(path)
}

/// The files of a folder, or the one file, and what is odd about the folder.
fn list(root: &Path) -> io::Result<Listing> {
    let mut files = Vec::new();
    let metadata = fs::metadata(root)?;
    if !metadata.is_dir() {
        files.push((root.into(), metadata));
        return Ok(Listing { files, problem: None, is_plain: false });
    }
    let mut is_plain = true;
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                // Editors' scratch files, and the folders behind the links of a mounted ConfigMap.
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type()?;
            is_plain &= !kind.is_symlink();
            if kind.is_file() && !is_yaml(&path) {
                continue;
            }
            // Links are followed; one that leads nowhere is as good as deleted.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if metadata.is_dir() && depth < MAX_DEPTH {
                folders.push((path, depth + 1));
            } else if metadata.is_file() && is_yaml(&path) {
                is_plain &= metadata.nlink() == 1;
                files.push((path.into_os_string(), metadata));
            }
        }
    }
    files.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
    let nothing = "there is no .yaml, .yml or .json file in this folder";
    let problem = files
        .is_empty()
        .then(|| Problem::of_file(Severity::Warning, &root.display().to_string(), nothing));
    Ok(Listing { files, problem, is_plain })
}

fn is_yaml(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| matches!(extension, "yaml" | "yml" | "json"))
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
