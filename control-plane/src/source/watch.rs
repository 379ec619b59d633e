//! Watches a file or folder and sends what is in it whenever that changes.
//!
//! The operating system's notices make it quick; a slow poll finds what they miss (network file systems,
//! links to folders that are swapped as a whole, a path that does not exist yet).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{io, thread};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

use super::Documents;
use super::files::Files;
use crate::intent::{Assembly, Parsed};

/// Quiet time after a notice before the files are read: programs write in several steps.
const QUIET: Duration = Duration::from_millis(50);
/// Longest wait for quiet.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// How soon a file that seems half written is looked at again.
const SETTLE: Duration = Duration::from_millis(250);
/// Time between two looks without a notice.
const POLL: Duration = Duration::from_secs(2);

/// Reads `path`, and again whenever something changes. The receiver holds the newest state from the start;
/// when the last receiver is dropped, the watching ends.
///
/// # Errors
/// No thread could be started. A path that cannot be read is a problem in [`Parsed`], not an error.
pub fn watch(path: impl Into<PathBuf>) -> io::Result<watch::Receiver<Arc<Parsed>>> {
    let mut assembly = Assembly::default();
    watch_as(path.into(), move |documents| {
        assembly = assembly.update(documents.sheets);
        Arc::clone(assembly.parsed())
    })
}

/// The same, before the documents are put together with those of other sources.
///
/// # Errors
/// As [`watch()`].
pub fn watch_documents(path: impl Into<PathBuf>) -> io::Result<watch::Receiver<Documents>> {
    watch_as(path.into(), |documents| documents)
}

fn watch_as<T: Send + Sync + 'static>(
    path: PathBuf,
    mut form: impl FnMut(Documents) -> T + Send + 'static,
) -> io::Result<watch::Receiver<T>> {
    let mut files = Files::new(&path);
    let first = files.reload_documents().unwrap_or_default();
    let (sender, receiver) = watch::channel(form(first));
    let send = move |files: &mut Files, notice: Notice| {
        let documents = match notice {
            Notice::Anything => files.reload_documents(),
            Notice::Paths(paths) => files.reload_paths(&paths),
        };
        if let Some(documents) = documents {
            // Whoever listens gets the newest; whoever does not will see `is_closed`.
            sender.send_replace(form(documents));
        }
        !sender.is_closed()
    };
    thread::Builder::new()
        .name("pillion-files".to_owned())
        .spawn(move || follow(&path, &mut files, send))?;
    Ok(receiver)
}

/// What may have changed.
#[derive(Debug)]
enum Notice {
    /// What is at these paths.
    Paths(BTreeSet<PathBuf>),
    /// It is not known what.
    Anything,
}

impl Notice {
    fn of(event: notify::Result<Event>) -> Option<Self> {
        // Errors are notices too: something happened that was not understood.
        let Ok(event) = event else { return Some(Self::Anything) };
        if !is_change(&event.kind) {
            return None;
        }
        let is_certain = !event.need_rescan() && !event.paths.is_empty();
        let paths = event.paths.into_iter().collect();
        Some(if is_certain { Self::Paths(paths) } else { Self::Anything })
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Paths(mut paths), Self::Paths(mut more)) => {
                paths.append(&mut more);
                Self::Paths(paths)
            }
            _ => Self::Anything,
        }
    }
}

/// `send` says whether somebody still listens.
fn follow(path: &Path, files: &mut Files, mut send: impl FnMut(&mut Files, Notice) -> bool) {
    let (notices, notified) = mpsc::channel();
    let mut watcher = None;
    let mut looked = Instant::now();
    loop {
        if watcher.is_none() {
            watcher = start_watcher(path, notices.clone());
            // Between the last look and the watcher's start something may have changed.
            if watcher.is_some() && !send(files, Notice::Anything) {
                return;
            }
        }
        let patience = if files.is_unsettled() { SETTLE } else { POLL };
        let mut notice = match notified.recv_timeout(patience.saturating_sub(looked.elapsed())) {
            Ok(notice) => wait_for_quiet(&notified, notice),
            Err(RecvTimeoutError::Timeout) => Notice::Anything,
            // This function holds a sender itself.
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // What notices miss is found however many of them there are.
        if looked.elapsed() >= POLL {
            notice = Notice::Anything;
        }
        let everything = matches!(notice, Notice::Anything);
        if !send(files, notice) {
            return;
        }
        if everything {
            looked = Instant::now();
        }
    }
}

fn wait_for_quiet(notified: &Receiver<Notice>, first: Notice) -> Notice {
    let deadline = Instant::now() + MAX_WAIT;
    let mut all = first;
    while let Ok(notice) = notified.recv_timeout(QUIET) {
        all = all.and(notice);
        if Instant::now() >= deadline {
            break;
        }
    }
    all
}

/// `None` if the path cannot be watched now; the poll goes on, and tries again.
fn start_watcher(path: &Path, notices: mpsc::Sender<Notice>) -> Option<RecommendedWatcher> {
    let handler = move |event: notify::Result<Event>| {
        if let Some(notice) = Notice::of(event) {
            // Nobody listens any more: the thread is ending.
            let _ = notices.send(notice);
        }
    };
    let mut watcher = notify::recommended_watcher(handler).ok()?;
    // A single file is watched through its folder, because editors replace it by another one.
    let (target, mode) = if path.is_dir() {
        (path, RecursiveMode::Recursive)
    } else {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        (folder.unwrap_or_else(|| Path::new(".")), RecursiveMode::NonRecursive)
    };
    watcher.watch(target, mode).ok().map(|()| watcher)
}

/// Our own reading is no change.
fn is_change(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn service(port: u16) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{ports: [{{port: {port}}}]}}\n"
        )
    }

    fn port(parsed: &Parsed) -> Option<u16> {
        parsed.intent.services.values().next().map(|service| service.ports[0].port)
    }

    async fn wait_for(receiver: &mut watch::Receiver<Arc<Parsed>>, wanted: Option<u16>) {
        let found = receiver.wait_for(|parsed| port(parsed) == wanted);
        tokio::time::timeout(Duration::from_secs(20), found)
            .await
            .expect("in time")
            .expect("watching");
    }

    #[tokio::test]
    async fn writes_renames_and_swapped_links_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, service(1)).unwrap();
        let mut receiver = watch(folder.path()).unwrap();
        assert_eq!(port(&receiver.borrow()), Some(1), "from the start");
        fs::write(&file, service(2)).unwrap();
        wait_for(&mut receiver, Some(2)).await;

        // As editors do.
        fs::write(folder.path().join(".a.yaml.new"), service(3)).unwrap();
        fs::rename(folder.path().join(".a.yaml.new"), &file).unwrap();
        wait_for(&mut receiver, Some(3)).await;

        // As the kubelet does: a.yaml -> ..data/a.yaml, ..data -> a folder that is swapped.
        fs::remove_file(&file).unwrap();
        wait_for(&mut receiver, None).await;
        for version in ["..1", "..2"] {
            fs::create_dir(folder.path().join(version)).unwrap();
        }
        fs::write(folder.path().join("..1/a.yaml"), service(4)).unwrap();
        fs::write(folder.path().join("..2/a.yaml"), service(5)).unwrap();
        std::os::unix::fs::symlink("..1", folder.path().join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.yaml", &file).unwrap();
        wait_for(&mut receiver, Some(4)).await;
        std::os::unix::fs::symlink("..2", folder.path().join("..data_tmp")).unwrap();
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
        wait_for(&mut receiver, Some(5)).await;
    }

    #[tokio::test]
    async fn a_single_file_that_comes_later_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let mut receiver = watch(&file).unwrap();
        assert!(receiver.borrow().problems[0].message.contains("cannot be read"));
        fs::write(&file, service(7)).unwrap();
        wait_for(&mut receiver, Some(7)).await;
        assert_eq!(receiver.borrow().problems, []);
    }
}
