//! The built-in seed prompts, for trying things out.

/// JSONL with `id` and `prompt` or `messages`, one row per line.
pub const BUILTIN: &str = include_str!("../../../prompts/seeds/builtin.jsonl");
