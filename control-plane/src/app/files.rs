//! Files that the control plane leaves in its data directory for people and sidecars.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ca::{CaError, JoinToken};
use crate::store::Store;

use super::StartError;

/// The join token, mode 0600.
pub const JOIN_TOKEN_FILE: &str = "join-token";
/// The root certificate in PEM.
pub const ROOT_FILE: &str = "root.pem";
/// The ports of the running control plane, as `--print-ports-file` has them.
pub const PORTS_FILE: &str = "control-plane.json";

/// The addresses that a control plane listens on; in files, the port numbers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// xDS in plain text, on loopback.
    pub xds: SocketAddr,
    /// xDS over TLS.
    pub xds_tls: SocketAddr,
    /// Administration, on loopback.
    pub admin: SocketAddr,
    /// HTTPS for Kubernetes, if there is any.
    pub webhook: Option<SocketAddr>,
}

/// The ports as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// xDS in plain text.
    pub xds: u16,
    /// xDS over TLS.
    pub xds_tls: u16,
    /// Administration.
    pub admin: u16,
    /// HTTPS for Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<u16>,
}

impl From<Addresses> for Ports {
    fn from(addresses: Addresses) -> Self {
        Self {
            xds: addresses.xds.port(),
            xds_tls: addresses.xds_tls.port(),
            admin: addresses.admin.port(),
            webhook: addresses.webhook.map(|address| address.port()),
        }
    }
}

/// Writes the ports; a reader finds the whole file or none.
///
/// # Errors
/// When the file cannot be written.
pub fn write_ports(path: &Path, ports: Ports) -> Result<(), StartError> {
    let text = serde_json::to_string(&ports).map_err(io::Error::other);
    text.and_then(|text| write_atomically(path, format!("{text}\n").as_bytes(), 0o644))
        .map_err(|source| StartError::File { path: path.to_path_buf(), source })
}

/// The join token of the data directory: the one in the file if it is still good, else a new one.
pub(crate) fn join_token(
    directory: &Path,
    root: &[u8],
    store: &dyn Store,
) -> Result<PathBuf, StartError> {
    let path = directory.join(JOIN_TOKEN_FILE);
    let failed = |source| StartError::File { path: path.clone(), source };
    if let Ok(text) = fs::read_to_string(&path).map(Zeroizing::new)
        && let Ok(token) = JoinToken::parse(&text)
        && token.pins(root)
        && token.is_one_of(&store.join_tokens()?)
    {
        return Ok(path);
    }
    let token = JoinToken::generate(root).map_err(StartError::Ca)?;
    store.put_join_token(token.secret_sha256())?;
    let mut text = token.expose();
    text.push('\n');
    write_atomically(&path, text.as_bytes(), 0o600).map_err(failed)?;
    tracing::info!(path = %path.display(), "wrote a new join token");
    Ok(path)
}

/// Writes beside the file, then renames.
pub(crate) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

impl From<CaError> for StartError {
    fn from(error: CaError) -> Self {
        Self::Ca(error)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::store::Embedded;

    #[test]
    fn the_join_token_is_private_and_stays_until_the_root_changes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(dir.path()).unwrap();
        let path = join_token(dir.path(), b"root", &store).unwrap();
        let first = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        join_token(dir.path(), b"root", &store).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), first);
        join_token(dir.path(), b"another root", &store).unwrap();
        assert_ne!(fs::read_to_string(&path).unwrap(), first);
    }
}
