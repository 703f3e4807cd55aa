//! The engine on small random models.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of any #[test]"
)]

mod batching;
mod candle;
mod common;
mod grammars;
mod replicas;
mod requests;
mod sharing;
