//! Waiting for conditions.

use std::future::Future;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

/// How long anything may take on a busy machine before a test gives up.
pub const LIMIT: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// Asks `probe` again and again until it has something.
///
/// # Errors
/// After [`LIMIT`], naming `what` was waited for.
pub async fn until<T, F>(what: &str, mut probe: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {} s in vain: {what}", LIMIT.as_secs());
        }
        sleep(POLL_EVERY).await;
    }
}
