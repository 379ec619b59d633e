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

fn check_blocks(blocks: &[&str]) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for (index, block) in blocks.iter().enumerate() {
        let file = folder.path().join(format!("block-{index}.yaml"));
        std::fs::write(file, block).expect("it can be written");
    }
    check(folder.path())
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
        let blocks = yaml_blocks(&text);
        seen += blocks.len();
        let together = check_blocks(&blocks);
        for block in blocks {
            // A block may refer to what another one of its page defines.
            let (fine, said) = check_blocks(&[block]);
            let all = &together.1;
            assert!(fine || together.0, "{}: {said}\n{block}\n{all}", page.display());
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
