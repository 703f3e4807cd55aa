//! Training: gradients beside two references, what must not change a step, whole runs.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;
mod gradients;
mod memory;
mod runs;
mod steps;
mod torch;
