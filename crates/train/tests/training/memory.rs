//! Memory of a step over the weights, as the system counts it. Ignored tests, each in a process
//! of its own: `cargo nextest run --release --run-ignored only -E 'test(memory::)' --no-capture`.

use crate::common::{decoder, tokens};
use model::{LoadAs, ModelConfig};
use train::{Coefficients, Gradients, Network, Pack, PassOptions, Recompute, Sequence};

/// Most memory so far, and memory now, in bytes.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    };
    (field("VmHWM:"), field("VmRSS:"))
}

fn config(vocab_size: usize, hidden_size: usize, num_layers: usize) -> ModelConfig {
    let small = decoder("llama3_1", LoadAs::F32).config;
    ModelConfig {
        vocab_size,
        hidden_size,
        num_layers,
        intermediate_size: 4 * hidden_size,
        num_heads: hidden_size / 64,
        num_kv_heads: hidden_size / 128,
        head_dim: 64,
        sliding_windows: vec![None; num_layers],
        tie_word_embeddings: false,
        max_position_embeddings: 2048,
        ..small
    }
}

/// Peak over the memory in use before, in bytes, of one step on one sequence.
fn peak(network: &Network, sequence: &Sequence, recompute: Recompute) -> u64 {
    let pack = Pack::new([sequence]);
    let options = PassOptions {
        recompute,
        ..Default::default()
    };
    let coefficients = vec![-1.0 / sequence.trained() as f32; sequence.trained()];
    let mut gradients = Gradients::new(network.parameters());
    let (_, before) = resident();
    network
        .backward(
            &pack,
            Coefficients::Known(&coefficients),
            &options,
            &mut gradients,
        )
        .unwrap();
    let (most, _) = resident();
    most.saturating_sub(before)
}

/// LoRA beside a model of 8 layers, 512 wide, 32,000 tokens, on 512 tokens: the case of which
/// candle's own autograd takes 2,151 MB over the weights.
fn eight_layers(recompute: Recompute) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    {
        let whole = Network::from_scratch(&config(32_000, 512, 8), 1).unwrap();
        let form = train::WeightsForm::Model { companions: vec![] };
        form.write(&whole, folder.path()).unwrap();
    }
    write_config(folder.path(), &config(32_000, 512, 8));
    let files = model::ModelFiles::open(folder.path()).unwrap();
    let llama = files.load(&model::LoadOptions::default()).unwrap();
    let network = Network::with_new_adapter(llama.decoder(), &crate::common::lora(16), 1).unwrap();
    let sequence = Sequence::completion(tokens(1, 512, 32_000), 1);
    peak(&network, &sequence, recompute)
}

fn write_config(folder: &std::path::Path, config: &ModelConfig) {
    let json = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "vocab_size": config.vocab_size, "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size, "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads, "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": false, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
    });
    std::fs::write(folder.join("config.json"), json.to_string()).unwrap();
}

#[test]
#[ignore = "measures"]
fn eight_layers_with_recomputing() {
    let found = eight_layers(Recompute::Layers);
    println!(
        "8 layers, 512 tokens, layers computed again: {} MB over the weights",
        found / 1_000_000
    );
    assert!(found < 215_000_000, "{found}");
}

#[test]
#[ignore = "measures"]
fn eight_layers_all_kept() {
    let found = eight_layers(Recompute::Nothing);
    println!(
        "8 layers, 512 tokens, everything kept: {} MB over the weights",
        found / 1_000_000
    );
}

/// 1,024 rows of logits over 128,256 tokens.
#[test]
#[ignore = "measures"]
fn wide_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let config = ModelConfig {
        max_position_embeddings: 2048,
        ..config(128_256, 128, 1)
    };
    {
        let whole = Network::from_scratch(&config, 1).unwrap();
        let form = train::WeightsForm::Model { companions: vec![] };
        form.write(&whole, folder.path()).unwrap();
    }
    write_config(folder.path(), &config);
    let files = model::ModelFiles::open(folder.path()).unwrap();
    let llama = files.load(&model::LoadOptions::default()).unwrap();
    let network = Network::with_new_adapter(llama.decoder(), &crate::common::lora(8), 1).unwrap();
    let sequence = Sequence::completion(tokens(1, 1025, 128_256), 1);
    let found = peak(&network, &sequence, Recompute::Layers);
    println!(
        "vocabulary of 128,256, 1,024 rows: {} MB over the weights",
        found / 1_000_000
    );
    assert!(found < 200_000_000, "{found}");
}
