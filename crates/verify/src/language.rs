//! langdetect 1.0.9 with seed 0, by the crate that gives the same bits.

use langdetect::{Compat, DetectorFactory, Seed};
use std::sync::LazyLock;

static FACTORY: LazyLock<DetectorFactory> = LazyLock::new(|| {
    let mut factory = DetectorFactory::new(Compat::python(11));
    factory
        .load_builtin(&PROFILES)
        .expect("the list names the profiles that the crate ships");
    factory.seed = Seed::int(0);
    factory
});

/// The profiles in the order in which the reference run loaded them, that of a directory
/// listing. The order changes the last bits of a probability in some texts, never the language.
const PROFILES: [&str; 55] = [
    "pl", "gu", "zh-tw", "fi", "af", "ne", "ro", "da", "hr", "de", "pa", "en", "fa", "ca", "so",
    "ja", "ko", "es", "cs", "ru", "vi", "uk", "bn", "fr", "kn", "hu", "te", "lv", "sk", "sl", "el",
    "id", "it", "bg", "ta", "he", "sq", "hi", "th", "tr", "ml", "mk", "pt", "tl", "mr", "sv", "et",
    "nl", "sw", "cy", "no", "ur", "lt", "ar", "zh-cn",
];

/// The codes that the IFEval checkers know.
pub const CHECKABLE: [&str; 30] = [
    "en", "es", "pt", "ar", "hi", "fr", "ru", "de", "ja", "it", "bn", "uk", "th", "ur", "ta", "te",
    "bg", "ko", "pl", "he", "fa", "vi", "ne", "sw", "kn", "mr", "gu", "pa", "ml", "fi",
];

/// A language and its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Detected {
    /// langdetect's code, e.g. `en` or `zh-cn`.
    pub language: String,
    /// Above 0.1, at most 1.
    pub probability: f64,
}

/// The languages of a text, the most probable first; none where langdetect raises because the
/// text has no usable feature (only digits, punctuation, emoji, addresses).
#[must_use]
pub fn detect_all(text: &str) -> Option<Vec<Detected>> {
    let found = FACTORY.detect_langs(text).ok()?;
    let convert = |language: langdetect::Language| Detected {
        language: language.lang,
        probability: language.prob,
    };
    Some(found.into_iter().map(convert).collect())
}

/// The most probable language, `unknown` where none reaches 0.1; none as for [`detect_all`].
#[must_use]
pub fn detect(text: &str) -> Option<String> {
    FACTORY.detect(text).ok()
}
