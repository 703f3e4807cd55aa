//! From Complex to Simple (arXiv 2404.15846): from a real prompt and rule constraints to an
//! answer that satisfies all of them, and to pairs along the way to it.
//!
//! [`run`] is the recipe; its parts are in the order of the paper:
//! constraints → instruction → the student's answer → rule check → correction → data.

mod correcting;
mod drawing;
mod phrasing;
mod records;
mod settings;

pub use records::Admission;
pub use settings::{
    Correction, Drawing, Keywords, Parameters, Rewrite, Settings, SettingsError, Variant,
};

use crate::answers::fault;
use crate::filters::{Contamination, language_of};
use crate::prompts::PromptSet;
use correcting::{Chain, correct};
use data::{Completion, Generate, Message};
use pipeline::{Llm, Stop, reject};
use serde_json::json;
use verify::compose::Material;
use verify::{Constraint, Verdict, strict};

/// Name of its settings, its prompts and its one phase.
pub const NAME: &str = "complex-to-simple";
/// Name and version; raised when what becomes of a row changes.
pub const RECIPE: &str = "complex-to-simple 2";
/// Roles that may have a model of their own: the student and the teacher first.
pub const ROLES: [&str; 4] = ["respond", "correct", "keywords", "rewrite"];

/// Answers of the student drawn together.
const WAVE: usize = 2;

/// What a run of the recipe is made of.
#[derive(Debug, Clone)]
pub struct Context {
    /// What is said.
    pub prompts: PromptSet,
    /// What can be set.
    pub settings: Settings,
    /// Benchmarks that instructions must not repeat.
    pub contamination: Contamination,
}

/// An instruction with constraints.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// Turns before it.
    history: Vec<Message>,
    /// Those that were added, then those that the seed itself demands.
    constraints: Vec<Constraint>,
    /// Each constraint in words.
    texts: Vec<String>,
    /// How many of them are the seed's own.
    own: usize,
    /// The whole.
    instruction: String,
}

/// An answer with the rules' verdicts, one for each constraint of its task.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    text: String,
    verdicts: Vec<Verdict>,
}

/// Takes one seed, the conversation up to a user's turn, through the recipe.
///
/// # Errors
/// The stage and reason for which the row is rejected, or that it has to wait.
pub async fn run(seed: &[Message], llm: &Llm<'_>, context: &Context) -> Result<(), Stop> {
    let (last, history) = read(seed, context)?;
    let task = constrain(last, history, context, llm).await?;
    if context.settings.variant == Variant::Generation {
        return generate(&task, context, llm).await;
    }
    let answers = respond(&task, context, llm).await?;
    let chain = match answers.iter().find(|answer| answer.holds_all()) {
        Some(good) => Chain::new(good.clone()),
        None => correct(&task, best(&answers), context, llm).await?,
    };
    match context.settings.correction {
        Correction::Checked => select(&task, &answers, &chain, context, llm),
        Correction::AsPublished => select_as_published(&task, &chain, context, llm),
    }
}

/// The text of the seed's last turn, and the turns before it.
fn read<'a>(seed: &'a [Message], context: &Context) -> Result<(&'a str, &'a [Message]), Stop> {
    let Some((last, history)) = seed.split_last().filter(|(last, _)| last.role == "user") else {
        let detail = "the last turn is not the user's";
        return Err(reject("read", "no_user_turn", detail));
    };
    let text = last.content.trim();
    if text.is_empty() {
        return Err(reject("read", "empty", "the user's turn is empty"));
    }
    let wanted = &context.settings.language;
    if !wanted.is_empty() {
        let found = language_of(text).unwrap_or_default();
        if found != *wanted {
            return Err(reject("read", "other_language", format!("`{found}`")));
        }
    }
    Ok((text, history))
}

/// The paper's first step: constraints that go together, and the seed with them in words.
async fn constrain(
    seed: &str,
    history: &[Message],
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Task, Stop> {
    let settings = &context.settings;
    let keywords = phrasing::keywords(seed, context, llm).await?;
    let keywords: Vec<&str> = keywords.iter().map(String::as_str).collect();
    let material = Material {
        prompt: Some(seed),
        keywords: &keywords,
    };
    let drawn = drawing::draw(&material, llm.seed("constrain", 0), settings);
    let count = drawn.added.len();
    if count == 0 || count < settings.fewest && settings.drawing == Drawing::Compatible {
        let detail = format!("{count} constraints go together");
        return Err(reject("constrain", "too_few", detail));
    }
    let mut task = phrasing::phrase((history, seed), drawn.added, context, llm).await?;
    for (constraint, text) in drawn.own {
        task.constraints.push(constraint);
        task.texts.push(text);
        task.own += 1;
    }
    if context.contamination.contains(&task.instruction) {
        let detail = "it repeats a benchmark's prompt";
        return Err(reject("constrain", "contaminated", detail));
    }
    Ok(task)
}

/// Answers of the student, checked by rule; no more than decide the row.
async fn respond(task: &Task, context: &Context, llm: &Llm<'_>) -> Result<Vec<Answer>, Stop> {
    let settings = &context.settings;
    let request = respond_request(task, llm.seed("respond", 0), context)?;
    let (mut answers, mut fault) = (Vec::<Answer>::new(), "");
    let mut drawn = 0;
    while drawn < settings.samples && !decided(&answers, settings.variant) {
        let wave = drawn..(drawn + WAVE).min(settings.samples);
        drawn = wave.end;
        for completion in llm.samples("respond", "respond", &request, wave).await? {
            match usable(&completion) {
                Ok(text) => answers.push(Answer::judged(text, task)),
                Err(name) => {
                    llm.count(&format!("respond.{name}"), 1);
                    fault = name;
                }
            }
        }
    }
    if answers.is_empty() {
        return Err(reject("respond", fault, format!("{drawn} answers")));
    }
    let satisfied: usize = answers.iter().map(|answer| answer.held().count()).sum();
    llm.count(
        "respond.constraints",
        (answers.len() * task.constraints.len()) as u64,
    );
    llm.count("respond.constraints_satisfied", satisfied as u64);
    let right = answers.iter().filter(|answer| answer.holds_all()).count();
    llm.count("select.responses", answers.len() as u64);
    llm.count("select.passing", right as u64);
    Ok(answers)
}

/// Whether more answers would change nothing.
fn decided(answers: &[Answer], variant: Variant) -> bool {
    let good = answers.iter().any(Answer::holds_all);
    let bad = answers.iter().any(|answer| !answer.holds_all());
    good && (bad || variant != Variant::Contrastive)
}

/// The answer with the fewest faults, the first of them.
fn best(answers: &[Answer]) -> Answer {
    let best = answers.iter().min_by_key(|answer| answer.failed().count());
    best.cloned().expect("`respond` gives an answer or rejects")
}

/// The data of a row whose last answer satisfies everything: that answer, and pairs of it with
/// each answer before it, or with the answers of the student that fail where one was right at
/// once.
fn select(
    task: &Task,
    answers: &[Answer],
    chain: &Chain,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<(), Stop> {
    let chosen = chain.last();
    if !chosen.holds_all() {
        let failed = chosen.failed().map(|index| task.constraints[index].id());
        let failed: Vec<&str> = failed.collect();
        return Err(reject("correct", "not_corrected", failed.join(", ")));
    }
    records::response(task, chosen, &chain.steps, context, llm);
    let before = &chain.answers[..chain.steps.len()];
    let rejected: Vec<(Option<usize>, &Answer)> = if before.is_empty() {
        llm.count("select.right_at_once", 1);
        let failing = answers.iter().filter(|answer| !answer.holds_all());
        failing.map(|answer| (None, answer)).collect()
    } else {
        let steps = chain.steps.iter().map(|step| Some(*step));
        steps.zip(before).collect()
    };
    if context.settings.variant == Variant::Contrastive {
        for (index, (step, rejected)) in rejected.into_iter().enumerate() {
            records::pair(task, (chosen, rejected), (index, step), context, llm);
            llm.count("select.pairs", 1);
        }
    }
    Ok(())
}

/// The data as the released code makes it: the last answer, whatever it satisfies, over each
/// one before it.
fn select_as_published(
    task: &Task,
    chain: &Chain,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<(), Stop> {
    if chain.steps.is_empty() && chain.last().holds_all() {
        return Err(reject(
            "select",
            "nothing_failed",
            "there is nothing to correct",
        ));
    }
    let chosen = chain.last();
    let name = if chosen.holds_all() {
        "select.chosen_right"
    } else {
        "select.chosen_wrong"
    };
    llm.count(name, 1);
    records::response(task, chosen, &chain.steps, context, llm);
    if context.settings.variant == Variant::Contrastive {
        let pairs = chain.steps.iter().zip(&chain.answers).enumerate();
        for (index, (step, rejected)) in pairs.filter(|(_, (_, one))| one.text != chosen.text) {
            records::pair(task, (chosen, rejected), (index, Some(*step)), context, llm);
            llm.count("select.pairs", 1);
        }
    }
    Ok(())
}

/// The paper's variant Generation: the teacher answers itself. As published the first answer
/// is taken as it is.
async fn generate(task: &Task, context: &Context, llm: &Llm<'_>) -> Result<(), Stop> {
    let settings = &context.settings;
    let mut failure = ("no_answer_satisfies", String::new());
    for attempt in 0..settings.tries {
        let request = respond_request(task, llm.seed("generate", attempt), context)?;
        let completion = llm.generate("correct", "generate", request).await?;
        let answer = match usable(&completion) {
            Ok(text) => Answer::judged(text, task),
            Err(fault) => {
                llm.count(&format!("generate.{fault}"), 1);
                failure.0 = fault;
                continue;
            }
        };
        if answer.holds_all() || settings.correction == Correction::AsPublished {
            records::response(task, &answer, &[], context, llm);
            return Ok(());
        }
        let failed: Vec<&str> = answer
            .failed()
            .map(|index| task.constraints[index].id())
            .collect();
        failure = ("no_answer_satisfies", failed.join(", "));
    }
    Err(reject("generate", failure.0, failure.1))
}

/// The instruction as its only turn, after the conversation so far.
fn respond_request(task: &Task, seed: u64, context: &Context) -> Result<Generate, Stop> {
    let variables = json!({"query": task.instruction});
    let id = "complex-to-simple/respond";
    context
        .prompts
        .ask_after(&task.history, id, variables, seed)
}

impl Task {
    fn prompt(&self) -> Vec<Message> {
        let mut messages = self.history.clone();
        messages.push(Message::new("user", self.instruction.as_str()));
        messages
    }
}

impl Answer {
    /// The reference's strict verdicts.
    fn judged(text: String, task: &Task) -> Self {
        let verdicts = strict(&task.constraints, &text);
        Self { text, verdicts }
    }

    fn holds(&self, index: usize) -> bool {
        self.verdicts[index].followed
    }

    fn holds_all(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.followed)
    }

    fn held(&self) -> impl Iterator<Item = usize> {
        (0..self.verdicts.len()).filter(|index| self.holds(*index))
    }

    fn failed(&self) -> impl Iterator<Item = usize> {
        (0..self.verdicts.len()).filter(|index| !self.holds(*index))
    }
}

/// The text of an answer; the fault of one that cannot become data.
pub(crate) fn usable(completion: &Completion) -> Result<String, &'static str> {
    let text = completion.text.trim();
    match fault(completion) {
        Some(fault) => Err(fault),
        None => Ok(text.to_owned()),
    }
}
