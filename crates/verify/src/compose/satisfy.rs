//! Builds a text that meets a list of constraints. The text reads poorly and is meant for
//! tests and for checking what a recipe composed; that it passes is checked, not assumed.

use super::conflict::contains_word;
use super::demands::{Bound, Demands};
use super::{Kind, holds, words};
use crate::Constraint;

/// A text that meets all the constraints (strictly), if the builder finds one.
///
/// Found for everything the sampler and [`compose`](super::compose) draw, whatever the type:
/// all 25 can be built, `response_language` for the 30 languages of the checker. `None` for
/// constraints that exclude each other, and for parameters beyond what plain filling can meet
/// (an upper bound on a common letter, a keyword that is a pattern, a language not listed, a
/// postscript marker that is a pattern).
#[must_use]
pub fn satisfying_text(constraints: &[Constraint]) -> Option<String> {
    let demands = Demands::of(constraints);
    // Language detection is the slow check: last.
    let mut checks: Vec<&Constraint> = constraints.iter().collect();
    checks.sort_by_key(|constraint| detects(constraint));
    attempts()
        .filter_map(|attempt| Builder::new(&demands, attempt)?.build())
        .find(|text| checks.iter().all(|constraint| holds(constraint, text)))
}

fn detects(constraint: &Constraint) -> bool {
    matches!(
        Kind::of(constraint),
        Kind::ResponseLanguage | Kind::EnglishCapital | Kind::EnglishLowercase
    )
}

/// One way to build the text: from ample to bare.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// Words taken of a clause at most.
    clause_words: usize,
    /// Clauses of filling beyond what a lower bound asks.
    spare_clauses: usize,
    /// Where in the list of clauses to begin.
    rotation: usize,
}

fn attempts() -> impl Iterator<Item = Attempt> {
    const SIZES: [(usize, usize); 7] = [(99, 4), (99, 2), (99, 1), (6, 3), (5, 1), (3, 1), (3, 0)];
    SIZES.into_iter().flat_map(|(clause_words, spare_clauses)| {
        let rotations = 0..words::CLAUSES.len();
        rotations.map(move |rotation| Attempt {
            clause_words,
            spare_clauses,
            rotation,
        })
    })
}

struct Builder<'a> {
    demands: &'a Demands<'a>,
    attempt: Attempt,
    /// Clauses that break no upper bound, each with the mark that ends it as a sentence.
    clauses: Vec<(&'static str, &'static str)>,
    next: usize,
    /// Words with the wanted letter to add.
    dense_words: usize,
}

impl<'a> Builder<'a> {
    fn new(demands: &'a Demands<'a>, attempt: Attempt) -> Option<Self> {
        let clauses: Vec<_> = match (demands.language_code, demands.language()) {
            (Some(_), None) => return None,
            (_, Some(language)) => language
                .sentences
                .iter()
                .map(|text| split_end(text))
                .collect(),
            (None, None) => words::CLAUSES
                .iter()
                .filter(|clause| allowed(demands, clause))
                .map(|clause| (*clause, "."))
                .collect(),
        };
        let next = attempt.rotation;
        (!clauses.is_empty()).then_some(Self {
            demands,
            attempt,
            clauses,
            next,
            dense_words: 0,
        })
    }

    fn build(mut self) -> Option<String> {
        if self.demands.has(Kind::ConstrainedResponse) {
            return Some("My answer is yes.".to_owned());
        }
        if self.demands.has(Kind::JsonFormat) {
            let content = self.short_answer();
            return serde_json::to_string(&serde_json::json!({ "answer": content })).ok();
        }
        if self.demands.has(Kind::TwoResponses) {
            let first = self.short_answer();
            let second = self.sentence(2);
            return Some(format!("{first}\n******\n{second}"));
        }
        if let Some(prompt) = self.demands.prompt {
            let answer = self.short_answer();
            return Some(format!("{prompt}\n\n{answer}"));
        }
        let text = self.document();
        Some(match self.missing_letters(&text) {
            0 => text,
            missing => {
                self.dense_words = missing;
                self.next = self.attempt.rotation;
                self.document()
            }
        })
    }

    /// Title, keywords and a sentence: all that the types that stand nearly alone can ask.
    fn short_answer(&mut self) -> String {
        let mut lines = Vec::new();
        lines.extend(self.title());
        lines.extend(self.keyword_line());
        lines.push(self.sentence(2));
        lines.join("\n")
    }

    fn document(&mut self) -> String {
        let nth = self.demands.nth;
        let count = self
            .demands
            .paragraphs
            .or(nth.map(|nth| nth.num_paragraphs))
            .unwrap_or(1);
        let mut paragraphs: Vec<Vec<String>> = vec![Vec::new(); count.max(1)];
        for (i, lines) in paragraphs.iter_mut().enumerate() {
            let opening = nth.filter(|nth| nth.nth == i + 1).map(|nth| nth.first_word);
            let clause = self.clause();
            lines.push(opening.map_or(clause.clone(), |word| format!("{word} {clause}")));
        }
        let mut inside = self.inserts();
        inside.extend(self.body());
        inside.extend(self.closing());
        if let Some(last) = paragraphs.last_mut() {
            last.extend(inside);
        }
        let separator = if nth.is_some() { "\n\n" } else { "\n***\n" };
        let joined: Vec<String> = paragraphs.iter().map(|lines| lines.join("\n")).collect();
        self.finish(&joined.join(separator))
    }

    /// What must occur somewhere, a line each and without full stops, so that the lines count
    /// as one sentence with what follows.
    fn inserts(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.title());
        lines.extend(self.keyword_line());
        if self.demands.highlights > 0 {
            // A line that begins with an asterisk would be a bullet point.
            let marked: Vec<String> = (0..self.demands.highlights)
                .map(|_| format!("*{}*", self.words(2)))
                .collect();
            lines.push(format!("{} {}", self.words(1), marked.join(" ")));
        }
        if self.demands.placeholders > 0 {
            lines.push(self.placeholders());
        }
        if let Some(bound) = self.demands.capital_words {
            let acronyms: Vec<&str> = words::ACRONYMS
                .into_iter()
                .filter(|word| allowed(self.demands, word))
                .collect();
            let line: Vec<&str> = acronyms.into_iter().cycle().take(bound.least()).collect();
            lines.extend((!line.is_empty()).then(|| line.join(" ")));
        }
        lines.extend(self.dense_line());
        lines
            .extend((0..self.demands.bullets.unwrap_or(0)).map(|_| format!("- {}", self.words(3))));
        if let Some((splitter, count)) = self.demands.sections {
            let section = |n: usize| format!("{splitter} {n}\n{}", self.words(4));
            lines.extend((1..=count).map(section));
        }
        lines
    }

    fn title(&mut self) -> Option<String> {
        self.demands
            .has(Kind::Title)
            .then(|| format!("<<{}>>", self.words(3)))
    }

    /// All keywords, and the counted one as often as it is wanted.
    fn keyword_line(&self) -> Option<String> {
        let mut keywords = self.demands.keywords.clone();
        if let Some((keyword, bound)) = self.demands.frequency {
            keywords.extend(std::iter::repeat_n(keyword, bound.least()));
        }
        let glue = "these are the notes on ";
        let glued = self.attempt.clause_words > 6 && allowed(self.demands, glue);
        let (lead, between) = if glued { (glue, " and ") } else { ("", " ") };
        (!keywords.is_empty()).then(|| format!("{lead}{}", keywords.join(between)))
    }

    fn placeholders(&self) -> String {
        let names = words::PLACEHOLDERS
            .into_iter()
            .filter(|name| allowed(self.demands, name));
        let names: Vec<&str> = match self.demands.language_code {
            Some(_) => vec!["1"],
            None => names.chain(["1"]).collect(),
        };
        let line = names.iter().cycle().take(self.demands.placeholders);
        line.map(|name| format!("[{name}]"))
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn dense_line(&self) -> Option<String> {
        let (letter, _) = self.demands.letter.filter(|_| self.dense_words > 0)?;
        let index = (letter.to_ascii_lowercase() as usize).checked_sub('a' as usize);
        let dense = index
            .and_then(|i| words::DENSE.get(i))
            .filter(|w| allowed(self.demands, w));
        let word = dense.map_or(letter.to_string(), |word| (*word).to_owned());
        let holds = word
            .chars()
            .filter(|c| *c == letter.to_ascii_lowercase())
            .count()
            .max(1);
        Some(vec![word; self.dense_words.div_ceil(holds)].join(" "))
    }

    fn missing_letters(&self, text: &str) -> usize {
        let Some((letter, bound)) = self.demands.letter else {
            return 0;
        };
        let letter = letter.to_ascii_lowercase();
        let found = text.to_lowercase().chars().filter(|c| *c == letter).count();
        bound.least().saturating_sub(found)
    }

    /// Sentences: as many as asked, or a few, over clauses enough for the words asked.
    fn body(&mut self) -> Vec<String> {
        let spare = self.attempt.spare_clauses;
        let least_words = self.demands.words.map_or(0, Bound::least);
        let mean_words = self.attempt.clause_words.min(7);
        let clauses = least_words.div_ceil(mean_words) + spare;
        let sentences = self.demands.sentences;
        // A capital after `P.S.` makes the marker a sentence of its own.
        let closing = 2 * usize::from(self.demands.postscript.is_some())
            + usize::from(self.demands.end_phrase.is_some());
        let count = match sentences.and_then(Bound::most) {
            Some(most) => most.saturating_sub(closing).clamp(1, 3).min(clauses),
            None => sentences.map_or(0, Bound::least).max(clauses),
        };
        if count == 0 {
            return Vec::new();
        }
        (0..count)
            .map(|_| self.sentence(clauses.div_ceil(count).max(1)))
            .collect()
    }

    /// Postscript and closing phrase.
    fn closing(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(marker) = self.demands.postscript {
            lines.push(format!("{marker} {}", self.words(3)));
        }
        lines.extend(self.demands.end_phrase.map(str::to_owned));
        lines
    }

    /// What concerns the whole text: case and quotation marks.
    fn finish(&self, text: &str) -> String {
        let cased = if self.demands.has(Kind::EnglishCapital) {
            text.to_uppercase()
        } else if self.demands.has(Kind::EnglishLowercase) {
            text.to_lowercase()
        } else {
            text.to_owned()
        };
        if self.demands.has(Kind::Quotation) {
            format!("\"{cased}\"")
        } else {
            cased
        }
    }

    /// The next clause, cut to the attempt's number of words.
    fn clause(&mut self) -> String {
        self.words(self.attempt.clause_words)
    }

    /// The first words of the next clause.
    fn words(&mut self, count: usize) -> String {
        let (clause, _) = self.next_clause();
        let words: Vec<&str> = clause.split(' ').collect();
        // The end of a language's clause says more about it than its start: keep it whole.
        if self.demands.language_code.is_some() && self.attempt.clause_words > 6 && count > 2 {
            return clause.to_owned();
        }
        words[..words.len().min(count)].join(" ")
    }

    fn next_clause(&mut self) -> (&'static str, &'static str) {
        self.next += 1;
        self.clauses[(self.next - 1) % self.clauses.len()]
    }

    /// A sentence of so many clauses.
    fn sentence(&mut self, clauses: usize) -> String {
        let (_, end) = self.clauses[self.next % self.clauses.len()];
        let glue = if self.demands.language_code.is_none() {
            " and "
        } else {
            " "
        };
        let joined = (0..clauses)
            .map(|_| self.clause())
            .collect::<Vec<_>>()
            .join(glue);
        let mut chars = joined.chars();
        let first: String = chars
            .next()
            .into_iter()
            .flat_map(char::to_uppercase)
            .collect();
        format!("{first}{}{end}", chars.as_str())
    }
}

/// Whether the text breaks none of the upper bounds on words and letters.
fn allowed(demands: &Demands<'_>, text: &str) -> bool {
    let lower = text.to_lowercase();
    let forbidden = demands
        .forbidden
        .iter()
        .any(|word| contains_word(&lower, &word.to_lowercase()));
    let counted = demands.frequency.is_some_and(|(keyword, bound)| {
        bound.most().is_some() && lower.contains(&keyword.to_lowercase())
    });
    let letter = demands.letter.is_some_and(|(letter, bound)| {
        bound.most().is_some() && lower.contains(letter.to_ascii_lowercase())
    });
    !(forbidden || counted || letter)
}

/// The sentence without its final mark, and the mark.
fn split_end(sentence: &'static str) -> (&'static str, &'static str) {
    let clause = sentence.trim_end_matches(['.', '।', '۔', '。']);
    (clause, &sentence[clause.len()..])
}
