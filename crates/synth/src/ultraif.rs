//! UltraIF (arXiv 2502.04153): from a real prompt to a verified response and a pair.
//!
//! [`run`] is the recipe; its parts are in the order of the paper:
//! decompose → question → composer rows → compose → respond → evaluate → select.

mod agreement;
mod answering;
mod composing;
mod lineage;
mod outputs;
mod settings;

pub use agreement::{Agreement, agreement};
pub use settings::{Composer, Evaluator, Rounds, Selection, Settings, SettingsError, Stage, Want};

use crate::filters::{Contamination, language_of};
use crate::judging::Criterion;
use crate::outputs::{SENTENCE_CHARS, is_cut, is_question, parse_whole, rewrite_limit};
use crate::prompts::PromptSet;
use crate::rules::rule_for;
use answering::respond_and_evaluate;
use composing::{compose, composer_input};
use data::Message;
use futures::future::try_join_all;
use outputs::{Augmented, Decomposed, Question, decompose_grammar, question_grammar};
use pipeline::{Llm, Stop, reject};
use serde_json::{Value, json};

/// Name of its settings, its prompts and its one phase.
pub const NAME: &str = "ultraif";
/// Name and version; raised when what becomes of a row changes.
pub const RECIPE: &str = "ultraif 2";
/// Roles that may have a model of their own.
pub const ROLES: [&str; 5] = ["decompose", "question", "compose", "respond", "judge"];
/// Verdicts of both evaluators, where both judge.
pub const AGREEMENT_FILE: &str = crate::judging::AGREEMENT_FILE;

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

/// An instruction on its way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Instruction {
    /// Turns before it.
    pub(crate) history: Vec<Message>,
    pub(crate) query: String,
    /// What its answers are judged by.
    pub(crate) criteria: Vec<Criterion>,
    /// Constraints added so far.
    pub(crate) added: usize,
}

/// The criterion of a constraint of `request`, as far as it stands in words of its own.
fn criterion(
    constraint: Option<&str>,
    question: String,
    request: &str,
    settings: &Settings,
) -> Criterion {
    let rule = (settings.rule_judge || settings.evaluator == Evaluator::Rules)
        .then(|| rule_for(constraint, &question, request));
    Criterion {
        question,
        rule: rule.flatten(),
    }
}

impl Settings {
    /// Files that a run with these settings writes.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        if self.does(Stage::Composer) {
            files.push("composer.jsonl".to_owned());
        }
        if self.does(Stage::Evaluate) {
            if self.want != Want::Dpo {
                files.push("sft.jsonl".to_owned());
            }
            if self.want != Want::Sft {
                files.extend(
                    self.answered_after()
                        .iter()
                        .map(|round| self.pair_file(*round)),
                );
            }
            if self.evaluator == Evaluator::Both {
                files.push(AGREEMENT_FILE.to_owned());
            }
        } else if self.does(Stage::Respond) {
            files.push("responses.jsonl".to_owned());
        } else if self.does(Stage::Compose) {
            files.push("composed.jsonl".to_owned());
        } else if self.does(Stage::Decompose) {
            files.push("decomposed.jsonl".to_owned());
        }
        files
    }

    /// Pairs of one level; levels have files of their own, for one round of training each.
    fn pair_file(&self, round: usize) -> String {
        if self.levels.len() > 1 {
            format!("dpo_round{round}.jsonl")
        } else {
            "dpo.jsonl".to_owned()
        }
    }
}

/// Takes one seed, the conversation up to a user's turn, through the recipe.
///
/// # Errors
/// The stage and reason for which the row is rejected, or that it has to wait.
pub async fn run(seed: &[Message], llm: &Llm<'_>, context: &Context) -> Result<(), Stop> {
    let settings = &context.settings;
    let mut instruction = read(seed, context)?;
    if settings.does(Stage::Decompose) {
        let own = take_apart(&instruction, context, llm).await;
        if !settings.goes_on() {
            return own.map(drop);
        }
        match own {
            Ok(criteria) if settings.judge_own_constraints => instruction.criteria = criteria,
            // What is not judged is not missed.
            Err(Stop::Reject(why)) if !settings.judge_own_constraints => {
                llm.count(&format!("{}.{}", why.stage, why.reason), 1);
            }
            own => drop(own?),
        }
    }
    let instructions = if settings.does(Stage::Compose) {
        compose(&instruction, context, llm).await?
    } else {
        vec![instruction]
    };
    respond_and_evaluate(&instructions, context, llm).await
}

/// The seed as an instruction.
fn read(seed: &[Message], context: &Context) -> Result<Instruction, Stop> {
    let Some((last, history)) = seed.split_last().filter(|(last, _)| last.role == "user") else {
        return Err(reject(
            "read",
            "no_user_turn",
            "the last turn is not the user's",
        ));
    };
    if last.content.trim().is_empty() {
        return Err(reject("read", "empty", "the user's turn is empty"));
    }
    let wanted = &context.settings.language;
    if !wanted.is_empty() {
        let found = language_of(&last.content).unwrap_or_default();
        if found != *wanted {
            return Err(reject("read", "other_language", format!("`{found}`")));
        }
    }
    Ok(Instruction {
        history: history.to_vec(),
        query: last.content.clone(),
        criteria: Vec::new(),
        added: 0,
    })
}

/// Section 2.1: the seed's own constraints, as criteria and as rows for a composer.
async fn take_apart(
    instruction: &Instruction,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Vec<Criterion>, Stop> {
    let settings = &context.settings;
    let parts = decompose(instruction, context, llm).await?;
    let questions = question(instruction, &parts, context, llm).await?;
    let rows = composer_rows(instruction, &parts, &questions, context, llm);
    if rows == 0 && settings.does(Stage::Composer) && !settings.goes_on() {
        return Err(reject("composer", "no_constraints", ""));
    }
    let judged = parts.constraints.iter().zip(questions);
    let criteria = judged.filter_map(|(part, question)| {
        let constraint = Some(part.constraint.as_str());
        Some(criterion(
            constraint,
            question?,
            &instruction.query,
            settings,
        ))
    });
    Ok(criteria.collect())
}

/// Section 2.1: the bare query and its typed constraints.
async fn decompose(
    instruction: &Instruction,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Decomposed, Stop> {
    let variables = json!({"prompt": instruction.query});
    let grammar = decompose_grammar(&instruction.query);
    let request = context
        .prompts
        .ask("ultraif/decompose", variables, 0, Some(grammar))?;
    let answer = llm.generate("decompose", "decompose", request).await?;
    let mut parts = parse_whole::<Decomposed>(&answer, "decompose")?;
    if !parts.complex {
        parts.constraints.clear();
    }
    // A request that did not change lost no constraint, and one that was cut lost too much.
    let limit = rewrite_limit(&instruction.query);
    parts.constraints.retain(|one| {
        let simplified = one.simplified_query.trim();
        let whole =
            !is_cut(&one.simplified_query, limit) && !is_cut(&one.constraint, SENTENCE_CHARS);
        whole && !simplified.is_empty() && simplified != instruction.query.trim()
    });
    llm.count("decompose.constraints", parts.constraints.len() as u64);
    if !context.settings.does(Stage::Question) {
        llm.record(
            "decomposed.jsonl",
            json!({
                "id": llm.row_id(), "prompt": instruction.query,
                "basic_query": parts.basic_query, "constraints": parts.constraints,
                "meta": lineage::of_instruction(instruction, context, llm),
            }),
        );
    }
    Ok(parts)
}

/// Section 2.1: a question for each constraint; `None` where there is nothing to ask.
async fn question(
    instruction: &Instruction,
    parts: &Decomposed,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Vec<Option<String>>, Stop> {
    if !context.settings.does(Stage::Question) {
        return Ok(Vec::new());
    }
    let asked = parts.constraints.iter().map(|one| async move {
        let variables = json!({"prompt": instruction.query, "constraint": one.constraint});
        let request =
            context
                .prompts
                .ask("ultraif/question", variables, 0, Some(question_grammar()))?;
        let answer = llm.generate("question", "question", request).await?;
        // One constraint without a question does not end the row.
        let question = parse_whole::<Question>(&answer, "question").ok();
        let question = question.map(|one| one.question.trim().to_owned());
        let asks = |text: &str| match context.settings.compose_rounds {
            Rounds::Checked => is_question(text),
            Rounds::AsPublished => !text.is_empty(),
        };
        let question = question.filter(|text| asks(text) && !is_cut(text, SENTENCE_CHARS));
        if question.is_none() {
            llm.count("question.none", 1);
        }
        Ok(question)
    });
    try_join_all(asked).await
}

/// Section 2.1: what an UltraComposer learns from, the way back from simpler to harder.
fn composer_rows(
    instruction: &Instruction,
    parts: &Decomposed,
    questions: &[Option<String>],
    context: &Context,
    llm: &Llm<'_>,
) -> usize {
    if !context.settings.does(Stage::Composer) {
        return 0;
    }
    let mut rows = 0;
    for (part, question) in parts.constraints.iter().zip(questions) {
        let Some(question) = question else { continue };
        let user = composer_input(&instruction.published_history(), &part.simplified_query);
        let augmented = Augmented {
            query: instruction.query.clone(),
            question: vec![question.clone()],
        };
        let assistant = serde_json::to_string(&augmented).expect("our own types have string keys");
        let id = format!("{}#{rows}", llm.row_id());
        llm.record(
            "composer.jsonl",
            json!({
                "id": id,
                "messages": [Message::new("user", user), Message::new("assistant", assistant)],
                "meta": lineage::of_composer_row(part, context, llm),
            }),
        );
        rows += 1;
    }
    llm.count("composer.rows", rows as u64);
    rows
}

impl Instruction {
    fn as_messages(&self) -> Vec<Message> {
        let mut messages = self.history.clone();
        messages.push(Message::new("user", self.query.as_str()));
        messages
    }

    fn as_record(&self, id: &str) -> Value {
        json!({"id": id, "prompt": self.as_messages(), "questions": self.questions()})
    }

    fn questions(&self) -> Vec<&str> {
        let criteria = self.criteria.iter();
        criteria.map(|one| one.question.as_str()).collect()
    }

    /// Earlier turns for people and judges; empty if there are none.
    pub(crate) fn shown_history(&self) -> String {
        let turns = self.history.iter();
        let lines: Vec<String> = turns
            .map(|turn| format!("{}: {}", turn.role, turn.content))
            .collect();
        lines.join("\n")
    }

    /// Earlier turns as the published UltraComposer was shown them: `[]` if there are none.
    pub(crate) fn published_history(&self) -> String {
        let turns: Vec<Value> = self
            .history
            .iter()
            .map(|turn| json!({"from": turn.role, "value": turn.content}))
            .collect();
        Value::Array(turns).to_string()
    }
}
