//! Settings to begin with: our own, and those of the papers with what they become for an
//! adapter. Learning rates of full training are about ten times too small for adapters.

use crate::error::Failure;
use anyhow::Result;
use model::Projection;
use serde::Serialize;

/// What a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Method {
    Sft,
    Dpo,
    Nca,
    Ipo,
}

/// How much goes into a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BatchSize {
    Rows(usize),
    Tokens(usize),
}

/// How long the rate rises.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Rise {
    Ratio(f64),
    Steps(u64),
}

/// A set of settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    pub(crate) methods: &'static [Method],
    /// Whose settings these are.
    pub(crate) origin: &'static str,
    /// Learning rate where all weights are trained.
    pub(crate) lr_full: f64,
    /// Learning rate of an adapter, and where that is from.
    pub(crate) lr_lora: f64,
    pub(crate) lr_lora_origin: &'static str,
    pub(crate) warmup: Rise,
    pub(crate) epochs: u32,
    pub(crate) max_steps: Option<u64>,
    pub(crate) batch: BatchSize,
    pub(crate) max_length: usize,
    pub(crate) beta: f64,
    pub(crate) sft_weight: f64,
    pub(crate) lora_rank: usize,
    pub(crate) lora_alpha: f64,
    pub(crate) lora_dropout: f64,
    #[serde(serialize_with = "target_names")]
    pub(crate) lora_targets: &'static [Projection],
}

const PREFERENCES: &[Method] = &[Method::Dpo, Method::Nca, Method::Ipo];

/// What a run gets that names no preset.
const SFT: Preset = Preset {
    name: "sft",
    methods: &[Method::Sft],
    origin: "this program's own",
    lr_full: 1e-5,
    lr_lora: 1e-4,
    lr_lora_origin: "this program's own",
    warmup: Rise::Ratio(0.03),
    epochs: 3,
    max_steps: None,
    batch: BatchSize::Rows(32),
    max_length: 4096,
    beta: 0.1,
    sft_weight: 0.0,
    lora_rank: 16,
    lora_alpha: 32.0,
    lora_dropout: 0.0,
    lora_targets: &Projection::ALL,
};

const PREFERENCE: Preset = Preset {
    name: "preference",
    methods: PREFERENCES,
    lr_full: 5e-7,
    lr_lora: 5e-6,
    epochs: 1,
    max_length: 2048,
    ..SFT
};

const ULTRAIF: &str =
    "UltraIF, Training/llama31_8b_full.py (3 epochs, 8,192 tokens a step and GPU)";
const ULTRAIF_PAIRS: &str =
    "UltraIF, Training/llama31_8b_dpo_full.py (3 epochs, 8,192 tokens a step and GPU, beta 0.1)";
const TEN_TIMES: &str = "ten times the published rate, which was for all weights";

const ULTRAIF_SFT: Preset = Preset {
    name: "ultraif-sft",
    origin: ULTRAIF,
    lr_lora_origin: TEN_TIMES,
    batch: BatchSize::Tokens(8192),
    max_length: 8192,
    ..SFT
};

const ULTRAIF_DPO: Preset = Preset {
    name: "ultraif-dpo",
    methods: &[Method::Dpo],
    origin: ULTRAIF_PAIRS,
    lr_lora_origin: TEN_TIMES,
    epochs: 3,
    batch: BatchSize::Tokens(8192),
    max_length: 8192,
    ..PREFERENCE
};

/// All presets, in the order in which they are listed.
pub(crate) const ALL: [Preset; 8] = [
    SFT,
    PREFERENCE,
    Preset {
        name: "ultraif-composer",
        ..ULTRAIF_SFT
    },
    ULTRAIF_SFT,
    ULTRAIF_DPO,
    Preset {
        name: "ultraif-nca",
        methods: &[Method::Nca],
        ..ULTRAIF_DPO
    },
    Preset {
        name: "complex-to-simple",
        methods: &[Method::Dpo],
        origin: "Complex-to-Simple, dpo_train/config.py (LoRA, DPO + SFT, 810 steps of 32 pairs)",
        lr_full: 5e-5,
        lr_lora: 5e-4,
        lr_lora_origin: "as published",
        warmup: Rise::Steps(100),
        max_steps: Some(810),
        batch: BatchSize::Rows(32),
        max_length: 1024,
        sft_weight: 1.0,
        lora_rank: 8,
        lora_dropout: 0.05,
        lora_alpha: 16.0,
        lora_targets: &[Projection::Q, Projection::K, Projection::V],
        ..PREFERENCE
    },
    Preset {
        name: "decif",
        origin: "DecIF, README (3 epochs, 64 rows a step, 8,192 tokens)",
        lr_lora_origin: TEN_TIMES,
        batch: BatchSize::Rows(64),
        max_length: 8192,
        ..SFT
    },
];

/// The preset of this name, or the one a method begins with.
///
/// # Errors
/// No such name; a preset for another method.
pub(crate) fn choose(name: Option<&str>, method: Method) -> Result<Preset> {
    let fits = |preset: &Preset| preset.methods.contains(&method);
    let Some(name) = name else {
        let found = ALL.iter().find(|preset| fits(preset));
        return Ok(found.expect("every method has one").clone());
    };
    let names = |only: &dyn Fn(&Preset) -> bool| {
        let names = ALL.iter().filter(|preset| only(preset));
        names
            .map(|preset| preset.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    match ALL.iter().find(|preset| preset.name == name) {
        None => Err(Failure::usage(format!(
            "--preset {name}: no such preset; there are {}",
            names(&|_| true)
        ))),
        Some(preset) if !fits(preset) => Err(Failure::usage(format!(
            "--preset {name}: for another method; for this one there are {}",
            names(&fits)
        ))),
        Some(preset) => Ok(preset.clone()),
    }
}

/// A projection by its name, with or without `_proj`.
pub(crate) fn projection(name: &str) -> Option<Projection> {
    let bare = name.strip_suffix("_proj").unwrap_or(name);
    Projection::ALL
        .into_iter()
        .find(|projection| short(*projection) == bare)
}

/// `q`, `k`, …
pub(crate) fn short(projection: Projection) -> &'static str {
    let module = projection.module().rsplit('.').next().unwrap_or_default();
    module.strip_suffix("_proj").unwrap_or(module)
}

fn target_names<S: serde::Serializer>(
    targets: &&'static [Projection],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(targets.iter().map(|target| short(*target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_others_are_refused() {
        assert_eq!(choose(None, Method::Sft).unwrap().name, "sft");
        assert_eq!(choose(None, Method::Ipo).unwrap().name, "preference");
        assert_eq!(choose(Some("ultraif-nca"), Method::Nca).unwrap().epochs, 3);
        let error = choose(Some("ultraif-nca"), Method::Sft)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("ultraif-composer, ultraif-sft, decif"),
            "{error}"
        );
        let error = choose(Some("ultra"), Method::Sft).unwrap_err().to_string();
        assert!(error.contains("no such preset"), "{error}");
        assert_eq!(projection("q_proj"), projection("q"));
        assert_eq!(projection("lm_head"), None);
    }
}
