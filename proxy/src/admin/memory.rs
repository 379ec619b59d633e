//! `/memory`, from what the kernel says of the process.

use std::{fs, io};

use http::StatusCode;
use serde_json::json;

use super::answer::Answer;

/// Memory of the process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident anonymous memory.
    pub allocated: u64,
    /// Size of the data segment.
    pub heap_size: u64,
    /// All that is resident.
    pub physical: u64,
}

/// Memory of this process now. A read of procfs does not wait for a disk.
///
/// # Errors
/// The kernel does not tell.
pub fn memory_now() -> io::Result<Memory> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |key| bytes(&status, key).unwrap_or_default();
    Ok(Memory { allocated: field("RssAnon"), heap_size: field("VmData"), physical: field("VmRSS") })
}

/// `envoy.admin.v3.Memory`. What only Envoy's own allocator knows is zero.
pub(super) fn answer() -> Answer {
    let memory = match memory_now() {
        Ok(memory) => memory,
        Err(error) => {
            let why = format!("cannot read /proc/self/status: {error}\n");
            return Answer::text(why).with_status(StatusCode::NOT_IMPLEMENTED);
        }
    };
    // 64-bit numbers are strings in the JSON of protocol buffers.
    Answer::json(&json!({
        "allocated": memory.allocated.to_string(),
        "heap_size": memory.heap_size.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": memory.physical.to_string(),
    }))
}

/// `VmRSS:     1234 kB` as bytes.
fn bytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_become_bytes() {
        let status = "VmPeak:\t 9 kB\nVmRSS:\t   12 kB\nThreads:\t3\n";
        assert_eq!(bytes(status, "VmRSS"), Some(12 * 1024));
        assert_eq!(bytes(status, "Threads"), None);
        assert_eq!(bytes(status, "VmData"), None);
    }
}
