//! Every bootstrap in `examples/` compiles, and what is refused is refused with its place.

use std::path::Path;
use std::process::Command;

fn validate(file: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pillion-proxy"))
        .args(["--mode", "validate", "-c"])
        .arg(file)
        .output()
        .expect("the proxy was built for this test");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn every_example_bootstrap_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            let (fine, said) = validate(&path);
            assert!(fine, "{}: {said}", path.display());
            assert!(said.contains("OK"), "{said}");
            seen += 1;
        }
    }
    assert!(seen > 0, "there are examples");
}

#[test]
fn what_is_refused_names_file_line_field_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("front.yaml");
    let text = "static_resources:\n  clusters:\n  - name: a\n    filters: [{ name: x }]\n    \
                lb_policy: NONSENSE\n";
    std::fs::write(&file, text).unwrap();
    let (fine, said) = validate(&file);
    assert!(!fine);
    assert!(said.contains("lb_policy"), "{said}");
    std::fs::write(&file, text.replace("    lb_policy: NONSENSE\n", "")).unwrap();
    let (fine, said) = validate(&file);
    assert!(!fine);
    let want = "static_resources.clusters[0].filters: is not supported";
    assert!(said.contains(want), "{said}");
    assert!(said.contains("front.yaml:4:"), "{said}");
}

#[test]
fn a_missing_file_is_named() {
    let (fine, said) = validate(Path::new("/no/such/bootstrap.yaml"));
    assert!(!fine);
    assert!(said.contains("/no/such/bootstrap.yaml"), "{said}");
}
