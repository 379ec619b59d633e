//! Hot restart: a new process takes over the listening sockets of the one before it, so that no
//! connection is refused while the program or its flags change.
//!
//! The new process asks for the sockets and begins to serve beside the old one. When it is ready it
//! says so; then the old one accepts no more, lets its connections finish and ends. A new process
//! that fails before it is ready changes nothing. As of Envoy's hot restart, without its shared
//! memory: counters begin anew.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use socket2::SockRef;

use super::flags::Flags;
use super::state::State;
use super::systemd::{self, Activated};
use crate::model::listener::Address;
use crate::net;
use crate::net::inherit::{Inherited, Passed};
use crate::net::pass::{Door, Link};

/// What both sides must agree on.
const PROTOCOL: u32 = 1;
/// Sockets of one packet.
const AT_ONCE: usize = 64;
/// How long the other side may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a process that warms up looks whether it is ready.
const LOOK: Duration = Duration::from_millis(20);

/// A bound socket: its name, the address it was configured with, and itself.
pub(super) type Socket = (String, Address, Arc<net::Listener>);

/// What the process before this one left.
#[derive(Debug, Default)]
pub(super) struct Heritage {
    /// Its sockets.
    pub(super) inherited: Arc<Inherited>,
    /// How many processes there were before.
    pub(super) epoch: u32,
    /// It waits to hear that this one serves.
    predecessor: Option<Link>,
}

/// What a process tells its successor of itself.
#[derive(Debug)]
pub(super) struct Own {
    /// Name of the instance, of a sidecar.
    pub(super) instance: Option<String>,
    /// As of [`whose`].
    pub(super) whose: Option<String>,
}

/// What the two say to each other, a packet each.
#[derive(Debug, Serialize, Deserialize)]
enum Say {
    /// The new one begins.
    Hello {
        protocol: u32,
        version: String,
        /// Whose sidecar it is going to be.
        #[serde(default)]
        whose: Option<String>,
    },
    /// The old one cannot do that.
    Refused { why: String },
    /// The old one's sockets, as many descriptors as names.
    Sockets { named: Vec<Named> },
    /// These were all.
    Complete { epoch: u32, instance: Option<String> },
    /// The new one is ready.
    Serving,
    /// The old one goes.
    Leaving,
}

#[derive(Debug, Serialize, Deserialize)]
struct Named {
    name: String,
    address: String,
}

/// Ask the process before this one, if there is one, for what it has; else take what the service
/// manager has bound. A sidecar keeps its instance's name over a restart, where none was given.
///
/// # Errors
/// There is one, and it cannot be understood or does not answer.
pub(super) fn inherit(flags: &mut Flags) -> Result<Heritage, String> {
    let activated = Activated::from_env().rest();
    let first = || Heritage {
        inherited: Arc::new(Inherited::new(activated.into_iter().filter_map(bound).collect())),
        ..Heritage::default()
    };
    let Some(path) = &flags.hot_restart_socket else { return Ok(first()) };
    let wrong = |error| format!("--hot-restart-socket {}: {error}", path.display());
    let link = Link::connect(path).map_err(|error| wrong(error.to_string()))?;
    let Some(link) = link else { return Ok(first()) };
    let (passed, epoch, instance) = ask(&link, whose(flags)).map_err(wrong)?;
    tracing::info!(sockets = passed.len(), epoch = epoch + 1, "taking over from a running proxy");
    if flags.sidecar.name.is_none() {
        flags.sidecar.name = instance;
    }
    Ok(Heritage {
        inherited: Arc::new(Inherited::new(passed)),
        epoch: epoch + 1,
        predecessor: Some(link),
    })
}

/// A socket that the service manager has bound. None: its address is not to be had.
fn bound(socket: systemd::Socket) -> Option<Passed> {
    let systemd::Socket { name, address, socket } = socket;
    let address = match address {
        Some(address) => Address::Socket(address),
        None => {
            let own = SockRef::from(&socket).local_addr().ok()?;
            Address::Pipe(own.as_pathname()?.to_owned())
        }
    };
    Some(Passed { name, address, wide: true, socket })
}

/// What a sidecar stands beside; a variable in the environment of many must not make one the
/// successor of another. None: a bootstrap says what it is.
pub(super) fn whose(flags: &Flags) -> Option<String> {
    flags.sidecar.control_plane.as_ref()?;
    let service = flags.sidecar.service.as_ref().or(flags.sidecar.gateway.as_ref())?;
    Some(format!("{service}.{}", flags.sidecar.namespace))
}

fn ask(link: &Link, whose: Option<String>) -> Result<(Vec<Passed>, u32, Option<String>), String> {
    link.set_patience(Some(PATIENCE)).map_err(|error| error.to_string())?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    say(link, &Say::Hello { protocol: PROTOCOL, version, whose })?;
    let mut all = Vec::new();
    loop {
        match hear(link)?.ok_or("the running proxy ended the conversation")? {
            (Say::Sockets { named }, sockets) if named.len() == sockets.len() => {
                let passed = named.into_iter().zip(sockets).map(|(named, socket)| Passed {
                    address: address(&named.address),
                    name: named.name,
                    wide: false,
                    socket,
                });
                all.extend(passed);
            }
            (Say::Complete { epoch, instance }, _) => return Ok((all, epoch, instance)),
            (Say::Refused { why }, _) => return Err(format!("the running proxy refused: {why}")),
            (other, _) => return Err(format!("the running proxy said {other:?}")),
        }
    }
}

/// Tell the predecessor when this process serves, and then wait for a successor, on a thread that
/// ends with the process. Runs on the control thread, where nobody sees a change half done.
pub(super) async fn attend(path: PathBuf, heritage: Heritage, state: Arc<State>, own: Own) {
    let Heritage { inherited, epoch, predecessor } = heritage;
    if predecessor.is_some() {
        ready(&state).await;
    }
    let begun = std::thread::Builder::new().name("hot-restart".to_owned()).spawn(move || {
        if let Some(link) = predecessor {
            take_over(&link, &inherited);
        }
        // First the door, then the word: whoever hears that this process is in charge may send the next one at once.
        let door = Door::open(&path).map_err(|error| error.to_string());
        state.in_charge.cancel();
        if let Err(error) = door.and_then(|door| await_successor(&door, epoch, &state, &own)) {
            let path = path.display();
            tracing::error!(%path, %error, "this proxy cannot be succeeded by a hot restart");
        }
    });
    if let Err(error) = begun {
        tracing::error!(%error, "no thread for hot restarts");
    }
}

/// Wait until this process can serve all that it should.
async fn ready(state: &State) {
    let mut told = Instant::now();
    while let Some(what) = state.waiting_for() {
        tokio::time::sleep(LOOK).await;
        // The admin endpoint, which would say so, is still the other one's.
        if told.elapsed() > PATIENCE {
            tracing::warn!(what, "not ready to take over yet");
            told = Instant::now();
        }
    }
}

fn take_over(link: &Link, inherited: &Inherited) {
    match say(link, &Say::Serving).and_then(|()| hear(link)) {
        Ok(Some((Say::Leaving, _))) => {
            tracing::info!("took over; the proxy before this one leaves")
        }
        Ok(other) => tracing::warn!(?other, "the proxy before this one ended by itself"),
        Err(error) => tracing::warn!(error, "the proxy before this one does not answer"),
    }
    let unused = inherited.clear();
    if unused > 0 {
        tracing::info!(sockets = unused, "closed inherited sockets that no listener wanted");
    }
}

/// Wait for successors until one has taken over.
fn await_successor(door: &Door, epoch: u32, state: &State, own: &Own) -> Result<(), String> {
    loop {
        let link = door.accept().map_err(|error| error.to_string())?;
        match converse(&link, epoch, state, own) {
            Ok(true) => {
                state.succeeded.cancel();
                return Ok(());
            }
            Ok(false) => tracing::warn!("a successor ended before it was ready; going on"),
            Err(error) => tracing::warn!(error, "a successor could not be served; going on"),
        }
    }
}

/// Whether the successor has taken over.
fn converse(link: &Link, epoch: u32, state: &State, own: &Own) -> Result<bool, String> {
    link.set_patience(Some(PATIENCE)).map_err(|error| error.to_string())?;
    match hear(link)? {
        Some((Say::Hello { protocol, version, whose }, _)) => {
            if let Some(why) = unfit(protocol, whose.as_deref(), own) {
                say(link, &Say::Refused { why: why.clone() })?;
                return Err(why);
            }
            tracing::info!(version, "a successor asks for the sockets");
        }
        Some((other, _)) => return Err(format!("it said {other:?}")),
        None => return Ok(false),
    }
    let sockets = state.sockets();
    for some in sockets.chunks(AT_ONCE) {
        let named = some
            .iter()
            .map(|(name, address, _)| Named { name: name.clone(), address: address.to_string() });
        let fds: Vec<_> = some.iter().map(|(_, _, socket)| socket.as_fd()).collect();
        let text = encode(&Say::Sockets { named: named.collect() })?;
        link.send(&text, &fds).map_err(|error| error.to_string())?;
    }
    say(link, &Say::Complete { epoch, instance: own.instance.clone() })?;
    // It may take long to get ready; if it ends instead, that is heard too.
    link.set_patience(None).map_err(|error| error.to_string())?;
    match hear(link)? {
        Some((Say::Serving, _)) => {}
        Some((other, _)) => return Err(format!("it said {other:?}")),
        None => return Ok(false),
    }
    sockets.iter().for_each(|(_, _, socket)| socket.share());
    // Gone already: it serves, and that is what counts.
    let _ = say(link, &Say::Leaving);
    Ok(true)
}

/// Why a process cannot be our successor.
fn unfit(protocol: u32, whose: Option<&str>, own: &Own) -> Option<String> {
    if protocol != PROTOCOL {
        return Some(format!("protocol {protocol} is not known, expected {PROTOCOL}"));
    }
    match (whose, own.whose.as_deref()) {
        (Some(whose), Some(ours)) if whose != ours => {
            Some(format!("this is the proxy of {ours}, not of {whose}: each needs a socket path"))
        }
        _ => None,
    }
}

/// Start the successor with our own command line: what SIGUSR2 asks for. The program is the one that
/// stands at our program's path by now.
///
/// # Errors
/// It cannot be started.
pub(super) fn start_successor(program: &Path, state: Arc<State>) -> Result<(), String> {
    let mut command = tokio::process::Command::new(program);
    // Neither the watchdog nor a socket of the service manager is bound to this process's id.
    command.args(std::env::args_os().skip(1)).env_remove("WATCHDOG_PID");
    let started = command.spawn();
    let mut child = started.map_err(|error| format!("{}: {error}", program.display()))?;
    tokio::spawn(async move {
        tokio::select! {
            () = state.succeeded.cancelled() => {}
            status = child.wait() => match status {
                Ok(status) => tracing::error!(%status, "the successor ended; going on"),
                Err(error) => tracing::error!(%error, "the successor cannot be waited for"),
            },
        }
    });
    Ok(())
}

/// The path that this program was started by. A link, such as `current/pillion-proxy`, is followed
/// anew at each start.
pub(super) fn program() -> PathBuf {
    let given = std::env::args_os().next().map(PathBuf::from);
    let by_path = given.filter(|path| path.components().count() > 1);
    by_path
        .and_then(|path| std::path::absolute(path).ok())
        .or_else(|| std::env::current_exe().ok())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

fn say(link: &Link, what: &Say) -> Result<(), String> {
    link.send(&encode(what)?, &[]).map_err(|error| error.to_string())
}

fn encode(what: &Say) -> Result<Vec<u8>, String> {
    serde_json::to_vec(what).map_err(|error| error.to_string())
}

fn hear(link: &Link) -> Result<Option<(Say, Vec<std::os::fd::OwnedFd>)>, String> {
    let Some((text, fds)) = link.receive().map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let said = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    Ok(Some((said, fds)))
}

fn address(text: &str) -> Address {
    text.parse().map_or_else(|_| Address::Pipe(text.into()), Address::Socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_succeeded_by_somebody_else() {
        let own = Own { instance: None, whose: Some("web.default".to_owned()) };
        assert_eq!(unfit(PROTOCOL, Some("web.default"), &own), None);
        assert_eq!(unfit(PROTOCOL, None, &own), None);
        let why = unfit(PROTOCOL, Some("cart.default"), &own).unwrap();
        assert!(why.contains("of web.default, not of cart.default"), "{why}");
        let why = unfit(PROTOCOL + 1, Some("web.default"), &own).unwrap();
        assert!(why.contains("protocol 2 is not known"), "{why}");
    }
}
