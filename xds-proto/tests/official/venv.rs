//! A pinned Python environment below the target folder, made once and shared by all test runs.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A virtual environment with exactly the packages that were asked for.
pub(crate) struct Venv {
    python: PathBuf,
}

impl Venv {
    /// Makes `target/NAME` with these `package==version` pins, or takes the one that is there.
    /// A file lock keeps test processes that run side by side from making it twice.
    ///
    /// Errors name the part that is missing: Python, its venv module, pip, or a package.
    pub(crate) fn ensure(name: &str, pins: &[&str]) -> Result<Self, String> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .ok_or("the target folder has no parent")?;
        let root = target.join(name);
        let venv = Self { python: root.join("bin/python") };
        let text = |what: &str, error: io::Error| format!("{what}: {error}");

        let lock = File::create(target.join(format!("{name}.lock")))
            .map_err(|e| text("cannot create the lock file", e))?;
        lock.lock().map_err(|e| text("cannot lock", e))?;
        // The stamp is written last, so an interrupted installation is made anew.
        let stamp = root.join("pins");
        let wanted = pins.join("\n");
        if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
            return Ok(venv);
        }
        if root.exists() {
            fs::remove_dir_all(&root).map_err(|e| text("cannot remove the old venv", e))?;
        }
        let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
        run(Command::new(&python).args(["-m", "venv"]).arg(&root))?;
        run(Command::new(&venv.python)
            .args(["-m", "pip", "--disable-pip-version-check", "--no-input", "install"])
            .args(["--quiet", "--no-deps", "--only-binary", ":all:"])
            .args(pins))?;
        fs::write(&stamp, wanted).map_err(|e| text("cannot write the stamp", e))?;
        Ok(venv)
    }

    /// Runs a script and returns what it wrote to standard output.
    pub(crate) fn run(&self, script: &Path, args: &[String]) -> Result<Vec<u8>, String> {
        run(Command::new(&self.python).arg(script).args(args)).map(|output| output.stdout)
    }
}

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} failed ({}):\n{said}", output.status))
}
