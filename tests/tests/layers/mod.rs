//! The shape of the code: who may import whom, what must stay pure, how long a file may be.
//!
//! ARCHITECTURE.md says why. Tests may look everywhere: what follows a file's `#[cfg(test)]`, and
//! files for tests alone, are not looked at.

mod marks;
mod source;

use std::path::Path;

use source::{File, files};

/// A crate with its modules in layers, the lowest first. A module imports only from layers below
/// its own, and from those of its own that are listed beside it.
struct Shape {
    root: &'static str,
    layers: &'static [&'static [(&'static str, &'static [&'static str])]],
    /// The modules that see the messages of xDS.
    sees_xds: &'static [&'static str],
    /// Modules, or files, without tokio, clock and randomness of their own.
    pure: &'static [&'static str],
}

const PROXY: Shape = Shape {
    root: "proxy/src",
    layers: &[
        &[("model", &[]), ("telemetry", &["model"])],
        &[("net", &[]), ("tls", &[])],
        &[("http", &[]), ("route", &[]), ("policy", &[]), ("cluster", &["http"])],
        &[("serve", &[]), ("xds", &[])],
        &[("admin", &[]), ("app", &["admin"])],
    ],
    // The wiring hands a bootstrap on to be translated.
    sees_xds: &["xds", "app"],
    pure: &["model", "route", "policy", "cluster/balance", "session.rs"],
};

const CONTROL_PLANE: Shape = Shape {
    root: "control-plane/src",
    layers: &[
        &[("map", &[])],
        &[("intent", &[]), ("identity", &[])],
        &[("snapshot", &[]), ("compile", &["snapshot"])],
        &[("source", &[]), ("store", &[]), ("xds", &[]), ("ca", &[])],
        &[("rollout", &[]), ("inject", &[]), ("install", &["inject"])],
        &[("admin", &[]), ("app", &["admin", "cli"]), ("cli", &["admin", "app"])],
    ],
    sees_xds: &["compile", "xds", "ca"],
    pure: &["compile", "snapshot", "session.rs"],
};

/// A file longer than this is two files.
const LONGEST_FILE: usize = 600;

const IMPURE: &[&str] =
    &["tokio::", "Instant::now", "SystemTime::now", "fastrand::", "std::env::", "std::thread"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the repository")
}

impl Shape {
    fn files(&self) -> Vec<File> {
        files(repository(), self.root)
    }

    fn layer(&self, module: &str) -> Option<(usize, &'static [&'static str])> {
        self.layers.iter().enumerate().find_map(|(number, layer)| {
            let found = layer.iter().find(|(name, _)| *name == module);
            found.map(|(_, siblings)| (number, *siblings))
        })
    }

    fn bad_imports(&self) -> Vec<String> {
        let mut found = Vec::new();
        for file in self.files() {
            let Some(module) = file.module() else { continue };
            let Some((own, siblings)) = self.layer(module) else {
                found.push(format!("{}: module `{module}` stands in no layer", file.path));
                continue;
            };
            for (line, import) in file.imports() {
                let allowed = import == module
                    || self
                        .layer(&import)
                        .is_none_or(|(other, _)| other < own || siblings.contains(&&*import));
                if !allowed {
                    found.push(format!("{}:{line}: `{module}` imports `{import}`", file.path));
                }
            }
        }
        found
    }

    fn strangers_to_xds(&self) -> Vec<String> {
        let mut found = Vec::new();
        for file in self.files() {
            if file.module().is_some_and(|module| !self.sees_xds.contains(&module)) {
                found.extend(file.mentions(&["pillion_xds::"]));
            }
        }
        found
    }

    fn impurities(&self) -> Vec<String> {
        let mut found = Vec::new();
        for file in self.files() {
            let inner = file.path.strip_prefix(self.root).unwrap_or(&file.path);
            let inner = inner.trim_start_matches('/');
            let pure = self.pure.iter().any(|place| {
                inner.strip_prefix(place).is_some_and(|rest| rest.starts_with(['/', '.']))
                    || (place.ends_with(".rs") && inner.ends_with(&format!("/{place}")))
            });
            if pure {
                found.extend(file.mentions(IMPURE));
            }
        }
        found
    }
}

fn both(find: impl Fn(&Shape) -> Vec<String>) -> Vec<String> {
    [PROXY, CONTROL_PLANE].iter().flat_map(find).collect()
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn imports_go_downwards_only() {
    assert_none(&both(Shape::bad_imports), "a module imports only from layers below its own");
}

#[test]
fn only_the_edges_see_the_messages_of_xds() {
    assert_none(&both(Shape::strangers_to_xds), "only translation and protocol see xDS messages");
}

#[test]
fn pure_modules_take_time_and_randomness_as_arguments() {
    assert_none(&both(Shape::impurities), "no runtime, clock, randomness or environment here");
}

#[test]
fn no_file_is_longer_than_it_may_be() {
    let roots = ["proxy", "control-plane", "xds-proto/src", "xds-proto/tests", "examples", "tests"];
    let all = roots.iter().flat_map(|root| files(repository(), root));
    let long = all.filter(|file| file.lines > LONGEST_FILE);
    let long: Vec<_> = long.map(|file| format!("{}: {} lines", file.path, file.lines)).collect();
    assert_none(&long, &format!("at most {LONGEST_FILE} lines"));
}

#[test]
fn a_wrong_import_would_be_seen() {
    let text = "use crate::{model, serve::Server};\nfn f() { crate::admin::run() }\n// crate::app\n\
                #[cfg(test)]\nmod tests { use crate::app::run; }\n";
    let file = File::new("proxy/src/net/mod.rs", "proxy/src", text);
    assert_eq!(file.module(), Some("net"));
    let imports: Vec<_> = file.imports();
    let expected = [(1, "model"), (1, "serve"), (2, "admin")];
    assert_eq!(imports, expected.map(|(line, name)| (line, name.to_owned())));
    assert_eq!(file.mentions(&["admin::"]).len(), 1);
}
