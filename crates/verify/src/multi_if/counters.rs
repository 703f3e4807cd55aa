//! Words and sentences of languages that do not put spaces or full stops as English does.

use crate::ifbench::emoji;
use crate::python;

/// Words of Chinese, Japanese or Korean text: each ideograph, kana and Hangul syllable, each
/// emoji, and each stretch of anything else between white space; punctuation is deleted first.
#[must_use]
pub fn cjk_words(text: &str) -> usize {
    let text: String = text.chars().filter(|c| !is_deleted(*c)).collect();
    let (emoji, text) = emoji::count_and_remove(&text);
    let characters = text.chars().filter(|c| is_cjk(*c)).count();
    let others = text
        .split(|c| is_cjk(c) || python::is_space(c))
        .filter(|word| !word.is_empty());
    emoji + characters + others.count()
}

fn is_deleted(c: char) -> bool {
    const DELETED: &str = "\\.!?．/_,{}<>:;$%^&*()+\"'—！，。？、`~@#￥…（）：；《》“”[]»〔〕-「」";
    DELETED.contains(c)
}

fn is_cjk(c: char) -> bool {
    matches!(c,
        '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{3040}'..='\u{30ff}'
        | '\u{ac00}'..='\u{d7af}')
}

/// Sentences of Chinese or Japanese text: stretches without an end mark, line by line.
#[must_use]
pub fn cjk_sentences(text: &str) -> usize {
    let is_end = |c| matches!(c, '!' | '?' | '.' | '。' | '！' | '？' | '．');
    let in_line = |line| {
        let parts = python::strip(line).split(is_end);
        parts.filter(|part| !part.is_empty()).count()
    };
    python::split_lines(text).map(in_line).sum()
}

/// Sentences of Hindi text: each danda, `!` and `?` ends one, and what follows the last is one
/// more. A full stop ends none.
#[must_use]
pub fn hindi_sentences(text: &str) -> usize {
    let is_end = |c| matches!(c, '।' | '!' | '?');
    let tail = text.rsplit(is_end).next().unwrap_or_default();
    let has_tail = !python::is_blank(tail);
    text.matches(is_end).count() + usize::from(has_tail)
}
