//! Settings of the kernel (of this network namespace) that answers in a client's name need: the application's sockets
//! inherit the mark of the connection, by which its answers are routed back to the sidecar, refusals included.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A setting that is 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Switch(&'static str);

const SWITCHES: [Switch; 3] = [
    Switch("ipv4/tcp_fwmark_accept"),
    Switch("ipv4/fwmark_reflect"),
    Switch("ipv6/fwmark_reflect"),
];

/// Those that an earlier run turned on, as the notes in its table say.
pub(super) fn remembered(nft: &str) -> Vec<Switch> {
    SWITCHES.into_iter().filter(|switch| is_noted(nft, *switch)).collect()
}

/// Those that have to be turned on, and off again some day; `before` are those of an earlier run.
///
/// # Errors
/// The kernel does not know such a setting.
pub(super) fn needed(before: &[Switch]) -> Result<Vec<Switch>, String> {
    let mut needed = Vec::new();
    for switch in SWITCHES {
        match std::fs::read_to_string(switch.path()) {
            // Without IPv6 there is nothing to set.
            Err(error) if error.kind() == io::ErrorKind::NotFound && switch.0.contains("ipv6") => {}
            Err(error) => return Err(format!("{}: {error}", switch.path().display())),
            Ok(value) if value.trim() == "0" || before.contains(&switch) => needed.push(switch),
            Ok(_) => {}
        }
    }
    Ok(needed)
}

fn is_noted(nft: &str, switch: Switch) -> bool {
    let mut command = Command::new(nft);
    command.args(["list", "chain", "inet", "pillion", &switch.note()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Switch {
    /// The name of the chain that remembers that it was off.
    pub(super) fn note(&self) -> String {
        format!("was_off_{}", self.0.replace('/', "_"))
    }

    /// Turn it on or off; nothing is written where it is so already.
    pub(super) fn turn(&self, on: bool) -> Result<(), String> {
        let (path, value) = (self.path(), if on { "1" } else { "0" });
        if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
            return Ok(());
        }
        std::fs::write(&path, value).map_err(|error| {
            let name = self.0.replace('/', ".");
            format!(
                "cannot set net.{name} to {value}: {error}. Where /proc/sys is read-only, as in containers, \
                 whoever starts the container has to set it"
            )
        })
    }

    fn path(&self) -> PathBuf {
        ["/proc/sys/net", self.0].iter().collect()
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sysctl -w net.{}=1", self.0.replace('/', "."))
    }
}
