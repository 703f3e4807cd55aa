//! One named case for each promise of the scheduler.

use data::TokenId;
use engine::scheduler::{
    Advance, BlockHasher, PrefixCache, Scheduler, SchedulerConfig, SchedulerError, StepPlan,
};
use engine::sequence::{AdapterKey, Logits, NewSequence, Priority, SeqId, Status};

const CONFIG: SchedulerConfig = SchedulerConfig {
    num_blocks: 64,
    block_size: 4,
    max_tokens_per_step: 1000,
    max_sequences: 32,
    max_context: 200,
    prefix_cache: PrefixCache::On,
    hasher: BlockHasher::FULL,
};

fn scheduler(config: SchedulerConfig) -> Scheduler {
    Scheduler::new(config).expect("possible sizes")
}

fn row(tokens: impl IntoIterator<Item = TokenId>) -> NewSequence {
    let tokens: Vec<TokenId> = tokens.into_iter().collect();
    NewSequence {
        max_len: tokens.len() + 20,
        tokens,
        logits: Logits::Last,
        adapter: None,
        priority: Priority::default(),
    }
}

/// Schedules a step and checks the books while it runs.
fn step(scheduler: &mut Scheduler) -> StepPlan {
    let plan = scheduler.schedule().expect("something to compute");
    scheduler.check_integrity().expect("sound books");
    plan
}

/// Commits the same end for every row that got its logits; the others are kept.
fn commit(scheduler: &mut Scheduler, plan: StepPlan, advance: &Advance) {
    let due = plan.spans.iter().filter(|span| !span.logits.is_empty());
    let results: Vec<_> = due.map(|span| (span.seq, advance.clone())).collect();
    assert!(scheduler.commit(plan, results).is_empty());
    scheduler.check_integrity().expect("sound books");
}

/// Runs until nothing is left, each row ending with its first logits.
fn drain(scheduler: &mut Scheduler) {
    while let Some(plan) = scheduler.schedule() {
        commit(scheduler, plan, &Advance::Finish);
    }
    let stats = scheduler.stats();
    assert!(scheduler.is_empty());
    assert_eq!(stats.num_blocks_free, stats.num_blocks);
}

#[test]
fn questions_over_one_prefix_cost_one_prefill() {
    // Whether they share a step (1000), or the prefix alone takes several (7, 16).
    for max_tokens_per_step in [1000, 16, 7] {
        let mut scheduler = scheduler(SchedulerConfig {
            max_tokens_per_step,
            ..CONFIG
        });
        for question in 0..8 {
            scheduler
                .add(row((0..64).chain([100 + question, 7, 7])))
                .unwrap();
        }
        drain(&mut scheduler);
        assert_eq!(scheduler.stats().num_tokens_scheduled, 64 + 8 * 3);
        assert_eq!(scheduler.stats().num_tokens_hit, 7 * 64);
    }
}

#[test]
fn samples_forked_after_the_prompt_cost_one_prefill() {
    let mut scheduler = scheduler(CONFIG);
    let parent = scheduler.add(row(0..66)).unwrap();
    let plan = step(&mut scheduler);
    commit(&mut scheduler, plan, &Advance::Keep);
    let mut family = scheduler.fork(parent, 15).unwrap();
    family.push(parent);
    for (index, id) in family.iter().enumerate() {
        scheduler
            .extend(*id, &[index as TokenId], Logits::Last)
            .unwrap();
    }
    let plan = step(&mut scheduler);
    assert_eq!(plan.num_tokens(), 16);
    // The prompt's last block is half full: all but the last to write get a copy of it.
    assert_eq!(plan.copies.len(), 15);
    assert!(
        plan.copies
            .iter()
            .all(|(source, _)| *source == plan.copies[0].0)
    );
    commit(&mut scheduler, plan, &Advance::Finish);
    assert_eq!(scheduler.stats().num_tokens_scheduled, 66 + 16);
    drain(&mut scheduler);
}

#[test]
fn a_hit_ends_before_the_first_wanted_position() {
    for (logits, expected) in [
        (Logits::Last, 12), // of 16 tokens: the last must be computed
        (Logits::From(0), 0),
        (Logits::From(8), 8),
        (Logits::From(11), 8),
        (Logits::At(vec![4, 15]), 4),
        (Logits::At(vec![13]), 12),
    ] {
        let mut scheduler = scheduler(CONFIG);
        scheduler.add(row(0..20)).unwrap();
        drain(&mut scheduler);
        let id = scheduler
            .add(NewSequence {
                logits: logits.clone(),
                ..row(0..16)
            })
            .unwrap();
        let plan = step(&mut scheduler);
        assert_eq!(plan.spans[0].query.start, expected, "{logits:?}");
        assert_eq!(
            scheduler.sequence(id).unwrap().num_cached(),
            expected,
            "{logits:?}"
        );
    }
}

#[test]
fn scoring_stops_at_the_last_wanted_position() {
    let mut scheduler = scheduler(CONFIG);
    scheduler
        .add(NewSequence {
            logits: Logits::At(vec![3, 6]),
            ..row(0..10)
        })
        .unwrap();
    let plan = step(&mut scheduler);
    assert_eq!((plan.spans[0].query.clone(), plan.num_logits()), (0..7, 2));
    assert_eq!(plan.spans[0].logits, [3, 6]);
    commit(&mut scheduler, plan, &Advance::Keep);
    assert!(scheduler.schedule().is_none());
}

#[test]
fn forced_tokens_are_one_small_chunk() {
    let mut scheduler = scheduler(CONFIG);
    let prompt = NewSequence {
        logits: Logits::From(5),
        ..row(0..6)
    };
    let id = scheduler.add(prompt).unwrap();
    let plan = step(&mut scheduler);
    commit(&mut scheduler, plan, &Advance::Append(vec![9, 8, 7]));
    let plan = step(&mut scheduler);
    assert_eq!(
        (plan.spans[0].query.clone(), plan.spans[0].logits.clone()),
        (6..9, vec![6, 7, 8])
    );
    assert_eq!(plan.spans[0].tokens, [9, 8, 7]);
    assert_eq!(scheduler.sequence(id).unwrap().num_appendable(), 17);
}

#[test]
fn decode_rows_and_prefill_chunks_share_a_step() {
    let mut scheduler = scheduler(SchedulerConfig {
        max_tokens_per_step: 10,
        ..CONFIG
    });
    let decoding = scheduler.add(row(0..4)).unwrap();
    let plan = step(&mut scheduler);
    commit(&mut scheduler, plan, &Advance::Append(vec![1]));
    let reading = scheduler.add(row(50..90)).unwrap();
    for chunk in [0..9, 9..18] {
        let plan = step(&mut scheduler);
        let rows: Vec<_> = plan
            .spans
            .iter()
            .map(|span| (span.seq, span.query.len()))
            .collect();
        assert_eq!(rows, [(decoding, 1), (reading, 9)]);
        assert_eq!(plan.spans[1].query, chunk);
        commit(&mut scheduler, plan, &Advance::Append(vec![1]));
    }
}

#[test]
fn higher_priority_is_admitted_first() {
    let mut scheduler = scheduler(SchedulerConfig {
        max_sequences: 1,
        ..CONFIG
    });
    let ids: Vec<SeqId> = [3, 30, 30, 7]
        .map(|n| {
            scheduler
                .add(NewSequence {
                    priority: Priority(i64::from(n)),
                    ..row(0..n)
                })
                .unwrap()
        })
        .into();
    for expected in [1, 2, 3, 0] {
        let plan = step(&mut scheduler);
        assert_eq!(plan.spans[0].seq, ids[expected]);
        commit(&mut scheduler, plan, &Advance::Finish);
    }
}

#[test]
fn the_youngest_is_preempted_and_keeps_what_it_wrote() {
    let mut scheduler = scheduler(SchedulerConfig {
        num_blocks: 6,
        ..CONFIG
    });
    let rows = [0, 20].map(|first| NewSequence {
        max_len: 24,
        ..row(first..first + 7)
    });
    let [old, young] = rows.map(|new| scheduler.add(new).unwrap());
    while scheduler.sequence(young).unwrap().status() != Status::Preempted {
        let plan = step(&mut scheduler);
        commit(&mut scheduler, plan, &Advance::Append(vec![1]));
    }
    let young = scheduler.sequence(young).unwrap();
    assert_eq!((young.tokens().len(), young.num_computed()), (13, 0));
    assert_eq!(scheduler.sequence(old).unwrap().status(), Status::Running);
    assert_eq!(scheduler.stats().num_preemptions, 1);
    drain(&mut scheduler);
}

#[test]
fn a_later_turn_finds_what_was_generated() {
    let mut scheduler = scheduler(CONFIG);
    let id = scheduler.add(row(0..6)).unwrap();
    for token in 6..11 {
        let plan = step(&mut scheduler);
        commit(&mut scheduler, plan, &Advance::Append(vec![token]));
    }
    assert!(scheduler.cancel(id));
    assert!(!scheduler.cancel(id));
    scheduler.add(row(0..20)).unwrap();
    assert_eq!(step(&mut scheduler).spans[0].query.start, 8);
}

#[test]
fn rows_share_only_what_they_may() {
    let prepare = |config, adapter| {
        let mut scheduler = scheduler(config);
        scheduler
            .add(NewSequence {
                adapter,
                ..row(0..12)
            })
            .unwrap();
        drain(&mut scheduler);
        scheduler
    };
    let hit = |scheduler: &mut Scheduler, adapter| {
        scheduler
            .add(NewSequence {
                adapter,
                ..row(0..12)
            })
            .unwrap();
        step(scheduler).spans[0].query.start
    };
    let (one, two) = (Some(AdapterKey(1)), Some(AdapterKey(2)));
    for (first, second, expected) in [
        (None, None, 8),
        (one, one, 8),
        (one, two, 0),
        (None, one, 0),
    ] {
        assert_eq!(
            hit(&mut prepare(CONFIG, first), second),
            expected,
            "{first:?} {second:?}"
        );
    }
    let off = SchedulerConfig {
        prefix_cache: PrefixCache::Off,
        ..CONFIG
    };
    assert_eq!(hit(&mut prepare(off, None), None), 0);
    let mut reset = prepare(CONFIG, None);
    assert_eq!(reset.stats().num_tokens_cached, 12);
    reset.reset_prefix_cache();
    assert_eq!(reset.stats().num_tokens_cached, 0);
    assert_eq!(hit(&mut reset, None), 0);
}

#[test]
fn what_began_before_a_reset_is_never_found() {
    let mut scheduler = scheduler(SchedulerConfig {
        max_tokens_per_step: 2,
        ..CONFIG
    });
    let id = scheduler.add(row(0..12)).unwrap();
    let plan = step(&mut scheduler);
    commit(&mut scheduler, plan, &Advance::Keep);
    scheduler.reset_prefix_cache();
    // Half of its first block is of the old weights: the block must not be shared when full.
    drain(&mut scheduler);
    assert!(scheduler.sequence(id).is_none());
    assert_eq!(scheduler.stats().num_tokens_cached, 0);
}

#[test]
fn a_failed_step_ends_its_rows_only() {
    let mut scheduler = scheduler(SchedulerConfig {
        max_sequences: 2,
        ..CONFIG
    });
    let ids = [0, 0, 50].map(|first| scheduler.add(row(first..first + 9)).unwrap());
    let plan = step(&mut scheduler);
    assert_eq!(scheduler.abort(plan), ids[..2]);
    scheduler.check_integrity().unwrap();
    scheduler.add(row(0..9)).unwrap();
    let plan = step(&mut scheduler);
    let starts: Vec<_> = plan
        .spans
        .iter()
        .map(|span| (span.seq, span.query.start))
        .collect();
    assert_eq!(starts, [(ids[2], 0), (SeqId(3), 0)]);
    commit(&mut scheduler, plan, &Advance::Finish);
    drain(&mut scheduler);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut scheduler = scheduler(SchedulerConfig {
        num_blocks: 8,
        ..CONFIG
    });
    assert_eq!(scheduler.max_len(), 32);
    let with = |max_len, logits| NewSequence {
        max_len,
        logits,
        ..row(0..4)
    };
    let too_long = |len, max_len| SchedulerError::TooLong { len, max_len };
    let does_not_fit = SchedulerError::DoesNotFit {
        max_len: 33,
        needed: 9,
        available: 8,
    };
    let bad = SchedulerError::BadLogits { len: 4 };
    for (new, expected) in [
        (row([]), SchedulerError::Empty),
        (with(3, Logits::Last), too_long(4, 3)),
        (with(201, Logits::Last), too_long(201, 200)),
        (with(33, Logits::Last), does_not_fit),
        (with(9, Logits::From(4)), bad.clone()),
        (with(9, Logits::At(vec![])), bad.clone()),
        (with(9, Logits::At(vec![2, 2])), bad.clone()),
        (with(9, Logits::At(vec![1, 4])), bad),
    ] {
        assert_eq!(scheduler.add(new), Err(expected));
    }
}

#[test]
fn unknown_rows_and_impossible_sizes_are_refused() {
    let mut scheduler = scheduler(CONFIG);
    let seq = SeqId(77);
    assert_eq!(scheduler.fork(seq, 1), Err(SchedulerError::Unknown { seq }));
    for (config, field) in [
        (
            SchedulerConfig {
                block_size: 0,
                ..CONFIG
            },
            "block_size",
        ),
        (
            SchedulerConfig {
                num_blocks: usize::MAX,
                ..CONFIG
            },
            "num_blocks",
        ),
        (
            SchedulerConfig {
                num_blocks: 1 << 31,
                ..CONFIG
            },
            "num_blocks",
        ),
    ] {
        let error = Scheduler::new(config).expect_err("impossible sizes");
        assert!(
            matches!(error, SchedulerError::Config { field: f, .. } if f == field),
            "{error}"
        );
    }
}

#[test]
fn a_row_that_cannot_be_appended_to_ends_alone() {
    let mut scheduler = scheduler(CONFIG);
    let full = scheduler
        .add(NewSequence {
            max_len: 4,
            ..row(0..4)
        })
        .unwrap();
    let other = scheduler.add(row(0..4)).unwrap();
    let plan = step(&mut scheduler);
    let error = SchedulerError::StepRunning { seq: other };
    assert_eq!(scheduler.extend(other, &[1], Logits::Last), Err(error));
    let results = [full, other].map(|id| (id, Advance::Append(vec![1])));
    let too_long = SchedulerError::TooLong { len: 5, max_len: 4 };
    assert_eq!(scheduler.commit(plan, results), [(full, too_long)]);
    assert!(scheduler.sequence(full).is_none());
    let not_ready = SchedulerError::NotReady {
        seq: other,
        num_computed: 4,
        num_target: 5,
    };
    assert_eq!(scheduler.extend(other, &[1], Logits::Last), Err(not_ready));
    drain(&mut scheduler);
}

/// Decides the step after `plan` while it runs.
fn ahead(scheduler: &mut Scheduler, plan: &StepPlan, going_on: &[SeqId]) -> Option<StepPlan> {
    let next = scheduler.schedule_ahead(plan, &going_on.iter().copied().collect());
    scheduler.check_integrity().expect("sound books");
    next
}

#[test]
fn a_step_ahead_holds_places_for_tokens_not_yet_drawn() {
    let mut scheduler = scheduler(CONFIG);
    let [goes_on, ends] = [0, 50].map(|first| scheduler.add(row(first..first + 7)).unwrap());
    let first = step(&mut scheduler);
    let second = ahead(&mut scheduler, &first, &[goes_on]).unwrap();
    let [span] = &*second.spans else {
        panic!("rows of which nothing is foreseen sit the step out: {second:?}");
    };
    assert_eq!(
        (span.query.clone(), span.tokens.as_slice()),
        (7..8, &[0][..])
    );
    assert!(span.is_foreseen && span.seq == goes_on && span.logits == [7]);
    let results = [(goes_on, Advance::Append(vec![7])), (ends, Advance::Finish)];
    assert!(scheduler.commit(first, results).is_empty());
    scheduler.check_integrity().unwrap();
    // Its second block is full, by a token that is known now: it can be found.
    assert_eq!(scheduler.stats().num_tokens_cached, 4 + 8);
    let third = ahead(&mut scheduler, &second, &[goes_on]).unwrap();
    assert_eq!(third.spans[0].query, 8..9);
    commit(&mut scheduler, second, &Advance::Append(vec![8]));
    commit(&mut scheduler, third, &Advance::Finish);
    scheduler.add(row(0..20)).unwrap();
    assert_eq!(step(&mut scheduler).spans[0].query.start, 8);
}

#[test]
fn a_token_too_many_is_neither_counted_nor_found() {
    let mut scheduler = scheduler(CONFIG);
    let ends = scheduler.add(row(0..7)).unwrap();
    let first = step(&mut scheduler);
    let second = ahead(&mut scheduler, &first, &[ends]).unwrap();
    commit(&mut scheduler, first, &Advance::Finish);
    let stats = scheduler.stats();
    assert_eq!(
        (stats.num_tokens_scheduled, stats.num_tokens_cached),
        (7, 4)
    );
    assert_eq!(stats.num_blocks_free, stats.num_blocks);
    commit(&mut scheduler, second, &Advance::Append(vec![1]));
    drain(&mut scheduler);
}

#[test]
fn nothing_is_preempted_for_a_step_ahead() {
    let mut scheduler = scheduler(SchedulerConfig {
        num_blocks: 4,
        ..CONFIG
    });
    let rows = [0, 20].map(|first| NewSequence {
        max_len: 16,
        ..row(first..first + 8)
    });
    let [old, young] = rows.map(|new| scheduler.add(new).unwrap());
    let first = step(&mut scheduler);
    // Both need a third block, and none is free. The young one may be about to end.
    assert!(ahead(&mut scheduler, &first, &[old, young]).is_none());
    let results = [(old, Advance::Append(vec![1])), (young, Advance::Finish)];
    assert!(scheduler.commit(first, results).is_empty());
    drain(&mut scheduler);
    assert_eq!(scheduler.stats().num_preemptions, 0);
}

#[test]
fn a_row_that_does_not_go_on_as_foreseen_ends_alone() {
    let mut scheduler = scheduler(CONFIG);
    let [kept, forced, right] = [0, 20, 40].map(|n| scheduler.add(row(n..n + 5)).unwrap());
    let first = step(&mut scheduler);
    let second = ahead(&mut scheduler, &first, &[kept, forced, right]).unwrap();
    let results = [
        (forced, Advance::Append(vec![1, 2])),
        (right, Advance::Append(vec![1])),
    ];
    let not = |seq, given| (seq, SchedulerError::NotAsForeseen { seq, given });
    assert_eq!(
        scheduler.commit(first, results),
        [not(forced, 2), not(kept, 0)]
    );
    scheduler.check_integrity().unwrap();
    commit(&mut scheduler, second, &Advance::Finish);
    drain(&mut scheduler);
}
