//! A page and the machine that it is tried on.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

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
}

/// Words of a page, and what stands for them here.
type Edits<'a> = [(&'a str, &'a str)];

impl Page {
    pub(super) fn open(lab: &mut Lab, text: &'static str) -> anyhow::Result<Self> {
        let (host, dir) = (lab.host("here")?, tempfile::tempdir()?);
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").canonicalize()?;
        std::os::unix::fs::symlink(examples, dir.path().join("examples"))?;
        fs::create_dir(dir.path().join("tmp"))?;
        Ok(Self { text, host, dir, scripts: AtomicU32::new(0) })
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
        let blocks = self.text.split("```sh\n").skip(1).filter_map(|part| part.split("```").next());
        let mut found = blocks.filter(|block| block.contains(mark));
        let mut block = found.next().with_context(|| format!("no block has {mark:?}"))?.to_owned();
        for (from, to) in edits {
            ensure!(block.contains(from), "{from:?} is not in\n{block}");
            block = block.replace(from, to);
        }
        Ok(block.replace("/tmp/", &format!("{}/tmp/", self.dir.path().display())))
    }

    /// A file, so that no command line has the words that a script may look for.
    fn shell(&self, script: &str) -> anyhow::Result<Process> {
        let number = self.scripts.fetch_add(1, Ordering::Relaxed);
        let name = format!("script-{number}");
        let file = self.dir.path().join(&name);
        fs::write(&file, script)?;
        let built = program("pillion")?;
        let built = built.parent().context("a folder")?.display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = self.host.command("bash");
        command.args(["-e", "-o", "pipefail"]).arg(&file).current_dir(self.dir.path());
        command.env("PATH", format!("{built}:{path}"));
        Process::start(&name, &mut command, &self.dir.path().join(format!("{name}.log")))
    }
}
