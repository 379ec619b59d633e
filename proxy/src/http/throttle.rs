//! Bodies that may not go faster than a limit.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::body::{BodyError, BoxBody};

/// Bytes that may go, refilled tick by tick; shared by the bodies that share a limit.
#[derive(Debug)]
pub struct Allowance {
    /// Bytes of a tick.
    per_tick: u64,
    tick: Duration,
    state: Mutex<(Instant, u64)>,
}

impl Allowance {
    /// `per_second` bytes, handed out every `tick`. At first there is one tick's worth.
    pub fn new(per_second: u64, tick: Duration) -> Self {
        let ticks = (1.0 / tick.as_secs_f64()).max(1.0);
        let per_tick = ((per_second as f64 / ticks) as u64).max(1);
        Self { per_tick, tick, state: Mutex::new((Instant::now(), per_tick)) }
    }

    /// Up to `wanted` bytes, or when there will be some again. What was not taken in a second is
    /// lost.
    fn take(&self, wanted: usize, now: Instant) -> Result<usize, Instant> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, left) = &mut *state;
        let ticks = now.saturating_duration_since(*since).as_nanos() / self.tick.as_nanos().max(1);
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        if ticks > 0 {
            let most = (1.0 / self.tick.as_secs_f64()).max(1.0) as u64 * self.per_tick;
            *left = left.saturating_add(self.per_tick.saturating_mul(u64::from(ticks))).min(most);
            *since = since.checked_add(self.tick * ticks).unwrap_or(now);
        }
        if *left == 0 {
            return Err(*since + self.tick);
        }
        let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(wanted);
        *left -= taken as u64;
        Ok(taken)
    }
}

/// A body that waits for its [`Allowance`].
pub struct Throttled {
    inner: BoxBody,
    allowance: Arc<Allowance>,
    held: Bytes,
    timer: Option<Pin<Box<Sleep>>>,
    /// Told of every piece that goes; dropped at the end.
    watch: Option<Box<dyn FnMut(Step) + Send>>,
}

/// What happens to a throttled body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes have come.
    Came(usize),
    /// So many bytes go on.
    Went(usize),
    /// Bytes have to wait.
    Waits,
}

impl Throttled {
    /// `inner`, at the speed that `allowance` allows.
    pub fn boxed(
        inner: BoxBody,
        allowance: Arc<Allowance>,
        watch: Option<Box<dyn FnMut(Step) + Send>>,
    ) -> BoxBody {
        Box::pin(Self { inner, allowance, held: Bytes::new(), timer: None, watch })
    }

    fn tell(&mut self, step: Step) {
        if let Some(watch) = &mut self.watch {
            watch(step);
        }
    }
}

impl std::fmt::Debug for Throttled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Throttled").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

impl Body for Throttled {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if this.held.is_empty() {
                match ready!(this.inner.as_mut().poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => {
                            this.tell(Step::Came(data.len()));
                            this.held = data;
                            continue;
                        }
                        Err(frame) => return Poll::Ready(Some(Ok(frame))),
                    },
                    other => return Poll::Ready(other),
                }
            }
            if let Some(timer) = &mut this.timer {
                ready!(timer.as_mut().poll(cx));
                this.timer = None;
            }
            match this.allowance.take(this.held.len(), Instant::now()) {
                Ok(taken) => {
                    this.tell(Step::Went(taken));
                    let piece = this.held.split_to(taken);
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Err(at) => {
                    this.tell(Step::Waits);
                    this.timer = Some(Box::pin(tokio::time::sleep_until(at.into())));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        let held = self.held.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + held);
        }
        hint.set_lower(hint.lower() + held);
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_handed_out_by_ticks() {
        let tick = Duration::from_millis(50);
        let allowance = Allowance::new(2000, tick);
        let (start, _) = *allowance.state.lock().unwrap();
        assert_eq!(allowance.take(60, start), Ok(60));
        assert_eq!(allowance.take(60, start), Ok(40));
        assert_eq!(allowance.take(60, start), Err(start + tick));
        assert_eq!(allowance.take(300, start + tick * 2), Ok(200));
        // A long rest is worth a second.
        assert_eq!(allowance.take(9000, start + tick * 900), Ok(2000));
    }
}
