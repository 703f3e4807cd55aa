//! Benchmarks as recipes, with their metrics and reports.
//!
//! Knows no tensor and no engine.
