//! Tests only: see `e2e/`.
