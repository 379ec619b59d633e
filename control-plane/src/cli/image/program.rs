//! What an ELF file says about how it wants to be run.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadCache};

/// A 64-bit ELF file: a program or a shared library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// The architecture, as OCI calls it.
    pub(super) architecture: &'static str,
    /// The program that loads it; none for static programs and for libraries.
    pub(super) interpreter: Option<String>,
    /// Names of the libraries that it is linked to.
    pub(super) needed: Vec<String>,
    /// Where it wants them to be looked for first; may contain `$ORIGIN`.
    pub(super) run_path: Vec<String>,
}

impl Program {
    /// Reads the headers of `path`. `None`: it is a file, but no ELF file.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or is for an architecture that is not known here.
    pub(super) fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
        let data = &ReadCache::new(file);
        if object::ReadRef::read_bytes_at(data, 0, 4) != Ok(&elf::ELFMAG[..]) {
            return Ok(None);
        }
        let program = parse(data).with_context(|| format!("{shown} cannot be read as ELF"))?;
        Ok(Some(program))
    }

    /// Whether it runs without any other file.
    pub(super) fn is_static(&self) -> bool {
        self.interpreter.is_none() && self.needed.is_empty()
    }
}

fn parse(data: &ReadCache<File>) -> anyhow::Result<Program> {
    let header = FileHeader64::<Endianness>::parse(data).context("expected a 64-bit ELF file")?;
    ensure!(header.is_class_64(), "expected a 64-bit ELF file");
    let endian = header.endian()?;
    let architecture = match header.e_machine(endian) {
        elf::EM_X86_64 => "amd64",
        elf::EM_AARCH64 => "arm64",
        other => bail!("expected x86-64 or AArch64, found machine {}", other.0),
    };
    let mut program =
        Program { architecture, interpreter: None, needed: Vec::new(), run_path: Vec::new() };
    for segment in header.program_headers(endian, data)? {
        if let Some(interpreter) = segment.interpreter(endian, data)? {
            program.interpreter = Some(text(interpreter)?);
        }
    }
    let table = header.sections(endian, data)?.dynamic_table(endian, data)?;
    for entry in &table {
        match entry.tag {
            elf::DT_NEEDED => program.needed.push(text(table.string(entry)?)?),
            elf::DT_RPATH | elf::DT_RUNPATH => {
                let folders = text(table.string(entry)?)?;
                program.run_path.extend(folders.split(':').map(str::to_owned));
            }
            _ => {}
        }
    }
    Ok(program)
}

fn text(bytes: &[u8]) -> anyhow::Result<String> {
    Ok(std::str::from_utf8(bytes).context("a name in it is not UTF-8")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_test_is_a_dynamic_program() {
        let program = Program::read(Path::new("/proc/self/exe")).unwrap().unwrap();
        assert!(!program.is_static());
        assert!(program.interpreter.unwrap().starts_with("/lib"));
        assert!(
            program.needed.iter().any(|name| name.starts_with("libc.so")),
            "{:?}",
            program.needed
        );
    }

    #[test]
    fn other_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "#!/bin/sh\n").unwrap();
        assert_eq!(Program::read(&file).unwrap(), None);
        std::fs::write(&file, "").unwrap();
        assert_eq!(Program::read(&file).unwrap(), None);
        std::fs::write(&file, b"\x7fELF and then nothing").unwrap();
        let error = format!("{:#}", Program::read(&file).unwrap_err());
        assert!(
            error.contains("file cannot be read as ELF: expected a 64-bit ELF file"),
            "{error}"
        );
        let error = format!("{:#}", Program::read(&dir.path().join("no")).unwrap_err());
        assert!(error.contains("cannot open"), "{error}");
    }
}
