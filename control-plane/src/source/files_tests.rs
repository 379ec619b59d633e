use proptest::prelude::*;

use super::*;

fn service(name: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n---\n"
    )
}

fn ports(parsed: &Parsed) -> Vec<String> {
    let port = |service: &Arc<crate::intent::Service>| {
        format!("{}:{}", service.name.name, service.ports[0].port)
    };
    parsed.intent.services.values().map(port).collect()
}

#[test]
fn a_document_that_becomes_bad_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, service("a", "80") + &service("b", "81")).unwrap();
    let mut files = Files::new(folder.path());
    assert_eq!(ports(&files.reload().unwrap()), ["a:80", "b:81"]);
    assert!(files.reload().is_none(), "nothing changed");

    // One value is wrong: that document stays as it was, its neighbour changes.
    fs::write(&file, service("a", "no") + &service("b", "82")).unwrap();
    let parsed = files.reload().unwrap();
    assert_eq!(ports(&parsed), ["a:80", "b:82"]);
    assert_eq!(parsed.counts().0, 1);
    assert!(parsed.problems.iter().any(|problem| problem.message.contains("last good version")));

    // Not YAML at all: whatever is missing stays.
    fs::write(&file, format!("kind: [\n---\n{}", service("b", "83"))).unwrap();
    assert_eq!(ports(&files.reload().unwrap()), ["a:80", "b:83"]);

    // Repaired, and one deleted on purpose.
    fs::write(&file, service("a", "90")).unwrap();
    let parsed = files.reload().unwrap();
    assert_eq!(ports(&parsed), ["a:90"]);
    assert_eq!(parsed.problems, []);
}

#[test]
fn files_come_and_go_and_others_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/b.yml"), service("b", "80")).unwrap();
    fs::write(folder.path().join("a.json"), r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[{"port":80}]}}"#).unwrap();
    fs::write(folder.path().join(".c.yaml.swp"), "[").unwrap();
    fs::write(folder.path().join("README.md"), "# [").unwrap();
    let mut files = Files::new(folder.path());
    let parsed = files.reload().unwrap();
    assert_eq!(ports(&parsed), ["a:80", "b:80"]);
    assert_eq!((parsed.problems.len(), files.count()), (0, 2));
    fs::remove_file(folder.path().join("a.json")).unwrap();
    assert_eq!(ports(&files.reload().unwrap()), ["b:80"]);
}

#[test]
fn an_emptied_file_gets_a_second_look() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, service("a", "80")).unwrap();
    let mut files = Files::new(&file);
    assert_eq!(ports(&files.reload().unwrap()), ["a:80"]);
    fs::write(&file, "").unwrap();
    assert!(files.reload().is_none() && files.is_unsettled());
    assert_eq!(ports(&files.reload().unwrap()), Vec::<String>::new(), "it was meant");
}

#[test]
fn what_cannot_be_read_deletes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("mesh");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("a.yaml"), service("a", "80")).unwrap();
    let mut files = Files::new(&inner);
    assert_eq!(ports(&files.reload().unwrap()), ["a:80"]);
    fs::write(inner.join("a.yaml"), [0xff, 0xfe, 0xfd]).unwrap();
    let parsed = files.reload().unwrap();
    assert_eq!(ports(&parsed), ["a:80"]);
    assert!(parsed.problems[0].message.contains("stays in force"), "{:?}", parsed.problems);
    fs::rename(&inner, folder.path().join("away")).unwrap();
    let parsed = files.reload().unwrap();
    assert_eq!(ports(&parsed), ["a:80"]);
    assert!(parsed.problems.iter().any(|problem| problem.message.contains("cannot be read")));
    assert!(files.reload().is_none(), "said once");
}

#[test]
fn a_missing_path_and_an_empty_folder_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let missing = load(&folder.path().join("none"));
    assert_eq!(missing.problems[0].severity, Severity::Error);
    let empty = load(folder.path());
    assert!(empty.problems[0].message.contains("no .yaml"), "{:?}", empty.problems);
}

/// One thing that happens in a folder.
#[derive(Debug, Clone)]
enum Step {
    Write(usize, usize),
    Rename(usize, usize),
    Delete(usize),
    Link(usize, usize),
    Folder(usize),
    RenameFolder(usize, usize),
    DeleteFolder(usize),
}

const FOLDERS: [&str; 4] = ["", "sub", "sub/deep", ".hidden"];
const NAMES: [&str; 10] = [
    "a.yaml",
    "b.yml",
    "c.txt",
    ".d.yaml",
    "sub/a.yaml",
    "sub/.new",
    "sub/deep/e.json",
    ".hidden/f.yaml",
    "sub.yaml",
    "other/a.yaml",
];

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    let folder = 1..FOLDERS.len();
    prop_oneof![
        6 => (name.clone(), 0..5_usize).prop_map(|(name, text)| Step::Write(name, text)),
        3 => (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        2 => name.clone().prop_map(Step::Delete),
        1 => (name.clone(), name).prop_map(|(from, to)| Step::Link(from, to)),
        2 => folder.clone().prop_map(Step::Folder),
        1 => (folder.clone(), folder.clone()).prop_map(|(from, to)| Step::RenameFolder(from, to)),
        1 => folder.prop_map(Step::DeleteFolder),
    ]
}

/// Does it, if it can be done, and says which paths a notice would name.
fn happens(root: &Path, step: &Step) -> Vec<PathBuf> {
    let texts = [
        service("a", "80"),
        service("b", "81") + &service("c", "82"),
        service("a", "no") + &service("b", "83"),
        "kind: [".to_owned(),
        String::new(),
    ];
    let name = |at: &usize| root.join(NAMES[*at]);
    let folder = |at: &usize| root.join(FOLDERS[*at]);
    let (done, paths) = match step {
        Step::Write(at, text) => {
            let written = fs::write(name(at), &texts[*text]);
            // Through a link, a file is written under its own name.
            (written, fs::canonicalize(name(at)).into_iter().collect())
        }
        Step::Rename(from, to) => (fs::rename(name(from), name(to)), vec![name(from), name(to)]),
        Step::Delete(at) => (fs::remove_file(name(at)), vec![name(at)]),
        Step::Link(from, to) => (std::os::unix::fs::symlink(name(from), name(to)), vec![name(to)]),
        Step::Folder(at) => (fs::create_dir(folder(at)), vec![folder(at)]),
        Step::RenameFolder(from, to) => {
            (fs::rename(folder(from), folder(to)), vec![folder(from), folder(to)])
        }
        Step::DeleteFolder(at) => (fs::remove_dir_all(folder(at)), vec![folder(at)]),
    };
    done.map_or_else(|_| Vec::new(), |()| paths)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_look_at_what_was_noticed_finds_what_a_look_at_everything_finds(
        steps in proptest::collection::vec(proptest::collection::vec(step(), 1..4), 1..24),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::write(folder.path().join("z.yaml"), service("z", "1")).unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        let (mut some, mut all) = (Files::new(&root), Files::new(&root));
        some.reload_documents();
        all.reload_documents();
        for steps in steps {
            let noticed = steps.iter().flat_map(|step| happens(&root, step)).collect();
            let found = some.reload_paths(&noticed).is_some();
            prop_assert_eq!(found, all.reload_documents().is_some());
            prop_assert_eq!(&some.sheets, &all.sheets);
        }
    }
}
