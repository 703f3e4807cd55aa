//! The scheduler without a model: named cases, and a seeded simulation over a fake model.

mod cases;
mod fake;
mod random;
