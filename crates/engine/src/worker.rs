//! The thread that owns the model: receive, schedule, compute, draw, commit. A device is given
//! the next step, wherever that can be decided, before the answers to the last are taken.
//!
//! Everything mutable lives here, so there is no lock. A request fails alone: its owner gets
//! the error, its sequences are cancelled and the step goes on.

mod step;

use crate::config::{EngineConfig, Overlap};
use crate::error::EngineError;
use crate::jobs::{GenerateJob, ScoreJob};
use crate::replicas::Gather;
use crate::scheduler::{Scheduler, SchedulerError};
use crate::sequence::{AdapterKey, Logits, NewSequence, Priority, SeqId};
use crate::stats::EngineStats;
use data::RequestError;
use model::{Adapter, AdapterId, CausalLm, KvPool};
use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;
use step::Flight;

/// What the handle asks of the thread.
pub(crate) enum Command {
    Generate(Box<GenerateJob>),
    Score(Box<ScoreJob>),
    LoadAdapter {
        name: String,
        adapter: Box<Adapter>,
        reply: Gather<()>,
    },
    UnloadAdapter {
        name: String,
        reply: Gather<()>,
    },
    Stats(Gather<EngineStats>),
}

/// Name of a request under way, in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct JobId(u64);

/// A request under way.
struct Entry {
    job: Job,
    adapter: Option<AdapterKey>,
    seqs: Vec<SeqId>,
}

enum Job {
    Generate(Box<GenerateJob>),
    Score(Box<ScoreJob>),
}

/// Which part of which request a sequence computes: a sample, or a part of a score.
#[derive(Debug, Clone, Copy)]
struct Owner {
    job: JobId,
    part: usize,
}

pub(crate) struct Worker {
    model: Box<dyn CausalLm + Send>,
    kv: KvPool,
    scheduler: Scheduler,
    inbox: Receiver<Command>,
    jobs: BTreeMap<JobId, Entry>,
    owners: HashMap<SeqId, Owner>,
    /// Adapters as requests name them; a key is never used twice, so that K/V made with one
    /// load of a name is never found by rows of another.
    adapters: HashMap<String, AdapterKey>,
    /// Every adapter that is in the model.
    loaded: BTreeMap<AdapterKey, AdapterId>,
    num_jobs: u64,
    num_loads: u64,
    stats: EngineStats,
    /// Whether steps may be given to the model ahead of the answers to the last.
    overlap: Overlap,
    /// The step whose answers are awaited, if one was given to a device.
    flight: Option<Flight>,
    /// When the last answers of a device came.
    landed: Instant,
}

impl Worker {
    /// Allocates the KV pool.
    pub(crate) fn new(
        model: Box<dyn CausalLm + Send>,
        config: &EngineConfig,
        inbox: Receiver<Command>,
    ) -> Result<Self, EngineError> {
        let scheduler = Scheduler::new(config.scheduler())?;
        let kv = model.kv_pool(config.num_blocks(), config.block_size, config.kv_type)?;
        let overlap = match model.draws_later() {
            true => config.overlap,
            false => Overlap::Off,
        };
        Ok(Self {
            model,
            kv,
            scheduler,
            inbox,
            jobs: BTreeMap::new(),
            owners: HashMap::new(),
            adapters: HashMap::new(),
            loaded: BTreeMap::new(),
            num_jobs: 0,
            num_loads: 0,
            stats: EngineStats::default(),
            overlap,
            flight: None,
            landed: Instant::now(),
        })
    }

    /// Serves requests until the handle is dropped.
    pub(crate) fn run(mut self) {
        while self.receive() {
            self.drop_canceled();
            let begin = Instant::now();
            let before = self.flight.take();
            let plan = match &before {
                None => self.scheduler.schedule(),
                Some(flight) => self.plan_ahead(flight),
            };
            match (plan, before) {
                (Some(plan), before) => self.step(plan, before),
                (None, Some(before)) => self.land(before),
                (None, None) => self.check_idle(),
            }
            self.stats.step_seconds += begin.elapsed().as_secs_f64();
        }
    }

    /// Takes in what has arrived, waiting for the first command if there is nothing to
    /// compute. False once the handle is gone.
    fn receive(&mut self) -> bool {
        if self.jobs.is_empty() && self.flight.is_none() {
            match self.inbox.recv() {
                Ok(command) => self.accept(command),
                Err(_) => return false,
            }
        }
        loop {
            match self.inbox.try_recv() {
                Ok(command) => self.accept(command),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Generate(job) => self.start_generate(job),
            Command::Score(job) => self.start_score(job),
            Command::LoadAdapter {
                name,
                adapter,
                reply,
            } => {
                reply.send(self.load_adapter(name, *adapter));
            }
            Command::UnloadAdapter { name, reply } => {
                let known = self.adapters.remove(&name).is_some();
                self.retire_adapters();
                reply.send(if known {
                    Ok(())
                } else {
                    Err(unknown_adapter(&name))
                });
            }
            Command::Stats(reply) => {
                // What a step ahead still computes for rows that have all ended is counted first:
                // whoever asks after the last answer sees the same however early they ask.
                if self.jobs.is_empty()
                    && let Some(flight) = self.flight.take()
                {
                    self.land(flight);
                }
                reply.send(Ok(EngineStats {
                    scheduler: self.scheduler.stats(),
                    ..self.stats
                }));
            }
        }
    }

    /// With nothing to compute, every job must have ended, and every block be accounted for.
    fn check_idle(&mut self) {
        if let Err(error) = self.scheduler.check_integrity() {
            tracing::error!(%error, "block accounting is broken; the prefix cache is dropped");
            self.scheduler.reset_prefix_cache();
        }
        let stuck: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in stuck {
            self.fail(
                id,
                RequestError::Forward("the scheduler lost the request".into()),
            );
        }
    }
}

/// Starting and ending requests.
impl Worker {
    fn start_generate(&mut self, job: Box<GenerateJob>) {
        let adapter = match self.find_adapter(job.adapter.as_deref()) {
            Ok(adapter) => adapter,
            Err(error) => return job.reply.send(Err(error)),
        };
        let added = self.scheduler.add(NewSequence {
            tokens: job.prompt.clone(),
            logits: if job.prompt_logprobs.is_some() {
                Logits::From(0)
            } else {
                Logits::Last
            },
            max_len: job.prompt.len() + job.rules.max_tokens,
            adapter,
            priority: Priority::default(),
        });
        match added {
            Ok(seq) => self.enter(Job::Generate(job), adapter, vec![seq]),
            Err(error) => job.reply.send(Err(self.refused(&error))),
        }
    }

    fn start_score(&mut self, job: Box<ScoreJob>) {
        let adapter = match self.find_adapter(job.adapter.as_deref()) {
            Ok(adapter) => adapter,
            Err(error) => return job.reply.send(Err(error)),
        };
        let mut seqs = Vec::with_capacity(job.parts.len());
        for part in &job.parts {
            let mut positions: Vec<usize> = part.targets.iter().map(|t| t.position).collect();
            positions.dedup();
            let added = self.scheduler.add(NewSequence {
                tokens: part.tokens.clone(),
                logits: Logits::At(positions),
                max_len: part.tokens.len(),
                adapter,
                priority: Priority::default(),
            });
            match added {
                Ok(seq) => seqs.push(seq),
                Err(error) => {
                    for seq in seqs {
                        self.scheduler.cancel(seq);
                    }
                    return job.reply.send(Err(self.refused(&error)));
                }
            }
        }
        if seqs.is_empty() {
            return job.answer();
        }
        self.enter(Job::Score(job), adapter, seqs);
    }

    fn enter(&mut self, job: Job, adapter: Option<AdapterKey>, seqs: Vec<SeqId>) {
        let id = JobId(self.num_jobs);
        self.num_jobs += 1;
        for (part, seq) in seqs.iter().enumerate() {
            self.owners.insert(*seq, Owner { job: id, part });
        }
        self.jobs.insert(id, Entry { job, adapter, seqs });
    }

    /// Takes a request out and ends what is left of its sequences.
    fn leave(&mut self, id: JobId) -> Option<Job> {
        let entry = self.jobs.remove(&id)?;
        for seq in entry.seqs {
            self.owners.remove(&seq);
            self.scheduler.cancel(seq);
        }
        self.retire_adapters();
        Some(entry.job)
    }

    fn fail(&mut self, id: JobId, error: RequestError) {
        match self.leave(id) {
            Some(Job::Generate(job)) => job.reply.send(Err(error)),
            Some(Job::Score(job)) => job.reply.send(Err(error)),
            None => {}
        }
    }

    fn drop_canceled(&mut self) {
        let is_canceled = |entry: &Entry| match &entry.job {
            Job::Generate(job) => job.reply.is_canceled(),
            Job::Score(job) => job.reply.is_canceled(),
        };
        let canceled: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, entry)| is_canceled(entry))
            .map(|(id, _)| *id)
            .collect();
        for id in canceled {
            self.leave(id);
            self.stats.num_canceled += 1;
        }
    }

    fn refused(&self, error: &SchedulerError) -> RequestError {
        match *error {
            SchedulerError::DoesNotFit {
                needed, available, ..
            } => RequestError::KvPoolTooSmall {
                needed_blocks: needed,
                num_blocks: available,
                block_size: self.kv.block_size(),
            },
            _ => RequestError::Invalid(error.to_string()),
        }
    }
}

/// Adapters.
impl Worker {
    fn find_adapter(&self, name: Option<&str>) -> Result<Option<AdapterKey>, RequestError> {
        match name {
            None => Ok(None),
            Some(name) => match self.adapters.get(name) {
                Some(key) => Ok(Some(*key)),
                None => Err(unknown_adapter(name)),
            },
        }
    }

    fn load_adapter(&mut self, name: String, adapter: Adapter) -> Result<(), RequestError> {
        let added = self.model.add_adapter(adapter);
        let id = added.map_err(|error| RequestError::Forward(error.to_string()))?;
        let key = AdapterKey(self.num_loads);
        self.num_loads += 1;
        self.loaded.insert(key, id);
        self.adapters.insert(name, key);
        self.retire_adapters();
        Ok(())
    }

    /// Removes adapters that no name and no request refers to any more.
    fn retire_adapters(&mut self) {
        if self.loaded.len() == self.adapters.len() {
            return;
        }
        let is_used = |key: &AdapterKey| {
            self.adapters.values().any(|named| named == key)
                || self.jobs.values().any(|entry| entry.adapter == Some(*key))
        };
        let unused: Vec<AdapterKey> = self
            .loaded
            .keys()
            .copied()
            .filter(|key| !is_used(key))
            .collect();
        for key in unused {
            if let Some(id) = self.loaded.remove(&key) {
                self.model.remove_adapter(id);
            }
        }
    }
}

fn unknown_adapter(name: &str) -> RequestError {
    RequestError::Invalid(format!("no adapter named `{name}` is loaded"))
}
