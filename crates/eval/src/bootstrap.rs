//! Percentile bootstrap over prompts (Efron 1979): whole prompts are drawn with
//! replacement, so that instructions of one prompt stay together.

use crate::tally::{Metric, Tally};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Resamples behind every interval.
pub const RESAMPLES: usize = 10_000;
/// Seed of the draws: the same rows give the same interval.
pub const SEED: u64 = 1234;
/// Share of resamples outside an interval, both sides together.
const OUTSIDE: f64 = 0.05;

/// A 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// Intervals of each metric over `strata`: each stratum is resampled by itself, and the
/// metric is the unweighted mean of the strata's values. One stratum is the plain case.
pub(crate) fn intervals(strata: &[&[Tally]], metrics: &[Metric]) -> Vec<Interval> {
    let mut draws: Vec<Vec<f64>> = vec![Vec::with_capacity(RESAMPLES); metrics.len()];
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    for _ in 0..RESAMPLES {
        let sums: Vec<Tally> = strata
            .iter()
            .map(|rows| indices(&mut rng, rows.len()).map(|row| rows[row]).sum())
            .collect();
        for (draws, metric) in draws.iter_mut().zip(metrics) {
            draws.push(mean_over(&sums, *metric));
        }
    }
    draws.into_iter().map(percentiles).collect()
}

/// Intervals of the difference `ours - theirs`: every resample takes the same prompts of
/// both. The strata of the two sides are of the same lengths and in the same order.
pub(crate) fn paired_intervals(
    ours: &[&[Tally]],
    theirs: &[&[Tally]],
    metrics: &[Metric],
) -> Vec<Interval> {
    let mut draws: Vec<Vec<f64>> = vec![Vec::with_capacity(RESAMPLES); metrics.len()];
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    for _ in 0..RESAMPLES {
        let mut sums = (Vec::new(), Vec::new());
        for (ours, theirs) in ours.iter().zip(theirs) {
            let mut both = (Tally::default(), Tally::default());
            for row in indices(&mut rng, ours.len().min(theirs.len())) {
                both.0 += ours[row];
                both.1 += theirs[row];
            }
            sums.0.push(both.0);
            sums.1.push(both.1);
        }
        for (draws, metric) in draws.iter_mut().zip(metrics) {
            draws.push(mean_over(&sums.0, *metric) - mean_over(&sums.1, *metric));
        }
    }
    draws.into_iter().map(percentiles).collect()
}

/// The unweighted mean of a metric over strata that are summed already.
pub(crate) fn mean_over(strata: &[Tally], metric: Metric) -> f64 {
    if strata.is_empty() {
        return 0.0;
    }
    let sum: f64 = strata.iter().map(|tally| metric.value(tally)).sum();
    sum / strata.len() as f64
}

/// `count` indices below `count`, each drawn anew.
fn indices(rng: &mut ChaCha8Rng, count: usize) -> impl Iterator<Item = usize> {
    // The high word of a 64-bit product: biased by less than 2^-50 for any benchmark.
    (0..count).map(move |_| ((u128::from(rng.next_u64()) * count as u128) >> 64) as usize)
}

/// The middle of the draws, interpolated between neighbours.
fn percentiles(mut draws: Vec<f64>) -> Interval {
    draws.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (draws.len() - 1) as f64;
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        draws[below] + (draws[above] - draws[below]) * place.fract()
    };
    Interval {
        low: at(OUTSIDE / 2.0),
        high: at(1.0 - OUTSIDE / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(followed: usize, of: usize) -> Vec<Tally> {
        (0..of)
            .map(|row| Tally::of_prompt([(row < followed, true)]))
            .collect()
    }

    #[test]
    fn intervals_are_those_of_the_binomial() {
        // 300 of 400: mean 0.75, standard error 0.02165; 1.96 of them on either side.
        let rows = rows(300, 400);
        let found = intervals(&[&rows], &[Metric::PromptStrict, Metric::PromptLoose]);
        assert!((found[0].low - 0.7076).abs() < 0.005, "{found:?}");
        assert!((found[0].high - 0.7924).abs() < 0.005, "{found:?}");
        assert_eq!(
            found[1],
            Interval {
                low: 1.0,
                high: 1.0
            }
        );
        let again = intervals(&[&rows], &[Metric::PromptStrict]);
        assert_eq!(found[0], again[0], "seeded");
    }

    #[test]
    fn pairing_removes_what_both_share() {
        let (ours, theirs) = (rows(300, 400), rows(296, 400));
        let paired = paired_intervals(&[&ours], &[&theirs], &[Metric::PromptStrict])[0];
        // Four rows of 400 changed, all one way: never below zero, far below two standard errors.
        assert!(paired.low >= 0.0 && paired.high <= 0.025, "{paired:?}");
        let same = paired_intervals(&[&ours], &[&ours], &[Metric::PromptStrict])[0];
        assert_eq!(
            same,
            Interval {
                low: 0.0,
                high: 0.0
            }
        );
    }

    #[test]
    fn strata_weigh_the_same_whatever_their_size() {
        let (small, large) = (rows(0, 10), rows(1000, 1000));
        let found = intervals(&[&small, &large], &[Metric::PromptStrict])[0];
        assert_eq!(
            found,
            Interval {
                low: 0.5,
                high: 0.5
            }
        );
        assert_eq!(mean_over(&[], Metric::PromptStrict), 0.0);
    }

    #[test]
    fn nothing_to_draw_from_is_zero() {
        let found = intervals(&[&[]], &[Metric::InstStrict])[0];
        assert_eq!(
            found,
            Interval {
                low: 0.0,
                high: 0.0
            }
        );
    }
}
