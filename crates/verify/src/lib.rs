//! Constraints and their checkers: text in, verdict out.
//!
//! Knows no model, no file, no clock and draws no random number of its own.
