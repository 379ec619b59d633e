//! Open loop: requests at a pace, whatever the answers do. Latency counts from when a request was
//! due, not from when it could be sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::ensure;

/// Latencies of one run.
#[derive(Debug, Clone)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// The latency that this share of the requests did not exceed.
    pub fn percentile(&self, share: f64) -> Duration {
        let at = (self.0.len() as f64 * share) as usize;
        self.0.get(at.min(self.0.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// How many requests there were.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }
}

/// How long before its time a client stops to sleep, and looks at the clock only.
const AWAKE: Duration = Duration::from_micros(80);

/// `clients` threads on a connection each; together `per_second` requests.
///
/// # Errors
/// When a request fails.
pub fn paced(
    to: SocketAddr,
    path: &str,
    per_second: u32,
    clients: u32,
    length: Duration,
) -> anyhow::Result<Latencies> {
    let begin = Instant::now() + Duration::from_millis(50);
    let every = Duration::from_secs(1) * clients / per_second;
    let count = (length.as_secs_f64() * f64::from(per_second / clients)) as u32;
    let run = |client: u32| {
        let offset = every * client / clients;
        move || one(to, path, (begin + offset, every), count)
    };
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|client| scope.spawn(run(client))).collect();
        for thread in threads {
            let latencies = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            all.extend(latencies);
        }
        anyhow::Ok(())
    })?;
    all.sort_unstable();
    Ok(Latencies(all))
}

fn one(
    to: SocketAddr,
    path: &str,
    (begin, every): (Instant, Duration),
    count: u32,
) -> anyhow::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench.test\r\n\r\n");
    let mut buffer = vec![0; 64 * 1024];
    let mut latencies = Vec::with_capacity(count as usize);
    for number in 0..count {
        let due = begin + every * number;
        wait_until(due);
        stream.write_all(request.as_bytes())?;
        whole_answer(&mut stream, &mut buffer)?;
        latencies.push(due.elapsed());
    }
    Ok(latencies)
}

fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if left > AWAKE {
            std::thread::sleep(left - AWAKE);
        } else {
            std::thread::yield_now();
        }
    }
}

fn whole_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<()> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        ensure!(read > 0, "closed");
        filled += read;
        let Some(end) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") else { continue };
        ensure!(buffer.starts_with(b"HTTP/1.1 200"), "not 200");
        // Small answers only, of a size that is known.
        if filled >= end + 4 + crate::backend::SMALL {
            return Ok(());
        }
    }
}
