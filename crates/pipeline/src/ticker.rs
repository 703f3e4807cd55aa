//! Wakes a task regularly, so that it notices signals and can say how far it is.

use futures::task::AtomicWaker;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that wakes the task registered last, until dropped.
pub(crate) struct Ticker {
    waker: Arc<AtomicWaker>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(every: Duration) -> Self {
        let waker = Arc::new(AtomicWaker::new());
        let (stop, stopped) = channel::<()>();
        let woken = Arc::clone(&waker);
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                woken.wake();
            }
        });
        Self {
            waker,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
