//! The model inside the program, and what belongs to it: the words it was trained to be asked
//! in, and the requests that it understands.

use include_dir::{Dir, include_dir};
use synth::prompts::PromptSet;

/// Its name.
pub(crate) const NAME: &str = "embedded";
/// The model itself.
pub(crate) static GGUF: &[u8] = include_bytes!("../../../models/embedded/model.gguf");
/// Requests about its world, as JSONL.
pub(crate) const SEEDS: &str = include_str!("../../../models/embedded/seeds.jsonl");
/// Ids of the rules that it was trained to follow and to judge, one a line.
const KINDS: &str = include_str!("../../../models/embedded/kinds.txt");
/// Its own wording of every prompt it can answer.
static PROMPTS: Dir = include_dir!("$CARGO_MANIFEST_DIR/../../models/embedded/prompts");

/// The program's prompts in this model's words.
pub(crate) fn prompts() -> PromptSet {
    let mut set = PromptSet::embedded();
    let folders = PROMPTS.dirs().flat_map(Dir::files);
    for file in folders {
        let id = file.path().with_extension("");
        let id = id.to_string_lossy().replace('\\', "/");
        let text = file.contents_utf8().expect("prompts are text");
        set = set
            .with(&id, &file.path().to_string_lossy(), text)
            .expect("a test reads every prompt");
    }
    set
}

/// Ids of the rules that it was trained to follow and to judge.
pub(crate) fn kinds() -> Vec<&'static str> {
    KINDS.lines().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prompt_is_in_the_model_s_words() {
        let (own, plain) = (prompts(), PromptSet::embedded());
        for prompt in plain.iter() {
            let replaced = own.get(prompt.id());
            assert_ne!(replaced.digest(), prompt.digest(), "{}", prompt.id());
        }
    }
}
