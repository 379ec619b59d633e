//! How many files may be open.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard one: a proxy needs two for each connection, and
/// the usual 1024 is for programs that use `select(2)`. Returns the limit before and after; None: no
/// limit.
///
/// # Errors
/// The system refuses; the old limit stays.
pub fn raise_nofile() -> io::Result<(Option<u64>, Option<u64>)> {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok((before, getrlimit(Resource::Nofile).current))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, after) = raise_nofile().unwrap();
        assert_eq!(after, getrlimit(Resource::Nofile).maximum);
        assert_eq!(raise_nofile().unwrap(), (after, after), "again is harmless");
    }
}
