//! `custom:*`: one rule for one prompt.

use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use super::csv::{self, CsvError};
use super::lists::CAPITALS_BY_LATITUDE;
use super::text::{decimal_value, digit_runs, len, strip, strip_marks, without_punctuation, words};
use crate::{nltk, python};

/// The group `custom`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Custom {
    /// The multiples of 7 from 14 to 49.
    Multiples,
    /// Four questions with five options, each longer than the one before.
    McqCountLength,
    /// The countries of Africa backwards.
    ReverseNewline,
    /// The words of a sentence about the bald eagle backwards.
    WordReverse,
    /// Its letters backwards.
    CharacterReverse,
    /// 26 sentences from a to z.
    SentenceAlphabet,
    /// 27 capitals from north to south.
    EuropeanCapitalsSort,
    /// A table of cities.
    CsvCity,
    /// A table of products with a special character.
    CsvSpecialCharacter,
    /// A table of grades, all in quotes.
    CsvQuotes,
    /// Dates of Napoleon's battles.
    DateFormatList,
}

impl Custom {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "multiples" => Self::Multiples,
            "mcq_count_length" => Self::McqCountLength,
            "reverse_newline" => Self::ReverseNewline,
            "word_reverse" => Self::WordReverse,
            "character_reverse" => Self::CharacterReverse,
            "sentence_alphabet" => Self::SentenceAlphabet,
            "european_capitals_sort" => Self::EuropeanCapitalsSort,
            "csv_city" => Self::CsvCity,
            "csv_special_character" => Self::CsvSpecialCharacter,
            "csv_quotes" => Self::CsvQuotes,
            "date_format_list" => Self::DateFormatList,
            _ => return None,
        })
    }

    pub(super) fn id(&self) -> &'static str {
        match self {
            Self::Multiples => "custom:multiples",
            Self::McqCountLength => "custom:mcq_count_length",
            Self::ReverseNewline => "custom:reverse_newline",
            Self::WordReverse => "custom:word_reverse",
            Self::CharacterReverse => "custom:character_reverse",
            Self::SentenceAlphabet => "custom:sentence_alphabet",
            Self::EuropeanCapitalsSort => "custom:european_capitals_sort",
            Self::CsvCity => "custom:csv_city",
            Self::CsvSpecialCharacter => "custom:csv_special_character",
            Self::CsvQuotes => "custom:csv_quotes",
            Self::DateFormatList => "custom:date_format_list",
        }
    }

    /// # Errors
    ///
    /// A table is not one that the original could read.
    pub(super) fn check(&self, text: &str) -> Result<bool, CsvError> {
        Ok(match self {
            Self::Multiples => multiples_of_seven(text),
            Self::McqCountLength => four_choice_questions(text),
            Self::ReverseNewline => african_countries_backwards(text),
            Self::WordReverse => eagle_in_reversed_words(text),
            Self::CharacterReverse => eagle_in_reversed_letters(text),
            Self::SentenceAlphabet => sentences_from_a_to_z(text),
            Self::EuropeanCapitalsSort => capitals_by_latitude(text),
            Self::CsvCity => city_table(text)?,
            Self::CsvSpecialCharacter => product_table(text)?,
            Self::CsvQuotes => grade_table(text)?,
            Self::DateFormatList => dates_of_battles(text),
        })
    }

    /// What a text that does not follow the rule lacks.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Multiples => "not the multiples of 7 from 14 to 49".to_owned(),
            Self::McqCountLength => {
                "not four questions of growing length with five options".to_owned()
            }
            Self::ReverseNewline => "not the countries of Africa in falling order".to_owned(),
            Self::WordReverse => "no bald eagle in the words read backwards".to_owned(),
            Self::CharacterReverse => "no bald eagle in the letters read backwards".to_owned(),
            Self::SentenceAlphabet => "not 26 sentences from a to z".to_owned(),
            Self::EuropeanCapitalsSort => "not the 27 capitals from north to south".to_owned(),
            Self::CsvCity => "not a table of seven cities".to_owned(),
            Self::CsvSpecialCharacter => {
                "not a table of 14 products with a quoted special character".to_owned()
            }
            Self::CsvQuotes => "not a table of three grades, all in quotes".to_owned(),
            Self::DateFormatList => "not dates from 1769 to 1821 between commas".to_owned(),
        }
    }
}

/// The numbers in the text are 14, 21 ... 49.
fn multiples_of_seven(text: &str) -> bool {
    digit_runs(text).eq(["14", "21", "28", "35", "42", "49"])
}

/// Four questions, each longer than the one before and with five lettered options; the text
/// starts with the first one.
fn four_choice_questions(text: &str) -> bool {
    static LABEL: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"Question \p{Nd}+[.|):;]?").expect("the pattern is a valid regex")
    });
    if !text.starts_with("Question") {
        return false;
    }
    let questions = LABEL.split(text).map(strip).filter(|q| !q.is_empty());
    let lengths: Option<Vec<usize>> = questions.map(length_with_five_options).collect();
    lengths.is_some_and(|lengths| lengths.len() == 4 && lengths.is_sorted_by(|a, b| a < b))
}

/// Length of the lines before the first option, joined by spaces; none unless there are five
/// options.
fn length_with_five_options(question: &str) -> Option<usize> {
    let mut lines = question.split('\n').map(strip).peekable();
    let mut wording = String::new();
    while let Some(line) = lines.next_if(|line| !is_option(line)) {
        wording.push(' ');
        wording.push_str(line);
    }
    let options = lines.filter(|line| is_option(line)).count();
    (options == 5).then(|| len(strip(&wording)))
}

/// A letter a to e, one of `.`, `|`, `)`, white space or none, and a word.
fn is_option(line: &str) -> bool {
    let mut chars = line.chars();
    matches!(chars.next(), Some('A'..='E' | 'a'..='e'))
        && matches!(chars.next(), Some('.' | '|' | ')'))
        && chars
            .find(|c| !python::is_space(*c))
            .is_some_and(python::is_word)
}

/// From the line that names Zimbabwe on, at least 52 lines in falling order, accents aside.
fn african_countries_backwards(text: &str) -> bool {
    let lines = text.split('\n').map(strip_marks).filter(|l| !l.is_empty());
    let lines: Vec<String> = lines
        .skip_while(|line| !line.contains("Zimbabwe"))
        .map(ascii_of)
        .collect();
    lines.len() >= 52 && lines.is_sorted_by(|a, b| a >= b)
}

/// Compatibility decomposition, then ASCII characters only.
fn ascii_of(text: &str) -> String {
    let known = text.chars().filter(|c| !is_newer(*c));
    known.nfkd().filter(char::is_ascii).collect()
}

/// Characters that decompose to ASCII only since Unicode 15 or later; the original, on
/// CPython 3.11, drops them.
fn is_newer(c: char) -> bool {
    matches!(c, '\u{209d}'..='\u{209f}' | '\u{a7f1}' | '\u{1ccd6}'..='\u{1ccf9}')
}

/// The words backwards hold `bald eagle`. The original also asks that they be one sentence,
/// which they always are: no mark is left that could end one.
fn eagle_in_reversed_words(text: &str) -> bool {
    let text = without_punctuation(&text.to_lowercase());
    let words: Vec<&str> = words(&text).rev().collect();
    words.join(" ").contains("bald eagle")
}

fn eagle_in_reversed_letters(text: &str) -> bool {
    text.to_lowercase().contains("elgae dlab")
}

/// 26 sentences that start with a to z.
fn sentences_from_a_to_z(text: &str) -> bool {
    let sentences = nltk::sentences(text);
    sentences.len() == 26
        && sentences.iter().zip('a'..='z').all(|(sentence, letter)| {
            let first = words(sentence).next().unwrap_or_default();
            first.to_lowercase().starts_with(letter)
        })
}

/// The capitals north of 45 degrees, from north to south, between commas.
fn capitals_by_latitude(text: &str) -> bool {
    let text = ascii_of(text);
    let capitals = text.split(',').map(strip).filter(|name| !name.is_empty());
    capitals.eq(CAPITALS_BY_LATITUDE.iter().copied())
}

/// A header and seven rows of five fields.
fn city_table(text: &str) -> Result<bool, CsvError> {
    let rows = csv::rows(text, ',')?;
    Ok(rows.len() == 8
        && rows[0] == ["ID", "Country", "City", "Year", "Count"]
        && rows.iter().all(|row| row.len() == 5))
}

/// A header and fourteen rows; one of them, no row before it being short, has a quoted field
/// with a character that is neither letter, digit nor white space.
fn product_table(text: &str) -> Result<bool, CsvError> {
    let columns = ["ProductID", "Category", "Brand", "Price", "Stock"];
    if !is_header(text, columns, ',', &[' ', '\t']) {
        return Ok(false);
    }
    let rows = csv::rows(&text.replace('"', "\"\"\""), ',')?;
    let deciding = rows.iter().skip(1).find(|row| {
        row.len() != 5
            || row
                .iter()
                .any(|field| is_quoted_with_special_character(field))
    });
    Ok(rows.len() == 15 && deciding.is_some_and(|row| row.len() == 5))
}

/// Starts with a quote, and on the same line a special character comes before another quote.
fn is_quoted_with_special_character(field: &str) -> bool {
    let line = field.split('\n').next().unwrap_or_default();
    let Some((inner, _)) = line
        .strip_prefix('"')
        .and_then(|rest| rest.rsplit_once('"'))
    else {
        return false;
    };
    inner
        .chars()
        .any(|c| !python::is_word(c) && !python::is_space(c))
}

/// A header and three rows of five fields, each in quotes, between tabs.
fn grade_table(text: &str) -> Result<bool, CsvError> {
    let columns = ["StudentID", "Subject", "Grade", "Semester", "Score"];
    if !is_header(text, columns, '\t', &[' ']) {
        return Ok(false);
    }
    let rows = csv::rows(&text.replace('"', "\"\"\""), '\t')?;
    let is_quoted = |field: &String| {
        let field = strip(field);
        field.starts_with('"') && field.ends_with('"')
    };
    Ok(rows.len() == 4
        && rows
            .iter()
            .all(|row| row.len() == 5 && row.iter().all(is_quoted)))
}

/// The first line names the columns, each plain or in quotes, with padding allowed after the
/// separator.
fn is_header(text: &str, columns: [&str; 5], separator: char, padding: &[char]) -> bool {
    let first = text.split('\n').next().unwrap_or_default();
    let mut rest = Some(strip(first));
    for (i, column) in columns.into_iter().enumerate() {
        if i > 0 {
            rest = rest
                .and_then(|rest| rest.strip_prefix(separator))
                .map(|rest| rest.trim_start_matches(padding));
        }
        rest = rest.and_then(|rest| {
            let quoted = rest
                .strip_prefix('"')
                .and_then(|rest| rest.strip_prefix(column));
            match quoted {
                Some(rest) => rest.strip_prefix('"'),
                None => rest.strip_prefix(column),
            }
        });
    }
    rest == Some("")
}

/// Dates `YYYY-MM-DD` of the years 1769 to 1821 between commas. As in the original, February
/// may have 29 days in any year, and month and day may be 00.
fn dates_of_battles(text: &str) -> bool {
    strip(text).split(',').map(strip).all(|date| {
        let Some([year, month, day]) = date_parts(date) else {
            return false;
        };
        let days = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 => 29,
            _ => 99,
        };
        (1769..=1821).contains(&year) && month <= 12 && day <= days
    })
}

fn date_parts(date: &str) -> Option<[u32; 3]> {
    let mut parts = date.split('-');
    let mut number = |digits: usize| {
        let part = parts.next().filter(|part| len(part) == digits)?;
        part.chars()
            .try_fold(0, |number, c| Some(number * 10 + decimal_value(c)?))
    };
    let date = [number(4)?, number(2)?, number(2)?];
    parts.next().is_none().then_some(date)
}

#[cfg(test)]
mod tests {
    use super::ascii_of;

    #[test]
    fn accents_and_what_is_not_ascii_are_dropped() {
        for (text, expected) in [
            ("S\u{e3}o Tom\u{e9}", "Sao Tome"),
            ("\u{ff21}\u{ff0c}\u{fb01}", "A,fi"),
            ("\u{65e5}\u{131}x", "x"),
            ("\u{1ccd6}\u{209d}y", "y"),
        ] {
            assert_eq!(ascii_of(text), expected, "{text:?}");
        }
    }
}
