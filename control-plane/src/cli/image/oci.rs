//! An image as OCI and Docker want it: configuration, manifest, index, and the archive of all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::layer::{Owner, Written, sha256};

/// What an image says about itself.
///
/// The names are those of the [OCI image configuration](https://github.com/opencontainers/image-spec/blob/main/config.md),
/// with the health check that Docker adds to it.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) architecture: &'static str,
    pub(super) user: Owner,
    pub(super) entrypoint: Vec<String>,
    pub(super) arguments: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) ports: Vec<u16>,
    /// The command that tells whether the container is well.
    pub(super) health: Option<Vec<String>>,
    /// Seconds since 1970: when the image says that it was made.
    pub(super) time: u64,
}

/// An image: its documents, and where its layer is.
#[derive(Debug)]
pub(super) struct Image {
    /// Name and tag.
    name: Name,
    config: String,
    manifest: String,
    index: String,
    layer: Written,
}

/// `NAME:TAG`; the tag is `latest` unless it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    repository: String,
    tag: String,
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("`{text}`: expected NAME:TAG in lower case, such as registry.example/pillion:1")
        };
        let (repository, tag) = match text.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (text, "latest"),
        };
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-:".contains(c);
        let is_tag = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let parts_are_good =
            repository.split('/').all(|part| !part.is_empty() && part.chars().all(is_name));
        if !parts_are_good || tag.is_empty() || !tag.chars().all(is_tag) {
            return Err(bad());
        }
        Ok(Self { repository: repository.to_owned(), tag: tag.to_owned() })
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

impl Name {
    /// With the registry that Docker supposes where none is named.
    fn in_full(&self) -> String {
        match self.repository.split_once('/') {
            Some((first, _)) if first == "localhost" || first.contains(['.', ':']) => {
                self.to_string()
            }
            Some(_) => format!("docker.io/{self}"),
            None => format!("docker.io/library/{self}"),
        }
    }
}

impl Image {
    /// The documents of an image with one layer.
    pub(super) fn new(name: Name, config: &Config, layer: Written, gzip: bool) -> Self {
        let config_text = config.document(&layer.diff_id).to_string();
        let packing = if gzip { "+gzip" } else { "" };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": format!("sha256:{}", sha256(config_text.as_bytes())),
                "size": config_text.len(),
            },
            "layers": [{
                "mediaType": format!("application/vnd.oci.image.layer.v1.tar{packing}"),
                "digest": format!("sha256:{}", layer.digest),
                "size": layer.size,
            }],
        })
        .to_string();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": format!("sha256:{}", sha256(manifest.as_bytes())),
                "size": manifest.len(),
                "platform": {"os": "linux", "architecture": config.architecture},
                "annotations": {
                    "io.containerd.image.name": name.in_full(),
                    "org.opencontainers.image.ref.name": name.tag,
                },
            }],
        })
        .to_string();
        Self { name, config: config_text, manifest, index, layer }
    }

    /// What an engine calls the image: the digest of its configuration.
    pub(super) fn id(&self) -> String {
        format!("sha256:{}", sha256(self.config.as_bytes()))
    }

    /// Writes an archive that is an OCI image layout and what `docker load` takes, both.
    ///
    /// # Errors
    /// When `layer` cannot be read, or `to` cannot be written.
    pub(super) fn write_archive(&self, layer: &mut File, to: impl Write) -> anyhow::Result<()> {
        let mut builder = Builder::new(to);
        let mut documents = self.documents();
        documents.push(("manifest.json".to_owned(), self.docker_manifest()));
        let layer_name = blob(&self.layer.digest);
        documents.push((layer_name.clone(), String::new()));
        documents.sort();
        for folder in ["blobs/", "blobs/sha256/"] {
            let mut header = header(0, 0o755);
            header.set_entry_type(EntryType::Directory);
            builder.append_data(&mut header, folder, io::empty())?;
        }
        for (name, text) in documents {
            if name == layer_name {
                layer.rewind()?;
                let content = Read::take(&mut *layer, self.layer.size);
                builder.append_data(&mut header(self.layer.size, 0o644), &name, content)?;
            } else {
                let mut header = header(text.len() as u64, 0o644);
                builder.append_data(&mut header, &name, text.as_bytes())?;
            }
        }
        builder.into_inner()?.flush()?;
        Ok(())
    }

    /// Writes an OCI image layout: a folder that must not exist, or be empty.
    ///
    /// # Errors
    /// When something is there, `layer` cannot be read, or the folder cannot be written.
    pub(super) fn write_folder(&self, layer: &mut File, to: &Path) -> anyhow::Result<()> {
        if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{} is not empty", to.display());
        }
        let failed = || format!("cannot write {}", to.display());
        fs::create_dir_all(to.join("blobs/sha256")).with_context(failed)?;
        for (name, text) in self.documents() {
            fs::write(to.join(name), text).with_context(failed)?;
        }
        layer.rewind()?;
        let mut file = File::create(to.join(blob(&self.layer.digest))).with_context(failed)?;
        io::copy(layer, &mut file).with_context(failed)?;
        Ok(())
    }

    /// The files of the layout, except the layer.
    fn documents(&self) -> Vec<(String, String)> {
        let version = json!({"imageLayoutVersion": "1.0.0"}).to_string();
        let mut all = vec![("oci-layout".to_owned(), version)];
        all.push(("index.json".to_owned(), self.index.clone()));
        for text in [&self.config, &self.manifest] {
            all.push((blob(&sha256(text.as_bytes())), text.clone()));
        }
        all
    }

    /// What `docker save` writes beside the layout.
    fn docker_manifest(&self) -> String {
        json!([{
            "Config": blob(&sha256(self.config.as_bytes())),
            "RepoTags": [self.name.to_string()],
            "Layers": [blob(&self.layer.digest)],
        }])
        .to_string()
    }
}

impl Config {
    fn document(&self, diff_id: &str) -> Value {
        let created = timestamp(self.time);
        let environment: Vec<_> =
            self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let ports: BTreeMap<_, _> =
            self.ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
        let mut config = json!({
            "User": format!("{}:{}", self.user.user, self.user.group),
            "Entrypoint": self.entrypoint,
            "Env": environment,
            "Labels": self.labels,
            "ExposedPorts": ports,
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
        });
        if !self.arguments.is_empty() {
            config["Cmd"] = json!(self.arguments);
        }
        if let Some(command) = &self.health {
            let seconds = |count: u64| json!(count * 1_000_000_000);
            let test: Vec<_> = std::iter::once("CMD").chain(command.iter().map(|s| &**s)).collect();
            config["Healthcheck"] = json!({
                "Test": test,
                "Interval": seconds(5),
                "Timeout": seconds(3),
                "StartPeriod": seconds(30),
                "Retries": 3,
            });
        }
        json!({
            "created": created,
            "architecture": self.architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
            "history": [{"created": created, "created_by": "pillion image"}],
        })
    }
}

fn blob(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn header(size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// RFC 3339, by the days of the proleptic Gregorian calendar.
fn timestamp(seconds: u64) -> String {
    let (mut day, second) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{:02}Z", day + 1, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_completed() {
        let full = |text: &str| text.parse::<Name>().map(|name| name.in_full());
        assert_eq!(full("shop").as_deref(), Ok("docker.io/library/shop:latest"));
        assert_eq!(full("me/shop:V1.2").as_deref(), Ok("docker.io/me/shop:V1.2"));
        assert_eq!(full("localhost/shop:1").as_deref(), Ok("localhost/shop:1"));
        assert_eq!(full("r.example:5000/a/b").as_deref(), Ok("r.example:5000/a/b:latest"));
        for bad in ["", "Shop", "a//b", "shop:", "sh op", "shop:a b", "shop@sha256:1"] {
            assert!(full(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(timestamp(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(timestamp(1_798_761_599), "2026-12-31T23:59:59Z");
    }
}
