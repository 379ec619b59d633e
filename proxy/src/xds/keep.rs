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

/// What was kept, if it is still good, and ours: its SPIFFE path is `wanted` (`/ns/…/sa/…`; the trust
/// domain is the control plane's to say).
pub fn load(folder: &Path, wanted: &str) -> Option<Identity> {
    let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let key = Zeroizing::new(fs::read(folder.join(KEY)).ok()?);
    match Identity::restore(&text(CHAIN)?, key, &text(ROOTS)?) {
        Ok(identity) if path(&identity.spiffe_id) == Some(wanted) => Some(identity),
        Ok(identity) => {
            let found = identity.spiffe_id;
            tracing::warn!(found, wanted, "the identity on disk is another workload's; not used");
            None
        }
        Err(error) => {
            tracing::info!(%error, "the identity on disk is not used");
            None
        }
    }
}

/// `/ns/…/sa/…` of `spiffe://trust.domain/ns/…/sa/…`.
fn path(spiffe_id: &str) -> Option<&str> {
    let rest = spiffe_id.strip_prefix("spiffe://")?;
    rest.find('/').map(|at| &rest[at..])
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::identity::KeyAndCsr;
    use crate::tls::testing::spiffe;

    #[test]
    fn another_workloads_identity_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let id = &spiffe("web");
        let authority = crate::tls::testing::Ca::new("root");
        let key = KeyAndCsr::generate(id).unwrap();
        let issued = authority.sign(key.csr_der());
        let identity = key.issued(&[issued.to_vec()], &[authority.der().to_vec()]).unwrap();
        save(folder.path(), &identity);
        assert!(load(folder.path(), "/ns/default/sa/cart").is_none());
        assert_eq!(load(folder.path(), "/ns/default/sa/web").unwrap().spiffe_id, *id);
    }

    #[test]
    fn the_path_is_what_follows_the_trust_domain() {
        assert_eq!(path("spiffe://a.b/ns/x/sa/y"), Some("/ns/x/sa/y"));
        assert_eq!(path("spiffe://a.b"), None);
    }
}
