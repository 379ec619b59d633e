//! Which shared libraries a dynamic program needs, found as `ld.so` finds them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::bail;

use super::program::Program;

/// Where the loader looks without being told.
const BUILT_IN: [&str; 8] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// How deep configuration files of the loader may include each other.
const MAX_INCLUDES: usize = 8;

/// The files that a program needs beside itself.
#[derive(Debug, Default)]
pub(super) struct Libraries {
    /// The loader and the libraries, where they have to be.
    pub(super) files: BTreeSet<PathBuf>,
    /// Folders in which the loader looks here, but would not look in an image.
    pub(super) folders: BTreeSet<PathBuf>,
}

/// Finds what `program`, which is at `path`, needs, and what that needs.
///
/// # Errors
/// When a library is not there; the text names it and who needs it.
pub(super) fn find(program: &Program, path: &Path) -> anyhow::Result<Libraries> {
    let mut found = Libraries::default();
    found.files.extend(program.interpreter.iter().map(PathBuf::from));
    let loader = program.interpreter.as_deref().and_then(|path| Path::new(path).file_name());
    let configured = configured(Path::new("/etc/ld.so.conf"), MAX_INCLUDES);
    let mut seen = BTreeSet::new();
    let mut open = vec![(program.clone(), path.to_owned())];
    while let Some((needy, at)) = open.pop() {
        for name in &needy.needed {
            if loader.is_some_and(|loader| loader == name.as_str()) || !seen.insert(name.clone()) {
                continue;
            }
            let Some((file, library)) = search(name, (&needy, &at), &configured) else {
                bail!("{name}, which {} needs, is not there", at.display());
            };
            if let Some(folder) = file.parent()
                && configured.iter().any(|known| known == folder)
                && !BUILT_IN.iter().any(|known| Path::new(known) == folder)
            {
                found.folders.insert(folder.to_owned());
            }
            found.files.insert(file.clone());
            open.push((library, file));
        }
    }
    Ok(found)
}

fn search(
    name: &str,
    (needy, at): (&Program, &Path),
    configured: &[PathBuf],
) -> Option<(PathBuf, Program)> {
    let fits = |file: PathBuf| match Program::read(&file) {
        Ok(Some(library)) if library.architecture == needy.architecture => Some((file, library)),
        _ => None,
    };
    if name.contains('/') {
        return fits(PathBuf::from(name));
    }
    let origin = at.parent().unwrap_or_else(|| Path::new("/")).to_string_lossy();
    let own = needy.run_path.iter().map(|folder| {
        PathBuf::from(folder.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin))
    });
    let built_in = BUILT_IN.iter().map(PathBuf::from);
    let mut folders = own.chain(configured.iter().cloned()).chain(built_in);
    folders.find_map(|folder| fits(folder.join(name)))
}

/// The folders that `/etc/ld.so.conf` names. What cannot be read adds none, as for the loader.
fn configured(file: &Path, includes: usize) -> Vec<PathBuf> {
    let Ok(text) = fs::read_to_string(file) else { return Vec::new() };
    let mut folders = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.strip_prefix("include ") {
            Some(pattern) if includes > 0 => {
                for file in expand(Path::new(pattern.trim())) {
                    folders.extend(configured(&file, includes - 1));
                }
            }
            Some(_) => {}
            None if line.starts_with('/') => folders.push(PathBuf::from(line)),
            None => {}
        }
    }
    folders
}

/// The files that `FOLDER/*.conf` means, in order; any other pattern is a file.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let Some(ending) = pattern.file_name().and_then(|name| name.to_str()?.strip_prefix('*')) else {
        return vec![pattern.to_owned()];
    };
    let Some(Ok(entries)) = pattern.parent().map(fs::read_dir) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_of_this_test_are_found() {
        let path = std::env::current_exe().unwrap();
        let program = Program::read(&path).unwrap().unwrap();
        let found = find(&program, &path).unwrap();
        let names: Vec<_> = found.files.iter().filter_map(|file| file.file_name()).collect();
        assert!(
            names.iter().any(|name| name.to_string_lossy().starts_with("libc.so")),
            "{names:?}"
        );
        assert!(names.iter().any(|name| name.to_string_lossy().starts_with("ld-")), "{names:?}");
        assert!(found.files.iter().all(|file| file.is_file()), "{found:?}");
    }

    #[test]
    fn a_missing_library_is_named() {
        let program = Program {
            architecture: "amd64",
            interpreter: None,
            needed: vec!["libnowhere.so.7".to_owned()],
            run_path: vec!["$ORIGIN/../lib".to_owned()],
        };
        let error = find(&program, Path::new("/opt/it/bin/it")).unwrap_err().to_string();
        assert_eq!(error, "libnowhere.so.7, which /opt/it/bin/it needs, is not there");
    }

    #[test]
    fn the_loaders_configuration_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let main = root.join("ld.so.conf");
        let text = format!("include {}/conf.d/*.conf\n/opt/a # mine\nhwcap 0\n", root.display());
        fs::create_dir(root.join("conf.d")).unwrap();
        fs::write(&main, text).unwrap();
        fs::write(root.join("conf.d/b.conf"), "# nothing\n/opt/b\n").unwrap();
        fs::write(root.join("conf.d/readme"), "/opt/no\n").unwrap();
        let again = format!("/opt/c\ninclude {}\n", main.display());
        fs::write(root.join("conf.d/c.conf"), again).unwrap();
        let mut folders = configured(&main, 1);
        folders.dedup();
        assert_eq!(folders, ["/opt/b", "/opt/c", "/opt/a"].map(PathBuf::from));
    }
}
