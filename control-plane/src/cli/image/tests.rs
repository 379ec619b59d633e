use std::io::Read;

use clap::Parser;
use serde_json::{Value, json};

use super::*;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    args: ImageArgs,
}

fn image(args: &[&str]) -> anyhow::Result<()> {
    let args = ["image"].iter().chain(args).copied();
    run(&Command::try_parse_from(args)?.args).map(|_| ())
}

/// A small dynamic program under another name.
fn program(name: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(name);
    std::fs::copy("/bin/true", &file).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (dir, file)
}

/// Path, mode, user, type and content of what is in an archive.
type Found = BTreeMap<String, (u32, u64, u8, Vec<u8>)>;

fn unpack(archive: impl Read) -> Found {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let (mode, user) = (entry.header().mode().unwrap(), entry.header().uid().unwrap());
        assert_eq!(entry.header().mtime().unwrap(), 0, "{path}");
        let kind = entry.header().entry_type().as_byte();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (path, (mode, user, kind, content))
    });
    entries.collect()
}

fn document(found: &Found, name: &str) -> Value {
    serde_json::from_slice(&found[name].3).unwrap()
}

fn blob<'a>(found: &'a Found, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let content = &found[&format!("blobs/sha256/{digest}")].3;
    assert_eq!(layer::sha256(content), digest);
    assert_eq!(descriptor["size"], json!(content.len()));
    content
}

#[test]
fn an_archive_is_an_oci_layout_and_for_docker() {
    let (dir, file) = program("pillion-proxy");
    let output = dir.path().join("image.tar");
    let to = output.to_str().unwrap();
    image(&[&file, "--with-libraries", "-t", "me/proxy:1", "-o", to]).unwrap();
    let found = unpack(File::open(&output).unwrap());

    assert_eq!(document(&found, "oci-layout"), json!({"imageLayoutVersion": "1.0.0"}));
    let index = document(&found, "index.json");
    let named = &index["manifests"][0]["annotations"]["io.containerd.image.name"];
    assert_eq!(named, "docker.io/me/proxy:1");
    let manifest: Value = serde_json::from_slice(blob(&found, &index["manifests"][0])).unwrap();
    let config: Value = serde_json::from_slice(blob(&found, &manifest["config"])).unwrap();
    assert_eq!(config["config"]["User"], "1337:1337");
    assert_eq!(config["config"]["Entrypoint"], json!(["/pillion-proxy"]));
    let health = &config["config"]["Healthcheck"]["Test"];
    assert_eq!(health, &json!(["CMD", "/pillion-proxy", "health"]));

    let mut layer = Vec::new();
    let packed = blob(&found, &manifest["layers"][0]);
    flate2::read::GzDecoder::new(packed).read_to_end(&mut layer).unwrap();
    let diff_id = format!("sha256:{}", layer::sha256(&layer));
    assert_eq!(config["rootfs"]["diff_ids"], json!([diff_id]));
    let files = unpack(&layer[..]);
    let own = std::fs::read("/bin/true").unwrap();
    assert!(files["pillion-proxy"].3 == own, "the program is packed as it is");
    assert_eq!((files["pillion-proxy"].0, files["pillion-proxy"].1), (0o755, 0));
    assert_eq!((files["tmp/"].0, files["tmp/"].2), (0o1777, b'5'));
    assert_eq!((files["var/lib/pillion/"].0, files["var/lib/pillion/"].1), (0o700, 1337));
    assert!(files["etc/passwd"].3.ends_with(b"pillion:x:1337:1337:pillion:/:/sbin/nologin\n"));
    assert!(files.keys().any(|path| path.contains("libc.so")), "{:?}", files.keys());

    let docker = document(&found, "manifest.json");
    assert_eq!(docker[0]["RepoTags"], json!(["me/proxy:1"]));
    for path in [&docker[0]["Config"], &docker[0]["Layers"][0]] {
        assert!(found.contains_key(path.as_str().unwrap()), "{docker}");
    }
}

#[test]
fn the_same_files_make_the_same_bytes() {
    let (dir, file) = program("app");
    let [first, second] = ["1.tar", "2.tar"].map(|name| dir.path().join(name));
    let folder = dir.path().join("content");
    for name in ["b", "a"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("file"), name).unwrap();
    }
    let add = format!("{}=/srv", folder.display());
    for output in [&first, &second] {
        let output = output.to_str().unwrap();
        let more =
            ["--compression", "none", "--label", "b=1", "--label", "a=2", "--", "--port", "80"];
        let base = [&*file, "--with-libraries", "-o", output, "--add", &add];
        image(&[&base[..], &more].concat()).unwrap();
        // Its time is another one, and of no importance.
        std::fs::write(folder.join("a/file"), "a").unwrap();
    }
    assert!(std::fs::read(&first).unwrap() == std::fs::read(second).unwrap());
    let found = unpack(File::open(&first).unwrap());
    let index = document(&found, "index.json");
    let manifest: Value = serde_json::from_slice(blob(&found, &index["manifests"][0])).unwrap();
    let files = unpack(blob(&found, &manifest["layers"][0]));
    assert_eq!(files["srv/a/file"].3, b"a");
    let config: Value = serde_json::from_slice(blob(&found, &manifest["config"])).unwrap();
    assert_eq!(config["config"]["User"], "1000:1000");
    assert_eq!(config["config"]["Cmd"], json!(["--port", "80"]));
    assert_eq!(config["config"]["Healthcheck"], Value::Null);
}

#[test]
fn a_folder_is_an_oci_layout() {
    let (dir, file) = program("app");
    let output = dir.path().join("oci");
    let to = output.to_str().unwrap();
    let args = [&*file, "--with-libraries", "-o", to, "--format", "folder"];
    image(&args).unwrap();
    let index: Value =
        serde_json::from_slice(&std::fs::read(output.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    assert!(output.join("blobs").join(digest).is_file());
    assert!(output.join("oci-layout").is_file() && !output.join("manifest.json").exists());
    let error = image(&args).unwrap_err().to_string();
    assert!(error.ends_with("oci is not empty"), "{error}");
}

#[test]
fn what_cannot_be_packed_is_said() {
    let (dir, file) = program("pillion-proxy");
    let output = dir.path().join("image.tar");
    let to = output.to_str().unwrap();
    let said = |args: &[&str]| format!("{:#}", image(args).unwrap_err());
    let error = said(&[&file, "-o", to]);
    assert!(error.contains("is not linked statically: it needs /lib"), "{error}");
    assert!(error.contains("crt-static") && error.contains("--bin pillion-proxy\n"), "{error}");
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let error = said(&[script.to_str().unwrap(), "-o", to]);
    assert!(error.ends_with("script is no program: expected an ELF file"), "{error}");
    let base = [&*file, "--with-libraries", "-o", to];
    for (more, expected) in [
        (["--add", "/nowhere/at/all"], "cannot read /nowhere/at/all"),
        (["--add", "/etc/passwd=/a/../b"], "expected a path without `..`"),
        (["--add", "etc/passwd"], "expected PATH=PLACE"),
        (["--user", "root"], "expected UID or UID:GID"),
        (["-t", "Upper"], "expected NAME:TAG in lower case"),
    ] {
        let error = said(&[&base[..], &more].concat());
        assert!(error.contains(expected), "{error}");
    }
    assert!(!output.exists());
}
