//! What can go wrong with the store, in words that name the file and the way out.

use std::path::PathBuf;

/// Why the store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the file open.
    #[error(
        "{} is in use by another process: is another control plane running with this --data-dir?",
        path.display()
    )]
    Locked {
        /// The store's file.
        path: PathBuf,
    },
    /// The file is not a store, or is damaged.
    #[error(
        "{} is damaged or not a store of pillion ({detail}): put a backup in its place, or move it \
         away to begin with a new root (every sidecar must then join again)",
        path.display()
    )]
    Corrupt {
        /// The store's file.
        path: PathBuf,
        /// What the storage engine found.
        detail: String,
    },
    /// The operating system does not let us at the file.
    #[error("no permission for {}: the control plane must own it", path.display())]
    Permission {
        /// The file or directory.
        path: PathBuf,
    },
    /// Any other failure of the disk or file system.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}
