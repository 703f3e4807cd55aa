//! The course of a run: flags over presets, with where each value comes from.

use super::args::{CourseArgs, RecomputeArg, ScheduleArg};
use super::presets::{BatchSize, Preset, Rise};
use crate::error::Failure;
use anyhow::Result;
use train::{
    Batch, Objective, OptimizerSettings, PassOptions, Recompute, RunSettings, Shape, Warmup,
};

/// Tokens computed at a time unless flags say otherwise.
const PACK_TOKENS: usize = 2048;

/// A setting as it will be used.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    name: &'static str,
    value: String,
    origin: String,
}

impl Chosen {
    pub(super) fn of(
        name: &'static str,
        value: impl std::fmt::Display,
        is_flag: bool,
        preset: &Preset,
    ) -> Self {
        let origin = match is_flag {
            true => "flag".to_owned(),
            false => format!("{}: {}", preset.name, preset.origin),
        };
        Self {
            name,
            value: value.to_string(),
            origin,
        }
    }

    pub(super) fn line(&self) -> String {
        format!("  {:<14} {:<28} {}", self.name, self.value, self.origin)
    }
}

/// The settings of a run that do not depend on what is trained.
#[derive(Debug, Clone)]
pub(super) struct Course {
    epochs: u32,
    max_steps: Option<u64>,
    batch: Batch,
    pack_tokens: usize,
    /// Packs computed at a time.
    pub(super) workers: usize,
    pub(super) max_length: usize,
    rate: f64,
    shape: Shape,
    warmup: Warmup,
    clip: Option<f64>,
    pub(super) optimizer: OptimizerSettings,
    pub(super) seed: u64,
    recompute: Recompute,
    checkpoint_every: u64,
    keep: usize,
    evaluate_every: u64,
    pub(super) chosen: Vec<Chosen>,
}

impl Course {
    /// Flags over a preset; `context` bounds the rows.
    ///
    /// # Errors
    /// A flag out of range.
    pub(super) fn of(
        args: &CourseArgs,
        preset: &Preset,
        full: bool,
        context: usize,
    ) -> Result<Self> {
        let max_length = args.max_length.unwrap_or(preset.max_length.min(context));
        if max_length > context {
            return Err(Failure::usage(format!(
                "--max-length {max_length}: the context holds {context} tokens"
            )));
        }
        if !(0.0..=1.0).contains(&args.min_lr_ratio) {
            return Err(Failure::usage("--min-lr-ratio: between 0 and 1"));
        }
        let rate = args
            .lr
            .unwrap_or(if full { preset.lr_full } else { preset.lr_lora });
        let warmup = match (args.warmup_steps, args.warmup_ratio, preset.warmup) {
            (Some(steps), _, _) | (None, None, Rise::Steps(steps)) => Warmup::Steps(steps),
            (None, Some(ratio), _) | (None, None, Rise::Ratio(ratio)) => Warmup::Ratio(ratio),
        };
        let batch = match (args.batch_size, args.batch_tokens, preset.batch) {
            (Some(rows), _, _) | (None, None, BatchSize::Rows(rows)) => Batch::Rows(rows),
            (None, Some(tokens), _) | (None, None, BatchSize::Tokens(tokens)) => {
                Batch::Tokens(tokens)
            }
        };
        let epochs = args.epochs.unwrap_or(preset.epochs);
        // Epochs asked for by hand are not cut short by a preset's steps.
        let max_steps = args.max_steps.or(match args.epochs {
            Some(_) => None,
            None => preset.max_steps,
        });
        let end = args.min_lr_ratio;
        let shape = match args.schedule.unwrap_or(ScheduleArg::Cosine) {
            ScheduleArg::Cosine => Shape::Cosine { end },
            ScheduleArg::Linear => Shape::Linear { end },
            ScheduleArg::Constant => Shape::Constant,
        };
        let mut course = Self {
            epochs,
            max_steps,
            batch,
            pack_tokens: args.pack_tokens.unwrap_or(PACK_TOKENS.max(max_length)),
            workers: 1,
            max_length,
            rate,
            shape,
            warmup,
            clip: (args.max_grad_norm != 0.0).then_some(args.max_grad_norm),
            optimizer: OptimizerSettings {
                weight_decay: args.weight_decay,
                ..Default::default()
            },
            seed: args.seed,
            recompute: match args.recompute {
                RecomputeArg::Layers => Recompute::Layers,
                RecomputeArg::Nothing => Recompute::Nothing,
            },
            checkpoint_every: args.checkpoint_steps,
            keep: args.keep,
            evaluate_every: args.eval_steps,
            chosen: vec![],
        };
        course.chosen = course.choices(args, preset, full);
        Ok(course)
    }

    fn choices(&self, args: &CourseArgs, preset: &Preset, full: bool) -> Vec<Chosen> {
        let batch = match self.batch {
            Batch::Rows(rows) => format!("{rows} rows"),
            Batch::Tokens(tokens) => format!("{tokens} tokens"),
        };
        let warmup = match self.warmup {
            Warmup::Ratio(ratio) => format!("{} % of steps", ratio * 100.0),
            Warmup::Steps(steps) => format!("{steps} steps"),
        };
        let course = match self.max_steps {
            Some(steps) => format!("{steps} steps"),
            None => format!("{} epochs", self.epochs),
        };
        let mut rate = Chosen::of("learning rate", self.rate, args.lr.is_some(), preset);
        if args.lr.is_none() && !full && preset.lr_lora_origin != preset.origin {
            rate.origin = format!("{}; {}", rate.origin, preset.lr_lora_origin);
        }
        let own_course = args.epochs.is_some() || args.max_steps.is_some();
        let own_batch = args.batch_size.is_some() || args.batch_tokens.is_some();
        let own_warmup = args.warmup_steps.is_some() || args.warmup_ratio.is_some();
        vec![
            rate,
            Chosen::of("warm-up", warmup, own_warmup, preset),
            Chosen::of("course", course, own_course, preset),
            Chosen::of("batch", batch, own_batch, preset),
            Chosen::of(
                "max length",
                self.max_length,
                args.max_length.is_some(),
                preset,
            ),
        ]
    }

    /// With what is made small.
    pub(super) fn settings(&self, objective: Objective) -> RunSettings {
        RunSettings {
            objective,
            epochs: self.epochs,
            max_steps: self.max_steps,
            batch: self.batch,
            pack_tokens: self.pack_tokens,
            workers: self.workers,
            rate: self.rate,
            shape: self.shape,
            warmup: self.warmup,
            clip: self.clip,
            optimizer: self.optimizer,
            seed: self.seed,
            pass: PassOptions {
                recompute: self.recompute,
                ..Default::default()
            },
            checkpoint_every: self.checkpoint_every,
            keep: self.keep,
            evaluate_every: self.evaluate_every,
        }
    }
}
