//! Limits of CPU and memory, by control groups (cgroup v2) where this process may make some.

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
pub(super) struct Groups {
    parent: PathBuf,
}

/// The group of one instance; removed when it is dropped, if nobody is in it any more.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
}

impl Groups {
    /// Below this process's own group, which has to be delegated to us, as by `systemd-run --user --scope -p
    /// Delegate=yes`. We move into a group of our own for that: a group with children that are limited has no processes
    /// itself.
    ///
    /// # Errors
    /// Why there can be none, in words.
    pub(super) fn open() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let path = place(&mounts, &own).ok_or("this machine has no cgroup v2")?;
        Self::below(path)
    }

    fn below(parent: PathBuf) -> Result<Self, String> {
        let at = |error: io::Error| format!("{}: {error}", parent.display());
        let offered = fs::read_to_string(parent.join("cgroup.controllers")).map_err(at)?;
        for wanted in ["cpu", "memory"] {
            if !offered.split_whitespace().any(|one| one == wanted) {
                let place = parent.display();
                return Err(format!("the controller `{wanted}` is not delegated to {place}"));
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
                format!("{place}: {error}; other processes are in this group, perhaps")
            })?;
        }
        Ok(Self { parent })
    }

    /// A group for `instance` with these limits.
    ///
    /// # Errors
    /// In words.
    pub(super) fn make(&self, instance: &str, limits: Limits) -> Result<Group, String> {
        let path = self.parent.join(format!("pillion-{}-{instance}", std::process::id()));
        let at = |error: io::Error| format!("{}: {error}", path.display());
        fs::create_dir(&path).map_err(at)?;
        let group = Group { path: path.clone() };
        if let Some(bytes) = limits.memory_bytes {
            fs::write(path.join("memory.max"), bytes.to_string()).map_err(at)?;
            // Without swap of its own, the limit is one. Kernels without swap have no such file.
            let _ = fs::write(path.join("memory.swap.max"), "0");
        }
        if let Some(millis) = limits.cpu_millis {
            let quota = millis * PERIOD / 1000;
            fs::write(path.join("cpu.max"), format!("{quota} {PERIOD}")).map_err(at)?;
        }
        Ok(group)
    }
}

impl Group {
    /// Its folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
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

/// What `pillion __in-group FOLDER PROGRAM ARGUMENTS` does: enters the group, and becomes the program, so that it is
/// limited from its first instruction.
pub(in crate::cli) fn enter(args: &[OsString]) -> ExitCode {
    let [group, program, rest @ ..] = args else { return ExitCode::from(NOT_RUN) };
    let procs = Path::new(group).join("cgroup.procs");
    if let Err(error) = fs::write(&procs, "0") {
        eprintln!("pillion: {}: {error}; it runs without limits", procs.display());
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
        let read = |name: &str| fs::read_to_string(group.path().join(name)).unwrap();
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("cpu.max"), "25000 100000");
        let none = groups.make("web-2", Limits::default()).unwrap();
        assert!(!none.path().join("memory.max").exists() && !none.path().join("cpu.max").exists());
        let path = none.path().to_owned();
        drop(none);
        assert!(!path.exists(), "an empty group goes");
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
        assert_eq!(place("1 1 0:1 / / rw - ext4 /dev/root rw\n", own), None);
    }
}
