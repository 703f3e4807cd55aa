//! A model on an Apple machine's GPU, in candle's operations. Without the feature `metal` there
//! is none, and whoever asks for one is told so.

use crate::config::Config;
use crate::devices::Determinism;
use crate::error::Failure;
use crate::output;
use crate::session::{Opened, Session};
use anyhow::Result;
use model::KvType;

/// Why training does not go there.
pub(crate) fn does_not_train() -> anyhow::Error {
    Failure::usage("--device metal: models generate there; train with --device cpu or cuda:N")
}

/// Loads the model and starts an engine on it.
///
/// # Errors
/// No Metal; settings that mean nothing there; too little memory.
pub(crate) fn start(
    opened: &Opened,
    config: &Config,
    least_kv_tokens: Option<usize>,
) -> Result<Session> {
    let usage =
        |problem: &dyn std::fmt::Display| Failure::usage(format!("--device metal: {problem}"));
    let device = model::metal_device().map_err(|error| usage(&error))?;
    if Determinism::of(config) == Determinism::Strict {
        return Err(usage(
            &"--deterministic: candle's products show their batch",
        ));
    }
    let kv_type = match config.text("engine.kv_dtype") {
        None | Some("f16") => KvType::F16,
        Some("f32") => KvType::F32,
        Some("bf16") => KvType::BF16,
        Some(other) => return Err(usage(&format!("--kv-dtype {other}: only on other devices"))),
    };
    // The GPU has no memory of its own.
    opened.check_weights_fit(config)?;
    let kv_tokens = opened.kv_tokens(config, (kv_type, 1), least_kv_tokens)?;
    output::say(&format!("loading {} onto Metal …", opened.name()));
    let options = opened.load_options(config);
    let model = opened.files().load_with_candle(&device, &options)?;
    let mut adapters = Vec::new();
    for (name, folder) in opened.adapters() {
        adapters.push((name.clone(), model.load_adapter(folder)?));
    }
    let sizes = opened.sizes(config, kv_tokens, kv_type);
    opened.launch(config, vec![Box::new(model)], adapters, sizes)
}
