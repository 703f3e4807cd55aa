//! Samples of a response, for all recipes: drawn in waves, judged as they come, and which of
//! them can become data.

use crate::filters::is_refusal;
use crate::judging::Verdict;
use data::{Completion, FinishReason, Generate};
use futures::future::try_join_all;
use pipeline::{Llm, Stop};
use serde::{Deserialize, Serialize};

/// Samples of the first wave where samples stop early.
const FIRST_WAVE: usize = 2;

/// What is made of an instruction's responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// A verified response.
    Sft,
    /// A pair of one that passes and one that fails.
    Dpo,
    /// Both; a row without a pair still gives its verified response.
    Both,
}

/// Why an answer cannot become data, whatever it says.
pub(crate) fn fault(completion: &Completion) -> Option<&'static str> {
    let text = completion.text.trim();
    if text.is_empty() {
        Some("empty")
    } else if completion.finish_reason == FinishReason::Length {
        Some("truncated")
    } else if is_refusal(text) {
        Some("refusal")
    } else {
        None
    }
}

/// A response with what was said of it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) index: usize,
    /// What it was drawn with.
    pub(crate) seed: u64,
    pub(crate) text: String,
    /// Why it cannot become data, whatever its verdicts.
    pub(crate) unusable: Option<&'static str>,
    pub(crate) verdicts: Vec<Verdict>,
}

impl Sample {
    /// A response that was not judged yet. What is wrong with it is counted.
    pub(crate) fn new(request: &Generate, completion: &Completion, llm: &Llm<'_>) -> Self {
        let text = completion.text.trim().to_owned();
        let unusable = fault(completion);
        if let Some(fault) = unusable {
            llm.count(&format!("respond.{fault}"), 1);
        }
        Self {
            index: completion.index,
            seed: Generate::sample_seed(request.seed, completion.index),
            text,
            unusable,
            verdicts: Vec::new(),
        }
    }

    /// Every question was answered YES.
    pub(crate) fn passes(&self) -> bool {
        self.unusable.is_none() && self.verdicts.iter().all(|verdict| verdict.yes)
    }

    /// Some question was answered NO; one without an answer says nothing about the response.
    pub(crate) fn fails(&self) -> bool {
        self.unusable.is_none() && self.verdicts.iter().any(Verdict::is_no)
    }
}

/// How many samples, and which are drawn although they change nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waves {
    /// Samples at most.
    pub(crate) samples: usize,
    /// What ends the drawing; `None` draws all.
    pub(crate) until: Option<Want>,
}

/// Samples from one prefill, judged as they come; later waves are drawn only while they can
/// still decide something.
pub(crate) async fn respond_in_waves(
    request: &Generate,
    waves: Waves,
    judge: impl AsyncFn(Completion) -> Result<Sample, Stop>,
    llm: &Llm<'_>,
) -> Result<Vec<Sample>, Stop> {
    let first = match waves.until {
        Some(_) => FIRST_WAVE.min(waves.samples),
        None => waves.samples,
    };
    let mut samples: Vec<Sample> = Vec::new();
    for wave in [0..first, first..waves.samples] {
        if wave.is_empty() || waves.until.is_some_and(|want| is_decided(&samples, want)) {
            break;
        }
        let completions = llm.samples("respond", "respond", request, wave).await?;
        let judge = &judge;
        let judged = completions
            .into_iter()
            .map(|one| async move { judge(one).await });
        samples.extend(try_join_all(judged).await?);
    }
    Ok(samples)
}

/// Whether more samples would change nothing: the first that passes and the first that fails
/// come before them.
fn is_decided(samples: &[Sample], want: Want) -> bool {
    let passes = samples.iter().any(Sample::passes);
    let fails = samples.iter().any(Sample::fails);
    match want {
        Want::Sft => passes,
        Want::Dpo | Want::Both => passes && fails,
    }
}

/// Why no response becomes data; `None` if one could.
pub(crate) fn why_nothing(samples: &[Sample], want: Want) -> Option<&'static str> {
    let (passes, fails) = (
        samples.iter().any(Sample::passes),
        samples.iter().any(Sample::fails),
    );
    if samples.iter().all(|sample| sample.unusable.is_some()) {
        let first = samples.first().and_then(|sample| sample.unusable);
        Some(first.unwrap_or("no_response"))
    } else if !passes && !fails {
        Some("no_verdict")
    } else if !passes {
        Some("no_response_passes")
    } else if !fails && want == Want::Dpo {
        Some("all_responses_pass")
    } else {
        None
    }
}
