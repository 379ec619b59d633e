//! A page and the machine that it is tried on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, ensure};
use pillion_tests::netns::{Host, Lab};
use pillion_tests::process::Process;
use pillion_tests::venv::program;
use pillion_tests::wait;
use tempfile::TempDir;

pub(super) struct Page {
    text: &'static str,
    host: Host,
    dir: TempDir,
    scripts: AtomicU32,
    /// Numbers of the blocks that were run.
    ran: Mutex<BTreeSet<usize>>,
}

/// Words of a page, and what stands for them here.
type Edits<'a> = [(&'a str, &'a str)];

impl Page {
    pub(super) fn open(lab: &mut Lab, text: &'static str) -> anyhow::Result<Self> {
        let (host, dir) = (lab.host("here")?, tempfile::tempdir()?);
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").canonicalize()?;
        std::os::unix::fs::symlink(examples, dir.path().join("examples"))?;
        fs::create_dir(dir.path().join("tmp"))?;
        let (scripts, ran) = (AtomicU32::new(0), Mutex::default());
        Ok(Self { text, host, dir, scripts, ran })
    }

    /// The machine.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the block in which `mark` stands, and what it leaves running ends with the result.
    pub(super) fn start(&self, mark: &str, edits: &Edits<'_>) -> anyhow::Result<Process> {
        self.shell(&self.block(mark, edits)?)
    }

    /// Runs the block to its end, which has to be a good one; gives what it wrote.
    pub(super) async fn run(&self, mark: &str, edits: &Edits<'_>) -> anyhow::Result<String> {
        self.script(&self.block(mark, edits)?).await
    }

    /// Runs the block again and again, as somebody does who waits for what was started before.
    pub(super) async fn until(
        &self,
        mark: &str,
        edits: &Edits<'_>,
        good: impl Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        self.script_until(&self.block(mark, edits)?, good).await
    }

    /// Lines that are not of the page.
    pub(super) async fn script(&self, script: &str) -> anyhow::Result<String> {
        let process = self.shell(script)?;
        let status = process.ended().await?;
        ensure!(status.success(), "{status}:\n{script}{}", process.describe());
        Ok(process.log())
    }

    pub(super) async fn script_until(
        &self,
        script: &str,
        good: impl Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        let last = std::cell::RefCell::new(String::new());
        let again = || async {
            let said = self.script(script).await;
            let done = said.as_ref().is_ok_and(|said| good(said));
            *last.borrow_mut() = said.unwrap_or_else(|error| format!("{error:#}"));
            done.then_some(())
        };
        let found = wait::until(script, again).await;
        found.with_context(|| last.borrow().clone())
    }

    fn block(&self, mark: &str, edits: &Edits<'_>) -> anyhow::Result<String> {
        let mut found = self.blocks().filter(|(_, block)| block.contains(mark));
        let (number, block) = found.next().with_context(|| format!("no block has {mark:?}"))?;
        self.ran.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
        let mut block = block.to_owned();
        for (from, to) in edits {
            ensure!(block.contains(from), "{from:?} is not in\n{block}");
            block = block.replace(from, to);
        }
        Ok(block.replace("/tmp/", &format!("{}/tmp/", self.dir.path().display())))
    }

    fn blocks(&self) -> impl Iterator<Item = (usize, &'static str)> {
        let parts = self.text.split("```sh\n").skip(1);
        parts.filter_map(|part| part.split("```").next()).enumerate()
    }

    /// Every block was run, but for those with one of these words, which are tried elsewhere.
    pub(super) fn was_run_whole(&self, elsewhere: &[&str]) -> anyhow::Result<()> {
        let ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, block) in self.blocks() {
            let known = ran.contains(&number) || elsewhere.iter().any(|word| block.contains(word));
            ensure!(known, "nobody has run\n{block}");
        }
        Ok(())
    }

    /// A file, so that no command line has the words that a script may look for.
    fn shell(&self, script: &str) -> anyhow::Result<Process> {
        let number = self.scripts.fetch_add(1, Ordering::Relaxed);
        let name = format!("script-{number}");
        let file = self.dir.path().join(&name);
        fs::write(&file, script)?;
        let mut command = shell(&self.host, self.dir.path())?;
        command.arg(&file);
        Process::start(&name, &mut command, &self.dir.path().join(format!("{name}.log")))
    }
}

/// A shell on this machine, in this folder, that finds the programs under test.
pub(super) fn shell(host: &Host, folder: &Path) -> anyhow::Result<Command> {
    let built = program("pillion")?;
    let built = built.parent().context("a folder")?.display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = host.command("bash");
    command.args(["-e", "-o", "pipefail"]).current_dir(folder);
    command.env("PATH", format!("{built}:{path}"));
    Ok(command)
}
