//! The papers' recipes as straight-line code over the pipeline's durable handle.
//!
//! Knows no tensor and no engine.
