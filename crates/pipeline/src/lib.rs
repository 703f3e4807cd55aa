//! Drives rows through a recipe against any [`data::Generator`], losing nothing.
//!
//! Knows neither which recipe nor which engine.
