//! What sharing a prefix saves, on a model file of real shapes. Run by hand:
//!
//! ```text
//! AUTODIDACT_BENCH_GGUF=FILE cargo test --release -p engine --test it -- --ignored --nocapture bench_sharing
//! ```

use crate::common::Choices;
use data::{Generate, Generator, Prompt, Sampling, Score, TokenId};
use engine::{Engine, EngineConfig, Text};
use model::{GgufFile, KvType, LoadOptions, ModelFiles, Tokenizer};
use std::path::PathBuf;
use std::time::Instant;

const ROUNDS: u64 = 5;

#[test]
#[ignore = "a benchmark; needs AUTODIDACT_BENCH_GGUF"]
fn bench_sharing() {
    let path = PathBuf::from(std::env::var_os("AUTODIDACT_BENCH_GGUF").unwrap());
    let file = GgufFile::open(&path).unwrap();
    let text = Text::new(Tokenizer::from_gguf(&file).unwrap(), None, vec![2]);
    let options = LoadOptions {
        max_positions: Some(4096),
        ..LoadOptions::default()
    };
    let model = ModelFiles::from_gguf(file).load(&options).unwrap();
    let config = EngineConfig::new(4096, 16384, KvType::F16);
    let engine = Engine::start(Box::new(model), text, config).unwrap();

    let mut samples: [Vec<f64>; 2] = Default::default();
    let mut questions: [Vec<f64>; 2] = Default::default();
    for round in 0..ROUNDS {
        for (times, n) in samples.iter_mut().zip([1, 16]) {
            let prompt = Choices(round * 2 + n as u64).tokens(1000);
            times.push(seconds(|| generate(&engine, prompt, n)));
        }
        for (times, n) in questions.iter_mut().zip([1, 8]) {
            let prefix = Choices(1000 + round * 2 + n as u64).tokens(1500);
            times.push(seconds(|| score(&engine, prefix, n)));
        }
    }
    for (what, [one, many]) in [
        (
            "first tokens of 16 samples over one, 1000-token prompt",
            samples,
        ),
        ("8 questions over one, 1500-token prefix", questions),
    ] {
        let (one, many) = (median(one), median(many));
        println!("{what}: {many:.2} s / {one:.2} s = {:.3}", many / one);
    }
}

fn generate(engine: &Engine, prompt: Vec<TokenId>, n: usize) {
    let request = Generate {
        n,
        max_tokens: Some(1),
        sampling: Sampling {
            top_p: 0.95,
            ..Sampling::default()
        },
        ..Generate::new(Prompt::Tokens(prompt))
    };
    assert_eq!(engine.generate(request).wait().unwrap().len(), n);
}

fn score(engine: &Engine, prefix: Vec<TokenId>, questions: usize) {
    let question =
        |i| format!("Does the answer above keep to rule number {i} of the list? Answer:");
    let request = Score {
        prefix: Prompt::Tokens(prefix),
        suffixes: (0..questions).map(question).collect(),
        labels: vec![" YES".into(), " NO".into()],
        adapter: None,
    };
    let scores = engine.score(request).wait().unwrap();
    assert_eq!(scores.suffixes.len(), questions);
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
