//! Resources in files. They are looked at again and again rather than watched: that also sees the
//! symlink swaps of Kubernetes and network file systems.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pillion_xds::envoy::service::discovery::v3::DiscoveryResponse;
use pillion_xds::json::{self, UnknownFields};
use prost::Message;

use super::wire;
use crate::model::source::File;
use crate::xds::kind::Kind;
use crate::xds::session::Response;

/// How often a file is looked at.
pub(super) const INTERVAL: Duration = Duration::from_millis(250);

/// Tells when to read a file.
pub(super) struct Watch {
    /// The folder, if one is to be watched.
    folder: Option<PathBuf>,
    path: PathBuf,
    /// As it was read.
    read: Option<Look>,
    /// As it was found last time.
    found: Option<Look>,
}

/// What differs when a file was written to, or replaced by another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Watch {
    pub(super) fn new(file: &File) -> Self {
        let (path, folder) = (file.path.clone(), file.watched.clone());
        Self { folder, path, read: None, found: None }
    }

    /// Whether it is to be read now. One that is being written is left until it holds still: half a
    /// list of clusters would be taken for all of them.
    pub(super) fn changed(&mut self) -> bool {
        let now = look(self.folder.as_ref().unwrap_or(&self.path));
        let first = self.read.is_none();
        let still = now == self.found;
        self.found = now;
        if now.is_none() || now == self.read || !(first || still) || !self.path.exists() {
            return false;
        }
        self.read = now;
        true
    }
}

fn look(path: &Path) -> Option<Look> {
    let of = |found: &Metadata| Look {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
    };
    fs::metadata(path).ok().as_ref().map(of)
}

/// A `DiscoveryResponse`: binary in `.pb`, else YAML or JSON.
pub(super) fn read(path: &Path, kind: Kind) -> Result<Response, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let extension = path.extension().and_then(|text| text.to_str()).unwrap_or_default();
    let response = match extension.to_ascii_lowercase().as_str() {
        "pb" => DiscoveryResponse::decode(bytes.as_slice()).map_err(|error| error.to_string())?,
        "pb_text" => return Err("text format is not read: expected .yaml, .json or .pb".to_owned()),
        _ => {
            let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
            let parsed = json::parse::<DiscoveryResponse>(&text, UnknownFields::List);
            let parsed = parsed.map_err(|error| error.to_string())?;
            if !parsed.unknown.is_empty() {
                let fields: Vec<String> = parsed.unknown.iter().map(ToString::to_string).collect();
                let (path, fields) = (path.display(), fields.join(", "));
                tracing::warn!(%kind, %path, fields, "unknown fields were ignored");
            }
            parsed.message
        }
    };
    let mut response = wire::world(response);
    kind.type_url().clone_into(&mut response.type_url);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn watch(path: &Path, watched: Option<&Path>) -> Watch {
        Watch::new(&File { path: path.to_owned(), watched: watched.map(Path::to_owned) })
    }

    #[test]
    fn a_file_is_read_at_once_and_then_when_it_holds_still() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cds.yaml");
        let mut watch = watch(&path, None);
        assert!(!watch.changed(), "there is none");
        fs::write(&path, "resources: []").unwrap();
        assert!(watch.changed());
        assert!(!watch.changed());
        fs::write(&path, "resources: [] # more").unwrap();
        assert!(!watch.changed(), "it may be being written");
        assert!(watch.changed());
        fs::remove_file(&path).unwrap();
        assert!(!watch.changed() && !watch.changed(), "what was read stays in force");
    }

    #[test]
    fn a_watched_folder_says_when() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("watched");
        fs::create_dir(&folder).unwrap();
        let path = dir.path().join("eds.json");
        fs::write(&path, "{}").unwrap();
        let mut watch = watch(&path, Some(&folder));
        assert!(watch.changed());
        fs::write(&path, "{ }").unwrap();
        assert!(!watch.changed() && !watch.changed(), "nothing moved");
        symlink(&path, folder.join("new")).unwrap();
        assert!(!watch.changed() && watch.changed());
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let yaml = put("a.yaml", "version_info: '7'\nresources: []\n");
        assert_eq!(read(&yaml, Kind::Cluster).unwrap().version, "7");
        assert!(read(&put("b.yaml", "resources: 5"), Kind::Cluster).is_err());
        assert!(read(&put("c.pb_text", ""), Kind::Cluster).unwrap_err().contains(".yaml"));
        let binary = put("d.pb", "");
        assert_eq!(read(&binary, Kind::Routes).unwrap().type_url, Kind::Routes.type_url());
    }
}
