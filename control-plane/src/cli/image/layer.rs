//! The one layer of an image: files in a tar archive that depends on nothing but the files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, ensure};
use aws_lc_rs::digest::{Context as Hash, SHA256};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// Paths in the image, and what is there.
#[derive(Debug, Default)]
pub(super) struct Layer {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug)]
struct Entry {
    content: Content,
    mode: u32,
    owner: Owner,
}

#[derive(Debug)]
enum Content {
    Folder,
    Text(String),
    File(PathBuf),
}

/// Numbers of a user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) user: u32,
    pub(super) group: u32,
}

/// The administrator, whom all files of an image belong to.
pub(super) const ROOT: Owner = Owner { user: 0, group: 0 };

/// A layer as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// SHA-256 of the archive, uncompressed: what OCI calls the diff ID.
    pub(super) diff_id: String,
    /// SHA-256 of what was written.
    pub(super) digest: String,
    /// Bytes of what was written.
    pub(super) size: u64,
    /// Bytes of all files.
    pub(super) content: u64,
}

impl Layer {
    /// A folder. One that stands there already gets this mode and owner.
    pub(super) fn folder(&mut self, path: &str, mode: u32, owner: Owner) {
        self.put(Path::new(path), Entry { content: Content::Folder, mode, owner });
    }

    /// A file that everybody may read.
    pub(super) fn text(&mut self, path: &str, text: String) {
        let entry = Entry { content: Content::Text(text), mode: 0o644, owner: ROOT };
        self.put(Path::new(path), entry);
    }

    /// A copy of a file, or of everything in a folder; symbolic links are followed. Whether a file may
    /// be executed is kept; everybody may read all of them.
    ///
    /// # Errors
    /// When it cannot be read; it is neither file nor folder; or its place is not absolute.
    pub(super) fn copy(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        use std::os::unix::fs::PermissionsExt;

        let place = clean(to)?;
        let shown = from.display();
        let found = fs::metadata(from).with_context(|| format!("cannot read {shown}"))?;
        if found.is_dir() {
            self.put(&place, Entry { content: Content::Folder, mode: 0o755, owner: ROOT });
            for entry in fs::read_dir(from).with_context(|| format!("cannot read {shown}"))? {
                let entry = entry?;
                self.copy(&entry.path(), &place.join(entry.file_name()))?;
            }
            return Ok(());
        }
        ensure!(found.is_file(), "{shown} is neither a file nor a folder");
        let mode = if found.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
        self.put(&place, Entry { content: Content::File(from.to_owned()), mode, owner: ROOT });
        Ok(())
    }

    /// Where the files of the image come from, with their places.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.entries.iter().filter_map(|(place, entry)| match &entry.content {
            Content::File(from) => Some((from.as_path(), place.as_path())),
            Content::Folder | Content::Text(_) => None,
        })
    }

    fn put(&mut self, path: &Path, entry: Entry) {
        for above in path.ancestors().skip(1).filter(|above| above.parent().is_some()) {
            self.entries.entry(above.to_owned()).or_insert(Entry {
                content: Content::Folder,
                mode: 0o755,
                owner: ROOT,
            });
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Writes the archive. The same files make the same bytes: entries are sorted, and the time of all is `time`.
    ///
    /// # Errors
    /// When a file cannot be read, or `to` cannot be written.
    pub(super) fn write(&self, to: &mut File, gzip: bool, time: u64) -> anyhow::Result<Written> {
        let mut packed = Hashing::new(to);
        let (diff_id, content) = if gzip {
            let encoder = GzBuilder::new().write(&mut packed, Compression::default());
            let mut plain = Hashing::new(encoder);
            let content = self.archive(&mut plain, time)?;
            let (encoder, digest) = plain.end();
            encoder.finish()?;
            (digest, content)
        } else {
            let mut plain = Hashing::new(&mut packed);
            let content = self.archive(&mut plain, time)?;
            (plain.end().1, content)
        };
        let size = packed.count;
        let (_, digest) = packed.end();
        Ok(Written { diff_id, digest, size, content })
    }

    fn archive(&self, to: &mut impl Write, time: u64) -> anyhow::Result<u64> {
        let mut builder = Builder::new(to);
        let mut content = 0;
        for (path, entry) in &self.entries {
            let mut header = Header::new_gnu();
            header.set_mode(entry.mode);
            header.set_uid(entry.owner.user.into());
            header.set_gid(entry.owner.group.into());
            header.set_mtime(time);
            // Archives of layers have relative paths.
            let name = path.strip_prefix("/").unwrap_or(path);
            match &entry.content {
                Content::Folder => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_size(0);
                    builder.append_data(&mut header, name.join(""), io::empty())?;
                }
                Content::Text(text) => {
                    header.set_size(text.len() as u64);
                    builder.append_data(&mut header, name, text.as_bytes())?;
                    content += text.len() as u64;
                }
                Content::File(from) => {
                    let file = File::open(from)
                        .with_context(|| format!("cannot open {}", from.display()))?;
                    let size = file.metadata()?.len();
                    header.set_size(size);
                    builder
                        .append_data(&mut header, name, io::Read::take(file, size))
                        .with_context(|| format!("cannot pack {}", from.display()))?;
                    content += size;
                }
            }
        }
        builder.finish()?;
        Ok(content)
    }
}

/// SHA-256 in hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The absolute path without `.` and `..`.
fn clean(path: &Path) -> anyhow::Result<PathBuf> {
    ensure!(path.is_absolute(), "{}: expected an absolute path in the image", path.display());
    let named = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    ensure!(named, "{}: expected a path without `..`", path.display());
    Ok(path.components().collect())
}

/// Counts and hashes what goes through it.
struct Hashing<W> {
    inner: W,
    hash: Hash,
    count: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Hash::new(&SHA256), count: 0 }
    }

    fn end(self) -> (W, String) {
        (self.inner, hex(self.hash.finish().as_ref()))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
