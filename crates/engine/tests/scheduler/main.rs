//! The scheduler against a fake model: named cases, and a seeded simulation.

mod cases;
mod fake;
mod simulation;
