//! Folders written as GGUF files and read again: the same logits, the same tokens, the same
//! bytes as a converter written apart; and what is refused.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use common::{bits, logits_in_chunks, worst};
use model::{
    Architecture, Conversation, GgufExport, GgufFile, GgufReport, GgufWeights, KvType, LoadAs,
    LoadOptions, ModelConfig, ModelError, ModelFiles, Special, Tokenizer,
};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use testkit::fixtures::{self, Golden, MODELS, Values};
use testkit::gguf_writer::{GgufTwin, fixture_twin, gguf_twin};
use testkit::random_model::random_weights;

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A tokenizer of 64 tokens at most: three control tokens, letters, a few words.
fn toy_tokenizer() -> Value {
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "special": true, "normalized": false,
               "single_word": false, "lstrip": false, "rstrip": false})
    };
    let mut vocab = json!({"<unk>": 0, "<s>": 1, "</s>": 2});
    let words = ["he", "ll", "hell", "Ġt", "Ġthe", "'s", "12"];
    let letters = "abcdefghijklmnopqrstuvwxyz'.,0123ĠĊ!".chars();
    for (id, text) in (3..).zip(letters.map(String::from).chain(words.map(str::to_owned))) {
        vocab[text] = json!(id);
    }
    json!({"version": "1.0", "normalizer": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "merges": [["h", "e"], ["l", "l"], ["he", "ll"], ["Ġ", "t"], ["Ġt", "he"], ["'", "s"], ["1", "2"]], "vocab": vocab}})
}

const TEMPLATE: &str =
    "{% for m in messages %}{{ bos_token }}{{ m.content }}{{ eos_token }}{% endfor %}";

/// A folder with its own tokenizer, and room for the file.
struct Folder {
    place: tempfile::TempDir,
}

impl Folder {
    fn new(config: &str, weights: &BTreeMap<String, Values>) -> Self {
        let folder = Self::empty();
        folder.write("config.json", config);
        let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = weights
            .iter()
            .map(|(name, tensor)| {
                let bytes = tensor.values.iter();
                let bytes = bytes.flat_map(|value| (*value as f32).to_le_bytes());
                (name.clone(), tensor.shape.clone(), bytes.collect())
            })
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            let dtype = safetensors::Dtype::F32;
            let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes);
            (name, view.unwrap())
        });
        folder.write(
            "model.safetensors",
            safetensors::serialize(views, None).unwrap(),
        );
        folder.tokenizer(|_| {});
        folder
    }

    /// A copy of a fixture.
    fn fixture(name: &str) -> Self {
        let folder = Self::empty();
        for file in fs::read_dir(fixtures::folder(name)).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() {
                fs::copy(&path, folder.model().join(path.file_name().unwrap())).unwrap();
            }
        }
        folder.tokenizer(|_| {});
        folder
    }

    fn empty() -> Self {
        let folder = Self {
            place: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(folder.model()).unwrap();
        let config = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE});
        folder.write("tokenizer_config.json", config.to_string());
        folder
    }

    fn model(&self) -> PathBuf {
        self.place.path().join("model")
    }

    fn output(&self) -> PathBuf {
        self.place.path().join("out.gguf")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.model().join(name), content).unwrap();
    }

    fn tokenizer(&self, change: impl FnOnce(&mut Value)) {
        let mut tokenizer = toy_tokenizer();
        change(&mut tokenizer);
        self.write("tokenizer.json", tokenizer.to_string());
    }

    fn config(&self, change: impl FnOnce(&mut Value)) {
        let path = self.model().join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        self.write("config.json", config.to_string());
    }

    fn export(&self, weights: GgufWeights) -> Result<GgufReport, ModelError> {
        self.export_with(weights, None)
    }

    fn export_with(
        &self,
        weights: GgufWeights,
        adapter: Option<&Path>,
    ) -> Result<GgufReport, ModelError> {
        drop(fs::remove_file(self.output()));
        let export = GgufExport {
            folder: &self.model(),
            adapter,
            weights,
        };
        let report = export.write(&self.output(), &mut |_, _| ControlFlow::Continue(()))?;
        let report = report.unwrap();
        assert_eq!(report.bytes, fs::metadata(self.output()).unwrap().len());
        Ok(report)
    }

    /// Exports, expects an error that says these words, and nothing left behind.
    fn refused(&self, words: &[&str]) {
        let error = self.export(GgufWeights::F16).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in {error}");
        }
        let left = fs::read_dir(self.place.path()).unwrap().count();
        assert_eq!(left, 1, "only the model's folder");
    }

    fn file(&self) -> GgufFile {
        GgufFile::open(self.output()).unwrap()
    }

    fn tokenizers(&self) -> [Tokenizer; 2] {
        let folder = Tokenizer::from_folder(self.model()).unwrap();
        [folder, Tokenizer::from_gguf(&self.file()).unwrap()]
    }
}

/// Logits of a model on disk, with exact K and V.
fn logits(path: &Path, weights: LoadAs, tokens: &[u32]) -> Vec<f32> {
    let options = LoadOptions {
        weights,
        ..Default::default()
    };
    let model = ModelFiles::open(path).unwrap().load(&options).unwrap();
    logits_in_chunks(&model, tokens, &[tokens.len()], None, KvType::F32)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

#[test]
fn the_file_computes_what_the_folder_computes() {
    for name in MODELS.into_iter().filter(|name| *name != "qwen2_window") {
        let folder = Folder::fixture(name);
        let tokens = Golden::read(&fixtures::folder(name)).tokens(300);
        let config = ModelFiles::open(&folder.model()).unwrap().config().unwrap();
        let reordered = matches!(
            config.architecture,
            Architecture::Llama | Architecture::Mistral
        );
        // Where the rows of q and k are reordered, their products are summed in another order:
        // the last bits differ, and rounding activations to 8 bits makes steps out of that.
        for (weights, load_as, bound) in [
            (GgufWeights::F32, LoadAs::F32, 5e-6),
            (GgufWeights::Stored, LoadAs::Stored, 5e-6),
            (GgufWeights::Q8_0, LoadAs::Q8_0, 2.5e-2),
        ] {
            let report = folder.export(weights).unwrap();
            assert_eq!((report.merged, report.notes.len()), (0, 0), "{report:?}");
            let here = logits(&folder.model(), load_as, &tokens);
            let there = logits(&folder.output(), LoadAs::Stored, &tokens);
            assert!(
                reordered || bits(&here) == bits(&there),
                "{name} {weights:?}"
            );
            let distance = worst(&there, &wide(&here), 64);
            println!("{name} {weights:?}: {distance:.2e}");
            assert!(distance <= bound, "{name} {weights:?}: {distance:e}");
        }
    }
}

/// The converter in testkit was written from the format's description, not from this one.
#[test]
fn the_tensors_are_those_of_a_converter_written_apart() {
    for name in MODELS.into_iter().filter(|name| *name != "qwen2_window") {
        let folder = Folder::fixture(name);
        let config = ModelFiles::open(&folder.model()).unwrap().config().unwrap();
        for (weights, dtype) in [
            (GgufWeights::F32, GgmlDType::F32),
            (GgufWeights::F16, GgmlDType::F16),
            (GgufWeights::Q8_0, GgmlDType::Q8_0),
        ] {
            folder.export(weights).unwrap();
            let (file, twin) = (folder.file(), fixture_twin(name, &config, dtype));
            compare(name, &file, &twin);
        }
    }
}

fn compare(name: &str, file: &GgufFile, twin: &GgufTwin) {
    let twin = GgufFile::from_vec(twin.writer.bytes()).unwrap();
    assert_eq!(file.tensors().len(), twin.tensors().len(), "{name}");
    for (tensor, theirs) in twin.tensors() {
        let ours = file.tensor(tensor).unwrap();
        let described = |one: &model::TensorInfo| (one.shape.clone(), one.dtype_id);
        assert_eq!(described(ours), described(theirs), "{name} {tensor}");
        let bytes = [(file, ours), (&twin, theirs)]
            .map(|(file, info)| file.tensor_bytes(info).unwrap().to_vec());
        if tensor == "rope_freqs.weight" {
            // Computed in f32 here, as the model's own frequencies are, and in f64 there.
            let [ours, theirs] = bytes.map(|bytes| {
                let values = bytes
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                values.collect::<Vec<_>>()
            });
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!((ours / theirs - 1.0).abs() < 1e-6, "{ours} {theirs}");
            }
            continue;
        }
        assert!(bytes[0] == bytes[1], "{name}: {tensor} differs");
    }
    for (key, value) in twin.metadata() {
        if !key.starts_with("tokenizer") {
            assert_eq!(file.metadata().get(key), Some(value), "{name} {key}");
        }
    }
}

fn wide_config() -> (&'static str, ModelConfig) {
    let text = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": 1, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 64,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5}"#;
    let config = ModelConfig::from_hf_json(Path::new("config.json"), text).unwrap();
    (text, config)
}

/// Worst error of a value beside the largest of its block, and the root mean square of all
/// errors beside that of the values; of the worst matrix each.
fn errors(file: &GgufFile, exact: &GgufTwin, block: usize) -> (f64, f64) {
    let exact = GgufFile::from_vec(exact.writer.bytes()).unwrap();
    let mut worst = (0f64, 0f64);
    for (name, info) in file
        .tensors()
        .iter()
        .filter(|(_, info)| info.shape.len() == 2)
    {
        let dtype = file.dtype(info).unwrap();
        let data = Cow::Borrowed(file.tensor_bytes(info).unwrap());
        let data = QStorage::from_data(data, &Device::Cpu, dtype).unwrap();
        let stored = QTensor::new(data, info.shape.clone()).unwrap();
        let stored = stored
            .dequantize(&Device::Cpu)
            .unwrap()
            .flatten_all()
            .unwrap();
        let stored = stored.to_vec1::<f32>().unwrap();
        let bytes = exact.tensor_bytes(exact.tensor(name).unwrap()).unwrap();
        let values = bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let values: Vec<f64> = values.map(f64::from).collect();
        let (mut square, mut of_errors) = (0.0, 0.0);
        for (values, stored) in values.chunks(block).zip(stored.chunks(block)) {
            let most = values
                .iter()
                .fold(0f64, |most, value| most.max(value.abs()));
            for (value, stored) in values.iter().zip(stored) {
                let error = (value - f64::from(*stored)).abs();
                worst.0 = worst.0.max(error / most);
                square += value * value;
                of_errors += error * error;
            }
        }
        worst.1 = worst.1.max((of_errors / square).sqrt());
    }
    worst
}

#[test]
fn the_error_of_every_type_is_within_what_is_promised() {
    let (text, config) = wide_config();
    let weights = random_weights(&config, 5);
    let folder = Folder::new(text, &weights);
    let exact = gguf_twin(&config, &weights, GgmlDType::F32);
    for (weights, block, of_block, of_all, kinds) in [
        (GgufWeights::F32, 1, 0.0, 0.0, &[("f32", 9)][..]),
        (GgufWeights::F16, 1, 2f64.powi(-11), 3e-4, &[("f16", 9)]),
        (GgufWeights::Bf16, 1, 2f64.powi(-8), 3e-3, &[("bf16", 9)]),
        (
            GgufWeights::Q8_0,
            32,
            1.0 / 254.0 + 2f64.powi(-11),
            7e-3,
            &[("q8_0", 9)],
        ),
        (GgufWeights::Q6K, 256, 1.0, 0.02, &[("q6_k", 9)]),
        (
            GgufWeights::Q4K,
            256,
            1.0,
            0.09,
            &[("q4_k", 8), ("q6_k", 1)],
        ),
        (
            GgufWeights::Q4_0,
            32,
            0.126,
            0.13,
            &[("q4_0", 8), ("q6_k", 1)],
        ),
    ] {
        let report = folder.export(weights).unwrap();
        let expected: BTreeMap<&str, usize> = kinds.iter().copied().collect();
        assert_eq!(report.matrices, expected);
        assert_eq!(report.notes, Vec::<String>::new());
        let found = errors(&folder.file(), &exact, block);
        println!(
            "{weights:?}: {:.5} of a block's largest, {:.5} of all",
            found.0, found.1
        );
        // f16 has fewer bits below 2^-14; no weight there is worth a bound of its own.
        let of_block = if weights == GgufWeights::F16 {
            1.0
        } else {
            of_block
        };
        assert!(
            found.0 <= of_block && found.1 <= of_all,
            "{weights:?}: {found:?}"
        );
    }
}

#[test]
fn rows_that_are_no_whole_blocks_become_the_next_finer_type_and_are_named() {
    let folder = Folder::fixture("smollm");
    let report = folder.export(GgufWeights::Q4K).unwrap();
    assert_eq!(report.matrices.keys().collect::<Vec<_>>(), [&"q8_0"]);
    assert!(
        report.notes[0].contains("token_embd.weight and 14 other matrices are q8_0 and not q6_k")
            && report.notes[0].contains("no whole blocks of 256"),
        "{report:?}"
    );
    let (text, _) = wide_config();
    let text = text.replace("512,", "40,");
    let config = ModelConfig::from_hf_json(Path::new("config.json"), &text).unwrap();
    let folder = Folder::new(&text, &random_weights(&config, 1));
    let report = folder.export(GgufWeights::Q4_0).unwrap();
    let expected = BTreeMap::from([("f16", 1), ("q4_0", 7), ("q6_k", 1)]);
    assert_eq!(report.matrices, expected);
    assert!(
        report.notes[0].contains("ffn_down.weight and 0 other"),
        "{report:?}"
    );
}

#[test]
fn an_adapter_is_merged_on_the_way() {
    let folder = Folder::fixture("llama3_1");
    for name in ["adapter", "adapter_rslora"] {
        let adapter = fixtures::folder("llama3_1").join(name);
        let golden = Golden::read(&adapter);
        let report = folder
            .export_with(GgufWeights::F32, Some(&adapter))
            .unwrap();
        assert!(report.merged > 0, "{report:?}");
        for length in [7, 33] {
            let found = logits(&folder.output(), LoadAs::Stored, &golden.tokens(length));
            let distance = worst(&found, golden.logits("logits", length), 64);
            println!("{name}, {length} tokens: {distance:.2e}");
            assert!(distance < 1e-5, "{name}: {distance:e}");
        }
    }
    let stranger = fixtures::folder("llama3_1");
    let error = folder.export_with(GgufWeights::F32, Some(&stranger));
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("adapter_config.json")
    );
}

#[test]
fn the_text_side_is_the_folders() {
    let folder = Folder::fixture("llama3_1"); // three ids end its texts
    folder.export(GgufWeights::F32).unwrap();
    let file = folder.file();
    assert_eq!(file.str("tokenizer.ggml.pre").unwrap(), "smollm");
    let [here, there] = folder.tokenizers();
    for text in [
        "hello the hell's 12, 3 12",
        "  the  </s>the<s>",
        "",
        "the\n\n the ",
    ] {
        for special in [Special::Parse, Special::AsText] {
            let tokens = here.encode(text, special).unwrap();
            assert_eq!(there.encode(text, special).unwrap(), tokens, "{text:?}");
        }
        let tokens = here.encode_prompt_text(text).unwrap();
        assert_eq!(there.encode_prompt_text(text).unwrap(), tokens);
        assert_eq!(tokens[0], 1);
    }
    assert_eq!(here.bos_id(), there.bos_id());
    for name in ["bos_token", "eos_token"] {
        assert_eq!(here.named_tokens()[name], there.named_tokens()[name]);
    }
    // Ids that no token has are there, as the embedding has rows for them.
    let tokens = file.strings("tokenizer.ggml.tokens").unwrap();
    assert_eq!((tokens.len(), &*tokens[63]), (64, "[PAD63]"));
    let files = ModelFiles::from_gguf(folder.file());
    assert_eq!(files.eos_token_ids().unwrap(), [2, 3, 4]);
    let messages = vec![json!({"role": "user", "content": "the hell"})];
    let text = files
        .chat_template(&there)
        .unwrap()
        .render(&Conversation::new(messages));
    assert_eq!(text.unwrap(), "<s>the hell</s>");
}

#[test]
fn templates_and_what_a_file_cannot_say() {
    let folder = Folder::fixture("qwen2");
    folder.write("chat_template.jinja", "main");
    fs::create_dir(folder.model().join("additional_chat_templates")).unwrap();
    folder.write("additional_chat_templates/tool_use.jinja", "other");
    folder.write("generation_config.json", r#"{"temperature": 0.5}"#);
    folder.tokenizer(|json| {
        json["normalizer"] = json!({"type": "NFC"});
        json["added_tokens"][0]["lstrip"] = json!(true);
    });
    let report = folder.export(GgufWeights::F32).unwrap();
    for word in ["NFC", "<unk> (1 in all)", "generation_config.json"] {
        let count = report
            .notes
            .iter()
            .filter(|note| note.contains(word))
            .count();
        assert_eq!(count, 1, "{word}: {report:?}");
    }
    let file = folder.file();
    assert_eq!(file.str("tokenizer.chat_template").unwrap(), "main");
    assert_eq!(
        file.str("tokenizer.chat_template.tool_use").unwrap(),
        "other"
    );
    assert_eq!(
        file.strings("tokenizer.chat_templates").unwrap(),
        ["tool_use"]
    );
    fs::remove_file(folder.model().join("chat_template.jinja")).unwrap();
    fs::remove_dir_all(folder.model().join("additional_chat_templates")).unwrap();
    fs::remove_file(folder.model().join("tokenizer_config.json")).unwrap();
    let report = folder.export(GgufWeights::F32).unwrap();
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("no chat template"))
    );
    assert!(
        !folder
            .file()
            .metadata()
            .contains_key("tokenizer.chat_template")
    );
}

#[test]
fn what_a_gguf_cannot_hold_is_refused_by_name() {
    Folder::fixture("qwen2_window").refused(&["config.json", "layer_types", "one window"]);
    let folder = Folder::fixture("qwen2");
    folder.config(|json| {
        json["rope_parameters"] = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e4});
    });
    folder.refused(&["rope_type", "qwen2", "llama3"]);
    let folder = Folder::fixture("smollm");
    folder.config(|json| json["architectures"] = json!(["GPT2LMHeadModel"]));
    folder.refused(&["architectures", "GPT2LMHeadModel"]);
    for (change, words) in [
        (
            (|json: &mut Value| {
                json["pre_tokenizer"]["pretokenizers"][1] = json!({"type": "Whitespace"})
            }) as fn(&mut Value),
            &["tokenizer.json: pre_tokenizer", "Whitespace"][..],
        ),
        (
            |json| json["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "a+"}, "behavior": "Isolated", "invert": false}),
            &["pre_tokenizer", "a+"],
        ),
        (
            |json| json["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = json!(true),
            &["pre_tokenizer", "add_prefix_space"],
        ),
        (
            |json| json["normalizer"] = json!({"type": "Lowercase"}),
            &["normalizer", "Lowercase"],
        ),
        (
            |json| json["model"]["vocab"]["zz"] = json!(64),
            &["the id of \"zz\"", "64 rows"],
        ),
        (
            |json| {
                json["model"]["ignore_merges"] = json!(true);
                json["model"]["vocab"]["zzz"] = json!(60);
            },
            &["ignore_merges", "\"zzz\""],
        ),
        (
            |json| {
                json["post_processor"]["special_tokens"]["<s>"] =
                    json!({"id": "<s>", "ids": [1, 1], "tokens": ["<s>", "<s>"]});
            },
            &["post_processor", "[1, 1]"],
        ),
    ] {
        let folder = Folder::fixture("smollm");
        folder.tokenizer(change);
        folder.refused(words);
    }
    let folder = Folder::fixture("smollm");
    fs::remove_file(folder.model().join("tokenizer.json")).unwrap();
    folder.refused(&["tokenizer.json"]);
    // Four ids that end a text, none by a spelling that is known.
    let folder = Folder::fixture("smollm");
    folder.config(|json| json["eos_token_id"] = json!([2, 5, 6, 7]));
    folder.refused(&["eos_token_id", "at most three"]);
}

/// Merges arrive at every word: whether they are asked first makes no difference.
#[test]
fn whole_words_first_is_no_matter_where_merges_arrive_at_them() {
    let folder = Folder::fixture("smollm");
    folder.tokenizer(|json| json["model"]["ignore_merges"] = json!(true));
    folder.export(GgufWeights::F32).unwrap();
    let [here, there] = folder.tokenizers();
    let encode = |one: &Tokenizer| one.encode("hell the 12's", Special::AsText).unwrap();
    assert_eq!(encode(&here), encode(&there));
}

#[test]
fn weights_that_do_not_fit_are_refused_and_nothing_is_left() {
    let (text, config) = wide_config();
    let edit = |change: fn(&mut BTreeMap<String, Values>), words: &[&str]| {
        let mut weights = random_weights(&config, 1);
        change(&mut weights);
        Folder::new(text, &weights).refused(words);
    };
    let down = "model.layers.0.mlp.down_proj.weight";
    edit(
        |weights| _ = weights.remove("model.norm.weight"),
        &["model.norm.weight is missing"],
    );
    edit(
        |weights| {
            let copy = weights["model.norm.weight"].clone();
            weights.insert("model.extra.weight".into(), copy);
        },
        &["model.extra.weight"],
    );
    edit(
        |weights| {
            let shape = &mut weights.get_mut("lm_head.weight").unwrap().shape;
            shape.reverse();
        },
        &["lm_head.weight", "[64, 256]"],
    );
    // Found when most of the file is written.
    let first = |weights: &mut BTreeMap<String, Values>, value: f64| {
        weights
            .get_mut("model.layers.0.mlp.down_proj.weight")
            .unwrap()
            .values[9] = value;
    };
    let mut weights = random_weights(&config, 1);
    first(&mut weights, 1e6);
    Folder::new(text, &weights).refused(&[down, "f16", "1000000"]);
    first(&mut weights, f64::NAN);
    Folder::new(text, &weights).refused(&[down, "NaN"]);
    let folder = Folder::new(text, &random_weights(&config, 1));
    fs::write(folder.output(), "mine").unwrap();
    let export = GgufExport {
        folder: &folder.model(),
        adapter: None,
        weights: GgufWeights::Q8_0,
    };
    let error = export.write(&folder.output(), &mut |_, _| ControlFlow::Continue(()));
    assert!(error.unwrap_err().to_string().contains("out.gguf"));
    assert_eq!(fs::read(folder.output()).unwrap(), b"mine");
    let nowhere = folder.place.path().join("no/where.gguf");
    let error = export.write(&nowhere, &mut |_, _| ControlFlow::Continue(()));
    assert!(error.unwrap_err().to_string().contains("where.gguf"));
}

#[test]
fn it_stops_when_told_to_and_tells_how_far_it_is() {
    let folder = Folder::fixture("smollm");
    let run = |stop_after: usize| {
        let export = GgufExport {
            folder: &folder.model(),
            adapter: None,
            weights: GgufWeights::F16,
        };
        let mut told = vec![];
        let report = export.write(&folder.output(), &mut |done, total| {
            told.push((done, total));
            match told.len() < stop_after {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        (report.unwrap(), told)
    };
    let (report, told) = run(3);
    assert_eq!((report, told.len()), (None, 3));
    assert_eq!(fs::read_dir(folder.place.path()).unwrap().count(), 1);
    let (report, told) = run(usize::MAX);
    assert!(report.is_some() && told.is_sorted());
    let (done, total) = told[told.len() - 1];
    assert!(done <= total && done > total / 2, "{done} of {total}");
}

/// A model of almost no weights for a large vocabulary.
fn small_with(vocabulary: usize) -> Folder {
    let mut config: Value = serde_json::from_str(testkit::tiny::CONFIG).unwrap();
    config["vocab_size"] = json!(vocabulary);
    config["eos_token_id"] = json!(null); // would be a token of ordinary text
    config["bos_token_id"] = json!(null);
    let text = config.to_string();
    let config = ModelConfig::from_hf_json(Path::new("config.json"), &text).unwrap();
    Folder::new(&text, &random_weights(&config, 1))
}

fn shared(name: &str) -> PathBuf {
    let shared = std::env::var_os("AUTODIDACT_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let path = shared.join("data/tokenizer_vectors").join(name);
    assert!(
        path.exists(),
        "{} is missing: set AUTODIDACT_SHARED to the folder with the golden data",
        path.display()
    );
    path
}

/// A published vocabulary as a `tokenizer.json` has it, exported and read again.
fn check_vectors(name: &str, build: impl Fn(&GgufFile, Value) -> Value) {
    const SEPARATOR: &str = "\n__ggml_vocab_test__\n";
    let published = GgufFile::open(shared(&format!("ggml-vocab-{name}.gguf"))).unwrap();
    let tokens = published.strings("tokenizer.ggml.tokens").unwrap();
    let types = published.integers_opt("tokenizer.ggml.token_type").unwrap();
    let folder = small_with(tokens.len());
    let mut added = vec![];
    let mut vocab = serde_json::Map::new();
    for ((id, token), kind) in tokens.iter().enumerate().zip(types.unwrap()) {
        vocab.insert(token.clone(), json!(id));
        if matches!(kind, 2..=4) {
            added.push(
                json!({"id": id, "content": token, "special": *kind != 4, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false}),
            );
        }
    }
    let json = json!({"version": "1.0", "added_tokens": added, "normalizer": null, "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}, "model": {"type": "BPE", "vocab": vocab}});
    folder.write("tokenizer.json", build(&published, json).to_string());
    folder.write("tokenizer_config.json", r#"{"unk_token": "<unk>"}"#);
    folder.export(GgufWeights::F16).unwrap();
    let read =
        |kind: &str| fs::read_to_string(shared(&format!("ggml-vocab-{name}.gguf.{kind}"))).unwrap();
    let (texts, ids) = (read("inp"), read("out"));
    let texts: Vec<&str> = texts.trim_end_matches(SEPARATOR).split(SEPARATOR).collect();
    let tokenizer = Tokenizer::from_gguf(&folder.file()).unwrap();
    assert_eq!(texts.len(), ids.lines().count());
    for (text, ids) in texts.into_iter().zip(ids.lines()) {
        let expected: Vec<u32> = ids
            .split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect();
        assert_eq!(
            tokenizer.encode(text, Special::AsText).unwrap(),
            expected,
            "{name}: {text:?}"
        );
    }
}

fn split(pattern: &str) -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})
}

#[test]
fn the_published_vectors_hold_for_byte_pairs() {
    for (name, pattern, ignore_merges) in [("llama-bpe", LLAMA3, true), ("qwen2", QWEN2, false)] {
        check_vectors(name, |published, mut json| {
            json["model"]["merges"] = json!(published.strings("tokenizer.ggml.merges").unwrap());
            json["model"]["ignore_merges"] = json!(ignore_merges);
            json["pre_tokenizer"] = split(pattern);
            json
        });
    }
}

/// Merges as converters from SentencePiece make them: every pair of tokens that forms a token,
/// those of higher score first.
#[test]
fn the_published_vectors_hold_for_sentence_piece() {
    check_vectors("llama-spm", |published, mut json| {
        let tokens = published.strings("tokenizer.ggml.tokens").unwrap();
        let scores = published
            .floats_opt("tokenizer.ggml.scores")
            .unwrap()
            .unwrap();
        let vocab = json["model"]["vocab"].as_object().unwrap().clone();
        let mut merges: Vec<(f64, usize, [&str; 2])> = vec![];
        for (token, score) in tokens.iter().zip(scores) {
            for (at, _) in token.char_indices().skip(1) {
                let parts = [&token[..at], &token[at..]];
                if parts.iter().all(|part| vocab.contains_key(*part)) {
                    merges.push((*score, vocab[parts[0]].as_u64().unwrap() as usize, parts));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let merges: Vec<[&str; 2]> = merges.into_iter().map(|(.., parts)| parts).collect();
        let merges = json!(merges);
        json["model"]["merges"] = merges;
        json["model"]["byte_fallback"] = json!(true);
        json["model"]["fuse_unk"] = json!(true);
        json["model"]["unk_token"] = json!("<unk>");
        json["normalizer"] = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
        json["decoder"] = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        json
    });
}

#[test]
fn spaces_before_first_words() {
    for (scheme, adds, note) in [
        ("always", true, "begins with two"),
        ("first", false, "no space before its first word"),
        ("never", false, ""),
    ] {
        let folder = small_with(300);
        folder.tokenizer(|json| {
            json["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁",
                "prepend_scheme": scheme, "split": false});
            json["decoder"] = json!({"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}]});
            let mut vocab = json!({"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "h": 4, "e": 5,
                "t": 6, "he": 7, "▁t": 8, "▁the": 9});
            for byte in 0..256 {
                vocab[format!("<0x{byte:02X}>")] = json!(10 + byte);
            }
            json["model"] = json!({"type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
                "merges": ["h e", "▁ t", "▁t he"], "vocab": vocab});
        });
        folder.write(
            "tokenizer_config.json",
            r#"{"bos_token": "<s>", "unk_token": "<unk>"}"#,
        );
        let report = folder.export(GgufWeights::F32).unwrap();
        assert!(
            note.is_empty() || report.notes.iter().any(|one| one.contains(note)),
            "{report:?}"
        );
        let file = folder.file();
        assert_eq!(file.str("tokenizer.ggml.model").unwrap(), "llama");
        assert_eq!(
            file.bool_opt("tokenizer.ggml.add_space_prefix").unwrap(),
            Some(adds)
        );
        let kinds = file
            .integers_opt("tokenizer.ggml.token_type")
            .unwrap()
            .unwrap();
        assert_eq!(&kinds[..11], [2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 6]);
        assert_eq!(&kinds[265..267], [6, 5]);
        let [here, there] = folder.tokenizers();
        let chat = "<s>the he\n the</s>";
        let encode = |one: &Tokenizer| one.encode(chat, Special::Parse).unwrap();
        assert_eq!(encode(&here), encode(&there), "{scheme}");
    }
}
