//! Runs against a scripted generator.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of any #[test]"
)]

mod bounded;
mod changes;
mod failing;
mod killed;
mod lossless;
mod shards;
mod toy;
