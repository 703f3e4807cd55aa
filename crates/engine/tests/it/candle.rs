//! The engine on the model in candle's operations, on the processor: it draws the tokens that
//! it draws with our kernels.

use crate::common::{CONTEXT_TOKENS, Sizes, files, requests, start, text};
use candle_core::Device;
use candle_core::quantized::GgmlDType;
use data::{Completion, Generate, Generator, Message, Prompt, Sampling};
use engine::{Engine, EngineConfig, Text};
use model::{CausalLm, KvType, LoadOptions, ModelFiles};

fn answers(engine: &Engine, requests: &[Generate]) -> Vec<Completion> {
    let ask = |request: &Generate| engine.generate(request.clone());
    let pending: Vec<_> = requests.iter().map(ask).collect();
    let answers = pending.into_iter();
    answers.flat_map(|answer| answer.wait().unwrap()).collect()
}

#[test]
fn every_kind_of_request_is_answered_with_the_same_tokens() {
    let requests = requests(24, 5);
    let expected = answers(
        &start(
            files(GgmlDType::F32).load(&LoadOptions::default()).unwrap(),
            &Sizes::default(),
        ),
        &requests,
    );
    let sizes = EngineConfig {
        block_size: 8,
        max_tokens_per_step: 24,
        max_sequences: 9,
        ..EngineConfig::new(CONTEXT_TOKENS, 1024, KvType::F32)
    };
    let model = files(GgmlDType::F32).load_with_candle(&Device::Cpu, &LoadOptions::default());
    let engine = Engine::start_replicas(vec![Box::new(model.unwrap())], text(), sizes).unwrap();
    let found = answers(&engine, &requests);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.tokens, expected.tokens);
        for (a, b) in found.logprobs.iter().zip(&expected.logprobs) {
            assert!((a.logprob - b.logprob).abs() < 1e-4, "{a:?} {b:?}");
        }
    }
}

/// Weights in blocks, tied embeddings, a tokenizer's own text: the model inside the program.
#[test]
fn the_embedded_model_writes_the_same() {
    static GGUF: &[u8] = include_bytes!("../../../../models/embedded/model.gguf");
    let files = ModelFiles::from_static(GGUF).unwrap();
    let engine = |model: Box<dyn CausalLm + Send>| {
        let tokenizer = files.tokenizer().unwrap();
        let template = files.chat_template(&tokenizer).unwrap();
        let ends = files.eos_token_ids().unwrap();
        let text = Text::new(tokenizer, Some(template), ends);
        let sizes = EngineConfig::new(128, 1024, KvType::F32);
        Engine::start_replicas(vec![model], text, sizes).unwrap()
    };
    let options = LoadOptions::default();
    let ours = engine(Box::new(files.load(&options).unwrap()));
    let candles = files.load_with_candle(&Device::Cpu, &options).unwrap();
    let candles = engine(Box::new(candles));
    let prompts = [
        "Where is the lamp?",
        "Write two lines about the sea.",
        "One, two,",
    ];
    let requests = prompts.map(|prompt| Generate {
        sampling: Sampling::greedy(),
        max_tokens: Some(24),
        ..Generate::new(Prompt::Messages(vec![Message::new("user", prompt)]))
    });
    let (found, expected) = (answers(&candles, &requests), answers(&ours, &requests));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.text, expected.text);
    }
    assert!(found.iter().any(|one| one.tokens.len() > 8));
}
