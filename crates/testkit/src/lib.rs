//! What tests of several crates share: tiny models written by others, an oracle in f64, files
//! to damage.

pub mod fixtures;
pub mod gguf_writer;
pub mod oracle;
pub mod random_model;
pub mod tiny;
