//! `/memory`, from what the kernel says of the process.

use std::fs;

use http::StatusCode;
use serde_json::json;

use super::answer::Answer;

/// `envoy.admin.v3.Memory`, in bytes: allocated is resident anonymous memory, heap size is the
/// data segment's size, and total physical bytes are all that is resident. What only Envoy's own
/// allocator knows is left out.
pub(super) fn answer() -> Answer {
    // A read of procfs does not wait for a disk.
    let status = match fs::read_to_string("/proc/self/status") {
        Ok(status) => status,
        Err(error) => {
            let why = format!("cannot read /proc/self/status: {error}\n");
            return Answer::text(why).with_status(StatusCode::NOT_IMPLEMENTED);
        }
    };
    // 64-bit numbers are strings in the JSON of protocol buffers.
    let field = |key| bytes(&status, key).unwrap_or_default().to_string();
    Answer::json(&json!({
        "allocated": field("RssAnon"),
        "heap_size": field("VmData"),
        "total_physical_bytes": field("VmRSS"),
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
