//! Deterministic simulation: random rows over tiny pools, every invariant after every call,
//! every slot that is read compared with the row computed alone.
//!
//! `AUTODIDACT_SIM_SEED` (default 0) and `AUTODIDACT_SIM_STEPS` (default 20000) choose the run.
//! A failure names its episode's seed: run that seed again with few steps.

use crate::fake::{FakePool, Weights, kv_alone, mix};
use data::TokenId;
use engine::scheduler::{
    Advance, BlockHasher, PlannedSpan, PrefixCache, Scheduler, SchedulerConfig, StepPlan,
};
use engine::sequence::{AdapterKey, Logits, NewSequence, Priority, SeqId};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

const EPISODE_STEPS: u64 = 250;
/// Three times what a million steps showed.
const ROW_STEPS_MAX: u64 = 2000;
const ROWS_MAX: usize = 16;

#[test]
fn rows_equal_themselves_alone() {
    let read = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} = {text:?} is not a number")),
        Err(_) => default,
    };
    let (first_seed, num_steps) = (
        read("AUTODIDACT_SIM_SEED", 0),
        read("AUTODIDACT_SIM_STEPS", 20_000),
    );
    let mut marks = Marks::default();
    let mut seed = first_seed;
    while marks.steps < num_steps {
        let step = Cell::new(0);
        let episode = AssertUnwindSafe(|| Simulation::new(seed).run(&step, &mut marks));
        match catch_unwind(episode) {
            Ok(Ok(())) => seed += 1,
            Ok(Err(what)) => panic!("seed {seed} step {}: {what}", step.get()),
            Err(_) => panic!("seed {seed} step {}: a panic, printed above", step.get()),
        }
    }
    println!("seeds {first_seed}..{seed}: {marks:?}");
    if num_steps >= 20_000 {
        marks.check();
    }
}

/// How often each odd case came up; a case that never did was not tested.
#[derive(Debug, Default)]
struct Marks {
    steps: u64,
    rows: u64,
    finished: u64,
    preemptions: u64,
    hit_tokens: u64,
    shared_in_step: u64,
    copies: u64,
    forks: u64,
    extensions: u64,
    forced: u64,
    aborts: u64,
    cancels: u64,
    cancels_in_step: u64,
    ahead: u64,
    foreseen: u64,
    too_many: u64,
    left_out: u64,
    aborts_ahead: u64,
    resets: u64,
    swaps: u64,
    row_steps_max: u64,
}

impl Marks {
    fn check(&self) {
        let all = [
            self.rows,
            self.finished,
            self.preemptions,
            self.hit_tokens,
            self.shared_in_step,
            self.copies,
            self.forks,
            self.extensions,
            self.forced,
            self.aborts,
            self.cancels,
            self.cancels_in_step,
            self.ahead,
            self.foreseen,
            self.too_many,
            self.left_out,
            self.aborts_ahead,
            self.resets,
            self.swaps,
        ];
        assert!(
            all.iter().all(|count| *count > 20),
            "a case hardly ever came up: {self:?}"
        );
    }
}

/// What the simulation knows of a row without asking the scheduler.
#[derive(Debug, Clone)]
struct Row {
    tokens: Vec<TokenId>,
    logits: Logits,
    weights: Weights,
    /// The weights changed while it ran: it goes on over K/V of both, and is not compared.
    is_tainted: bool,
    max_len: usize,
    /// Tokens it had when it began to go its own way.
    num_start: usize,
    /// Draws of rows that differ in this differ.
    stream: u64,
    /// Logits below this position were handed over.
    num_seen: usize,
    /// `num_seen` when it last said where it wants logits.
    num_asked: usize,
    /// Positions handed over since it began or was extended.
    seen: Vec<usize>,
    /// Last logits; decides what it says next.
    fold: u64,
    is_paused: bool,
    num_steps: u64,
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        (mix(self.0, 0xA11CE) % bound as u64) as usize
    }

    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn tokens(&mut self, n: usize) -> Vec<TokenId> {
        (0..n).map(|_| self.below(2) as TokenId).collect()
    }
}

/// A step that was computed, and whose results the scheduler does not know yet.
#[derive(Debug)]
struct Flight {
    plan: StepPlan,
    results: Vec<(SeqId, Advance)>,
}

impl Flight {
    /// What a row draws; rows that end draw something too.
    fn token(&self, seq: SeqId) -> TokenId {
        let drawn = self.results.iter().find(|(id, _)| *id == seq);
        match drawn {
            Some((_, Advance::Append(tokens))) => tokens[0],
            _ => 1,
        }
    }

    fn ended(&self) -> BTreeSet<SeqId> {
        let ended = |(id, advance): &(SeqId, Advance)| (*advance == Advance::Finish).then_some(*id);
        self.results.iter().filter_map(ended).collect()
    }
}

struct Simulation {
    rng: Rng,
    config: SchedulerConfig,
    scheduler: Scheduler,
    pool: FakePool,
    rows: BTreeMap<SeqId, Row>,
    flight: Option<Flight>,
    version: u64,
    num_streams: u64,
    is_draining: bool,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(mix(seed, 0x5EED));
        let config = SchedulerConfig {
            num_blocks: if rng.one_in(2) {
                rng.between(4, 16)
            } else {
                rng.between(16, 64)
            },
            block_size: rng.between(2, 8),
            max_tokens_per_step: rng.between(1, 24),
            max_sequences: rng.between(1, 8),
            max_context: 48,
            prefix_cache: if rng.one_in(8) {
                PrefixCache::Off
            } else {
                PrefixCache::On
            },
            hasher: BlockHasher::truncated(4),
        };
        let scheduler = Scheduler::new(config).expect("sizes are at least 1");
        let pool = FakePool::new(&config);
        let rows = BTreeMap::new();
        Self {
            rng,
            config,
            scheduler,
            pool,
            rows,
            flight: None,
            version: 0,
            num_streams: 0,
            is_draining: false,
        }
    }

    fn run(mut self, step: &Cell<u64>, marks: &mut Marks) -> Result<(), String> {
        while !(self.is_draining && self.rows.is_empty() && self.flight.is_none()) {
            step.set(step.get() + 1);
            marks.steps += 1;
            self.is_draining = step.get() > EPISODE_STEPS;
            if !self.is_draining {
                self.disturb(marks)?;
            }
            if self.flight.is_none() {
                self.wake_paused(marks)?;
            }
            self.check()?;
            self.step(marks)?;
            self.check()?;
        }
        let stats = self.scheduler.stats();
        marks.preemptions += stats.num_preemptions;
        marks.hit_tokens += stats.num_tokens_hit;
        expect(stats.num_blocks_free == stats.num_blocks, || {
            format!("blocks leaked: {stats:?}")
        })
    }

    fn check(&self) -> Result<(), String> {
        self.scheduler
            .check_integrity()
            .map_err(|error| error.to_string())
    }

    /// Arrivals, cancels, forks, resets.
    fn disturb(&mut self, marks: &mut Marks) -> Result<(), String> {
        if self.rng.one_in(3) {
            for new in self.arrivals() {
                self.add(new, marks)?;
            }
        }
        if self.rng.one_in(30) {
            marks.cancels += u64::from(self.cancel_any()?);
        }
        if self.rng.one_in(10)
            && self.flight.is_none()
            && let Some(id) = self.any_row()
        {
            self.fork(id, marks)?;
        }
        if self.rng.one_in(150) {
            marks.resets += 1;
            self.scheduler.reset_prefix_cache();
        }
        if self.rng.one_in(100) {
            marks.swaps += 1;
            self.version += 1;
            self.scheduler.reset_prefix_cache();
            self.rows.values_mut().for_each(|row| row.is_tainted = true);
        }
        Ok(())
    }

    /// One new row or several of the same prompt, often with the beginning of a live one.
    fn arrivals(&mut self) -> Vec<NewSequence> {
        let capacity =
            (self.config.num_blocks * self.config.block_size).min(self.config.max_context);
        let mut tokens = match self.any_row() {
            Some(id) if self.rng.one_in(2) => {
                let tokens = &self.rows[&id].tokens;
                tokens[..self.rng.between(0, tokens.len())].to_vec()
            }
            _ => Vec::new(),
        };
        let num_new_max = if self.rng.one_in(3) { 8 } else { 40 };
        let num_new = self
            .rng
            .between(usize::from(tokens.is_empty()), num_new_max);
        tokens.extend(self.rng.tokens(num_new));
        tokens.truncate(capacity.min(40));
        let logits = self.any_logits(0, tokens.len());
        let max_len = self.rng.between(tokens.len(), capacity);
        let adapter = match self.rng.below(4) {
            0 | 1 => None,
            key => Some(AdapterKey(key as u64)),
        };
        let priority = Priority(if self.rng.one_in(4) {
            tokens.len() as i64
        } else {
            0
        });
        let num_twins = if self.rng.one_in(3) {
            self.rng.between(2, 4)
        } else {
            1
        };
        let free = ROWS_MAX.saturating_sub(self.rows.len());
        vec![
            NewSequence {
                tokens,
                logits,
                max_len,
                adapter,
                priority
            };
            num_twins.min(free)
        ]
    }

    fn any_logits(&mut self, first: usize, len: usize) -> Logits {
        match self.rng.below(4) {
            0 => Logits::From(self.rng.between(first, len - 1)),
            1 => {
                let mut positions: Vec<usize> =
                    (first..len).filter(|_| self.rng.one_in(3)).collect();
                if positions.is_empty() {
                    positions.push(self.rng.between(first, len - 1));
                }
                Logits::At(positions)
            }
            _ => Logits::Last,
        }
    }

    fn add(&mut self, new: NewSequence, marks: &mut Marks) -> Result<(), String> {
        let id = self
            .scheduler
            .add(new.clone())
            .map_err(|error| error.to_string())?;
        marks.rows += 1;
        self.num_streams += 1;
        let row = Row {
            num_start: new.tokens.len(),
            tokens: new.tokens,
            logits: new.logits,
            weights: Weights {
                version: self.version,
                adapter: new.adapter,
            },
            is_tainted: false,
            max_len: new.max_len,
            stream: self.num_streams,
            num_seen: 0,
            num_asked: 0,
            seen: Vec::new(),
            fold: 0,
            is_paused: false,
            num_steps: 0,
        };
        expect(self.rows.insert(id, row).is_none(), || {
            format!("{id:?} given twice")
        })
    }

    fn fork(&mut self, parent: SeqId, marks: &mut Marks) -> Result<Vec<SeqId>, String> {
        let n = self
            .rng
            .between(1, 3)
            .min(ROWS_MAX.saturating_sub(self.rows.len()));
        let children = self
            .scheduler
            .fork(parent, n)
            .map_err(|error| error.to_string())?;
        marks.forks += n as u64;
        for child in &children {
            self.num_streams += 1;
            let mut row = self.rows[&parent].clone();
            (row.num_start, row.stream, row.num_steps) = (row.tokens.len(), self.num_streams, 0);
            self.rows.insert(*child, row);
        }
        Ok(children)
    }

    fn any_row(&mut self) -> Option<SeqId> {
        let nth = self.rng.below(self.rows.len().max(1));
        self.rows.keys().nth(nth).copied()
    }

    fn cancel_any(&mut self) -> Result<bool, String> {
        let Some(id) = self.any_row() else {
            return Ok(false);
        };
        self.rows.remove(&id);
        expect(self.scheduler.cancel(id), || {
            format!("{id:?} could not be cancelled")
        })?;
        Ok(true)
    }

    /// Rows that rest are forked, extended or given up, after a while.
    fn wake_paused(&mut self, marks: &mut Marks) -> Result<(), String> {
        let paused: Vec<SeqId> = self
            .rows
            .iter()
            .filter(|(_, row)| row.is_paused)
            .map(|(id, _)| *id)
            .collect();
        for id in paused {
            if !self.rng.one_in(3) {
                continue;
            }
            let mut family = vec![id];
            if self.rng.one_in(2) && !self.is_draining {
                family.extend(self.fork(id, marks)?);
            }
            for id in family {
                self.extend(id, marks)?;
            }
        }
        Ok(())
    }

    fn extend(&mut self, id: SeqId, marks: &mut Marks) -> Result<(), String> {
        let row = self.rows.get_mut(&id).ok_or("a paused row is gone")?;
        let room = row.max_len - row.tokens.len();
        if room == 0 || self.rng.one_in(8) {
            self.rows.remove(&id);
            return expect(self.scheduler.cancel(id), || {
                format!("{id:?} could not be ended")
            });
        }
        marks.extensions += 1;
        let num_new = self.rng.between(1, room.min(10));
        let tokens = self.rng.tokens(num_new);
        let (first, len) = (row.num_seen, row.tokens.len() + tokens.len());
        let logits = self.any_logits(first, len);
        self.scheduler
            .extend(id, &tokens, logits.clone())
            .map_err(|error| format!("{id:?}: {error}"))?;
        let row = self.rows.get_mut(&id).ok_or("a paused row is gone")?;
        row.tokens.extend(tokens);
        (row.num_start, row.logits, row.is_paused) = (row.tokens.len(), logits, false);
        row.num_asked = row.num_seen;
        row.seen.clear();
        Ok(())
    }

    /// Decides and computes a step, ahead of the one in flight or after it has landed.
    fn step(&mut self, marks: &mut Marks) -> Result<(), String> {
        let before = self.flight.take();
        let plan = match &before {
            None => self.scheduler.schedule(),
            Some(flight) => {
                let going_on = self.going_on(flight, marks);
                self.scheduler.schedule_ahead(&flight.plan, &going_on)
            }
        };
        self.check()?;
        let Some(plan) = plan else {
            if let Some(flight) = before {
                return self.land(flight);
            }
            let active: Vec<_> = self.rows.iter().filter(|(_, row)| !row.is_paused).collect();
            return expect(active.is_empty(), || {
                format!("nothing scheduled, though {active:?}")
            });
        };
        self.check_plan(&plan, before.as_ref())?;
        self.check_age(marks)?;
        marks.copies += plan.copies.len() as u64;
        marks.shared_in_step += u64::from(is_shared_in_step(&plan, self.config.block_size));
        if self.rng.one_in(40) && !self.is_draining {
            marks.cancels_in_step += u64::from(self.cancel_any()?);
        }
        match before {
            None => self.compute(plan, None, marks),
            Some(before) => {
                marks.ahead += 1;
                let foreseen = plan.spans.iter().filter(|span| span.is_foreseen);
                marks.foreseen += foreseen.count() as u64;
                let ended = before.ended();
                let has_ended = |span: &&PlannedSpan| ended.contains(&span.seq);
                marks.too_many += plan.spans.iter().filter(has_ended).count() as u64;
                if self.rng.one_in(40) && !self.is_draining {
                    marks.aborts_ahead += 1;
                    self.fail(plan, &ended)?;
                    self.check()?;
                    return self.fail(before.plan, &ended);
                }
                self.compute(plan, Some(before), marks)
            }
        }
    }

    /// The rows of a step in flight that will be given one token or end. One in eight is not
    /// known to; of some that cannot go on it is said nevertheless.
    fn going_on(&mut self, flight: &Flight, marks: &mut Marks) -> BTreeSet<SeqId> {
        let mut going_on = BTreeSet::new();
        for (seq, advance) in &flight.results {
            let may_go_on = match advance {
                Advance::Append(tokens) => tokens.len() == 1,
                Advance::Finish => true,
                Advance::Keep => false,
            };
            if may_go_on && !self.rng.one_in(8) {
                going_on.insert(*seq);
            } else {
                marks.left_out += 1;
            }
        }
        going_on
    }

    /// Computes a step; then the one before it lands, and sometimes this one, too.
    fn compute(
        &mut self,
        mut plan: StepPlan,
        before: Option<Flight>,
        marks: &mut Marks,
    ) -> Result<(), String> {
        if let Some(before) = &before {
            // A device takes the tokens from where the step before left them.
            for span in plan.spans.iter_mut().filter(|span| span.is_foreseen) {
                *span.tokens.last_mut().ok_or("an empty span")? = before.token(span.seq);
            }
        }
        let will_fail = self.rng.one_in(40) && !self.is_draining;
        let results = match will_fail {
            true => Vec::new(),
            false => self.forward(&plan, marks)?,
        };
        if let Some(before) = before {
            self.land(before)?;
            self.check()?;
        }
        if will_fail {
            marks.aborts += 1;
            return self.fail(plan, &BTreeSet::new());
        }
        let flight = Flight { plan, results };
        if self.rng.one_in(3) {
            return self.land(flight);
        }
        self.flight = Some(flight);
        Ok(())
    }

    fn land(&mut self, flight: Flight) -> Result<(), String> {
        let failed = self.scheduler.commit(flight.plan, flight.results);
        expect(failed.is_empty(), || {
            format!("could not append: {failed:?}")
        })
    }

    /// The step dies; its rows must come back, and sometimes try again; those of which the
    /// scheduler does not know yet that they have `ended`, too.
    fn fail(&mut self, plan: StepPlan, ended: &BTreeSet<SeqId>) -> Result<(), String> {
        self.pool.fail(&plan);
        let has_ended = |id: &SeqId| ended.contains(id) && self.scheduler.sequence(*id).is_some();
        let is_there = |id: &SeqId| self.rows.contains_key(id) || has_ended(id);
        let ids = plan.spans.iter().map(|span| span.seq);
        let expected: Vec<SeqId> = ids.filter(is_there).collect();
        let failed = self.scheduler.abort(plan);
        expect(failed == expected, || {
            format!("{failed:?} failed, not {expected:?}")
        })?;
        for id in failed {
            let row = match self.rows.remove(&id) {
                None if ended.contains(&id) => continue,
                row => row.ok_or("an unknown row failed")?,
            };
            if self.rng.one_in(2) {
                // Often longer than before: it then looks for all that the failed step published.
                let mut tokens = row.tokens;
                let num_new = self.rng.below(3).min(row.max_len - tokens.len());
                tokens.extend(self.rng.tokens(num_new));
                let new = NewSequence {
                    logits: self.any_logits(0, tokens.len()),
                    tokens,
                    max_len: row.max_len,
                    adapter: row.weights.adapter,
                    priority: Priority::default(),
                };
                self.add(new, &mut Marks::default())?;
            }
        }
        Ok(())
    }

    fn check_plan(&self, plan: &StepPlan, before: Option<&Flight>) -> Result<(), String> {
        let ended = before.map(Flight::ended).unwrap_or_default();
        let config = &self.config;
        let is_within = plan.num_tokens() <= config.max_tokens_per_step
            && (1..=config.max_sequences).contains(&plan.spans.len());
        expect(is_within, || format!("over budget: {plan:?}"))?;
        let distinct: BTreeSet<SeqId> = plan.spans.iter().map(|span| span.seq).collect();
        expect(distinct.len() == plan.spans.len(), || {
            format!("a row twice in a step: {plan:?}")
        })?;
        for span in &plan.spans {
            let describe = |what: &str| format!("{what}: {span:?}, {:?}", self.rows.get(&span.seq));
            if ended.contains(&span.seq) {
                let is_one = span.is_foreseen && span.query.len() == 1;
                expect(is_one, || describe("more than one token too many"))?;
                continue;
            }
            let row = self
                .rows
                .get(&span.seq)
                .ok_or_else(|| describe("unknown row"))?;
            expect(!span.query.is_empty(), || describe("empty chunk"))?;
            let mut tokens = row.tokens.get(span.query.clone()).unwrap_or(&[]).to_vec();
            if span.is_foreseen {
                let is_last = before.is_some() && span.query.end == row.tokens.len();
                expect(is_last, || describe("nobody draws it"))?;
                *tokens.last_mut().ok_or("an empty span")? = 0;
            }
            expect(tokens == span.tokens, || describe("wrong tokens"))?;
            expect(span.adapter == row.weights.adapter, || {
                describe("wrong adapter")
            })?;
            let num_blocks = span.query.end.div_ceil(config.block_size);
            expect(span.block_table.len() == num_blocks, || {
                describe("wrong table")
            })?;
            expect(!row.is_paused, || describe("it rests"))?;
            let is_wanted = |p: &usize| match &row.logits {
                Logits::Last => p + 1 == row.tokens.len(),
                Logits::From(first) => p >= first,
                Logits::At(positions) => positions.contains(p),
            };
            let wanted: Vec<usize> = span
                .query
                .clone()
                .filter(|p| *p >= row.num_seen)
                .filter(is_wanted)
                .collect();
            expect(span.logits == wanted, || describe("wrong logits"))?;
        }
        Ok(())
    }

    fn check_age(&mut self, marks: &mut Marks) -> Result<(), String> {
        for (id, row) in self.rows.iter_mut().filter(|(_, row)| !row.is_paused) {
            row.num_steps += 1;
            marks.row_steps_max = marks.row_steps_max.max(row.num_steps);
            expect(row.num_steps < ROW_STEPS_MAX, || {
                format!("{id:?} does not end: {row:?}")
            })?;
        }
        Ok(())
    }

    /// Runs the step, compares what each row saw with the row alone, and says what follows.
    fn forward(
        &mut self,
        plan: &StepPlan,
        marks: &mut Marks,
    ) -> Result<Vec<(SeqId, Advance)>, String> {
        let attended = self.pool.forward(plan, self.version)?;
        let mut results = Vec::new();
        for (span, attended) in plan.spans.iter().zip(attended) {
            let Some(row) = self.rows.get_mut(&span.seq) else {
                continue;
            };
            let alone = kv_alone(&row.tokens[..span.query.end], row.weights);
            let wrong = alone.iter().zip(&attended.0).position(|(a, b)| a != b);
            expect(row.is_tainted || wrong.is_none(), || {
                format!("K/V of position {wrong:?} are not its own: {span:?}, {row:?}")
            })?;
            row.num_seen = row.num_seen.max(span.query.end);
            row.seen.extend(&span.logits);
            if let Some(last) = span.logits.last() {
                row.fold = attended.0[..=*last]
                    .iter()
                    .fold(0, |fold, kv| mix(fold, *kv));
            }
            let is_due = match &row.logits {
                Logits::Last | Logits::From(_) => row.num_seen == row.tokens.len(),
                Logits::At(positions) => row.num_seen > positions[positions.len() - 1],
            };
            expect(is_due == span.is_complete, || {
                format!("due? {is_due}: {span:?}, {row:?}")
            })?;
            if is_due {
                let advance = self.advance(span.seq, marks)?;
                results.push((span.seq, advance));
            }
        }
        Ok(results)
    }

    /// The row has all logits it asked for.
    fn advance(&mut self, id: SeqId, marks: &mut Marks) -> Result<Advance, String> {
        let row = self.rows.get_mut(&id).ok_or("an unknown row has logits")?;
        if self.rng.one_in(10) {
            row.is_paused = true;
            return Ok(Advance::Keep);
        }
        let next = match &row.logits {
            Logits::At(positions) => {
                expect(row.seen == *positions, || {
                    format!("logits are missing: {row:?}")
                })?;
                None
            }
            Logits::Last => say(row.fold, row.stream, row.max_len - row.tokens.len()),
            Logits::From(first) => {
                let is_gapless = row.seen.first() == Some(first.max(&row.num_asked))
                    && row.seen.windows(2).all(|pair| pair[0] + 1 == pair[1]);
                expect(is_gapless, || format!("logits are missing: {row:?}"))?;
                say(row.fold, row.stream, row.max_len - row.tokens.len())
            }
        };
        if let Some(tokens) = next {
            marks.forced += u64::from(tokens.len() > 1);
            row.tokens.extend(&tokens);
            return Ok(Advance::Append(tokens));
        }
        marks.finished += 1;
        let row = self.rows.remove(&id).ok_or("an unknown row has logits")?;
        expect(row.is_tainted || row.tokens == said_alone(&row), || {
            format!("{row:?} alone says otherwise")
        })?;
        Ok(Advance::Finish)
    }
}

/// The tokens that follow logits; `None` = the end.
fn say(fold: u64, stream: u64, room: usize) -> Option<Vec<TokenId>> {
    let draw = mix(fold, stream);
    if room == 0 || draw.is_multiple_of(24) {
        return None;
    }
    let num_tokens = if draw.is_multiple_of(7) {
        2 + (draw >> 8) as usize % 6
    } else {
        1
    };
    Some(
        (0..num_tokens.min(room))
            .map(|i| (draw >> (16 + i)) as TokenId & 1)
            .collect(),
    )
}

/// The row's tokens had it never met another, from where it began to go its own way.
fn said_alone(row: &Row) -> Vec<TokenId> {
    let mut tokens = row.tokens[..row.num_start].to_vec();
    if let Logits::At(_) = row.logits {
        return tokens;
    }
    loop {
        let fold = kv_alone(&tokens, row.weights)
            .iter()
            .fold(0, |fold, kv| mix(fold, *kv));
        match say(fold, row.stream, row.max_len - tokens.len()) {
            Some(next) => tokens.extend(next),
            None => return tokens,
        }
    }
}

/// A row reads a block that a row before it writes in this step.
fn is_shared_in_step(plan: &StepPlan, block_size: usize) -> bool {
    let mut written = BTreeSet::new();
    plan.spans.iter().any(|span| {
        let is_read = span.block_table.iter().any(|block| written.contains(block));
        written.extend(span.slots.iter().map(|slot| slot / block_size as u32));
        is_read
    })
}

fn expect(ok: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if ok { Ok(()) } else { Err(what()) }
}
