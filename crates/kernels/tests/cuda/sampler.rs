use crate::reference::Random;
use crate::{device, upload};
use kernels::cuda::{Asked, Buffer, Question, RawReport, Sampler, SamplerLimits};
use kernels::sampling::{
    Penalties, SampleError, SamplingParams, Seen, apply_bias, apply_mask, apply_penalties,
    log_softmax_at, sample, top_logprobs, uniform,
};

/// A question with its own lists.
#[derive(Default)]
struct Owned {
    row: usize,
    draw: Option<(SamplingParams, f64)>,
    bias: Vec<(u32, f32)>,
    penalties: Option<Penalties>,
    seen: Vec<Seen>,
    mask: Option<Vec<u32>>,
    top: usize,
    asked: Vec<u32>,
}

impl Owned {
    fn question(&self) -> Question<'_> {
        Question {
            row: self.row,
            draw: self.draw,
            bias: &self.bias,
            penalties: self.penalties,
            seen: &self.seen,
            mask: self.mask.as_deref(),
            top: self.top,
            asked: &self.asked,
        }
    }
}

/// Asks the device and the CPU the same: tokens are equal, log-probabilities to the last places.
#[track_caller]
fn compare(rows: &[Vec<f32>], questions: &[Owned], concurrent: usize) {
    let device = device();
    let vocabulary = rows[0].len();
    let mut sampler = Sampler::new(
        &device,
        SamplerLimits {
            vocabulary,
            concurrent,
        },
    )
    .unwrap();
    let logits = upload(&device, &rows.concat());
    let asked: Vec<Question<'_>> = questions.iter().map(Owned::question).collect();
    let run = sampler
        .run(logits.matrix(vocabulary), rows.len(), &asked)
        .unwrap();
    let answers = sampler.answers(&run).unwrap();
    assert_eq!(answers.len(), questions.len());
    let mut edges = 0;
    for (index, (question, answer)) in questions.iter().zip(answers).enumerate() {
        let raw = &rows[question.row];
        let mut row = raw.clone();
        apply_bias(&mut row, question.bias.iter().copied()).unwrap();
        if let Some(penalties) = &question.penalties {
            apply_penalties(&mut row, penalties, question.seen.iter().copied()).unwrap();
        }
        let allowed = question
            .mask
            .as_ref()
            .map(|mask| apply_mask(&mut row, mask));
        assert_eq!(
            answer.allowed,
            question.draw.and(allowed),
            "question {index}"
        );
        let what = format!("question {index}: {:?}", question.draw);
        match (question.draw, answer.drawn) {
            (None, None) => {}
            (Some((params, uniform)), Some(drawn)) => match (sample(&row, &params, uniform), drawn)
            {
                (Ok(expected), Ok(got)) => {
                    assert_eq!(got.token, expected.token, "{what}");
                    if params.top_p < 1.0
                        && at_an_edge(got.sampled_logprob, expected.sampled_logprob)
                    {
                        edges += 1;
                    } else {
                        near(got.sampled_logprob, expected.sampled_logprob, &what);
                    }
                    if let Ok(raw) = log_softmax_at(raw, &[got.token]) {
                        near(got.raw_logprob, raw[0], &what);
                    }
                }
                (expected, got) => assert_eq!(
                    format!("{:?}", expected.map(|drawn| drawn.token)),
                    format!("{:?}", got.map(|drawn| drawn.token)),
                    "{what}"
                ),
            },
            other => panic!("{what}: {other:?}"),
        }
        compare_raw(answer.raw, raw, question, &what);
    }
    assert!(
        edges * 50 <= questions.len(),
        "{edges} of {} draws at an edge",
        questions.len()
    );
}

/// What is reported of a raw row.
#[track_caller]
fn compare_raw(got: Result<RawReport, SampleError>, raw: &[f32], question: &Owned, what: &str) {
    match (got, top_logprobs(raw, question.top)) {
        (Ok(report), Ok(top)) => {
            let tokens =
                |list: &[(u32, f32)]| list.iter().map(|(token, _)| *token).collect::<Vec<_>>();
            assert_eq!(tokens(&report.top), tokens(&top), "{what}");
            let asked = log_softmax_at(raw, &question.asked).unwrap();
            let got = report.top.iter().map(|(_, p)| *p).chain(report.asked);
            let expected = top.iter().map(|(_, p)| *p).chain(asked);
            got.zip(expected)
                .for_each(|(got, expected)| near(got, expected, what));
        }
        (Err(got), Err(expected)) => {
            assert_eq!(format!("{got:?}"), format!("{expected:?}"), "{what}");
        }
        other => panic!("{what}: {other:?}"),
    }
}

/// Where the sum of top-p reaches its goal but for the rounding of the CPU's f32 sums, one token
/// more or less may stay: its weight moves the others' log-probability a little.
fn at_an_edge(got: f32, expected: f32) -> bool {
    let error = (got - expected).abs();
    error > 2e-6 * (1.0 + expected.abs()) && error < 1e-3
}

#[track_caller]
fn near(got: f32, expected: f32, what: &str) {
    let same = got == expected || (got - expected).abs() <= 2e-6 * (1.0 + expected.abs());
    assert!(same, "{what}: log-probability {got}, expected {expected}");
}

/// Rows as models make them: some flat, some sharp, some with ties, some with minus infinity.
fn rows(count: usize, vocabulary: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = Random::new(seed);
    (0..count)
        .map(|row| {
            let scale = [0.5, 3.0, 8.0][row % 3];
            let mut logits: Vec<f32> = (0..vocabulary).map(|_| random.normal() * scale).collect();
            match row % 4 {
                1 => logits
                    .iter_mut()
                    .for_each(|x| *x = (*x * 2.0).round() / 2.0),
                2 => logits
                    .iter_mut()
                    .step_by(3)
                    .for_each(|x| *x = f32::NEG_INFINITY),
                _ => {}
            }
            logits
        })
        .collect()
}

fn params(random: &mut Random) -> SamplingParams {
    let mut pick = |choices: &[f32]| choices[random.below(choices.len())];
    SamplingParams {
        temperature: pick(&[1.0, 0.7, 0.0, 1.5, 1e-40]),
        top_k: pick(&[0.0, 0.0, 1.0, 3.0, 40.0, 300.0, 5000.0]) as u32,
        top_p: pick(&[1.0, 1.0, 0.9, 0.999, 0.3, 1e-6]),
        min_p: pick(&[0.0, 0.0, 0.05, 0.9, 1.0]),
    }
}

/// Thousands of draws with every mixture of filters.
#[test]
fn draws_are_those_of_the_cpu() {
    // Rows that end in a part of a block, of a run and of 16 lanes.
    for (vocabulary, count) in [(1000, 480), (4096, 90), (517, 480), (3, 60), (9001, 30)] {
        let rows = rows(12, vocabulary, vocabulary as u64);
        let mut random = Random::new(7);
        let questions: Vec<Owned> = (0..count)
            .map(|i| Owned {
                row: i % rows.len(),
                draw: Some((params(&mut random), uniform(3, i as u64))),
                top: [0, 1, 20][i % 3],
                asked: vec![(i % vocabulary) as u32],
                ..Owned::default()
            })
            .collect();
        compare(&rows, &questions, 64);
    }
}

/// The same logits asked often: every token's share of the unit interval begins where it does on
/// the CPU.
#[test]
fn every_part_of_the_unit_interval_gives_the_same_token() {
    let rows = rows(3, 300, 11);
    let filters = [
        (0, 1.0, 0.0),
        (20, 1.0, 0.0),
        (0, 0.8, 0.0),
        (0, 1.0, 0.02),
        (50, 0.9, 0.01),
    ];
    let mut questions = Vec::new();
    for (top_k, top_p, min_p) in filters {
        for i in 0..100 {
            let params = SamplingParams {
                temperature: 0.8,
                top_k,
                top_p,
                min_p,
            };
            let uniform = (f64::from(i) + 0.5) / 100.0;
            questions.push(Owned {
                row: i as usize % 3,
                draw: Some((params, uniform)),
                ..Owned::default()
            });
        }
    }
    compare(&rows, &questions, 1000);
}

#[test]
fn edits_are_those_of_the_cpu() {
    let vocabulary = 700;
    let rows = rows(6, vocabulary, 5);
    let mut random = Random::new(17);
    let mut questions = Vec::new();
    for i in 0..60 {
        let start = random.below(vocabulary - 50) as u32;
        let seen = (0..20).map(|j| Seen {
            token: start + 2 * j,
            output_count: j % 3,
        });
        let words = vocabulary.div_ceil(32);
        let mask: Vec<u32> = (0..words)
            .map(|_| random.next() as u32 & random.next() as u32)
            .collect();
        questions.push(Owned {
            row: i % 6,
            draw: Some((params(&mut random), uniform(9, i as u64))),
            bias: if i % 2 == 0 {
                vec![(start, 4.0), (start + 9, -100.0), (start + 4, 1.5)]
            } else {
                Vec::new()
            },
            penalties: (i % 3 != 0).then_some(Penalties {
                repetition: 1.3,
                presence: 0.4,
                frequency: 0.2,
            }),
            seen: seen.collect(),
            // Some masks are short: what is missing is forbidden.
            mask: (i % 4 < 2).then(|| mask[..[22, 5][i % 2]].to_vec()),
            top: 3,
            asked: Vec::new(),
        });
    }
    // Exactly one token is allowed; none is.
    let mut only = vec![0; 22];
    only[3] = 1 << 7;
    let plain = SamplingParams {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
    };
    for mask in [only, vec![0; 22]] {
        questions.push(Owned {
            row: 1,
            draw: Some((plain, 0.5)),
            mask: Some(mask),
            ..Owned::default()
        });
    }
    compare(&rows, &questions, 16);
}

#[test]
fn broken_rows_are_named_and_others_are_not_touched() {
    let mut rows = rows(4, 500, 3);
    rows[0][77] = f32::NAN;
    rows[0][300] = f32::INFINITY;
    rows[1][499] = f32::INFINITY;
    rows[2].fill(f32::NEG_INFINITY);
    let params = SamplingParams {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
    };
    let mut questions: Vec<Owned> = (0..4)
        .map(|row| Owned {
            row,
            draw: Some((params, 0.3)),
            top: 2,
            asked: vec![1],
            ..Owned::default()
        })
        .collect();
    // The mask removes what is broken from the draw, not from the raw row.
    let mask = vec![u32::MAX, u32::MAX];
    questions.push(Owned {
        row: 0,
        draw: Some((params, 0.3)),
        mask: Some(mask),
        ..Owned::default()
    });
    // Report only.
    questions.push(Owned {
        row: 3,
        top: 256,
        asked: vec![0, 499],
        ..Owned::default()
    });
    compare(&rows, &questions, 8);
}

#[test]
fn questions_out_of_range_are_refused_by_number() {
    let device = device();
    let limits = SamplerLimits {
        vocabulary: 10,
        concurrent: 2,
    };
    let mut sampler = Sampler::new(&device, limits).unwrap();
    let logits = upload(&device, &[0.0; 20]);
    let mut refused = |question: Question<'_>| {
        let questions = [Question::default(), question];
        sampler
            .run(logits.matrix(10), 2, &questions)
            .unwrap_err()
            .to_string()
    };
    assert!(
        refused(Question {
            row: 2,
            ..Question::default()
        })
        .contains("question 1: row 2 of 2")
    );
    assert!(
        refused(Question {
            asked: &[10],
            ..Question::default()
        })
        .contains("token 10 is outside of the vocabulary of 10")
    );
    assert!(
        refused(Question {
            top: 257,
            ..Question::default()
        })
        .contains("257 likeliest tokens, at most 256")
    );
    let params = SamplingParams {
        temperature: f32::NAN,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
    };
    assert!(
        refused(Question {
            draw: Some((params, 0.0)),
            ..Question::default()
        })
        .contains("temperature = NaN")
    );
    let error = SampleError::Parameter {
        parameter: "uniform",
        value: 1.0,
    };
    let params = SamplingParams {
        temperature: 1.0,
        ..params
    };
    assert!(
        refused(Question {
            draw: Some((params, 1.0)),
            ..Question::default()
        })
        .contains(&error.to_string())
    );
}

#[test]
fn a_run_may_start_before_the_answers_of_the_last_are_read() {
    let device = device();
    let limits = SamplerLimits {
        vocabulary: 10,
        concurrent: 2,
    };
    let mut sampler = Sampler::new(&device, limits).unwrap();
    // Row r has its largest logit at 3 r + 1.
    let mut rows = vec![0.0; 30];
    (0..3).for_each(|row| rows[row * 10 + 3 * row + 1] = 5.0);
    let logits = upload(&device, &rows);
    let greedy = SamplingParams {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
    };
    let draw = |row| Question {
        row,
        draw: Some((greedy, 0.5)),
        ..Question::default()
    };
    let mut run = |rows: &[usize]| {
        let questions: Vec<Question<'_>> = rows.iter().map(|row| draw(*row)).collect();
        let asked = sampler.run(logits.matrix(10), 3, &questions).unwrap();
        // The next step's rows: the second question's token, their own, the first's.
        let index = Buffer::from_slice(&device, &[1, u32::MAX, 0]).unwrap();
        let tokens = Buffer::from_slice(&device, &[50u32, 51, 52]).unwrap();
        sampler.take_drawn(index.view(), tokens.view(), 3).unwrap();
        (asked, tokens.read().unwrap())
    };
    let (first, taken) = run(&[2, 0]);
    assert_eq!(taken, [1, 51, 7]);
    // A question less: what it would have drawn is not taken.
    let (second, taken) = run(&[1]);
    assert_eq!(taken, [50, 51, 4]);
    let drawn = |asked: &Asked| -> Vec<u32> {
        let answers = sampler.answers(asked).unwrap().into_iter();
        answers
            .map(|one| one.drawn.unwrap().unwrap().token)
            .collect()
    };
    assert_eq!(drawn(&first), [7, 1]);
    assert_eq!(drawn(&second), [4]);
    sampler.run(logits.matrix(10), 3, &[draw(0)]).unwrap();
    let error = sampler.answers(&first).unwrap_err().to_string();
    assert!(error.contains("run 1 are gone"), "{error}");
}
