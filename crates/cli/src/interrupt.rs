//! Signals. Ctrl-C: the first asks a command that can stop in an orderly way to do so, the second
//! (or the first where nothing would be lost) ends the program. SIGUSR1 asks a run how far it
//! is, and stops nothing.

use crate::error::INTERRUPTED;
use crate::output;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

const STOP_AT_ONCE: u8 = 0;
const ORDERLY: u8 = 1;
const REQUESTED: u8 = 2;

/// Whether the user wants the command to stop, or to say how far it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt {
    stop: Arc<AtomicU8>,
    snapshot: Arc<AtomicBool>,
}

/// While it lives, the first Ctrl-C is a request.
#[derive(Debug)]
pub(crate) struct Orderly(Interrupt);

impl Interrupt {
    /// Listens for Ctrl-C and SIGUSR1.
    ///
    /// # Errors
    /// If the system refuses the handler.
    pub(crate) fn install() -> Result<Self> {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || {
            if !handler.request() {
                end_now();
            }
        })
        .context("cannot listen for Ctrl-C")?;
        #[cfg(unix)]
        signal_hook::flag::register(
            signal_hook::consts::SIGUSR1,
            Arc::clone(&interrupt.snapshot),
        )
        .context("cannot listen for SIGUSR1")?;
        Ok(interrupt)
    }

    /// Whether somebody has asked, since the last look, how far the command is.
    pub(crate) fn takes_snapshot_request(&self) -> bool {
        self.snapshot.swap(false, Ordering::SeqCst)
    }

    /// From now on, until the value is dropped, the first Ctrl-C is a request.
    pub(crate) fn orderly(&self) -> Orderly {
        self.stop.store(ORDERLY, Ordering::SeqCst);
        Orderly(self.clone())
    }

    /// Has the user asked to stop?
    pub(crate) fn requested(&self) -> bool {
        self.stop.load(Ordering::SeqCst) == REQUESTED
    }

    /// A Ctrl-C arrives; false if the program is to end at once.
    fn request(&self) -> bool {
        self.stop
            .compare_exchange(ORDERLY, REQUESTED, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

impl Drop for Orderly {
    fn drop(&mut self) {
        self.0.stop.store(STOP_AT_ONCE, Ordering::SeqCst);
    }
}

#[expect(
    clippy::exit,
    reason = "the second Ctrl-C ends the program wherever it is"
)]
fn end_now() {
    output::say("");
    std::process::exit(i32::from(INTERRUPTED));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_in_an_orderly_phase_is_a_request() {
        let interrupt = Interrupt::default();
        assert!(!interrupt.request(), "nothing to finish");
        let orderly = interrupt.orderly();
        assert!(!interrupt.requested());
        assert!(interrupt.request());
        assert!(interrupt.requested());
        assert!(!interrupt.request(), "the second");
        drop(orderly);
        assert!(!interrupt.requested() && !interrupt.request());
    }

    #[cfg(unix)]
    #[test]
    fn sigusr1_asks_once_and_stops_nothing() {
        let interrupt = Interrupt::install().unwrap();
        let orderly = interrupt.orderly();
        assert!(!interrupt.takes_snapshot_request());
        signal_hook::low_level::raise(signal_hook::consts::SIGUSR1).unwrap();
        assert!(interrupt.takes_snapshot_request());
        assert!(!interrupt.takes_snapshot_request());
        assert!(!interrupt.requested());
        drop(orderly);
    }
}
