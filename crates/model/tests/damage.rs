//! Weights files that lie, lack or end early: an error that names the place, never a panic.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use candle_core::quantized::GgmlDType;
use model::{
    CausalLm, Conversation, ForwardBatch, GgufFile, KvPool, KvType, LoadOptions, ModelConfig,
    ModelError, ModelFiles, SequenceSpan, Show, Special,
};
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::path::Path;
use tempfile::TempDir;
use testkit::fixtures;
use testkit::gguf_writer::{GgufWriter, fixture_twin};
use testkit::tiny::{self, Vocabulary};

fn copy_of(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures::folder(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.ends_with("golden.safetensors") {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

fn load_error(folder: &Path) -> String {
    match ModelFiles::open(folder).and_then(|files| files.load(&LoadOptions::default())) {
        Ok(_) => panic!("it loads"),
        Err(error) => error.to_string(),
    }
}

fn check(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{error} lacks {word}");
    }
}

fn error_after(name: &str, change: impl Fn(&Path)) -> String {
    let copy = copy_of(name);
    change(copy.path());
    load_error(copy.path())
}

/// A tensor of a safetensors file.
struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

/// Rewrites `model.safetensors` with changed tensors.
fn rewrite(folder: &Path, change: impl Fn(&mut Vec<Tensor>)) {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let mut tensors: Vec<Tensor> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .tensors()
        .into_iter()
        .map(|(name, view)| Tensor {
            name,
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            data: view.data().to_vec(),
        })
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|t| {
        (
            t.name.clone(),
            TensorView::new(t.dtype, t.shape.clone(), &t.data).unwrap(),
        )
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn tensor<'a>(tensors: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
    tensors
        .iter_mut()
        .find(|tensor| tensor.name == name)
        .unwrap()
}

#[test]
fn truncated_safetensors() {
    let path = fixtures::folder("llama2").join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let copy = copy_of("llama2");
    for length in (0..bytes.len())
        .step_by(4096)
        .chain([1, 7, 8, 9, bytes.len() - 1])
    {
        std::fs::write(copy.path().join("model.safetensors"), &bytes[..length]).unwrap();
        let error = load_error(copy.path());
        assert!(error.contains("model.safetensors"), "{length}: {error}");
    }
}

#[test]
fn headers_that_lie() {
    let corrupt = |at: usize, with: &'static [u8], words: &[&str]| {
        let error = error_after("llama2", |folder| {
            let path = folder.join("model.safetensors");
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[at..at + with.len()].copy_from_slice(with);
            std::fs::write(path, bytes).unwrap();
        });
        check(&error, words);
    };
    corrupt(0, &[255; 8], &["header", "model.safetensors"]);
    corrupt(0, &[0; 8], &["header"]);
    corrupt(6, &[1, 0], &["header"]);
    corrupt(8, b"[", &["header"]);
    corrupt(20, &[0xff], &["header"]);
}

#[test]
fn tensors_missing_unused_or_of_the_wrong_kind() {
    let edit = |change: &dyn Fn(&mut Vec<Tensor>), words: &[&str]| {
        check(
            &error_after("llama2", |folder| rewrite(folder, change)),
            words,
        );
    };
    let down = "model.layers.1.mlp.down_proj.weight";
    edit(
        &|t| t.retain(|t| t.name != down),
        &[down, "missing", "model.safetensors"],
    );
    edit(
        &|t| t.retain(|t| t.name != "lm_head.weight"),
        &["lm_head.weight", "missing"],
    );
    edit(
        &|t| tensor(t, down).shape.reverse(),
        &[down, "shape [64, 96]", "shape [96, 64]"],
    );
    edit(
        &|t| tensor(t, down).dtype = Dtype::I16,
        &[down, "I16", "BF16"],
    );
    edit(
        &|t| tensor(t, "model.norm.weight").dtype = Dtype::U16,
        &["model.norm.weight", "U16"],
    );
    let extra = |name: &'static str| {
        move |t: &mut Vec<Tensor>| {
            t.push(Tensor {
                name: name.into(),
                dtype: Dtype::F16,
                shape: vec![2],
                data: vec![0; 4],
            });
        }
    };
    edit(
        &extra("model.layers.2.mlp.down_proj.weight"),
        &["layers.2.mlp.down_proj", "no tensor"],
    );
    edit(
        &extra("model.layers.0.self_attn.q_proj.bias"),
        &["q_proj.bias", "no tensor"],
    );
    let copy = copy_of("llama2");
    rewrite(
        copy.path(),
        extra("model.layers.0.self_attn.rotary_emb.inv_freq"),
    );
    assert!(
        ModelFiles::open(copy.path())
            .unwrap()
            .load(&LoadOptions::default())
            .is_ok()
    );
}

#[test]
fn an_output_matrix_beside_tied_embeddings_must_be_equal_to_them() {
    let with_head = |change: &dyn Fn(&mut Tensor)| {
        let copy = copy_of("llama3_2");
        rewrite(copy.path(), |tensors| {
            let embedding = tensor(tensors, "model.embed_tokens.weight");
            let mut head = Tensor {
                name: "lm_head.weight".into(),
                dtype: embedding.dtype,
                shape: embedding.shape.clone(),
                data: embedding.data.clone(),
            };
            change(&mut head);
            tensors.push(head);
        });
        copy
    };
    let equal = with_head(&|_| ());
    assert!(
        ModelFiles::open(equal.path())
            .unwrap()
            .load(&LoadOptions::default())
            .is_ok()
    );
    let other = with_head(&|head| head.data[5] ^= 1);
    check(
        &load_error(other.path()),
        &["lm_head.weight", "tie_word_embeddings"],
    );
}

#[test]
fn shards_and_their_index() {
    let (first, index) = (
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
    );
    let edit_index = |from: &'static str, to: &'static str| {
        error_after("llama_linear", move |folder| {
            let text = std::fs::read_to_string(folder.join(index)).unwrap();
            assert!(text.contains(from));
            std::fs::write(folder.join(index), text.replacen(from, to, 1)).unwrap();
        })
    };
    let missing = error_after("llama_linear", |folder| {
        std::fs::remove_file(folder.join(first)).unwrap()
    });
    check(&missing, &[index, first, "missing", "tensors in it"]);
    let no_index = error_after("llama_linear", |folder| {
        std::fs::remove_file(folder.join(index)).unwrap()
    });
    check(&no_index, &["weights file", "model.safetensors"]);
    check(
        &edit_index(
            "\"model.norm.weight\": \"model-00002",
            "\"model.norm.weight\": \"model-00001",
        ),
        &["model.norm.weight", first],
    );
    check(
        &edit_index("model.norm.weight", "model.gone.weight"),
        &["model.gone.weight"],
    );
    check(&edit_index("weight_map", "weight_mop"), &["weight_map"]);
    check(
        &edit_index(
            "\"model-00001-of-00002.safetensors\"",
            "\"../model-00001-of-00002.safetensors\"",
        ),
        &["a file name", ".."],
    );
    check(
        &edit_index("\"model-00001-of-00002.safetensors\"", "7"),
        &["a file name", "7"],
    );
    check(&edit_index("{", "["), &[index, "JSON"]);
    let pickled = error_after("llama2", |folder| {
        std::fs::rename(
            folder.join("model.safetensors"),
            folder.join("pytorch_model.bin"),
        )
        .unwrap();
    });
    check(&pickled, &["pytorch_model.bin", "convert"]);
}

#[test]
fn folders_that_are_none() {
    check(
        &load_error(Path::new("no/such/folder")),
        &["no/such/folder"],
    );
    let empty = tempfile::tempdir().unwrap();
    check(&load_error(empty.path()), &["config.json"]);
    let wrong = empty.path().join("x.gguf");
    std::fs::write(&wrong, "not a GGUF file at all").unwrap();
    check(&load_error(&wrong), &["x.gguf", "magic"]);
}

/// NaN weights are no damage a loader can know of; their logits say so.
#[test]
fn nan_weights_load_and_give_nan_logits() {
    let copy = copy_of("llama2");
    rewrite(copy.path(), |tensors| {
        let data = &mut tensor(tensors, "model.layers.0.mlp.up_proj.weight").data;
        data.chunks_exact_mut(2)
            .for_each(|half| half.copy_from_slice(&0x7e00u16.to_le_bytes()));
    });
    let files = ModelFiles::open(copy.path()).unwrap();
    let model = files.load(&LoadOptions::default()).unwrap();
    let pool = KvPool::new(model.config(), 1, 16, KvType::F32).unwrap();
    let batch = ForwardBatch {
        tokens: vec![5],
        positions: vec![0],
        slots: vec![0],
        spans: vec![SequenceSpan {
            query: 0..1,
            context_len: 1,
            blocks: vec![0],
        }],
        adapters: vec![],
        logit_rows: vec![0],
        drawn: vec![],
    };
    let logits: Vec<f32> = model
        .forward(&batch, &pool)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap();
    assert!(logits.iter().all(|logit| logit.is_nan()), "{logits:?}");

    let options = LoadOptions {
        weights: model::LoadAs::Q8_0,
        ..Default::default()
    };
    let error = files.load(&options).err().unwrap().to_string();
    check(&error, &["layers.0.mlp.up_proj.weight", "NaN", "finite"]);
}

fn gguf(dtype: GgmlDType) -> GgufWriter {
    let path = fixtures::folder("llama3_1").join("config.json");
    let config =
        ModelConfig::from_hf_json(&path, &std::fs::read_to_string(&path).unwrap()).unwrap();
    fixture_twin("llama3_1", &config, dtype).writer
}

fn gguf_error(bytes: Vec<u8>) -> String {
    let loaded = GgufFile::from_vec(bytes)
        .map(ModelFiles::from_gguf)
        .and_then(|files| files.load(&LoadOptions::default()));
    match loaded {
        Ok(_) => panic!("it loads"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn truncated_gguf_at_every_kilobyte() {
    let bytes = gguf(GgmlDType::Q8_0).bytes();
    for length in (0..bytes.len()).step_by(1024).chain([bytes.len() - 32]) {
        check(&gguf_error(bytes[..length].to_vec()), &["truncated"]);
    }
}

#[test]
fn gguf_tensors_missing_unused_or_of_the_wrong_kind() {
    let edit = |change: &dyn Fn(&mut GgufWriter), words: &[&str]| {
        let mut writer = gguf(GgmlDType::F32);
        change(&mut writer);
        check(&gguf_error(writer.bytes()), words);
    };
    edit(
        &|w| _ = w.remove_tensor("blk.1.ffn_up.weight"),
        &["blk.1.ffn_up.weight", "missing"],
    );
    edit(
        &|w| _ = w.tensor("blk.9.x", &[1], 0, vec![0; 4]),
        &["blk.9.x", "no tensor"],
    );
    edit(
        &|w| _ = w.u32("llama.block_count", 1),
        &["blk.1.", "no tensor"],
    );
    edit(
        &|w| _ = w.u32("llama.block_count", 3),
        &["blk.2.", "missing"],
    );
    edit(
        &|w| _ = w.u32("llama.feed_forward_length", 97),
        &["ffn_gate", "shape [97, 64]"],
    );
    let replace = |name: &'static str, shape: &'static [usize], id: u32, bytes: usize| {
        move |w: &mut GgufWriter| {
            w.remove_tensor(name)
                .tensor(name, shape, id, vec![0; bytes]);
        }
    };
    edit(
        &replace("blk.0.attn_norm.weight", &[64], 8, 68),
        &["attn_norm", "Q8_0"],
    );
    edit(
        &replace("rope_freqs.weight", &[9], 0, 36),
        &["rope_freqs.weight", "shape [8]"],
    );
    edit(
        &replace("blk.0.ffn_up.weight", &[96, 64], 24, 96 * 64),
        &["blk.0.ffn_up.weight", "24"],
    );
}

#[test]
fn a_gguf_at_an_odd_address_loads() {
    // As bytes compiled into a program may lie anywhere.
    for (shift, dtype) in [0, 1, 2, 3]
        .into_iter()
        .flat_map(|shift| [(shift, GgmlDType::Q8_0), (shift, GgmlDType::Q5_0)])
    {
        let bytes = gguf(dtype).bytes();
        let mut shifted = vec![0; shift];
        shifted.extend(&bytes);
        let lying: &'static [u8] = &shifted.leak()[shift..];
        ModelFiles::from_static(lying)
            .unwrap()
            .load(&LoadOptions::default())
            .unwrap();
    }
}

/// Everything a program asks a model file for; what fails, if something does.
fn use_all_of(path: &Path) -> Result<(), ModelError> {
    let files = ModelFiles::open(path)?;
    let tokenizer = files.tokenizer()?;
    let template = files.chat_template(&tokenizer)?;
    let messages = [data::Message::new("user", "abc <s> a\nb")];
    let tokens = template.encode(&tokenizer, &Conversation::from_messages(&messages))?;
    tokenizer.decode(&tokens, Show::Everything);
    files.load(&LoadOptions::default()).map(drop)
}

/// A file for each damaged version of a tiny model: an error that names it, or a model.
fn check_versions(versions: impl Iterator<Item = (String, Vec<u8>)>) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.gguf");
    let mut working = 0;
    for (what, bytes) in versions {
        std::fs::write(&path, bytes).unwrap();
        match use_all_of(&path) {
            Ok(()) => working += 1,
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("damaged.gguf"), "{what}: {error}");
                assert!(!error.contains("gave up"), "{what}: {error}");
            }
        }
    }
    working
}

#[test]
fn tiny_models_cut_anywhere() {
    for vocabulary in [Vocabulary::BytePairs, Vocabulary::SentencePiece] {
        let whole = tiny::gguf(vocabulary).bytes();
        assert_eq!(
            check_versions([("whole".into(), whole.clone())].into_iter()),
            1
        );
        let cut = (0..whole.len() - 32).map(|at| (format!("cut at {at}"), whole[..at].to_vec()));
        assert_eq!(check_versions(cut), 0);
    }
}

#[test]
fn tiny_models_with_each_byte_changed() {
    for vocabulary in [Vocabulary::BytePairs, Vocabulary::SentencePiece] {
        let whole = tiny::gguf(vocabulary).bytes();
        let versions = (0..whole.len()).map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= [0xff, 1, 0x80][at % 3];
            (format!("byte {at} changed"), bytes)
        });
        let working = check_versions(versions);
        assert!(
            working > whole.len() / 8,
            "letters and weights may change: {working}"
        );
    }
}

#[test]
fn vocabularies_that_are_not_there() {
    let edit = |change: &dyn Fn(&mut GgufWriter), words: &str| {
        let mut writer = tiny::gguf(Vocabulary::BytePairs);
        change(&mut writer);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        std::fs::write(&path, writer.bytes()).unwrap();
        let error = use_all_of(&path).unwrap_err().to_string();
        check(&error, &["m.gguf", words]);
    };
    edit(
        &|w| _ = w.remove("tokenizer.ggml.tokens"),
        "tokenizer.ggml.tokens is missing",
    );
    edit(
        &|w| _ = w.strings("tokenizer.ggml.tokens", &[]),
        "tokenizer.ggml",
    );
    edit(
        &|w| _ = w.remove("tokenizer.ggml.model"),
        "tokenizer.ggml.model is missing",
    );
    edit(
        &|w| _ = w.remove("tokenizer.ggml.merges"),
        "tokenizer.ggml.merges is missing",
    );
    edit(
        &|w| _ = w.remove("tokenizer.chat_template"),
        "no chat template",
    );
    edit(
        &|w| _ = w.string("tokenizer.ggml.pre", "nonsense"),
        "nonsense",
    );
}

/// The regular expressions of the tokenizer library give up on such texts, by panicking.
#[test]
fn millions_of_spaces_are_tokens_or_an_error() {
    let file = GgufFile::from_vec(tiny::gguf(Vocabulary::BytePairs).bytes()).unwrap();
    let tokenizer = ModelFiles::from_gguf(file).tokenizer().unwrap();
    let text = " ".repeat(11_000_000) + "a";
    let error = tokenizer.encode_prompt_text(&text).unwrap_err().to_string();
    check(&error, &["<embedded>", "gave up", "retry-limit"]);
    assert_eq!(tokenizer.encode("abc", Special::AsText).unwrap(), [9]);
}

/// What stands where a file should be: a folder.
#[test]
fn files_that_cannot_be_read() {
    for name in [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "generation_config.json",
    ] {
        let copy = copy_of("llama2");
        let path = copy.path().join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::create_dir(&path).unwrap();
        let files = ModelFiles::open(copy.path()).unwrap();
        let error = match name {
            "tokenizer.json" => files.tokenizer().err(),
            "generation_config.json" => files.generation_config().err(),
            _ => files.load(&LoadOptions::default()).err(),
        };
        check(&error.unwrap().to_string(), &["cannot", name]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Bytes changed anywhere in the description: an error or a model, never a panic.
    #[test]
    fn damaged_gguf_descriptions_never_panic(
        changes in prop::collection::vec((0usize..3000, any::<u8>()), 1..4),
    ) {
        let mut bytes = gguf(GgmlDType::F16).bytes();
        for (at, value) in changes {
            bytes[at] = value;
        }
        let _ = GgufFile::from_vec(bytes)
            .map(ModelFiles::from_gguf)
            .and_then(|files| files.load(&LoadOptions::default()));
    }

    #[test]
    fn damaged_safetensors_headers_never_panic(
        changes in prop::collection::vec((0usize..2400, any::<u8>()), 1..4),
    ) {
        let copy = copy_of("llama2");
        let path = copy.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, value) in changes {
            bytes[at] = value;
        }
        std::fs::write(&path, bytes).unwrap();
        let _ = ModelFiles::open(copy.path()).and_then(|files| files.load(&LoadOptions::default()));
    }
}
