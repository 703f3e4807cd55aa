//! End-to-end tests through the binary.

#[cfg(test)]
mod align;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod chat;
#[cfg(test)]
mod convert;
#[cfg(test)]
mod data;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod eval;
#[cfg(test)]
mod facts;
#[cfg(test)]
mod generate;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod manners;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod score;
#[cfg(test)]
mod synth;
#[cfg(test)]
mod train;
#[cfg(test)]
mod verify;
