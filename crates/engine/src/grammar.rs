//! Grammars: a request's [`Grammar`] becomes a token matcher (llguidance).
//!
//! Knows the vocabulary as bytes; knows no logits and no scheduling.

use data::{Grammar, RequestError, TokenId};
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use std::sync::{Arc, OnceLock};
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

/// The vocabulary as a grammar sees it.
#[derive(Debug, Clone)]
pub(crate) struct GrammarVocabulary {
    /// Bytes of each token; control tokens and unused ids are empty and never allowed.
    pub(crate) token_bytes: Vec<Vec<u8>>,
    /// The tokens that end a completion, allowed wherever the grammar may end.
    pub(crate) eos_ids: Vec<TokenId>,
}

/// Compiles grammars for one vocabulary. The vocabulary's trie is built at the first use:
/// requests without a grammar never pay for it.
pub(crate) struct GrammarCompiler {
    vocabulary: GrammarVocabulary,
    factory: OnceLock<Result<ParserFactory, String>>,
}

impl GrammarCompiler {
    pub(crate) fn new(vocabulary: GrammarVocabulary) -> Self {
        Self {
            vocabulary,
            factory: OnceLock::new(),
        }
    }

    /// A matcher at the start of the grammar's language.
    pub(crate) fn compile(&self, grammar: &Grammar) -> Result<Matcher, RequestError> {
        let factory = self.factory.get_or_init(|| self.build_factory());
        let factory = factory
            .as_ref()
            .map_err(|error| RequestError::Grammar(error.clone()))?;
        let parser = factory
            .create_parser(top_level(grammar)?)
            .map_err(|error| RequestError::Grammar(first_line(&error.to_string())))?;
        let matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            Some(error) => Err(RequestError::Grammar(first_line(&error))),
            None => Ok(matcher),
        }
    }

    fn build_factory(&self) -> Result<ParserFactory, String> {
        let size = u32::try_from(self.vocabulary.token_bytes.len())
            .map_err(|_| "the vocabulary is larger than 2^32".to_owned())?;
        let eos_ids = &self.vocabulary.eos_ids;
        let Some(first) = eos_ids.first().copied() else {
            return Err("the model has no end-of-sequence token, which a grammar needs".into());
        };
        let info = TokRxInfo::new(size, first);
        let trie = TokTrie::from(&info, &self.vocabulary.token_bytes).with_eos_tokens(eos_ids);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory =
            ParserFactory::new_simple(&environment).map_err(|error| error.to_string())?;
        factory.quiet();
        Ok(factory)
    }
}

fn top_level(grammar: &Grammar) -> Result<TopLevelGrammar, RequestError> {
    Ok(match grammar {
        Grammar::Choice(choices) => {
            if choices.is_empty() || choices.iter().any(String::is_empty) {
                return Err(RequestError::Grammar(
                    "a choice needs at least one string, and no empty one".into(),
                ));
            }
            // Lark strings use JSON's escapes.
            let quoted: Vec<String> = choices
                .iter()
                .map(|choice| serde_json::Value::from(choice.as_str()).to_string())
                .collect();
            TopLevelGrammar::from_lark(format!("start: {}", quoted.join(" | ")))
        }
        Grammar::Regex(regex) => TopLevelGrammar::from_regex(regex),
        Grammar::JsonSchema(schema) => TopLevelGrammar::from_json_schema(schema.clone()),
        Grammar::Lark(source) => TopLevelGrammar::from_lark(source.clone()),
    })
}

/// llguidance appends its whole parser state to some messages.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
