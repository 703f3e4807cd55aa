//! What the fuzz targets share: a model folder to put the hostile file into, and the tiny
//! model that the other files of the folder are from.

use model::{
    ChatTemplate, Conversation, GgufFile, Llama, LoadOptions, ModelFiles, Special, Tokenizer,
};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A folder of this process, in memory where the system has such a place.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let make = || {
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        made.expect("a place for temporary files")
    };
    FOLDER.get_or_init(make).path()
}

/// Lets panics that the program catches pass in silence. Those that escape still end the run.
pub fn expect_caught_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// Writes a file of the folder and gives its path.
pub fn put(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    std::fs::write(&path, bytes).expect("the folder can be written");
    path
}

/// A `config.json` small enough to load in microseconds.
pub const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
    "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 2, "vocab_size": 12, "max_position_embeddings": 8,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true}"#;

/// The vocabulary in the program's own model.
pub fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let file = GgufFile::from_static(include_bytes!("../../tests/models/tiny/tiny.gguf"));
        Tokenizer::from_gguf(&file.expect("a good file")).expect("a good vocabulary")
    })
}

/// Everything that a program does with a model's texts before it computes.
pub fn use_texts(files: &ModelFiles) {
    let Ok(tokenizer) = files.tokenizer() else {
        return;
    };
    use_tokenizer(&tokenizer);
    if let Ok(template) = files.chat_template(&tokenizer) {
        use_template(&template, &tokenizer);
    }
}

/// Encodes and decodes some texts.
pub fn use_tokenizer(tokenizer: &Tokenizer) {
    for text in ["", "a", " Hello, <s>world</s>  é😀\u{0}\n\n12345 \u{2581}x"] {
        for special in [Special::AsText, Special::Parse] {
            if let Ok(tokens) = tokenizer.encode(text, special) {
                tokenizer.decode(&tokens, model::Show::TextOnly);
            }
        }
        let _ = tokenizer.encode_prompt_text(text);
    }
}

/// Renders and encodes a conversation.
pub fn use_template(template: &ChatTemplate, tokenizer: &Tokenizer) {
    let turns = [("system", "Be brief."), ("user", "Hello <|end|>")];
    let messages = turns.map(|(role, text)| data::Message::new(role, text));
    let _ = template.encode(tokenizer, &Conversation::from_messages(&messages));
}

/// Loads the weights.
pub fn load(files: &ModelFiles) -> Option<Llama> {
    files.load(&LoadOptions::default()).ok()
}
