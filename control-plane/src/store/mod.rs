//! Where the control plane keeps what must outlive it: the CA root, join tokens and registered
//! workloads.
//!
//! [`Store`] is the seam: [`Embedded`] is a file on this machine; a shared store (etcd) implements
//! the same trait. Values are opaque here: who writes a workload record knows how to read it.

mod embedded;
mod error;

use std::fmt;

use zeroize::Zeroizing;

pub use embedded::Embedded;
pub use error::StoreError;

/// The calls are short and may block on the disk: call them on a blocking thread.
pub trait Store: Send + Sync + fmt::Debug {
    /// The CA root, if one was made already.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn root(&self) -> Result<Option<RootRecord>, StoreError>;

    /// Keeps `root` unless there is one already, and returns the one that is kept, so that of
    /// two control planes that start together only one makes the root.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    fn put_root_if_absent(&self, root: RootRecord) -> Result<RootRecord, StoreError>;

    /// Keeps `root` in place of one that is there already: it is made elsewhere, and this is a copy.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn put_root(&self, root: RootRecord) -> Result<(), StoreError>;

    /// The SHA-256 of each valid join token's secret. The secrets themselves are not kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn join_tokens(&self) -> Result<Vec<[u8; 32]>, StoreError>;

    /// Makes the token with this SHA-256 valid.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn put_join_token(&self, sha256: [u8; 32]) -> Result<(), StoreError>;

    /// All registered workloads: id and record.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn workloads(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Writes and deletes workload records in one transaction.
    ///
    /// # Errors
    /// When the store cannot be written; then none of the changes was made.
    fn change_workloads(&self, changes: &[WorkloadChange]) -> Result<(), StoreError>;
}

/// One change of the registered workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadChange {
    /// Write this record, in place of an older one with the same id.
    Put {
        /// The workload's id.
        id: String,
        /// The record, as its writer encoded it.
        record: Vec<u8>,
    },
    /// Forget the workload.
    Delete {
        /// The workload's id.
        id: String,
    },
}

/// The root certificate and its key.
#[derive(Clone, PartialEq, Eq)]
pub struct RootRecord {
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// The private key in PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for RootRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootRecord")
            .field("certificate_bytes", &self.certificate.len())
            .finish_non_exhaustive()
    }
}
