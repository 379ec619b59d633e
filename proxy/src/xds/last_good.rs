//! The last good configuration on disk: a proxy that restarts serves by it until its control plane
//! answers. Secrets are never written.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use pillion_xds::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use prost::Message;
use prost_types::Any;

use super::kind::Kind;
use crate::model::Name;

/// A resource as it was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Of which kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: Arc<str>,
    /// Its bytes.
    pub body: Bytes,
}

/// The file.
#[derive(Clone, Debug)]
pub struct LastGood {
    path: PathBuf,
}

impl LastGood {
    /// `<folder>/last-good.binpb`
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join("last-good.binpb") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replace the file by these resources, so that a reader sees the old one or the new one.
    ///
    /// # Errors
    /// The folder cannot be written to, or the disk is full. The old file stays.
    pub fn save(&self, resources: &[Arc<Kept>]) -> io::Result<()> {
        let message = DeltaDiscoveryResponse {
            resources: resources
                .iter()
                .filter(|kept| kept.kind != Kind::Secret)
                .map(|kept| wrap(kept))
                .collect(),
            ..DeltaDiscoveryResponse::default()
        };
        let temporary = self.path.with_extension("new");
        let written = write_private(&temporary, &message.encode_to_vec())
            .and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// What was saved. Nothing, where there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or is not one of ours.
    pub fn load(&self) -> io::Result<Vec<Kept>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let message = DeltaDiscoveryResponse::decode(bytes.as_slice())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(message.resources.into_iter().filter_map(unwrap).collect())
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn wrap(kept: &Kept) -> Resource {
    let type_url = kept.kind.type_url().to_owned();
    Resource {
        name: kept.name.to_string(),
        version: kept.version.to_string(),
        resource: Some(Any { type_url, value: kept.body.to_vec() }),
        ..Resource::default()
    }
}

fn unwrap(resource: Resource) -> Option<Kept> {
    let any = resource.resource?;
    Some(Kept {
        kind: Kind::of(&any.type_url)?,
        name: resource.name.into(),
        version: resource.version.into(),
        body: any.value.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn kept(kind: Kind, name: &str) -> Kept {
        Kept {
            kind,
            name: name.into(),
            version: "1".into(),
            body: Bytes::from_static(b"\x0a\x01a"),
        }
    }

    #[test]
    fn what_is_saved_comes_back_but_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let file = LastGood::new(dir.path());
        assert_eq!(file.load().unwrap(), []);
        let cluster = kept(Kind::Cluster, "a");
        file.save(&[cluster.clone().into(), kept(Kind::Secret, "s").into()]).unwrap();
        assert_eq!(file.load().unwrap(), [cluster]);
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_an_error_and_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let missing = LastGood::new(&dir.path().join("no-such-folder"));
        assert!(missing.save(&[kept(Kind::Cluster, "a").into()]).is_err());
        let file = LastGood::new(dir.path());
        fs::write(file.path(), b"\xff\xff\xff").unwrap();
        assert_eq!(file.load().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
