//! engine

mod block_manager;
pub mod scheduler;
pub mod sequence;
