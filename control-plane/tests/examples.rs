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

/// What stands between "```yaml" and "```" in a page.
fn yaml_blocks(page: &str) -> Vec<&str> {
    let blocks = page.split("```yaml\n").skip(1);
    blocks.filter_map(|rest| rest.split("\n```").next()).collect()
}

#[test]
fn every_yaml_in_the_pages_is_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = std::fs::read_dir(root.join("docs")).expect("there are pages");
    let mut pages: Vec<PathBuf> = docs.map(|entry| entry.expect("it can be read").path()).collect();
    pages.push(root.join("README.md"));
    let mut seen = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("a page is text");
        for block in yaml_blocks(&text) {
            let folder = tempfile::tempdir().expect("a folder can be made");
            std::fs::write(folder.path().join("page.yaml"), block).expect("it can be written");
            let (fine, said) = check(folder.path());
            assert!(fine, "{}: {said}\n{block}", page.display());
            seen += 1;
        }
    }
    assert!(seen > 0, "the pages have YAML");
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
