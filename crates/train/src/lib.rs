//! Examples become adapters or checkpoints: SFT, DPO, NCA.
//!
//! Knows nothing of the engine's scheduler.
