//! DecIF against a scripted generator: every way in which a stage can end, pools that grow,
//! contradictions, and runs that are killed, divided or driven in another order.
#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "helpers of tests, outside of any #[test]; tables of cases"
)]

mod conflicts;
mod ends;
mod pools;
mod whole;
mod world;
