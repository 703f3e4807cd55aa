//! Verdicts on answers to held-out instructions, and what they come to.
//!
//! Intervals are percentile bootstraps over prompts: all samples of a prompt stay together, so
//! that samples do not pass for independent prompts.

use super::{Instruction, Instructions};
use crate::EvalError;
use crate::answers::split_reasoning;
use crate::bootstrap::{Interval, intervals, paired_intervals};
use crate::tally::{Metric, Tally};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;
use verify::{Check, Suite};

/// The share of answers that follow all their rules.
const METRIC: Metric = Metric::PromptStrict;

#[derive(Deserialize)]
struct Recorded {
    key: String,
    greedy: Answer,
    samples: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
    tokens: usize,
    cut: bool,
}

/// Sums over some answers of one prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    /// Answers, and those that follow every rule.
    tally: Tally,
    /// Answers that name all their topics; of all, where the prompt has topics.
    on_topic: u32,
    tokens: usize,
    /// Cut by the token limit.
    cut: u32,
}

/// Followed and asked, by kind of rule.
type Kinds = BTreeMap<String, (u32, u32)>;

/// Verdicts on all answers of one model, prompt by prompt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scored {
    greedy: Vec<Sums>,
    sampled: Vec<Sums>,
    greedy_kinds: Kinds,
    sampled_kinds: Kinds,
    has_topics: Vec<bool>,
    /// Prompts without answers.
    missing: usize,
}

/// A share with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The share, 0 to 1.
    pub rate: f64,
    /// 2.5th and 97.5th percentile of a bootstrap over prompts.
    pub interval: (f64, f64),
}

/// What the answers that one kind of rule asks something of do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KindRates {
    /// Prompts with such a rule.
    pub prompts: u32,
    /// Share of greedy answers that follow it.
    pub greedy: f64,
    /// Share of samples that follow it.
    pub sampled: f64,
}

/// What held-out instructions say of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Prompts that were answered.
    pub prompts: usize,
    /// Prompts that got no answer; they are in no share.
    pub missing: usize,
    /// Samples of each prompt.
    pub samples: usize,
    /// Samples that follow every rule of their prompt.
    pub sampled: Rate,
    /// Greedy answers that do.
    pub greedy: Rate,
    /// By kind of rule.
    pub kinds: BTreeMap<String, KindRates>,
    /// Samples that name their topic; `None` without topics.
    pub on_topic: Option<f64>,
    /// Mean tokens of a sample.
    pub tokens: f64,
    /// Share of samples cut by the token limit.
    pub cut: f64,
    /// Perplexity on the texts that prompts came with; `None` without texts.
    pub perplexity: Option<f64>,
}

/// A difference of two models' shares of passing answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// Ours less theirs, -1 to 1, of the samples.
    pub sampled: Rate,
    /// Of the greedy answers.
    pub greedy: Rate,
}

impl Scored {
    /// Judges recorded answers, as [`super::ask`] writes them.
    ///
    /// # Errors
    /// [`EvalError::Data`] for a line that is no record of answers to one of the instructions.
    pub fn read(
        instructions: &Instructions,
        name: &str,
        reader: impl BufRead,
    ) -> Result<Self, EvalError> {
        let mut recorded = HashMap::new();
        for (index, line) in reader.lines().enumerate() {
            let bad = |reason: String| EvalError::Data {
                file: name.to_owned(),
                line: index + 1,
                reason,
            };
            let line = line.map_err(|error| bad(error.to_string()))?;
            let row: Recorded =
                serde_json::from_str(&line).map_err(|error| bad(error.to_string()))?;
            recorded.insert(row.key.clone(), row);
        }
        let mut scored = Self::default();
        for item in instructions
            .items
            .iter()
            .filter(|item| !item.rules.is_empty())
        {
            match recorded.get(&item.key) {
                Some(row) => scored.add(item, row),
                None => scored.add_missing(item),
            }
        }
        Ok(scored)
    }

    fn add(&mut self, item: &Instruction, row: &Recorded) {
        let greedy = std::slice::from_ref(&row.greedy);
        self.greedy.push(sums(item, greedy, &mut self.greedy_kinds));
        self.sampled
            .push(sums(item, &row.samples, &mut self.sampled_kinds));
        self.has_topics.push(!item.topics.is_empty());
    }

    /// Kept as a prompt with no answers, so that two models' prompts stay in step.
    fn add_missing(&mut self, item: &Instruction) {
        self.greedy.push(Sums::default());
        self.sampled.push(Sums::default());
        self.has_topics.push(!item.topics.is_empty());
        self.missing += 1;
    }

    /// The numbers; perplexity is measured elsewhere.
    pub fn figures(&self, perplexity: Option<f64>) -> Figures {
        let rate = |of: &[Sums]| {
            let rows = tallies(of);
            let all: Tally = rows.iter().copied().sum();
            let interval = intervals(&[&rows], &[METRIC])[0];
            Rate::new(METRIC.value(&all), interval)
        };
        let asked: u32 = self.sampled.iter().map(|one| one.tally.prompts).sum();
        let share = |part: f64| part / f64::from(asked.max(1));
        let about = self.sampled.iter().zip(&self.has_topics);
        let about: Vec<&Sums> = about.filter(|(_, has)| **has).map(|(one, _)| one).collect();
        let of_topics: u32 = about.iter().map(|one| one.tally.prompts).sum();
        let on_topic: u32 = about.iter().map(|one| one.on_topic).sum();
        let tokens: usize = self.sampled.iter().map(|one| one.tokens).sum();
        let cut: u32 = self.sampled.iter().map(|one| one.cut).sum();
        let most = self.sampled.iter().map(|one| one.tally.prompts).max();
        Figures {
            prompts: self.sampled.len() - self.missing,
            missing: self.missing,
            samples: most.unwrap_or(0) as usize,
            sampled: rate(&self.sampled),
            greedy: rate(&self.greedy),
            kinds: self.kinds(),
            on_topic: (of_topics > 0).then(|| f64::from(on_topic) / f64::from(of_topics)),
            tokens: share(tokens as f64),
            cut: share(f64::from(cut)),
            perplexity,
        }
    }

    fn kinds(&self) -> BTreeMap<String, KindRates> {
        let share = |kinds: &Kinds, kind: &str| {
            let (followed, asked) = kinds.get(kind).copied().unwrap_or((0, 0));
            f64::from(followed) / f64::from(asked.max(1))
        };
        let kinds = self.greedy_kinds.iter();
        let rates = kinds.map(|(kind, (_, prompts))| {
            let rates = KindRates {
                prompts: *prompts,
                greedy: share(&self.greedy_kinds, kind),
                sampled: share(&self.sampled_kinds, kind),
            };
            (kind.clone(), rates)
        });
        rates.collect()
    }

    /// How much better this model is than `before` on the same instructions: each resample
    /// takes the same prompts of both.
    pub fn gain_over(&self, before: &Self) -> Gain {
        let gain = |ours: &[Sums], theirs: &[Sums]| {
            let (ours, theirs) = (tallies(ours), tallies(theirs));
            let value = |rows: &[Tally]| METRIC.value(&rows.iter().copied().sum());
            let interval = paired_intervals(&[&ours], &[&theirs], &[METRIC])[0];
            Rate::new(value(&ours) - value(&theirs), interval)
        };
        Gain {
            sampled: gain(&self.sampled, &before.sampled),
            greedy: gain(&self.greedy, &before.greedy),
        }
    }
}

impl Rate {
    fn new(rate: f64, interval: Interval) -> Self {
        Self {
            rate,
            interval: (interval.low, interval.high),
        }
    }
}

fn tallies(sums: &[Sums]) -> Vec<Tally> {
    sums.iter().map(|one| one.tally).collect()
}

/// Judges answers to one prompt.
fn sums(item: &Instruction, answers: &[Answer], kinds: &mut Kinds) -> Sums {
    let mut sums = Sums::default();
    for answer in answers {
        let text = split_reasoning(&answer.text);
        let verdicts = Suite::IfBench.judge(&item.rules, &text).strict;
        for (rule, verdict) in item.rules.iter().zip(&verdicts) {
            let (followed, asked) = kinds.entry(rule.id().to_owned()).or_default();
            *asked += 1;
            *followed += u32::from(verdict.followed);
        }
        let followed = verdicts.iter().map(|one| (one.followed, one.followed));
        sums.tally += Tally::of_prompt(followed);
        let lower = text.to_lowercase();
        let names = |topic: &String| lower.contains(&topic.to_lowercase());
        sums.on_topic += u32::from(item.topics.iter().all(names));
        sums.tokens += answer.tokens;
        sums.cut += u32::from(answer.cut);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Prompts that forbid commas, every other with a topic.
    fn instructions(count: usize) -> Instructions {
        let rows: Vec<String> = (0..count)
            .map(|key| {
                let topics: &[&str] = if key % 2 == 0 { &["Fox"] } else { &[] };
                json!({
                    "key": key, "prompt": "Describe it.", "topics": topics,
                    "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"],
                    "kwargs": [{}, {}],
                })
                .to_string()
            })
            .collect();
        Instructions::read("x", rows.join("\n").as_bytes()).unwrap()
    }

    /// Answers of which `right` in ten samples of each prompt follow both rules.
    fn answers(count: usize, right: impl Fn(usize) -> usize) -> Scored {
        let one = |good: bool| {
            let text = if good {
                "the fox is red."
            } else {
                "It is red, and small."
            };
            json!({"text": text, "tokens": 6, "cut": !good})
        };
        let rows: Vec<String> = (0..count)
            .map(|key| {
                let samples: Vec<_> = (0..10).map(|index| one(index < right(key))).collect();
                json!({"key": key.to_string(), "greedy": one(right(key) > 5), "samples": samples})
                    .to_string()
            })
            .collect();
        Scored::read(&instructions(count), "x", rows.join("\n").as_bytes()).unwrap()
    }

    #[test]
    fn shares_are_counted_by_hand() {
        let figures = answers(10, |key| if key < 4 { 10 } else { 2 }).figures(Some(3.5));
        assert_eq!(
            (figures.prompts, figures.samples, figures.missing),
            (10, 10, 0)
        );
        assert!((figures.sampled.rate - 0.52).abs() < 1e-12, "{figures:?}");
        assert!((figures.greedy.rate - 0.4).abs() < 1e-12);
        assert_eq!(figures.kinds["punctuation:no_comma"].prompts, 10);
        assert!((figures.kinds["punctuation:no_comma"].sampled - 0.52).abs() < 1e-12);
        // Prompts 0, 2 pass wholly; 4, 6, 8 in two of ten.
        assert!((figures.on_topic.unwrap() - 26.0 / 50.0).abs() < 1e-12);
        assert!((figures.tokens - 6.0).abs() < 1e-12 && (figures.cut - 0.48).abs() < 1e-12);
        assert_eq!(figures.perplexity, Some(3.5));
    }

    #[test]
    fn intervals_are_as_wide_as_prompts_allow() {
        // All samples of a prompt agree: 100 prompts, not 1,000 answers.
        let figures = answers(100, |key| if key % 2 == 0 { 10 } else { 0 }).figures(None);
        let (low, high) = figures.sampled.interval;
        assert!(
            (0.39..0.42).contains(&low) && (0.58..0.61).contains(&high),
            "{figures:?}"
        );
    }

    #[test]
    fn gains_are_paired() {
        let (before, after) = (answers(50, |key| key % 9), answers(50, |key| key % 9 + 1));
        let gain = after.gain_over(&before).sampled;
        assert!((gain.rate - 0.1).abs() < 1e-12);
        assert!((gain.interval.0 - 0.1).abs() < 1e-9 && (gain.interval.1 - 0.1).abs() < 1e-9);
    }

    #[test]
    fn prompts_without_answers_are_counted_and_stay_in_step() {
        let mut rows = answers(3, |_| 10);
        rows.add_missing(&instructions(1).items[0]);
        let figures = rows.figures(None);
        assert_eq!((figures.prompts, figures.missing), (3, 1));
        assert!((figures.sampled.rate - 1.0).abs() < 1e-12);
        let error = Scored::read(&instructions(1), "a.jsonl", "{}\n".as_bytes()).unwrap_err();
        assert!(error.to_string().contains("a.jsonl:1"), "{error}");
    }
}
