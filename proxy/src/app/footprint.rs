//! The code that is needed only to begin, given back once the proxy serves.
//!
//! Reading a bootstrap and the first resources runs through most of the program. What of it is
//! mapped counts as resident memory for good: `ps` and `kubectl top` show it for each sidecar. The pages stay in the page cache of the machine, which
//! all sidecars share; whatever is needed again is mapped again, without reading the disk.

use std::ops::Range;
use std::{fs, io, ptr};

use rustix::mm::{Advice, madvise};

/// Unmap the pages of this program and its libraries that are as they are in their files. They come
/// back when they are used.
///
/// # Errors
/// `/proc` is not there, or the kernel refuses. What was unmapped by then comes back all the same.
pub(super) fn give_back() -> io::Result<()> {
    let maps = fs::read_to_string("/proc/self/smaps")?;
    unchanged(&maps).into_iter().try_for_each(forget)
}

#[expect(unsafe_code, reason = "the only place: no safe interface can give back code that runs")]
fn forget(part: Range<usize>) -> io::Result<()> {
    let begin = ptr::with_exposed_provenance_mut(part.start);
    // SAFETY: the range is a mapping of a program or library that is private and read-only, and has
    // no page of its own, as the kernel lists it: nothing was ever written to it. So each of its
    // pages is the file's, and MADV_DONTNEED only has the next access map the same page again
    // (madvise(2)). What is being loaded, and still to be written to, is writable.
    unsafe { madvise(begin, part.len(), Advice::LinuxDontNeed) }?;
    Ok(())
}

/// Where nothing but unchanged pages of files is, by `/proc/self/smaps` (proc_pid_smaps(5)).
fn unchanged(maps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut current = None;
    for line in maps.lines() {
        if let Some(own) = line.strip_prefix("Anonymous:") {
            found.extend(current.take().filter(|_| own.trim() == "0 kB"));
        } else if line.contains('-') {
            current = read_only(line);
        }
    }
    found
}

/// The range of a mapping that is a file's, private, and not writable.
fn read_only(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (range, rights) = (fields.next()?, fields.next()?);
    let of_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
    if !of_file || !matches!(rights, "r-xp" | "r--p") {
        return None;
    }
    let (begin, end) = range.split_once('-')?;
    let parse = |text| usize::from_str_radix(text, 16).ok();
    Some(parse(begin)?..parse(end)?).filter(|range| !range.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_its_file_is_given_back() {
        let maps = "\
            1000-2000 r--p 00000000 fe:00 11 /opt/pillion-proxy\n\
            Size:                  4 kB\n\
            Anonymous:             0 kB\n\
            VmFlags: rd mr mw me sd\n\
            2000-5000 r-xp 00001000 fe:00 11                         /opt/pillion-proxy (deleted)\n\
            Anonymous:             0 kB\n\
            5000-6000 r--p 00004000 fe:00 11 /opt/relocated\n\
            Anonymous:             4 kB\n\
            6000-7000 rw-p 00000000 fe:00 11 /opt/data\n\
            Anonymous:             0 kB\n\
            7000-8000 r--s 00000000 fe:00 11 /opt/shared\n\
            Anonymous:             0 kB\n\
            8000-9000 r-xp 00000000 00:00 0 [vdso]\n\
            Anonymous:             0 kB\n\
            9000-a000 r--p 00000000 00:00 0\n\
            Anonymous:             0 kB\n\
            zz-b000 r-xp 00000000 fe:00 11 /opt/pillion-proxy\n\
            Anonymous:             0 kB\n";
        assert_eq!(unchanged(maps), [0x1000..0x2000, 0x2000..0x5000]);
    }

    #[test]
    fn a_program_that_has_given_its_code_back_goes_on() {
        for _ in 0..3 {
            give_back().unwrap();
            let maps = fs::read_to_string("/proc/self/smaps").unwrap();
            let own = unchanged as fn(&str) -> Vec<Range<usize>>;
            let here = (own as *const ()).addr();
            assert!(unchanged(&maps).iter().any(|part| part.contains(&here)));
        }
    }
}
