//! Which constraints an instruction is to have: how many, and which of them have a rule.

use super::outputs::Soft;
use super::settings::{Answers, Combination, Settings};
use verify::compose::draws::{below, unit};
use verify::compose::{Choice, Draws, Kind, Material, sample};
use verify::{Constraint, Relation};

/// Counts that an answer of a few sentences can show.
const SHORT_COUNT: usize = 5;
/// Words and letters, likewise.
const SHORT_WORDS: usize = 40;

/// Constraints of one instruction.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Combined {
    /// With a rule.
    pub rules: Vec<Constraint>,
    /// For a reader.
    pub soft: Vec<Soft>,
}

/// Draws the constraints of an instruction: their number by its weights, each with a rule or
/// without by its share. `keywords` are words that an answer is likely to have.
pub fn combine(settings: &Settings, soft: &[Soft], keywords: &[&str], seed: u64) -> Combined {
    let mut draws = Draws::new(seed);
    let mut bits = || draws.bits();
    let material = Material {
        prompt: None,
        keywords,
    };
    let count = 1 + weighted(&settings.counts, &mut bits);
    let without_rule = (0..count)
        .filter(|_| unit(&mut bits) < settings.soft_share)
        .count();
    match settings.combination {
        Combination::Compatible => {
            let soft = one_of_each_kind(soft, without_rule, &mut bits);
            let rules = compatible(settings, count - soft.len(), &material, &mut bits);
            Combined { rules, soft }
        }
        Combination::AsPublished => {
            let with_rule = count - without_rule;
            as_published(
                settings,
                soft,
                (with_rule, without_rule),
                &material,
                &mut bits,
            )
        }
    }
}

/// Types that can be drawn: not one whose parameter is the instruction that is yet to be
/// written.
fn kinds(settings: &Settings) -> Vec<Kind> {
    let mut kinds = settings.kinds_of_rules();
    kinds.retain(|kind| *kind != Kind::RepeatPrompt);
    kinds
}

/// Rules that one answer can meet; fewer than `count` only if there are no more.
fn compatible(
    settings: &Settings,
    count: usize,
    material: &Material<'_>,
    bits: &mut dyn FnMut() -> u64,
) -> Vec<Constraint> {
    let choice = Choice {
        kinds: &kinds(settings),
        held: &[],
        draw: &|kind, bits| {
            let drawn = sample(kind, material, bits);
            (settings.answers == Answers::Any || is_short(&drawn)).then_some(drawn)
        },
    };
    choice.compatible(count, bits)
}

/// Soft constraints of different kinds.
fn one_of_each_kind(soft: &[Soft], count: usize, bits: &mut dyn FnMut() -> u64) -> Vec<Soft> {
    let mut left: Vec<&Soft> = soft.iter().collect();
    let mut drawn: Vec<Soft> = Vec::new();
    while drawn.len() < count && !left.is_empty() {
        let one = left[below(bits, left.len())];
        left.retain(|other| other.kind != one.kind);
        drawn.push(one.clone());
    }
    drawn
}

/// With replacement; of a type or constraint that was drawn before, the second is dropped.
fn as_published(
    settings: &Settings,
    soft: &[Soft],
    (with_rule, without_rule): (usize, usize),
    material: &Material<'_>,
    bits: &mut dyn FnMut() -> u64,
) -> Combined {
    let mut combined = Combined::default();
    let kinds = kinds(settings);
    for _ in 0..with_rule {
        if kinds.is_empty() {
            break;
        }
        let kind = kinds[below(bits, kinds.len())];
        let rule = sample(kind, material, bits);
        if combined.rules.iter().all(|other| Kind::of(other) != kind) {
            combined.rules.push(rule);
        }
    }
    for _ in 0..without_rule {
        if soft.is_empty() {
            break;
        }
        let one = &soft[below(bits, soft.len())];
        if !combined.soft.contains(one) {
            combined.soft.push(one.clone());
        }
    }
    combined
}

/// Whether an answer of a few sentences can show it.
fn is_short(constraint: &Constraint) -> bool {
    use Constraint as C;
    match constraint {
        C::Existence { keywords: words } | C::ForbiddenWords { words } => words.len() == 1,
        C::Frequency { count, .. } => *count <= 3,
        C::NumberWords { count, .. } => *count <= SHORT_WORDS,
        C::LetterFrequency {
            relation, count, ..
        } => *count <= if *relation == Relation::AtLeast { 8 } else { 5 },
        C::NumberSentences { count, .. }
        | C::CapitalWordFrequency { count, .. }
        | C::NumberBulletLists { count } => *count <= SHORT_COUNT,
        C::NumberParagraphs { count }
        | C::NumberPlaceholders { count }
        | C::NumberHighlightedSections { count }
        | C::MultipleSections { count, .. }
        | C::NthParagraphFirstWord {
            paragraphs: count, ..
        } => (2..=3).contains(count),
        C::Postscript { marker } => marker.as_str() == "P.S.",
        _ => true,
    }
}

/// A place of a list of weights, each as likely as its weight.
fn weighted(weights: &[f64], bits: &mut dyn FnMut() -> u64) -> usize {
    let mut left = unit(bits) * weights.iter().sum::<f64>();
    let mut last = 0;
    for (place, weight) in weights.iter().enumerate() {
        if *weight > 0.0 {
            last = place;
            if left < *weight {
                return place;
            }
            left -= weight;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use verify::compose::conflict;

    fn pool() -> Vec<Soft> {
        let one = |number: usize| Soft {
            kind: format!("kind {}", number % 7),
            constraint: format!("Be {number}."),
            question: format!("Is it {number}?"),
        };
        (0..28).map(one).collect()
    }

    /// Pearson's statistic of counts against weights.
    fn chi_squared(found: &[u64], weights: &[f64]) -> f64 {
        let all: u64 = found.iter().sum();
        let total: f64 = weights.iter().sum();
        let cells = found.iter().zip(weights);
        cells
            .map(|(found, weight)| {
                let expected = all as f64 * weight / total;
                (*found as f64 - expected).powi(2) / expected
            })
            .sum()
    }

    #[test]
    fn counts_and_shares_are_those_of_the_weights() {
        let (settings, pool) = (Settings::default(), pool());
        let (mut counts, mut soft, mut all) = ([0_u64; 5], 0, 0);
        for seed in 0..20_000 {
            let combined = combine(&settings, &pool, &[], seed);
            let count = combined.rules.len() + combined.soft.len();
            counts[count - 1] += 1;
            soft += combined.soft.len() as u64;
            all += count as u64;
        }
        // 4 degrees of freedom: 18.5 is passed once in a thousand times.
        let statistic = chi_squared(&counts, &settings.counts);
        assert!(statistic < 18.5, "{statistic} {counts:?}");
        // One degree: 10.8.
        let statistic = chi_squared(&[soft, all - soft], &[0.3, 0.7]);
        assert!(statistic < 10.8, "{statistic} {soft} of {all}");
        println!("counts {counts:?}, soft {soft} of {all}");
    }

    #[test]
    fn what_is_combined_goes_together_and_is_drawn_again_by_its_seed() {
        let (settings, pool) = (Settings::default(), pool());
        let mut types: BTreeMap<Kind, u64> = BTreeMap::new();
        for seed in 0..3000 {
            let combined = combine(&settings, &pool, &["harbour", "rope"], seed);
            assert_eq!(conflict(&combined.rules), None, "{combined:?}");
            let kinds: Vec<&String> = combined.soft.iter().map(|one| &one.kind).collect();
            let again = kinds.iter().enumerate();
            assert!({ again }.all(|(i, kind)| !kinds[..i].contains(kind)));
            for rule in &combined.rules {
                *types.entry(Kind::of(rule)).or_default() += 1;
            }
            let other = combine(&settings, &pool, &["harbour", "rope"], seed);
            assert_eq!(combined, other);
        }
        assert_eq!(types.len(), 24, "{types:?}");
        assert!(!types.contains_key(&Kind::RepeatPrompt));
    }

    #[test]
    fn a_pool_without_soft_constraints_leaves_rules() {
        let combined = combine(&Settings::default(), &[], &[], 5);
        assert!(combined.soft.is_empty() && !combined.rules.is_empty());
        let all = Settings {
            soft_share: 1.0,
            ..Settings::default()
        };
        assert!(combine(&all, &pool(), &[], 5).rules.is_empty());
        // What one answer cannot have of one type has other types in its place.
        let one_type = Settings {
            rules: vec!["punctuation:no_comma".into()],
            counts: vec![0.0, 0.0, 1.0],
            soft_share: 0.0,
            ..Settings::default()
        };
        assert_eq!(combine(&one_type, &[], &[], 5).rules.len(), 1);
    }

    #[test]
    fn as_published_nothing_is_compared() {
        let settings = Settings::as_published();
        let (mut clashes, mut counts) = (0, [0_u64; 6]);
        for seed in 0..4000 {
            let combined = combine(&settings, &pool(), &[], seed);
            clashes += u64::from(conflict(&combined.rules).is_some());
            counts[combined.rules.len() + combined.soft.len()] += 1;
        }
        // Without repeated ones: more of 1 and 2, fewer of 4 and 5 than the weights.
        assert!(clashes > 200 && clashes < 2000, "{clashes}");
        assert!(counts[1] > 800 && counts[5] < 400, "{counts:?}");
        println!("{clashes} of 4000 contradict themselves; counts {counts:?}");
    }

    #[test]
    fn short_answers_are_not_asked_for_much() {
        let settings = Settings::small();
        for seed in 0..500 {
            let combined = combine(&settings, &pool(), &[], seed);
            assert!(combined.rules.iter().all(is_short), "{combined:?}");
            assert!(combined.rules.len() + combined.soft.len() <= 3);
        }
    }
}
