//! Why an engine cannot start.

use crate::scheduler::SchedulerError;

/// Why an engine cannot start. What can go wrong later is a [`data::RequestError`].
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A size of the configuration is zero.
    #[error("engine: {field} is 0, at least 1 is needed")]
    Zero {
        /// Field of [`crate::EngineConfig`].
        field: &'static str,
    },
    /// The scheduler refuses its sizes.
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    /// The KV pool could not be allocated.
    #[error(transparent)]
    Model(#[from] model::ModelError),
    /// The system gave no thread.
    #[error("the engine's thread could not be started: {0}")]
    Thread(std::io::Error),
}
