//! The example shop as a fleet: which instances there are, who calls whom, and its mesh files.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use super::fleet::InstancePlan;

/// The file whose weights split the traffic between the catalog's versions.
pub(crate) const ROUTE_FILE: &str = "catalog-route.yaml";

/// The group that the load comes from; it has a sidecar and no app.
pub(crate) const CLIENT: &str = "shopper";

/// The name that the load asks for.
pub(crate) const FRONT: &str = "web.default";

/// Who calls whom, by group.
pub(crate) const CALLS: &[(&str, &str)] = &[
    (CLIENT, "web"),
    ("web", "catalog-v1"),
    ("web", "catalog-v2"),
    ("web", "reviews"),
    ("web", "cart"),
    ("cart", "pricing"),
];

const MESH_FILES: &[(&str, &str)] = &[
    ("mesh.yaml", include_str!("../../../../examples/shop/mesh/mesh.yaml")),
    ("processes.yaml", include_str!("../../../../examples/shop/mesh/processes.yaml")),
    ("services.yaml", include_str!("../../../../examples/shop/mesh/services.yaml")),
    (ROUTE_FILE, include_str!("../../../../examples/shop/mesh/catalog-route.yaml")),
    ("traffic-policies.yaml", include_str!("../../../../examples/shop/mesh/traffic-policies.yaml")),
];

/// The splits that one key goes through, v1 and v2.
const SPLITS: &[[u32; 2]] = &[[90, 10], [50, 50], [10, 90], [0, 100]];

/// `replicas` instances of every service, and the client.
pub(crate) fn instances(replicas: usize) -> Vec<InstancePlan> {
    let groups = [
        ("web", "web", "v1"),
        ("catalog-v1", "catalog", "v1"),
        ("catalog-v2", "catalog", "v2"),
        ("reviews", "reviews", "v1"),
        ("cart", "cart", "v1"),
        ("pricing", "pricing", "v1"),
    ];
    let app = |(group, service, version): (&str, &str, &str), number| {
        let name = format!("{group}-{number}");
        let args = ["__shop", service, "--app-version", version, "--instance", &name];
        InstancePlan {
            group: group.to_owned(),
            service: service.to_owned(),
            labels: vec![
                ("app".to_owned(), service.to_owned()),
                ("version".to_owned(), version.to_owned()),
            ],
            app: Some(args.map(str::to_owned).to_vec()),
            name,
        }
    };
    let client = InstancePlan {
        name: CLIENT.to_owned(),
        group: CLIENT.to_owned(),
        service: CLIENT.to_owned(),
        labels: vec![("app".to_owned(), CLIENT.to_owned())],
        app: None,
    };
    groups
        .into_iter()
        .flat_map(|group| (1..=replicas).map(move |number| app(group, number)))
        .chain([client])
        .collect()
}

/// Writes the shop's mesh files into `dir`, with traces of every tenth request to `otlp` if given.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write_mesh(dir: &Path, otlp: Option<&str>) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for (name, text) in MESH_FILES {
        let mut text = (*text).to_owned();
        if let (&"mesh.yaml", Some(otlp)) = (name, otlp) {
            // The file ends within `spec`.
            text.push_str(&format!("  tracing: {{otlp: {otlp:?}, samplingPercent: 10}}\n"));
        }
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Rewrites the route file in `mesh_dir` to the next split, and says which.
///
/// # Errors
/// When the file is not there, cannot be written, or has not two weights.
pub(crate) fn shift_weights(mesh_dir: &Path) -> anyhow::Result<String> {
    let path = mesh_dir.join(ROUTE_FILE);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (text, [v1, v2]) =
        shifted(&text).with_context(|| format!("{} is not as it was", path.display()))?;
    // In one step, so that nobody reads half a file.
    let new = path.with_extension("yaml.new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(format!("{ROUTE_FILE}: weights are now v1 {v1}, v2 {v2}"))
}

fn shifted(text: &str) -> anyhow::Result<(String, [u32; 2])> {
    const KEY: &str = "weight: ";
    let parts: Vec<&str> = text.split(KEY).collect();
    ensure!(parts.len() == 3, "expected two weights, found {}", parts.len() - 1);
    let number = |part: &str| -> anyhow::Result<(u32, usize)> {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        Ok((part[..end].parse().context("a weight is a whole number")?, end))
    };
    let ((v1, end1), (v2, end2)) = (number(parts[1])?, number(parts[2])?);
    let now = SPLITS.iter().position(|split| *split == [v1, v2]);
    let next = SPLITS[now.map_or(0, |now| (now + 1) % SPLITS.len())];
    let text = format!(
        "{}{KEY}{}{}{KEY}{}{}",
        parts[0],
        next[0],
        &parts[1][end1..],
        next[1],
        &parts[2][end2..]
    );
    Ok((text, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_that_is_drawn_exists_and_has_its_replicas() {
        let instances = instances(2);
        assert_eq!(instances.len(), 13);
        for (from, to) in CALLS {
            for group in [from, to] {
                let expected = if *group == CLIENT { 1 } else { 2 };
                let count = instances.iter().filter(|plan| plan.group == **group).count();
                assert_eq!(count, expected, "{group}");
            }
        }
        let names: std::collections::BTreeSet<_> = instances.iter().map(|i| &i.name).collect();
        assert_eq!(names.len(), instances.len());
    }

    #[test]
    fn the_weights_go_round() {
        let dir = tempfile::tempdir().unwrap();
        write_mesh(dir.path(), None).unwrap();
        let before = fs::read_to_string(dir.path().join(ROUTE_FILE)).unwrap();
        let mut seen = Vec::new();
        for _ in SPLITS {
            seen.push(shift_weights(dir.path()).unwrap());
        }
        assert_eq!(seen[0], "catalog-route.yaml: weights are now v1 50, v2 50");
        assert_eq!(seen[2], "catalog-route.yaml: weights are now v1 0, v2 100");
        assert_eq!(fs::read_to_string(dir.path().join(ROUTE_FILE)).unwrap(), before);
        fs::write(dir.path().join(ROUTE_FILE), "weight: x").unwrap();
        assert!(shift_weights(dir.path()).is_err());
    }

    #[test]
    fn traces_are_asked_for_in_the_mesh_file() {
        let dir = tempfile::tempdir().unwrap();
        write_mesh(dir.path(), Some("http://127.0.0.1:4317")).unwrap();
        let text = fs::read_to_string(dir.path().join("mesh.yaml")).unwrap();
        let tracing = text.lines().last().unwrap();
        assert_eq!(tracing, "  tracing: {otlp: \"http://127.0.0.1:4317\", samplingPercent: 10}");
        let lines = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(lines, MESH_FILES.len());
    }

    #[test]
    fn nothing_is_wrong_with_the_mesh_files() {
        let dir = tempfile::tempdir().unwrap();
        write_mesh(dir.path(), Some("http://127.0.0.1:4317")).unwrap();
        let (mut documents, mut problems) = (Vec::new(), Vec::new());
        for (name, _) in MESH_FILES {
            let text = fs::read_to_string(dir.path().join(name)).unwrap();
            let mut file = crate::intent::read(name, &text);
            documents.append(&mut file.documents);
            problems.append(&mut file.problems);
        }
        let parsed = crate::intent::assemble(documents, problems);
        assert_eq!(parsed.problems, []);
        assert_eq!(parsed.intent.services.len(), 7);
    }

    #[test]
    fn every_mesh_file_of_the_example_is_in_the_binary() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop/mesh");
        let mut on_disk: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        on_disk.sort();
        let mut embedded: Vec<_> = MESH_FILES.iter().map(|(name, _)| *name).collect();
        embedded.sort_unstable();
        assert_eq!(on_disk, embedded);
    }
}
