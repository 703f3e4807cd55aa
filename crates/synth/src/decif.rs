//! DecIF (arXiv 2505.13990): instruction data from nothing but a model.
//!
//! Two parts, joined by [`epochs`], each in the order of the paper:
//!
//! - [`expand`]: domains → requests → scenarios → personas, and constraints that only a reader
//!   can judge. These pools have to be whole before what is made of them.
//! - [`run`], for each item: constraints → instruction → contradictions found and resolved → criteria →
//!   responses → every criterion validated → a verified response and a pair.

mod answering;
mod combining;
mod conflicts;
mod criteria;
mod diversity;
mod instructing;
mod lineage;
mod outputs;
mod pools;
mod settings;
mod steps;

pub use combining::{Combined, combine};
pub use diversity::Diversity;
pub use outputs::{Scenario, Soft};
pub use pools::{Item, Pools, Put};
pub use settings::{
    Answers, Combination, Conflicts, Criteria, Evaluator, Settings, SettingsError, Want,
};
pub use steps::{Ask, Step, ask};

use crate::filters::Contamination;
use crate::prompts::PromptSet;
use answering::{respond, select};
use conflicts::resolve;
use criteria::decompose;
use instructing::instruct;
use pipeline::{Llm, Sourced, Stop, reject};

/// Name of the recipe, its prompts and its last phase.
pub const NAME: &str = "decif";
/// Name and version; raised when what becomes of a row changes.
pub const RECIPE: &str = "decif 1";
/// Roles that may have a model of their own: for the pools, for instructions and their repair,
/// for responses, for contradictions, criteria and verdicts.
pub const ROLES: [&str; 4] = ["meta", "instruct", "respond", "judge"];
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

/// Whether instructions for more items are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another epoch.
    Epoch,
    /// There are enough, or nothing more is to be tried.
    End,
}

/// Takes all items so far through [`run`]; says whether more are wanted.
pub type Instruct<'a, E> = dyn FnMut(&[Sourced<Item>]) -> Result<Next, E> + 'a;

/// The whole recipe: epochs of the pools, each followed by the instructions for all items so
/// far, until there are enough or the pools do not grow any more.
///
/// # Errors
/// What `put` and `instruct` say.
pub fn epochs<E>(
    pools: &mut Pools,
    put: &mut Put<'_, E>,
    instruct: &mut Instruct<'_, E>,
) -> Result<(), E> {
    let mut items = Vec::new();
    loop {
        let new = expand(pools, put)?;
        let exhausted = new.is_empty();
        items.extend(new);
        if instruct(&items)? == Next::End || exhausted {
            return Ok(());
        }
    }
}

/// Meta-decomposition: grows the pools by an epoch and gives what instructions are to be made
/// for. Nothing, once the model names no new request.
///
/// # Errors
/// What `put` says.
pub fn expand<E>(pools: &mut Pools, put: &mut Put<'_, E>) -> Result<Vec<Sourced<Item>>, E> {
    let domains = pools.domains(put)?;
    let requests = pools.requests(&domains, put)?;
    let scenarios = pools.scenarios(&requests, put)?;
    let people = pools.personas(&scenarios, put)?;
    if !people.is_empty() {
        pools.constraints(put)?;
    }
    Ok(pools.items(people))
}

/// Instruction synthesis and response construction: takes one item to a verified response.
///
/// # Errors
/// The stage and reason for which the row is rejected, or that it has to wait.
pub async fn run(item: &Item, llm: &Llm<'_>, context: &Context) -> Result<(), Stop> {
    let draft = instruct(item, context, llm).await?;
    let resolved = resolve(draft, context, llm).await?;
    if context.contamination.contains(&resolved.0.text) {
        return Err(reject(
            "instruction",
            "contaminated",
            "it repeats a benchmark's prompt",
        ));
    }
    let instruction = decompose(resolved, context, llm).await?;
    let samples = respond(&instruction, context, llm).await?;
    select(item, &instruction, &samples, context, llm)
}
