//! The durable handle: what a recipe asks through.

use crate::call_log::{CallKey, CallLog, LoggedCall, call_key, pack};
use crate::error::PipelineError;
use data::{
    Completion, Generate, Generator, Outcome, Record, Rejection, RequestError, Score, Scores,
    Usage, Verdict,
};
use futures::channel::oneshot;
use futures::future::try_join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Who answers the calls of a role.
#[derive(Clone)]
pub struct Target {
    /// `None` if its model is not loaded now: rows that need it are parked until it is.
    pub generator: Option<Arc<dyn Generator>>,
    /// Digest of everything that decides the answers: weights and what they are held as,
    /// tokenizer, template, adapter.
    pub identity: String,
    /// Adapter its requests use.
    pub adapter: Option<String>,
}

/// Who answers whom, by role.
#[derive(Clone)]
pub struct Roles {
    everybody: Target,
    others: BTreeMap<String, Target>,
}

impl Roles {
    /// One target for every role.
    pub fn new(everybody: Target) -> Self {
        Self {
            everybody,
            others: BTreeMap::new(),
        }
    }

    /// The same, but `target` answers the calls of `role`.
    #[must_use]
    pub fn with(mut self, role: &str, target: Target) -> Self {
        self.others.insert(role.to_owned(), target);
        self
    }

    /// Who answers the calls of `role`.
    pub fn target(&self, role: &str) -> &Target {
        self.others.get(role).unwrap_or(&self.everybody)
    }
}

/// Why a recipe did not reach its end. Recipes make the first kind with [`reject`] and hand
/// on the others with `?`.
#[derive(Debug)]
pub enum Stop {
    /// The row is rejected.
    Reject(Rejection),
    /// The row waits for a model that is not loaded, or for the next invocation.
    Wait(Wait),
}

/// Why a row has no outcome yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The model of one of its roles is not loaded.
    Model,
    /// The run is being stopped, or its engine has.
    Interrupted,
    /// A call failed for no fault of its own; the next invocation asks again.
    Failed,
}

/// Ends a row: rejected at `stage` for `reason`.
pub fn reject(stage: &str, reason: &str, detail: impl Into<String>) -> Stop {
    Stop::Reject(Rejection::new(stage, reason, detail))
}

/// Calls of one stage in one invocation, and what they cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, serde::Deserialize)]
pub struct StageUse {
    /// Calls that a model answered now.
    pub asked: u64,
    /// Calls that were answered by the log.
    pub reused: u64,
    /// Prompt tokens of the calls asked.
    pub prompt_tokens: u64,
    /// Of these, tokens whose K and V were there already.
    pub cached_tokens: u64,
    /// Tokens written by the calls asked.
    pub completion_tokens: u64,
}

impl std::ops::AddAssign for StageUse {
    fn add_assign(&mut self, other: Self) {
        self.asked += other.asked;
        self.reused += other.reused;
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.completion_tokens += other.completion_tokens;
    }
}

/// What all rows of a phase share; everything runs on one thread.
pub(crate) struct Shared<'a> {
    pub(crate) log: &'a CallLog,
    pub(crate) roles: &'a Roles,
    pub(crate) run_seed: u64,
    /// Finished calls that the next commit writes, with who waits for it.
    pub(crate) unlogged: RefCell<Vec<(LoggedCall, oneshot::Sender<()>)>>,
    pub(crate) stages: RefCell<BTreeMap<String, StageUse>>,
    /// The first failure of the log; it ends the run.
    pub(crate) failure: RefCell<Option<PipelineError>>,
    /// Calls on their way.
    pub(crate) in_flight: Cell<usize>,
    /// Calls that failed for no fault of their own.
    pub(crate) failed: RefCell<FailedCalls>,
}

/// Calls that failed, and may succeed if they are asked again.
#[derive(Debug, Clone, Default)]
pub(crate) struct FailedCalls {
    /// Since the last call that succeeded.
    pub(crate) in_a_row: u64,
    /// Why the last one failed.
    pub(crate) last: Option<String>,
    /// Whether the engine answers no calls any more.
    pub(crate) engine_stopped: bool,
}

impl<'a> Shared<'a> {
    pub(crate) fn new(log: &'a CallLog, roles: &'a Roles, run_seed: u64) -> Self {
        Self {
            log,
            roles,
            run_seed,
            unlogged: RefCell::default(),
            stages: RefCell::default(),
            failure: RefCell::default(),
            in_flight: Cell::default(),
            failed: RefCell::default(),
        }
    }

    /// What becomes of a row whose call at `stage` failed.
    fn request_failed(&self, stage: &str, error: &RequestError) -> Stop {
        let reason = match error {
            RequestError::EngineStopped => {
                self.failed.borrow_mut().engine_stopped = true;
                return Stop::Wait(Wait::Interrupted);
            }
            RequestError::Forward(_) => {
                let mut failed = self.failed.borrow_mut();
                failed.in_a_row += 1;
                failed.last = Some(error.to_string());
                return Stop::Wait(Wait::Failed);
            }
            RequestError::ContextOverflow { .. } => "context_overflow",
            RequestError::KvPoolTooSmall { .. } => "kv_pool_too_small",
            RequestError::NotANumber { .. } => "nan_logits",
            RequestError::Invalid(_) => "invalid_request",
            RequestError::Grammar(_) => "grammar",
        };
        reject(stage, reason, error.to_string())
    }
}

/// What a recipe gets for one row: every call is looked up in the log by its content before
/// it is asked, and logged before its answer is used.
pub struct Llm<'a> {
    shared: &'a Shared<'a>,
    row: &'a str,
    records: RefCell<Vec<Record>>,
    counts: RefCell<BTreeMap<String, u64>>,
}

impl<'a> Llm<'a> {
    pub(crate) fn new(shared: &'a Shared<'a>, row: &'a str) -> Self {
        Self {
            shared,
            row,
            records: RefCell::default(),
            counts: RefCell::default(),
        }
    }

    /// One completion of `request`, which must ask for one (`n` = 1). The adapter is that of
    /// the role's target.
    ///
    /// # Errors
    /// A rejection at `stage` if the request cannot be answered (`context_overflow`,
    /// `invalid_request`, …); a row that has to wait, because its model is not loaded, the run
    /// is being stopped, or the forward pass failed.
    pub async fn generate(
        &self,
        role: &str,
        stage: &str,
        request: Generate,
    ) -> Result<Completion, Stop> {
        if request.n != 1 {
            return Err(reject(
                stage,
                "invalid_request",
                "one call is one completion",
            ));
        }
        let target = self.shared.roles.target(role);
        let request = Generate {
            adapter: target.adapter.clone(),
            ..request
        };
        let call = Call {
            role,
            stage,
            key: call_key("generate", &target.identity, &request),
        };
        self.durable(
            call,
            &request,
            |completion: &Completion| completion.usage,
            async |generator| {
                let completions = generator.generate(request.clone()).await?;
                completions
                    .into_iter()
                    .next()
                    .ok_or(RequestError::EngineStopped)
            },
        )
        .await
    }

    /// Samples `range` of `request`, in order. Each is a call of its own with the seed
    /// [`Generate::sample_seed`]`(request.seed, index)`, asked together so that they share
    /// one prefill; samples 0..2 and then 2..5 are the samples 0..5.
    ///
    /// # Errors
    /// As [`Llm::generate`].
    pub async fn samples(
        &self,
        role: &str,
        stage: &str,
        request: &Generate,
        range: Range<usize>,
    ) -> Result<Vec<Completion>, Stop> {
        let calls = range.map(|index| {
            let one = Generate {
                n: 1,
                seed: Generate::sample_seed(request.seed, index),
                ..request.clone()
            };
            async move {
                let completion = self.generate(role, stage, one).await?;
                Ok(Completion {
                    index,
                    ..completion
                })
            }
        });
        try_join_all(calls).await
    }

    /// Label probabilities; a suffix with one that is not a number has no mass.
    ///
    /// # Errors
    /// As [`Llm::generate`].
    pub async fn score(&self, role: &str, stage: &str, request: Score) -> Result<Scores, Stop> {
        let target = self.shared.roles.target(role);
        let request = Score {
            adapter: target.adapter.clone(),
            ..request
        };
        let call = Call {
            role,
            stage,
            key: call_key("score", &target.identity, &request),
        };
        self.durable(
            call,
            &request,
            |scores: &Scores| scores.usage,
            async |generator| generator.score(request.clone()).await.map(finite),
        )
        .await
    }

    /// A seed that depends on the run's seed, this row's id, the stage and the index: never
    /// on order.
    pub fn seed(&self, stage: &str, index: usize) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.shared.run_seed.to_le_bytes());
        for part in [self.row.as_bytes(), stage.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.update(&(index as u64).to_le_bytes());
        let first: [u8; 8] = hasher.finalize().as_bytes()[..8]
            .try_into()
            .expect("a hash has 32 bytes");
        u64::from_le_bytes(first)
    }

    /// The row's id.
    pub fn row_id(&self) -> &str {
        self.row
    }

    /// Digest of who answers the calls of `role`.
    pub fn identity(&self, role: &str) -> &str {
        &self.shared.roles.target(role).identity
    }

    /// Adds a line to a file of the data; it stays even if the row is rejected later.
    pub fn record(&self, file: &str, value: serde_json::Value) {
        self.records.borrow_mut().push(Record {
            file: file.to_owned(),
            value,
        });
    }

    /// Adds to one of the run's counters.
    pub fn count(&self, name: &str, amount: u64) {
        *self.counts.borrow_mut().entry(name.to_owned()).or_default() += amount;
    }

    /// What became of the row.
    pub(crate) fn into_outcome(self, result: Result<(), Stop>) -> Result<Outcome, Wait> {
        let verdict = match result {
            Ok(()) => Verdict::Accepted,
            Err(Stop::Reject(rejection)) => Verdict::Rejected(rejection),
            Err(Stop::Wait(wait)) => return Err(wait),
        };
        Ok(Outcome {
            verdict,
            records: self.records.into_inner(),
            counts: self.counts.into_inner(),
        })
    }

    async fn durable<Q: Serialize, A: Serialize + DeserializeOwned>(
        &self,
        call: Call<'_>,
        request: &Q,
        usage: impl Fn(&A) -> Usage,
        ask: impl AsyncFnOnce(&dyn Generator) -> Result<A, RequestError>,
    ) -> Result<A, Stop> {
        let Call { role, stage, key } = call;
        match self.shared.log.find(&key) {
            Ok(Some(answer)) => {
                self.count_use(stage, |one| one.reused += 1);
                return Ok(answer);
            }
            Ok(None) => {}
            Err(error) => return Err(self.fail(error)),
        }
        let Some(generator) = &self.shared.roles.target(role).generator else {
            return Err(Stop::Wait(Wait::Model));
        };
        let started = Instant::now();
        self.shared.in_flight.update(|calls| calls + 1);
        let answer = ask(generator.as_ref()).await;
        self.shared.in_flight.update(|calls| calls - 1);
        let answer = answer.map_err(|error| self.shared.request_failed(stage, &error))?;
        self.shared.failed.borrow_mut().in_a_row = 0;
        let usage = usage(&answer);
        let (sender, logged) = oneshot::channel();
        let entry = LoggedCall {
            key,
            row: self.row.to_owned(),
            role: role.to_owned(),
            stage: stage.to_owned(),
            request: pack(request),
            reply: pack(&answer),
            usage,
            milliseconds: started.elapsed().as_secs_f64() * 1000.0,
        };
        self.shared.unlogged.borrow_mut().push((entry, sender));
        // The driver commits once all rows that can go on have; a failed commit drops the sender.
        logged.await.map_err(|_| Stop::Wait(Wait::Interrupted))?;
        self.count_use(stage, |one| {
            one.asked += 1;
            one.prompt_tokens += usage.prompt_tokens as u64;
            one.cached_tokens += usage.cached_tokens as u64;
            one.completion_tokens += usage.completion_tokens as u64;
        });
        Ok(answer)
    }

    fn count_use(&self, stage: &str, count: impl FnOnce(&mut StageUse)) {
        let mut stages = self.shared.stages.borrow_mut();
        match stages.get_mut(stage) {
            Some(one) => count(one),
            None => count(stages.entry(stage.to_owned()).or_default()),
        }
    }

    fn fail(&self, error: PipelineError) -> Stop {
        self.shared.failure.borrow_mut().get_or_insert(error);
        Stop::Wait(Wait::Interrupted)
    }
}

struct Call<'a> {
    role: &'a str,
    stage: &'a str,
    key: CallKey,
}

/// The log is JSON, which has no such numbers: where one is not finite, it is 0, and nothing
/// that was said with it has any mass.
fn finite(mut scores: Scores) -> Scores {
    for one in &mut scores.suffixes {
        let numbers = || one.probabilities.iter().chain([&one.mass]);
        if numbers().any(|number| !number.is_finite()) {
            one.mass = 0.0;
            let not_finite = one.probabilities.iter_mut().filter(|p| !p.is_finite());
            not_finite.for_each(|probability| *probability = 0.0);
        }
    }
    scores
}
