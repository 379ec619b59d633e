//! Reading only what there is: a connection's task is polled far more often for its streams than for its socket.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Whether a reader that had nothing has been woken since. One that has not still has nothing, and is not asked.
#[derive(Debug)]
pub struct Wakes {
    woken: Arc<Woken>,
    /// The same, as the reader is given it.
    waker: Waker,
    /// The reader had nothing when it was last asked.
    waits: bool,
}

#[derive(Debug, Default)]
struct Woken {
    woken: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Default for Wakes {
    /// Of a reader that was not asked yet.
    fn default() -> Self {
        let woken = Arc::new(Woken::default());
        Self { waker: Waker::from(Arc::clone(&woken)), woken, waits: false }
    }
}

impl Wakes {
    /// Asks the reader, if there may be something.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        read: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        // Before the look: who is woken in between is this one.
        self.tell(cx.waker());
        if self.waits && !self.woken.woken.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.woken.woken.store(false, Ordering::Release);
        let polled = read(&mut Context::from_waker(&self.waker));
        self.waits = polled.is_pending();
        polled
    }

    fn tell(&self, task: &Waker) {
        let mut told = self.woken.task.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *told {
            Some(told) => told.clone_from(task),
            none => *none = Some(task.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_reader_is_asked_again_when_it_was_woken_and_wakes_the_task_that_asked_last() {
        let mut wakes = Wakes::default();
        let (mut asked, mut registered) = (0, None);
        let mut ask = |wakes: &mut Wakes, task: &Arc<Task>, ready: bool| {
            let waker = Waker::from(Arc::clone(task));
            let polled = wakes.poll(&mut Context::from_waker(&waker), |cx| {
                asked += 1;
                registered = Some(cx.waker().clone());
                if ready { Poll::Ready(Ok(())) } else { Poll::Pending }
            });
            (polled.is_ready(), asked, registered.clone())
        };
        let (first, second) = (Arc::new(Task::default()), Arc::new(Task::default()));
        assert!(matches!(ask(&mut wakes, &first, true), (true, 1, _)));
        let (_, _, reader) = ask(&mut wakes, &first, false);
        assert!(matches!(ask(&mut wakes, &first, true), (false, 2, _)));
        assert!(matches!(ask(&mut wakes, &second, true), (false, 2, _)));
        reader.unwrap().wake();
        assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (0, 1));
        assert!(matches!(ask(&mut wakes, &second, false), (false, 3, _)));
        assert!(matches!(ask(&mut wakes, &second, true), (false, 3, _)));
    }
}
