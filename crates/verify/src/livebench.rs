//! LiveBench's instruction following tasks: how an answer is prepared and a question scored.
//!
//! The constraints are IFEval's, on strict verdicts. Source: LiveBench b0fb577, releases before
//! 2025-11-25.

use crate::python;

/// The answer without its `<think>...</think>` parts and without outer white space.
///
/// A part that is not closed stays, as in the original.
#[must_use]
pub fn prepare(answer: &str) -> String {
    python::strip(&without_thoughts(answer)).to_owned()
}

/// `text` with each `<think>` up to the next `</think>` deleted.
#[must_use]
pub fn without_thoughts(text: &str) -> String {
    const OPEN: &str = "<think>";
    const CLOSE: &str = "</think>";
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, thought)) = rest.split_once(OPEN) {
        let Some((_, after)) = thought.split_once(CLOSE) else {
            break;
        };
        kept.push_str(before);
        rest = after;
    }
    kept.push_str(rest);
    kept
}

/// Score of a question in `[0, 1]`: the mean of "all followed" (0 or 1) and the share followed;
/// none for a question without constraints.
#[must_use]
pub fn score(followed: &[bool]) -> Option<f64> {
    if followed.is_empty() {
        return None;
    }
    let count = followed.iter().filter(|f| **f).count();
    let all = if count == followed.len() { 1.0 } else { 0.0 };
    let share = count as f64 / followed.len() as f64;
    Some((all + share) / 2.0)
}

/// Whether a question belongs to a release: published by then and not yet removed.
///
/// Dates are spelled `YYYY-MM-DD`; an empty date of removal means never.
#[must_use]
pub fn is_in_release(release: &str, published: &str, removed: &str) -> bool {
    published <= release && (removed.is_empty() || removed > release)
}

#[cfg(test)]
mod tests {
    use super::{is_in_release, prepare, score};

    #[test]
    fn thoughts_are_deleted_to_the_nearest_end() {
        for (answer, expected) in [
            ("", ""),
            (" a \u{1c}", "a"),
            ("<think>x\ny</think>\n\nanswer\n", "answer"),
            ("a<think>x</think>b<think>y</think>c", "abc"),
            ("<think>a<think>b</think>c</think>d", "c</think>d"),
            ("a <think>never closed", "a <think>never closed"),
            ("</think><think>x</think>", "</think>"),
        ] {
            assert_eq!(prepare(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn score_is_the_mean_of_all_and_share() {
        assert_eq!(score(&[]), None);
        assert_eq!(score(&[true]), Some(1.0));
        assert_eq!(score(&[true, false]), Some(0.25));
        assert_eq!(score(&[true, true, false]), Some(2.0 / 3.0 / 2.0));
        assert_eq!(score(&[false, false]), Some(0.0));
    }

    #[test]
    fn a_release_leaves_out_what_is_removed_or_not_yet_there() {
        for (published, removed, expected) in [
            ("2024-11-25", "", true),
            ("2024-06-24", "2025-04-02", true),
            ("2024-06-24", "2024-11-25", false),
            ("2025-04-02", "", false),
        ] {
            let found = is_in_release("2024-11-25", published, removed);
            assert_eq!(found, expected, "{published} {removed}");
        }
    }
}
