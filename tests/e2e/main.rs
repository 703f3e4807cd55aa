//! End-to-end tests through the binary, on the embedded model.

mod bad_input;
mod chat;
mod facts;
mod generate;
mod harness;
mod manners;
mod rows;
mod score;
