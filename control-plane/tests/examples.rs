//! Every mesh folder in `examples/` is good, and what is wrong in one is told with its place.

use std::path::{Path, PathBuf};
use std::process::Command;

fn check(path: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pillion"))
        .arg("check")
        .arg(path)
        .output()
        .expect("the program was built for this test");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn mesh_folders() -> Vec<PathBuf> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let entries = std::fs::read_dir(examples).expect("there is a folder of examples");
    let folders = entries.map(|entry| entry.expect("it can be read").path().join("mesh"));
    folders.filter(|folder| folder.is_dir()).collect()
}

#[test]
fn every_example_is_good() {
    let folders = mesh_folders();
    assert!(!folders.is_empty(), "there are examples");
    for folder in folders {
        let (fine, said) = check(&folder);
        assert!(fine, "{}: {said}", folder.display());
        assert!(!said.contains("warning:"), "{}: {said}", folder.display());
    }
}

#[test]
fn what_is_wrong_is_told_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports: [{port: many}]\n";
    std::fs::write(folder.path().join("bad.yaml"), text).unwrap();
    let (fine, said) = check(folder.path());
    assert!(!fine, "{said}");
    assert!(said.contains("bad.yaml:5"), "{said}");
    assert!(said.contains("port"), "{said}");
}
