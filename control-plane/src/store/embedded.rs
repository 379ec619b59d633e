//! The store in one file (redb: a crash-safe B-tree, one writer at a time).

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use zeroize::Zeroizing;

use super::{RootRecord, Store, StoreError, WorkloadChange};

/// The file's name inside the data directory.
const FILE_NAME: &str = "pillion.redb";
/// Page cache, in bytes: the whole store is rarely more than a few hundred kilobytes.
const CACHE_BYTES: usize = 4 << 20;

const ROOT: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("root");
const JOIN_TOKENS: TableDefinition<'static, [u8; 32], ()> = TableDefinition::new("join-tokens");
const WORKLOADS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("workloads");

const ROOT_CERTIFICATE: &str = "certificate";
const ROOT_KEY: &str = "key";

/// The store in a file of this machine, `pillion.redb` in the data directory, mode 0600.
pub struct Embedded {
    database: Database,
    path: PathBuf,
}

impl Embedded {
    /// Opens the store in `directory`; makes the directory (mode 0700) and the file where missing.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it open, [`StoreError::Corrupt`] when the
    /// file is no store, [`StoreError::Permission`] and [`StoreError::Io`] as the system says.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        make_directory(directory)?;
        let path = directory.join(FILE_NAME);
        let file = open_private(&path)?;
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_file(file)
            .map_err(|e| from_redb(&path, e.into()))?;
        let store = Self { database, path };
        store.write(|transaction| {
            transaction.open_table(ROOT)?;
            transaction.open_table(JOIN_TOKENS)?;
            transaction.open_table(WORKLOADS)?;
            Ok(())
        })?;
        Ok(store)
    }

    fn read<T>(
        &self,
        body: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let attempt = || {
            let transaction = self.database.begin_read()?;
            body(&transaction)
        };
        attempt().map_err(|e| from_redb(&self.path, e))
    }

    fn write<T>(
        &self,
        body: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let attempt = || {
            let transaction = self.database.begin_write()?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        attempt().map_err(|e| from_redb(&self.path, e))
    }
}

impl Store for Embedded {
    fn root(&self) -> Result<Option<RootRecord>, StoreError> {
        self.read(|transaction| read_root(&transaction.open_table(ROOT)?))
    }

    fn put_root_if_absent(&self, root: RootRecord) -> Result<RootRecord, StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(ROOT)?;
            if let Some(present) = read_root(&table)? {
                return Ok(present);
            }
            table.insert(ROOT_CERTIFICATE, root.certificate.as_slice())?;
            table.insert(ROOT_KEY, root.key.as_slice())?;
            Ok(root)
        })
    }

    fn put_root(&self, root: RootRecord) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(ROOT)?;
            table.insert(ROOT_CERTIFICATE, root.certificate.as_slice())?;
            table.insert(ROOT_KEY, root.key.as_slice())?;
            Ok(())
        })
    }

    fn join_tokens(&self) -> Result<Vec<[u8; 32]>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(JOIN_TOKENS)?;
            let mut tokens = Vec::new();
            for entry in table.iter()? {
                tokens.push(entry?.0.value());
            }
            Ok(tokens)
        })
    }

    fn put_join_token(&self, sha256: [u8; 32]) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(JOIN_TOKENS)?.insert(sha256, ())?;
            Ok(())
        })
    }

    fn workloads(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(WORKLOADS)?;
            let mut workloads = Vec::new();
            for entry in table.iter()? {
                let (id, record) = entry?;
                workloads.push((id.value().to_owned(), record.value().to_vec()));
            }
            Ok(workloads)
        })
    }

    fn change_workloads(&self, changes: &[WorkloadChange]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(WORKLOADS)?;
            for change in changes {
                match change {
                    WorkloadChange::Put { id, record } => {
                        table.insert(id.as_str(), record.as_slice())?;
                    }
                    WorkloadChange::Delete { id } => {
                        table.remove(id.as_str())?;
                    }
                }
            }
            Ok(())
        })
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("path", &self.path).finish_non_exhaustive()
    }
}

fn read_root(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<RootRecord>, redb::Error> {
    let (Some(certificate), Some(key)) = (table.get(ROOT_CERTIFICATE)?, table.get(ROOT_KEY)?)
    else {
        return Ok(None);
    };
    Ok(Some(RootRecord {
        certificate: certificate.value().to_vec(),
        key: Zeroizing::new(key.value().to_vec()),
    }))
}

/// Makes the directory with mode 0700. One that exists already keeps its mode (it may be shared on
/// purpose): the file in it is private either way.
fn make_directory(directory: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|e| from_io(directory, e))
}

fn open_private(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| from_io(path, e))?;
    let mode = file.metadata().map_err(|e| from_io(path, e))?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "the store was readable by others; made it private");
        file.set_permissions(Permissions::from_mode(0o600)).map_err(|e| from_io(path, e))?;
    }
    Ok(file)
}

fn from_io(path: &Path, source: io::Error) -> StoreError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::PermissionDenied => StoreError::Permission { path },
        _ => StoreError::Io { path, source },
    }
}

fn from_redb(path: &Path, error: redb::Error) -> StoreError {
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::Locked { path: path.to_path_buf() },
        redb::Error::Io(source) if source.kind() != io::ErrorKind::InvalidData => {
            from_io(path, source)
        }
        other => StoreError::Corrupt { path: path.to_path_buf(), detail: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(byte: u8) -> RootRecord {
        RootRecord { certificate: vec![byte; 3], key: Zeroizing::new(vec![byte; 5]) }
    }

    #[test]
    fn what_was_put_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a/b");
        {
            let store = Embedded::open(&home).unwrap();
            assert!(store.root().unwrap().is_none());
            store.put_root_if_absent(root(1)).unwrap();
            store.put_join_token([7; 32]).unwrap();
            store
                .change_workloads(&[
                    WorkloadChange::Put { id: "a".to_owned(), record: b"1".to_vec() },
                    WorkloadChange::Put { id: "b".to_owned(), record: b"2".to_vec() },
                    WorkloadChange::Delete { id: "a".to_owned() },
                ])
                .unwrap();
        }
        let store = Embedded::open(&home).unwrap();
        assert_eq!(store.root().unwrap(), Some(root(1)));
        assert_eq!(store.join_tokens().unwrap(), vec![[7; 32]]);
        assert_eq!(store.workloads().unwrap(), vec![("b".to_owned(), b"2".to_vec())]);
    }

    #[test]
    fn the_first_root_wins() {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(dir.path()).unwrap();
        assert_eq!(store.put_root_if_absent(root(1)).unwrap(), root(1));
        assert_eq!(store.put_root_if_absent(root(2)).unwrap(), root(1));
        store.put_root(root(3)).unwrap();
        assert_eq!(store.root().unwrap(), Some(root(3)));
    }

    #[test]
    fn the_file_and_a_new_directory_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("data");
        std::fs::create_dir(&home).unwrap();
        let file = home.join(FILE_NAME);
        std::fs::write(&file, b"").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let store = Embedded::open(&home).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        drop(store);
        let fresh = dir.path().join("fresh");
        let _store = Embedded::open(&fresh).unwrap();
        assert_eq!(mode(&fresh), 0o700);
        assert_eq!(mode(&fresh.join(FILE_NAME)), 0o600);
    }

    #[test]
    fn a_second_opener_is_told_that_it_is_locked() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Embedded::open(dir.path()).unwrap();
        let error = Embedded::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
        assert!(error.to_string().contains("--data-dir"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_store_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), vec![b'x'; 20_000]).unwrap();
        let error = Embedded::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains(FILE_NAME), "{error}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let blocker = dir.path().join("file");
        std::fs::write(&blocker, b"").unwrap();
        let error = Embedded::open(&blocker.join("data")).unwrap_err();
        assert!(error.to_string().contains("data"), "{error}");
    }

    #[test]
    fn debug_shows_no_key() {
        let record =
            RootRecord { certificate: vec![1], key: Zeroizing::new(b"secret-key-bytes".to_vec()) };
        let text = format!("{record:?}");
        assert!(!text.contains("115") && !text.contains("secret"), "{text}");
    }
}
