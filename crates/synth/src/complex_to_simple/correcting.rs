//! Correction of an answer, constraint by constraint.

use super::settings::Correction;
use super::{Answer, Context, Task, usable};
use data::{Generate, Sampling};
use pipeline::{Llm, Stop};
use serde_json::{Value, json};
use verify::Constraint;
use verify::compose::Kind;

/// Temperature of attempts after the first, which the prompt's own has not led to anything.
const RETRY_TEMPERATURE: f32 = 0.7;
/// Words of a corrector about its own work, at the beginning of an answer, in lower case.
const CHATTER: [&str; 8] = [
    "here is the revised",
    "here's the revised",
    "here is the corrected",
    "here's the corrected",
    "revised answer",
    "revised response",
    "corrected answer",
    "the response does not need",
];
/// What stands before the answer in the published form.
const MARKER: &str = "revised response";

/// An answer and what became of it, step by step.
pub(super) struct Chain {
    /// The student's answer, and the answer after each step that was kept.
    pub(super) answers: Vec<Answer>,
    /// The constraint that each step was about.
    pub(super) steps: Vec<usize>,
}

impl Chain {
    pub(super) fn new(start: Answer) -> Self {
        Self {
            answers: vec![start],
            steps: Vec::new(),
        }
    }

    /// As far as it has come.
    pub(super) fn last(&self) -> &Answer {
        self.answers.last().expect("it begins with an answer")
    }

    fn push(&mut self, step: usize, answer: Answer) {
        self.steps.push(step);
        self.answers.push(answer);
    }
}

/// Has the teacher correct the failed constraints one by one.
pub(super) async fn correct(
    task: &Task,
    start: Answer,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Chain, Stop> {
    match context.settings.correction {
        Correction::Checked => checked(task, start, context, llm).await,
        Correction::AsPublished => as_published(task, start, context, llm).await,
    }
}

/// Until all constraints hold, or none of those that fail can be corrected. A step is kept if
/// its constraint holds after it and each constraint that held before holds still; else it is
/// undone and tried again. What could not be corrected is tried once more after a step that was
/// kept, and so the number of failed constraints falls from step to step.
async fn checked(
    task: &Task,
    start: Answer,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Chain, Stop> {
    let mut chain = Chain::new(start);
    let mut given_up: Vec<usize> = Vec::new();
    while let Some(target) = next(task, chain.last(), &given_up) {
        match corrected(task, (chain.last(), target), context, llm).await? {
            Some(better) => {
                chain.push(target, better);
                given_up.clear();
            }
            None => given_up.push(target),
        }
    }
    Ok(chain)
}

/// The failed constraint to correct next.
fn next(task: &Task, answer: &Answer, given_up: &[usize]) -> Option<usize> {
    let open = answer.failed().filter(|index| !given_up.contains(index));
    open.min_by_key(|index| (rank(&task.constraints[*index]), *index))
}

/// What is corrected first: what rewrites the whole text, then what it is made of, then its
/// letters and marks, and last what stands at its ends, which any other change would undo.
fn rank(constraint: &Constraint) -> u8 {
    match Kind::of(constraint) {
        Kind::ResponseLanguage | Kind::TwoResponses | Kind::ConstrainedResponse => 0,
        Kind::NumberParagraphs
        | Kind::NthParagraphFirstWord
        | Kind::MultipleSections
        | Kind::NumberBulletLists => 1,
        Kind::NumberSentences | Kind::NumberWords => 2,
        Kind::Existence
        | Kind::Frequency
        | Kind::ForbiddenWords
        | Kind::NumberPlaceholders
        | Kind::NumberHighlightedSections => 3,
        Kind::LetterFrequency => 4,
        Kind::EnglishCapital | Kind::EnglishLowercase | Kind::CapitalWordFrequency => 5,
        Kind::NoComma => 6,
        Kind::Title | Kind::Postscript | Kind::EndChecker => 7,
        Kind::JsonFormat | Kind::Quotation | Kind::RepeatPrompt => 8,
    }
}

/// One constraint corrected, with nothing else broken; `None` if no attempt does it.
async fn corrected(
    task: &Task,
    (before, target): (&Answer, usize),
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Option<Answer>, Stop> {
    let found = before.verdicts[target].reason.as_deref();
    let variables = json!({
        "instruction": task.instruction, "constraints": task.texts,
        "failed": task.texts[target], "found": found.unwrap_or_default(),
        "response": before.text,
    });
    for attempt in 0..context.settings.tries {
        // Equal texts and attempts are the same call: what is tried once more is drawn anew.
        let place = attempt + context.settings.tries * target;
        let mut request = request(&variables, llm.seed("correct", place), context)?;
        if attempt > 0 && request.sampling.temperature < RETRY_TEMPERATURE {
            request.sampling = Sampling {
                temperature: RETRY_TEMPERATURE,
                ..request.sampling
            };
        }
        llm.count("correct.calls", 1);
        let answer = llm.generate("correct", "correct", request).await?;
        let text = match usable(&answer) {
            Ok(text) => text,
            Err(fault) => {
                llm.count(&format!("correct.{fault}"), 1);
                continue;
            }
        };
        let opening: String = text.chars().take(48).collect::<String>().to_lowercase();
        if text == before.text {
            llm.count("correct.unchanged", 1);
        } else if CHATTER.iter().any(|chatter| opening.starts_with(chatter)) {
            llm.count("correct.chatter", 1);
        } else {
            let after = Answer::judged(text, task);
            if !after.holds(target) {
                llm.count("correct.missed", 1);
            } else if before.held().any(|index| !after.holds(index)) {
                llm.count("correct.undone", 1);
            } else {
                llm.count("correct.kept", 1);
                return Ok(Some(after));
            }
        }
    }
    Ok(None)
}

/// Each constraint that failed at first, once, in the order of the instruction; what the
/// teacher writes is kept unseen.
async fn as_published(
    task: &Task,
    start: Answer,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Chain, Stop> {
    let failed: Vec<usize> = start.failed().collect();
    let mut chain = Chain::new(start);
    for target in failed {
        let before = chain.last();
        let variables = json!({"failed": task.texts[target], "response": before.text});
        let request = request(&variables, llm.seed("correct", target), context)?;
        llm.count("correct.calls", 1);
        let answer = llm.generate("correct", "correct", request).await?;
        let Some(text) = after_marker(&answer.text) else {
            llm.count("correct.unparsed", 1);
            continue;
        };
        let after = Answer::judged(text.to_owned(), task);
        if !after.holds(target) {
            llm.count("correct.missed", 1);
        }
        let broken = before.held().filter(|index| !after.holds(*index)).count();
        llm.count("correct.broken", broken as u64);
        chain.push(target, after);
    }
    Ok(chain)
}

/// What follows the published form's last marker. An answer without any marker is the revised
/// response itself if there is no analysis in it either.
fn after_marker(answer: &str) -> Option<&str> {
    let lower = answer.to_ascii_lowercase();
    let text = match lower.find(MARKER) {
        Some(at) => {
            let rest = &answer[at + MARKER.len()..];
            rest.trim_start_matches(['-', ':', '*', ' '])
        }
        None if lower.contains("analysis") => return None,
        None => answer,
    };
    Some(text.trim()).filter(|text| !text.is_empty())
}

fn request(variables: &Value, seed: u64, context: &Context) -> Result<Generate, Stop> {
    let id = context.settings.correction.prompt();
    context.prompts.ask(id, variables, seed, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_form_is_read() {
        for (answer, expected) in [
            (
                "---analysis---:\nx\n---revised response---:\nA b.\n",
                Some("A b."),
            ),
            ("Analysis: x\nRevised Response: A b.", Some("A b.")),
            ("A b.", Some("A b.")),
            ("---analysis---: it is fine", None),
            ("---revised response---:\n\n", None),
            ("", None),
        ] {
            assert_eq!(after_marker(answer), expected, "{answer}");
        }
    }
}
