//! The identity on disk (mode 0600), so that a proxy restarts without its control plane.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::model::tls::{DataSource, SecretKind};
use crate::tls::identity::Identity;

const CHAIN: &str = "identity-chain.pem";
const KEY: &str = "identity-key.pem";
const ROOTS: &str = "identity-roots.pem";

/// Write the three files. A failure is a warning: the proxy goes on, but a restart needs the
/// control plane.
pub fn save(folder: &Path, identity: &Identity) {
    let SecretKind::Certificate(certificate) = &identity.certificate.kind else { return };
    let SecretKind::Validation(trust) = &identity.trust.kind else { return };
    let parts = [
        (CHAIN, Some(&certificate.chain)),
        (KEY, Some(&certificate.key)),
        (ROOTS, trust.trusted_ca.as_ref()),
    ];
    for (name, source) in parts {
        let Some(DataSource::Inline(bytes)) = source else { continue };
        if let Err(error) = write_private(&folder.join(name), bytes) {
            let path = folder.join(name);
            tracing::warn!(path = %path.display(), %error, "the identity cannot be kept on disk");
            return;
        }
    }
}

/// What was kept, if it is still good.
pub fn load(folder: &Path) -> Option<Identity> {
    let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let key = Zeroizing::new(fs::read(folder.join(KEY)).ok()?);
    match Identity::restore(&text(CHAIN)?, key, &text(ROOTS)?) {
        Ok(identity) => Some(identity),
        Err(error) => {
            tracing::info!(%error, "the identity on disk is not used");
            None
        }
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}
