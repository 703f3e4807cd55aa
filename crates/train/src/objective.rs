//! One optimiser step's loss and gradients, over as many packs as its rows need.
//!
//! Denominators are those of the whole step (all trained tokens, all pairs), known before the
//! first pass: how rows are cut into packs changes nothing but the order of additions.

use crate::items::{Item, ItemTokens};
use crate::loss::{PairLoss, PairScores, PreferenceLoss, SftReduction};
use crate::network::{Coefficients, Network, PassOptions};
use crate::pack::{Pack, Sequence, best_fit};
use crate::parameters::Gradients;
use crate::{Result, TrainError};
use kernels::training::TokenScore;
use std::ops::Range;
use std::thread;

/// What is made small.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Objective {
    /// Cross-entropy of the trained tokens, a mean over all of the step.
    Sft,
    /// A preference loss, a mean over the pairs of the step.
    Preference(Preference),
}

/// A preference loss with its supervised term.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preference {
    /// How a pair is compared.
    pub loss: PreferenceLoss,
    /// Scale of the implicit reward.
    pub beta: f64,
    /// Weight of the cross-entropy of the chosen answers; 0 = none.
    pub sft_weight: f64,
    /// How that term is averaged.
    pub sft_reduction: SftReduction,
}

/// Log-probabilities of a pair's answers by the reference model: chosen, rejected.
pub type ReferenceScores = (f64, f64);

/// How a step is computed.
#[derive(Debug, Clone, Copy)]
pub struct StepOptions {
    /// How passes are computed.
    pub pass: PassOptions,
    /// Tokens of a pack.
    pub pack_tokens: usize,
    /// Packs computed at a time, each on a thread of its own; on a device one at a time. Gradients
    /// of packs are added in their order: results do not depend on it.
    pub workers: usize,
    /// The step, from 1, for messages and for dropout.
    pub step: u64,
    /// Of the run, for dropout.
    pub seed: u64,
}

/// What a step found out, as sums.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepSums {
    /// The loss itself, already a mean.
    pub loss: f64,
    /// Tokens that were read.
    pub tokens: usize,
    /// Tokens that were trained.
    pub trained_tokens: usize,
    /// Trained tokens that were the likeliest.
    pub top_tokens: usize,
    /// Entropies at the trained tokens, in nats.
    pub entropy: f64,
    /// Pairs, and their sums.
    pub pairs: PairSums,
}

/// Sums over pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PairSums {
    /// Pairs.
    pub count: usize,
    /// beta * (policy - reference) of the chosen and of the rejected answers.
    pub rewards: (f64, f64),
    /// Pairs whose chosen answer has the higher reward; equal ones count as wrong, as in TRL.
    pub right: usize,
    /// The policy's log-probabilities of the answers.
    pub log_probs: (f64, f64),
    /// Sums of the mean logits over the answers' tokens, and those tokens.
    pub mean_logits: (f64, f64),
    /// Tokens of the chosen and of the rejected answers.
    pub tokens: (usize, usize),
}

/// The loss of `items` and its gradients. `references` are those of the same rows, where the
/// objective compares pairs.
///
/// # Errors
/// A log-probability that is not finite, with its row; a kernel that fails.
pub fn step(
    network: &Network,
    items: &[&Item],
    references: &[ReferenceScores],
    (objective, options): (&Objective, &StepOptions),
) -> Result<(StepSums, Gradients)> {
    let mut gradients = Gradients::new(network.parameters());
    let work = Work::new(items, references, objective, options)?;
    let mut sums = StepSums::default();
    if network.is_on_device() {
        for index in 0..work.bins.len() {
            sums.add(&work.pass(network, index, &mut gradients)?);
        }
        gradients.come_home(network.parameters())?;
        return Ok((sums, gradients));
    }
    let workers = options.workers.max(1);
    for first in (0..work.bins.len()).step_by(workers) {
        let packs = first..work.bins.len().min(first + workers);
        let done = side_by_side(packs, |index| {
            let mut gradients = Gradients::new(network.parameters());
            let sums = work.pass(network, index, &mut gradients)?;
            Ok((sums, gradients))
        })?;
        for (pack_sums, pack_gradients) in done {
            sums.add(&pack_sums);
            gradients.merge(pack_gradients)?;
        }
    }
    Ok((sums, gradients))
}

/// The results of `work`, in order; each on its own thread where there are several.
pub(crate) fn side_by_side<T: Send>(
    indices: Range<usize>,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    if indices.len() < 2 {
        return indices.map(work).collect();
    }
    thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = indices
            .map(|index| scope.spawn(move || work(index)))
            .collect();
        let results = running.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.collect()
    })
}

impl StepSums {
    /// Adds those of another pack of the step.
    fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.tokens += other.tokens;
        self.trained_tokens += other.trained_tokens;
        self.top_tokens += other.top_tokens;
        self.entropy += other.entropy;
        self.pairs.add(&other.pairs);
    }
}

impl PairSums {
    fn add(&mut self, other: &Self) {
        let plus = |a: (f64, f64), b: (f64, f64)| (a.0 + b.0, a.1 + b.1);
        self.count += other.count;
        self.right += other.right;
        self.rewards = plus(self.rewards, other.rewards);
        self.log_probs = plus(self.log_probs, other.log_probs);
        self.mean_logits = plus(self.mean_logits, other.mean_logits);
        self.tokens = (
            self.tokens.0 + other.tokens.0,
            self.tokens.1 + other.tokens.1,
        );
    }
}

/// The loss of `items` alone.
///
/// # Errors
/// As [`step`].
pub fn evaluate(
    network: &Network,
    items: &[&Item],
    references: &[ReferenceScores],
    (objective, options): (&Objective, &StepOptions),
) -> Result<StepSums> {
    let work = Work::new(items, references, objective, options)?;
    let mut sums = StepSums::default();
    for bin in &work.bins {
        let pack = Pack::new(work.sequences(bin));
        let scores = network.score(&pack, &options.pass)?;
        work.weigh(bin, &pack, &scores, &mut sums)?;
    }
    Ok(sums)
}

/// Log-probabilities of each pair's answers by a network that stands still.
///
/// # Errors
/// As [`step`].
pub fn score_pairs(
    network: &Network,
    items: &[Item],
    options: &StepOptions,
    mut on_pack: impl FnMut(usize),
) -> Result<Vec<ReferenceScores>> {
    let items: Vec<&Item> = items.iter().collect();
    let mut found = vec![(0.0, 0.0); items.len()];
    let lengths: Vec<usize> = items.iter().map(|item| item.len()).collect();
    for bin in best_fit(&lengths, options.pack_tokens) {
        let pack = Pack::new(bin.iter().flat_map(|item| items[*item].sequences()));
        let scores = network.score(&pack, &options.pass)?;
        let sums = sequence_sums(&pack, &scores);
        for (pair, item) in bin.iter().enumerate() {
            let (chosen, rejected) = (sums[2 * pair].0, sums[2 * pair + 1].0);
            finite(
                chosen + rejected,
                "the reference log-probability",
                items[*item],
                options,
            )?;
            found[*item] = (chosen, rejected);
        }
        on_pack(bin.len());
    }
    Ok(found)
}

/// The rows of a step, sorted into packs.
struct Work<'a> {
    items: &'a [&'a Item],
    references: &'a [ReferenceScores],
    objective: &'a Objective,
    options: &'a StepOptions,
    bins: Vec<Vec<usize>>,
    /// Of all trained tokens, by weight; for pairs, of the chosen answers.
    trained_weight: f64,
}

impl<'a> Work<'a> {
    fn new(
        items: &'a [&'a Item],
        references: &'a [ReferenceScores],
        objective: &'a Objective,
        options: &'a StepOptions,
    ) -> Result<Self> {
        let pairs = matches!(objective, Objective::Preference(_));
        let fitting = |item: &&&Item| matches!(item.tokens, ItemTokens::Pair(_)) == pairs;
        if let Some(item) = items.iter().find(|item| !fitting(item)) {
            let expected = if pairs { "pairs" } else { "single answers" };
            return Err(TrainError::setting("training data", expected, &item.id));
        }
        if pairs && references.len() != items.len() {
            let expected = format!("one for each of {} pairs", items.len());
            return Err(TrainError::setting(
                "references",
                expected,
                references.len(),
            ));
        }
        let lengths: Vec<usize> = items.iter().map(|item| item.len()).collect();
        let first = |item: &&Item| item.sequences().next().map_or(0.0, Sequence::weight);
        Ok(Self {
            items,
            references,
            objective,
            options,
            bins: best_fit(&lengths, options.pack_tokens),
            trained_weight: items.iter().map(first).sum(),
        })
    }

    /// One pack's share of the loss; adds its gradients.
    fn pass(&self, network: &Network, index: usize, gradients: &mut Gradients) -> Result<StepSums> {
        let bin = &self.bins[index];
        let pack = Pack::new(self.sequences(bin));
        let options = PassOptions {
            dropout_key: mixed(self.options.seed, self.options.step, index as u64),
            ..self.options.pass
        };
        let mut sums = StepSums::default();
        let mut weighed = |scores: &[TokenScore]| self.weigh(bin, &pack, scores, &mut sums);
        match self.objective {
            Objective::Sft => {
                let coefficients = self.known_coefficients(&pack);
                let known = Coefficients::Known(&coefficients);
                let scores = network.backward(&pack, known, &options, gradients)?;
                weighed(&scores)?;
            }
            Objective::Preference(_) => {
                let from = Coefficients::From(&mut weighed);
                network.backward(&pack, from, &options, gradients)?;
            }
        }
        Ok(sums)
    }

    fn sequences(&self, bin: &'a [usize]) -> impl Iterator<Item = &'a Sequence> {
        bin.iter().flat_map(|item| self.items[*item].sequences())
    }

    /// SFT: every coefficient is known beforehand.
    fn known_coefficients(&self, pack: &Pack) -> Vec<f32> {
        let targets = pack.targets.iter();
        targets
            .map(|target| (-f64::from(target.weight) / self.trained_weight) as f32)
            .collect()
    }

    /// Adds what a pack's scores say to `sums`; gives the derivative of the loss by each
    /// log-probability.
    fn weigh(
        &self,
        bin: &[usize],
        pack: &Pack,
        scores: &[TokenScore],
        sums: &mut StepSums,
    ) -> Result<Vec<f32>> {
        sums.tokens += pack.len();
        sums.trained_tokens += scores.len();
        sums.top_tokens += scores.iter().filter(|score| score.is_top).count();
        sums.entropy += scores
            .iter()
            .map(|score| f64::from(score.entropy))
            .sum::<f64>();
        let by_sequence = sequence_sums(pack, scores);
        match self.objective {
            Objective::Sft => {
                for (item, (sum, _)) in bin.iter().zip(&by_sequence) {
                    let item = self.items[*item];
                    finite(*sum, "the log-probability", item, self.options)?;
                    sums.loss -= sum / self.trained_weight;
                }
                Ok(self.known_coefficients(pack))
            }
            Objective::Preference(preference) => {
                let mut slopes = vec![0.0; by_sequence.len()];
                for (index, item) in bin.iter().enumerate() {
                    let answers = (by_sequence[2 * index], by_sequence[2 * index + 1]);
                    let found = self.pair(preference, *item, answers, &mut sums.pairs)?;
                    slopes[2 * index] = found.by_chosen;
                    slopes[2 * index + 1] = found.by_rejected;
                    sums.loss += found.loss;
                }
                for (target, score) in pack.targets.iter().zip(scores) {
                    let logits = &mut sums.pairs.mean_logits;
                    let side = if target.sequence % 2 == 0 {
                        &mut logits.0
                    } else {
                        &mut logits.1
                    };
                    *side += f64::from(score.mean_logit);
                }
                let targets = pack.targets.iter();
                Ok(targets
                    .map(|target| slopes[target.sequence] as f32)
                    .collect())
            }
        }
    }

    /// One pair's share of the loss, with the supervised term, and its slopes.
    fn pair(
        &self,
        preference: &Preference,
        item: usize,
        (chosen, rejected): ((f64, usize), (f64, usize)),
        sums: &mut PairSums,
    ) -> Result<PairLoss> {
        let scores = PairScores {
            policy: (chosen.0, rejected.0),
            reference: self.references[item],
            tokens: (chosen.1, rejected.1),
        };
        let found = preference.loss.of(preference.beta, &scores);
        let row = self.items[item];
        finite(
            chosen.0 + rejected.0,
            "the log-probability",
            row,
            self.options,
        )?;
        finite(found.loss, "the loss", row, self.options)?;
        let (good, bad) = scores.rewards(preference.beta);
        sums.count += 1;
        sums.rewards = (sums.rewards.0 + good, sums.rewards.1 + bad);
        sums.right += usize::from(good > bad);
        sums.log_probs = (sums.log_probs.0 + chosen.0, sums.log_probs.1 + rejected.0);
        sums.tokens = (sums.tokens.0 + chosen.1, sums.tokens.1 + rejected.1);
        let pairs = self.items.len() as f64;
        let supervised = preference.sft_weight
            / match preference.sft_reduction {
                SftReduction::BatchTokens => self.trained_weight,
                SftReduction::PerSequence => pairs * chosen.1 as f64,
            };
        Ok(PairLoss {
            loss: found.loss / pairs - supervised * chosen.0,
            by_chosen: found.by_chosen / pairs - supervised,
            by_rejected: found.by_rejected / pairs,
        })
    }
}

/// Of each sequence of a pack: the weighted sum of its log-probabilities, and their number.
fn sequence_sums(pack: &Pack, scores: &[TokenScore]) -> Vec<(f64, usize)> {
    let mut sums = vec![(0.0, 0); pack.segments.len()];
    for (target, score) in pack.targets.iter().zip(scores) {
        let (sum, count) = &mut sums[target.sequence];
        *sum += f64::from(target.weight) * f64::from(score.log_prob);
        *count += 1;
    }
    sums
}

fn finite(value: f64, what: &'static str, item: &Item, options: &StepOptions) -> Result<()> {
    match value.is_finite() {
        true => Ok(()),
        false => Err(TrainError::NotFinite {
            step: options.step,
            what,
            row: item.id.clone(),
            value,
        }),
    }
}

/// A key for the random numbers of one pass (the finaliser of SplitMix64 over the three).
fn mixed(seed: u64, step: u64, pass: u64) -> u64 {
    let mut state = seed;
    for part in [step, pass] {
        state = state.wrapping_add(part.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        state ^= state >> 31;
    }
    state
}
