//! How much CPU this process may use: its cgroup's quota, which the number of cores does not show.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

/// CPUs' worth of time that the cgroup (v2 or v1) and its parents allow, for example 0.5. None: no
/// quota, or no cgroups here.
pub fn cpu_quota() -> Option<f64> {
    quota_under(Path::new("/sys/fs/cgroup"), &read_to_string("/proc/self/cgroup").ok()?)
}

/// Memory that the cgroup of this process uses, and its limit, in bytes: of the innermost group with a
/// limit, else of its own. None: no cgroups here.
pub fn memory() -> Option<(u64, Option<u64>)> {
    memory_under(Path::new("/sys/fs/cgroup"), &read_to_string("/proc/self/cgroup").ok()?)
}

/// How many data workers to start by default: as many as the quota or the cores allow, but one or
/// two, for a sidecar is a guest.
pub fn default_workers() -> usize {
    workers(cpu_quota(), available_parallelism().map_or(1, usize::from))
}

fn workers(quota: Option<f64>, cores: usize) -> usize {
    let allowed = match quota {
        Some(quota) if quota <= 1.0 => 1,
        _ => cores,
    };
    allowed.clamp(1, 2)
}

/// `membership` is the content of `/proc/self/cgroup`.
fn quota_under(root: &Path, membership: &str) -> Option<f64> {
    let lines = || {
        membership.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?))
        })
    };
    let unified = lines().find(|(controllers, _)| controllers.is_empty());
    let cpu = lines().find(|(controllers, _)| controllers.split(',').any(|one| one == "cpu"));
    let v1 = cpu.and_then(|(controllers, path)| {
        let mounts = [root.join(controllers), root.join("cpu")];
        mounts.iter().find_map(|mount| least(mount, path, v1_quota))
    });
    v1.or_else(|| unified.and_then(|(_, path)| least(root, path, v2_quota)))
}

fn memory_under(root: &Path, membership: &str) -> Option<(u64, Option<u64>)> {
    let of = |controller: &str| {
        membership.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            controllers.split(',').any(|one| one == controller).then_some(path)
        })
    };
    let v1 = ("memory.usage_in_bytes", "memory.limit_in_bytes");
    let v2 = ("memory.current", "memory.max");
    let first = of("memory").and_then(|path| limited(&root.join("memory"), path, v1));
    first.or_else(|| limited(root, of("")?, v2))
}

/// Version one says "no limit" by a number that no machine has.
const NO_LIMIT: u64 = 1 << 60;

fn limited(mount: &Path, path: &str, names: (&str, &str)) -> Option<(u64, Option<u64>)> {
    let number = |group: &Path, name: &str| -> Option<u64> {
        read_to_string(group.join(name)).ok()?.trim().parse().ok()
    };
    let mut group: PathBuf = mount.join(path.trim_start_matches('/'));
    let mut own = None;
    loop {
        if let Some(used) = number(&group, names.0) {
            if let Some(limit) = number(&group, names.1).filter(|limit| *limit < NO_LIMIT) {
                return Some((used, Some(limit)));
            }
            own = own.or(Some((used, None)));
        }
        if group == mount || !group.pop() {
            return own;
        }
    }
}

/// The least quota of a group and the groups above it. In a container the path is often one of the
/// host that is not to be seen from here: then the root of what is seen counts.
fn least(mount: &Path, path: &str, quota: fn(&Path) -> Option<f64>) -> Option<f64> {
    let mut group: PathBuf = mount.join(path.trim_start_matches('/'));
    let mut found: Option<f64> = None;
    loop {
        if let Some(quota) = quota(&group) {
            found = Some(found.map_or(quota, |least| least.min(quota)));
        }
        if group == mount || !group.pop() {
            return found;
        }
    }
}

/// `cpu.max`: `<quota|max> <period>`
fn v2_quota(group: &Path) -> Option<f64> {
    let text = read_to_string(group.join("cpu.max")).ok()?;
    let mut parts = text.split_ascii_whitespace();
    ratio(parts.next()?, parts.next()?)
}

fn v1_quota(group: &Path) -> Option<f64> {
    let read = |name: &str| read_to_string(group.join(name)).ok();
    ratio(read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim())
}

/// None for `max`, `-1` and nonsense.
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn the_least_quota_on_the_way_up_counts() {
        let v2 = tree(&[
            ("cpu.max", "max 100000\n"),
            ("kube/cpu.max", "150000 100000\n"),
            ("kube/pod/cpu.max", "400000 100000\n"),
        ]);
        assert_eq!(quota_under(v2.path(), "0::/kube/pod\n"), Some(1.5));
        assert_eq!(quota_under(v2.path(), "0::/kube\n"), Some(1.5));
        assert_eq!(quota_under(v2.path(), "0::/\n"), None);
        assert_eq!(quota_under(v2.path(), "0::/not/seen/from/here\n"), None);
    }

    #[test]
    fn version_one_is_read_too() {
        let v1 = tree(&[
            ("cpu,cpuacct/box/cpu.cfs_quota_us", "50000\n"),
            ("cpu,cpuacct/box/cpu.cfs_period_us", "100000\n"),
        ]);
        let membership = "12:pids:/box\n4:cpu,cpuacct:/box\n1:name=systemd:/box\n0::/box\n";
        assert_eq!(quota_under(v1.path(), membership), Some(0.5));
        let none = tree(&[("cpu/cpu.cfs_quota_us", "-1\n"), ("cpu/cpu.cfs_period_us", "100000\n")]);
        assert_eq!(quota_under(none.path(), "4:cpu:/\n"), None);
    }

    #[test]
    fn memory_is_that_of_the_innermost_group_with_a_limit() {
        let v2 = tree(&[
            ("memory.current", "900"),
            ("kube/memory.current", "500\n"),
            ("kube/memory.max", "1000\n"),
            ("kube/pod/memory.current", "200\n"),
            ("kube/pod/memory.max", "max\n"),
        ]);
        assert_eq!(memory_under(v2.path(), "0::/kube/pod\n"), Some((500, Some(1000))));
        assert_eq!(memory_under(v2.path(), "0::/not/seen\n"), Some((900, None)));
        let v1 = tree(&[
            ("memory/box/memory.usage_in_bytes", "7\n"),
            ("memory/box/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(memory_under(v1.path(), "4:memory:/box\n0::/\n"), Some((7, None)));
        assert_eq!(memory_under(Path::new("/no/such"), "0::/\n"), None);
    }

    #[test]
    fn nonsense_is_no_quota() {
        for text in ["", "max", "x y", "0 100000", "100000 0"] {
            let dir = tree(&[("cpu.max", text)]);
            assert_eq!(quota_under(dir.path(), "0::/\n"), None, "{text:?}");
        }
        assert_eq!(quota_under(Path::new("/no/such"), "garbage"), None);
    }

    #[test]
    fn one_or_two_workers() {
        assert_eq!(workers(Some(0.2), 64), 1);
        assert_eq!(workers(Some(1.5), 64), 2);
        assert_eq!(workers(None, 64), 2);
        assert_eq!(workers(None, 1), 1);
        assert_eq!(workers(Some(8.0), 1), 1);
        assert!((1..=2).contains(&default_workers()));
    }
}
