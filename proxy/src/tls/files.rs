//! Certificate files that change under us. They are looked at again and again rather than watched:
//! that also sees the symlink swaps of Kubernetes, network file systems, and files that come later.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Secrets;
use crate::model::tls::{
    CommonTls, DataSource, SecretKind, SecretRef, SpiffeBundles, TlsCertificate, ValidationContext,
};

/// How often files are looked at.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

type Digests = BTreeMap<PathBuf, Option<[u8; 32]>>;

/// Remembers what is in some files and tells which have changed.
#[derive(Clone, Debug, Default)]
pub struct FileWatch {
    digests: Digests,
}

impl FileWatch {
    /// Watches these files from how they are now.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut watch = Self::default();
        watch.set(paths);
        watch
    }

    /// Watches these files instead; what is known of the ones that stay is kept.
    pub fn set(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let known = std::mem::take(&mut self.digests);
        self.digests = paths
            .into_iter()
            .map(|path| {
                let digest = known.get(&path).copied().unwrap_or_else(|| digest(&path));
                (path, digest)
            })
            .collect();
    }

    /// The files that are watched.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.digests.keys().map(PathBuf::as_path)
    }

    /// The files that differ from the last look. A file that disappeared counts once, when it is
    /// back with other content.
    pub fn poll(&mut self) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        for (path, known) in &mut self.digests {
            let now = digest(path);
            // Gone, perhaps between two steps of a replacement: what was loaded stays in use.
            if now.is_some() && now != *known {
                *known = now;
                changed.push(path.clone());
            }
        }
        changed
    }

    /// Waits until some files have changed, looking every `interval`. Safe to drop and call again.
    /// Never returns when nothing is watched.
    pub async fn changed(&mut self, interval: Duration) -> Vec<PathBuf> {
        loop {
            tokio::time::sleep(interval).await;
            let changed = self.poll();
            if !changed.is_empty() {
                return changed;
            }
        }
    }
}

/// Every file that a TLS context reads, through the secrets that it names too.
pub fn of_context(tls: &CommonTls, secrets: &dyn Secrets) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for certificate in &tls.certificates {
        match certificate {
            SecretRef::Inline(certificate) => of_certificate(certificate, &mut found),
            SecretRef::Sds(name) => of_secret(name, secrets, &mut found),
        }
    }
    if let Some(validation) = &tls.validation {
        of_validation(&validation.context, &mut found);
        if let Some(name) = &validation.sds {
            of_secret(name, secrets, &mut found);
        }
    }
    found
}

fn of_secret(name: &str, secrets: &dyn Secrets, found: &mut Vec<PathBuf>) {
    if let Some(secret) = secrets.get(name) {
        match &secret.kind {
            SecretKind::Certificate(certificate) => of_certificate(certificate, found),
            SecretKind::Validation(context) => of_validation(context, found),
        }
    }
}

fn of_certificate(certificate: &TlsCertificate, found: &mut Vec<PathBuf>) {
    found.extend([&certificate.chain, &certificate.key].into_iter().filter_map(file));
}

fn of_validation(context: &ValidationContext, found: &mut Vec<PathBuf>) {
    let sources = [&context.trusted_ca, &context.crl];
    found.extend(sources.into_iter().flatten().filter_map(file));
    match &context.spiffe {
        Some(SpiffeBundles::Each(each)) => {
            found.extend(each.iter().filter_map(|(_, source)| file(source)));
        }
        Some(SpiffeBundles::Map(source)) => found.extend(file(source)),
        None => {}
    }
}

fn file(source: &DataSource) -> Option<PathBuf> {
    match source {
        DataSource::File(path) => Some(path.clone()),
        DataSource::Inline(_) => None,
    }
}

/// Content, not time or inode: both lie on some file systems. None: cannot be read.
fn digest(path: &Path) -> Option<[u8; 32]> {
    let bytes = Zeroizing::new(std::fs::read(path).ok()?);
    Some(Sha256::digest(bytes.as_slice()).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;
    use crate::model::tls::Validation;
    use crate::tls::NoSecrets;

    #[test]
    fn sees_rewrites_swaps_and_late_files_but_no_touching() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("one"), "1").unwrap();
        std::fs::write(at("two"), "2").unwrap();
        symlink(at("one"), at("link")).unwrap();
        let mut watch = FileWatch::new([at("link"), at("late")]);
        assert!(watch.poll().is_empty());

        std::fs::write(at("one"), "1").unwrap(); // same content
        assert!(watch.poll().is_empty());
        symlink(at("two"), at("new")).unwrap();
        std::fs::rename(at("new"), at("link")).unwrap(); // as Kubernetes swaps ..data
        assert_eq!(watch.poll(), [at("link")]);
        std::fs::write(at("late"), "3").unwrap();
        assert_eq!(watch.poll(), [at("late")]);
        std::fs::remove_file(at("late")).unwrap();
        assert!(watch.poll().is_empty(), "what was loaded stays in use");
        std::fs::write(at("late"), "4").unwrap();
        assert_eq!(watch.poll(), [at("late")]);
        assert!(watch.poll().is_empty());
    }

    #[tokio::test]
    async fn waits_for_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "old").unwrap();
        let mut watch = FileWatch::new([path.clone()]);
        std::fs::write(&path, "new").unwrap();
        assert_eq!(watch.changed(Duration::from_millis(1)).await, [path]);
    }

    #[test]
    fn finds_every_file_of_a_context() {
        let file = |path: &str| DataSource::File(path.into());
        let certificate = TlsCertificate { chain: file("/chain"), key: file("/key") };
        let context = ValidationContext { trusted_ca: Some(file("/ca")), ..Default::default() };
        let tls = CommonTls {
            certificates: vec![
                SecretRef::Inline(Arc::new(certificate)),
                SecretRef::Sds("x".into()),
            ],
            validation: Some(Validation { context, sds: None }),
            ..CommonTls::default()
        };
        assert_eq!(of_context(&tls, &NoSecrets), ["/chain", "/key", "/ca"].map(PathBuf::from));
    }
}
