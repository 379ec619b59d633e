//! The end of a connection, so that the last answer arrives.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::shared::Shared;

/// How long a client that is still sending has to notice that it was answered (Envoy:
/// `delayed_close_timeout`).
const LINGER: Duration = Duration::from_secs(1);

/// Say that nothing follows. `unread`: the client may still be sending; a connection that is closed
/// with something unread is reset, and the answer with it (RFC 9112 section 9.6).
pub(super) async fn close<T: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared<T>,
    unread: bool,
) -> io::Result<()> {
    poll_fn(|cx| match &mut shared.lock().wire {
        Some(wire) => Pin::new(&mut wire.io).poll_shutdown(cx),
        None => Poll::Ready(Ok(())),
    })
    .await?;
    if unread {
        let discard = poll_fn(|cx| {
            let mut inner = shared.lock();
            let Some(wire) = &mut inner.wire else { return Poll::Ready(()) };
            loop {
                wire.input.clear();
                if !matches!(ready!(wire.poll_fill(cx)), Ok(1..)) {
                    return Poll::Ready(());
                }
            }
        });
        let _ = tokio::time::timeout(LINGER, discard).await;
    }
    Ok(())
}
