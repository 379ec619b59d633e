//! Limits of CPU and memory, by control groups where this process may make some: those of version 2, and where a machine
//! has its controllers in the hierarchies of version 1, those.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::intent::Limits;

/// Length of the time in which a share of the processors is counted, in microseconds (the kernel's own default).
const PERIOD: u64 = 100_000;
/// What a shell says of a command that is not there, and of one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// Where groups can be made.
#[derive(Debug)]
pub(super) enum Groups {
    /// One hierarchy with all controllers.
    Unified(PathBuf),
    /// Of each controller its own.
    Split {
        /// For processors.
        cpu: PathBuf,
        /// For memory.
        memory: PathBuf,
    },
}

/// The groups of one instance; removed when it is dropped, if nobody is in them any more.
#[derive(Debug)]
pub(super) struct Group {
    paths: Vec<PathBuf>,
}

impl Groups {
    /// Below this process's own groups, which have to be delegated to us, as by `systemd-run --user --scope -p
    /// Delegate=yes`.
    ///
    /// # Errors
    /// Why there can be none, in words.
    pub(super) fn open() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        if let (Some(cpu), Some(memory)) =
            (place_of(&mounts, &own, "cpu"), place_of(&mounts, &own, "memory"))
        {
            return Ok(Self::Split { cpu, memory });
        }
        let path = place(&mounts, &own).ok_or("this machine has no cgroup v2")?;
        Self::below(path)
    }

    /// We move into a group of our own: a group with children that are limited has no processes itself.
    fn below(parent: PathBuf) -> Result<Self, String> {
        let at = |error: io::Error| format!("cgroup {}: {error}", parent.display());
        let offered = fs::read_to_string(parent.join("cgroup.controllers")).map_err(at)?;
        for wanted in ["cpu", "memory"] {
            if !offered.split_whitespace().any(|one| one == wanted) {
                let place = parent.display();
                return Err(format!(
                    "the controller `{wanted}` is not delegated to cgroup {place}"
                ));
            }
        }
        let control = parent.join("cgroup.subtree_control");
        let on = |text: &str| {
            ["cpu", "memory"].iter().all(|wanted| text.split_whitespace().any(|one| one == *wanted))
        };
        if !fs::read_to_string(&control).is_ok_and(|text| on(&text)) {
            let own = parent.join("pillion-up");
            match fs::create_dir(&own) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(at(error));
                }
                _ => {}
            }
            fs::write(own.join("cgroup.procs"), "0").map_err(at)?;
            fs::write(&control, "+cpu +memory").map_err(|error| {
                let place = parent.display();
                format!("cgroup {place}: {error}; other processes are in this group, perhaps")
            })?;
        }
        Ok(Self::Unified(parent))
    }

    /// A group for `instance` with these limits.
    ///
    /// # Errors
    /// In words.
    pub(super) fn make(&self, instance: &str, limits: Limits) -> Result<Group, String> {
        let name = format!("pillion-{}-{instance}", std::process::id());
        let mut group = Group { paths: Vec::new() };
        let mut add = |parent: &Path| -> Result<PathBuf, String> {
            let path = parent.join(&name);
            fs::create_dir(&path).map_err(|error| format!("cgroup {}: {error}", path.display()))?;
            group.paths.push(path.clone());
            Ok(path)
        };
        let quota = limits.cpu_millis.map(|millis| millis * PERIOD / 1000);
        match self {
            Self::Unified(parent) => {
                let path = add(parent)?;
                if let Some(bytes) = limits.memory_bytes {
                    set(&path, "memory.max", &bytes.to_string())?;
                    // Without swap of its own, the limit is one. Kernels without swap have no such file.
                    let _ = set(&path, "memory.swap.max", "0");
                }
                if let Some(quota) = quota {
                    set(&path, "cpu.max", &format!("{quota} {PERIOD}"))?;
                }
            }
            Self::Split { cpu, memory } => {
                if let Some(bytes) = limits.memory_bytes {
                    let path = add(memory)?;
                    set(&path, "memory.limit_in_bytes", &bytes.to_string())?;
                    // Memory and swap together.
                    let _ = set(&path, "memory.memsw.limit_in_bytes", &bytes.to_string());
                }
                if let Some(quota) = quota {
                    let path = add(cpu)?;
                    set(&path, "cpu.cfs_period_us", &PERIOD.to_string())?;
                    set(&path, "cpu.cfs_quota_us", &quota.to_string())?;
                }
            }
        }
        Ok(group)
    }
}

fn set(group: &Path, name: &str, value: &str) -> Result<(), String> {
    let file = group.join(name);
    fs::write(&file, value).map_err(|error| format!("cgroup {}: {error}", file.display()))
}

impl Group {
    /// What to give to `pillion __in-group` before the program: how many groups there are, and their folders.
    pub(super) fn arguments(&self) -> impl Iterator<Item = OsString> {
        let count = self.paths.len().to_string().into();
        std::iter::once(count).chain(self.paths.iter().map(OsString::from))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = fs::remove_dir(path);
        }
    }
}

/// The folder of this process's group in the hierarchy of version 2, by `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn place(mounts: &str, own: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        after.starts_with("cgroup2 ").then_some((root, point))
    })?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let below = path.strip_prefix(mount.0).unwrap_or(path);
    Some(Path::new(mount.1).join(below.trim_start_matches('/')))
}

/// The folder of this process's group in the hierarchy of version 1 that has this controller.
fn place_of(mounts: &str, own: &str, controller: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        let options = after.strip_prefix("cgroup ")?.rsplit(' ').next()?;
        options.split(',').any(|option| option == controller).then_some((root, point))
    })?;
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        controllers.split(',').any(|one| one == controller).then_some(fields.next()?)
    })?;
    let below = path.strip_prefix(mount.0).unwrap_or(path);
    Some(Path::new(mount.1).join(below.trim_start_matches('/')))
}

/// What `pillion __in-group COUNT FOLDERS PROGRAM ARGUMENTS` does: enters the groups, and becomes the program, so that
/// it is limited from its first instruction.
pub(in crate::cli) fn enter(args: &[OsString]) -> ExitCode {
    let count = args.first().and_then(|count| count.to_str()?.parse::<usize>().ok());
    let split = count.and_then(|count| args.get(1..)?.split_at_checked(count));
    let Some((groups, [program, rest @ ..])) = split else { return ExitCode::from(NOT_RUN) };
    for group in groups {
        let procs = Path::new(group).join("cgroup.procs");
        if let Err(error) = fs::write(&procs, "0") {
            eprintln!("pillion: {}: {error}; it runs without these limits", procs.display());
        }
    }
    let error = Command::new(program).args(rest).exec();
    eprintln!("pillion: cannot run {}: {error}", program.display());
    let found = error.kind() != io::ErrorKind::NotFound;
    ExitCode::from(if found { NOT_RUN } else { NOT_FOUND })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks as a delegated group does.
    fn delegated(controllers: &str, on: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), controllers).unwrap();
        fs::write(dir.path().join("cgroup.subtree_control"), on).unwrap();
        dir
    }

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let dir = delegated("cpuset cpu memory pids", "cpu memory");
        let groups = Groups::below(dir.path().to_owned()).unwrap();
        let limits = Limits { cpu_millis: Some(250), memory_bytes: Some(64 << 20) };
        let group = groups.make("web-1", limits).unwrap();
        let read = |name: &str| fs::read_to_string(group.paths[0].join(name)).unwrap();
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("cpu.max"), "25000 100000");
        let none = groups.make("web-2", Limits::default()).unwrap();
        let path = none.paths[0].clone();
        assert!(!path.join("memory.max").exists() && !path.join("cpu.max").exists());
        drop(none);
        assert!(!path.exists(), "an empty group goes");
    }

    #[test]
    fn the_older_hierarchies_have_a_group_for_each_limit() {
        let (cpu, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let groups = Groups::Split { cpu: cpu.path().to_owned(), memory: memory.path().to_owned() };
        let limits = Limits { cpu_millis: Some(250), memory_bytes: Some(64 << 20) };
        let group = groups.make("web-1", limits).unwrap();
        let read = |at: usize, name: &str| fs::read_to_string(group.paths[at].join(name)).unwrap();
        assert_eq!(read(0, "memory.limit_in_bytes"), "67108864");
        assert_eq!(
            (read(1, "cpu.cfs_quota_us"), read(1, "cpu.cfs_period_us")),
            ("25000".into(), "100000".into())
        );
        let arguments: Vec<OsString> = group.arguments().collect();
        assert_eq!((arguments[0].to_str(), arguments.len()), (Some("2"), 3));
    }

    #[test]
    fn controllers_are_turned_on_from_a_group_of_our_own() {
        let dir = delegated("cpu memory", "");
        Groups::below(dir.path().to_owned()).unwrap();
        let control = fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(control, "+cpu +memory");
        assert_eq!(fs::read_to_string(dir.path().join("pillion-up/cgroup.procs")).unwrap(), "0");
    }

    #[test]
    fn what_is_not_delegated_is_said() {
        let dir = delegated("cpu pids", "");
        let error = Groups::below(dir.path().to_owned()).unwrap_err();
        assert!(error.contains("`memory` is not delegated"), "{error}");
    }

    #[test]
    fn the_own_group_is_found_in_both_layouts() {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        let own = "0::/user.slice/session.scope\n";
        let found = place(unified, own).unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/user.slice/session.scope"));
        let hybrid = "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      32 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/job\n0::/\n";
        assert_eq!(place(hybrid, own).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        let found = place_of(hybrid, own, "memory").unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/memory/job"));
        assert_eq!(place_of(hybrid, own, "cpu"), None);
        assert_eq!(place_of(unified, "0::/user.slice/session.scope\n", "memory"), None);
        assert_eq!(place("1 1 0:1 / / rw - ext4 /dev/root rw\n", own), None);
    }
}
