//! Corrections: an answer that breaks a constraint of its request, and the same answer without
//! the fault.

use crate::CorpusError;
use crate::answer::correction;
use crate::ask::AskKind;
use crate::dice::Dice;
use crate::document::{ATTEMPTS, Corpus, Document, document};
use crate::mix::Role;
use crate::scene::{Must, Source};
use serde_json::json;

/// Bytes of a document, at most: its answer stands in it twice, and the context is short.
const MOST_BYTES: usize = 960;

impl Corpus {
    /// A request, an answer and the constraint that it breaks; then the answer that meets all.
    ///
    /// The constraint is one that a rule checks: no other is known to be broken in a recipe.
    pub(crate) fn correct(
        &self,
        source: Source<'_>,
        dice: &mut Dice,
    ) -> Result<Option<Document>, CorpusError> {
        // Kind, count and faults are fixed before anything is drawn. A mix has kinds with rules:
        // it has more kinds than there are soft ones.
        let kind = loop {
            let kind = self.mix.kind(dice);
            if matches!(kind, AskKind::Rule(_)) {
                break kind;
            }
        };
        let count = dice.between(1, 3);
        let also_broken = count > 1 && dice.chance(self.mix.also_broken);
        let step = match dice.chance(self.mix.alone) {
            true => "correct_alone",
            false => "correct",
        };
        for _ in 0..ATTEMPTS {
            let Some(scene) = source.scene(count, Must::Kind(kind), dice) else {
                continue;
            };
            let place = scene.asks.iter().position(|ask| ask.kind() == kind);
            let place = place.expect("the scene was drawn with this kind");
            let mut broken = vec![false; count];
            broken[place] = true;
            if also_broken {
                broken[(place + 1) % count] = true;
            }
            let pair = correction(&scene.errand, &scene.asks, &broken, dice);
            let Some((wrong, right)) = pair.filter(|(wrong, right)| wrong.text != right.text)
            else {
                continue;
            };
            let (failed, response) = (&scene.demands[place], &wrong.text);
            let variables = match step {
                "correct" => json!({
                    "instruction": scene.whole_query(), "constraints": scene.demands,
                    "failed": failed, "found": "", "response": response,
                }),
                _ => json!({"failed": failed, "response": response}),
            };
            let mut messages = self.render_of("complex-to-simple", step, &variables)?;
            messages.push(data::Message::new("assistant", right.text.as_str()));
            let bytes: usize = messages.iter().map(|turn| turn.content.len()).sum();
            if bytes <= MOST_BYTES {
                return Ok(Some(document(messages, Role::Correct, kind.name())));
            }
        }
        Ok(None)
    }
}
