//! The language of a text.

use langdetect::{DetectorFactory, Seed};
use std::sync::LazyLock;

/// The built-in profiles with a fixed seed, so that a text always has the same language.
static DETECTOR: LazyLock<DetectorFactory> = LazyLock::new(|| {
    let mut factory = DetectorFactory::builtin().clone();
    factory.seed = Seed::Int(0);
    factory
});

/// Most probable language as a code such as `en`; `None` if the text has nothing to tell it by.
pub fn language_of(text: &str) -> Option<String> {
    let language = DETECTOR.detect(text).ok();
    language.filter(|language| language != "unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_told() {
        let check = |text, expected: Option<&str>| {
            assert_eq!(language_of(text).as_deref(), expected, "{text}");
        };
        check(
            "Write a short letter to your neighbour about the garden.",
            Some("en"),
        );
        check(
            "Schreibe einen kurzen Brief an deine Nachbarin über den Garten.",
            Some("de"),
        );
        check("123 456", None);
    }
}
