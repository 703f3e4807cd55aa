//! Whole numbers in English words, written and found again.

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = [
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
];
const ORDINALS: [&str; 11] = [
    "", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth",
    "tenth",
];

/// `second`, and `12th` where the word is not listed.
pub(super) fn ordinal(n: usize) -> String {
    match ORDINALS.get(n) {
        Some(word) if n > 0 => (*word).to_owned(),
        _ => format!("{n}{}", suffix(n)),
    }
}

/// The short form: `2nd`.
pub(super) fn short_ordinal(n: usize) -> String {
    format!("{n}{}", suffix(n))
}

fn suffix(n: usize) -> &'static str {
    match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    }
}

/// The number in words without `and` or hyphens: `two hundred fifty`. `None` from 1,000 on.
fn spelled(n: usize) -> Option<Vec<&'static str>> {
    let mut words = Vec::new();
    if n >= 1000 {
        return None;
    }
    if n >= 100 {
        words.extend([SMALL[n / 100], "hundred"]);
    }
    let rest = n % 100;
    match rest {
        0 if n > 0 => {}
        0..20 => words.push(SMALL[rest]),
        _ => {
            words.push(TENS[rest / 10]);
            words.extend((!rest.is_multiple_of(10)).then_some(SMALL[rest % 10]));
        }
    }
    Some(words)
}

/// The token that stands for the end of a sentence or part of one.
pub(super) const STOP: &str = ".";

/// Lower-cased words and numbers of a text; `1,000` is one token, `forty-two` two. A mark that
/// ends a sentence gives [`STOP`].
pub(super) fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
    let mut tokens = vec![String::new()];
    for (i, c) in chars.iter().enumerate() {
        let digit = |at: usize| chars.get(at).is_some_and(char::is_ascii_digit);
        let groups_digits = *c == ',' && i > 0 && digit(i - 1) && digit(i + 1);
        match tokens.last_mut() {
            Some(last) if c.is_alphanumeric() => last.push(*c),
            _ if groups_digits => {}
            _ if matches!(c, '.' | '!' | '?' | ';' | '\n') => {
                tokens.extend([STOP.to_owned(), String::new()]);
            }
            _ => tokens.push(String::new()),
        }
    }
    tokens.retain(|token| !token.is_empty());
    tokens
}

/// Where the number stands in the tokens, in digits or in words, as ranges.
pub(super) fn find(tokens: &[String], n: usize) -> Vec<std::ops::Range<usize>> {
    let digits = n.to_string();
    let words = spelled(n);
    let times = ["once", "twice", "thrice"];
    let multiple = n.checked_sub(1).and_then(|index| times.get(index));
    (0..tokens.len())
        .filter_map(|start| {
            let token = tokens[start].as_str();
            if token == digits || multiple.is_some_and(|word| *word == token) {
                return Some(start..start + 1);
            }
            let end = start + length_of(&tokens[start..], words.as_deref()?)?;
            let alone = (start == 0 || !is_spelled(&tokens[start - 1]))
                && tokens.get(end).is_none_or(|next| !is_spelled(next));
            alone.then_some(start..end)
        })
        .collect()
}

/// How many tokens the words take at the front, an `and` after `hundred` included.
fn length_of(tokens: &[String], words: &[&str]) -> Option<usize> {
    let mut at = 0;
    for (i, word) in words.iter().enumerate() {
        let and = i > 0 && words[i - 1] == "hundred" && tokens.get(at)? == "and";
        at += usize::from(and);
        if tokens.get(at)? != word {
            return None;
        }
        at += 1;
    }
    Some(at)
}

/// Whether the token is a number or part of one.
pub(super) fn is_number(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_digit()) || is_spelled(token)
}

fn is_spelled(token: &str) -> bool {
    SMALL.contains(&token) || (!token.is_empty() && TENS.contains(&token)) || token == "hundred"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_below_a_thousand_is_found_in_words_and_nowhere_else() {
        for n in 0..1000 {
            let text = spelled(n).expect("below a thousand").join("-");
            let tokens = tokens(&text);
            assert_eq!(find(&tokens, n).first(), Some(&(0..tokens.len())), "{text}");
            for other in [n + 1, n % 100, n / 100, n % 10]
                .into_iter()
                .filter(|o| *o != n)
            {
                assert!(find(&tokens, other).is_empty(), "{other} in {text}");
            }
        }
    }

    #[test]
    fn other_spellings() {
        let found = |text: &str, n| !find(&tokens(text), n).is_empty();
        assert!(found("two hundred and fifty words", 250));
        assert!(found("1,000 words", 1000));
        assert!(found("use it twice", 2));
        assert!(!found("route 66a", 66));
        assert_eq!(
            (ordinal(2).as_str(), ordinal(12).as_str()),
            ("second", "12th")
        );
    }
}
