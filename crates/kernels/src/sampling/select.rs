//! Filters and the draw on the few tokens that are left. The order of tokens is that of
//! their logits, largest first, and of their ids where logits are equal.

/// A token that is still in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Kept {
    pub(super) token: u32,
    pub(super) logit: f32,
    /// Unnormalised probability; 1 for the likeliest token of the row.
    pub(super) weight: f32,
}

/// Keeps the first `k` tokens. `kept` is and stays in the order of ids.
pub(super) fn top_k(kept: &mut Vec<Kept>, k: usize) {
    if k >= kept.len() {
        return;
    }
    cut(kept, k as f64, |_| 1.0);
}

/// Keeps the shortest run of first tokens whose weights reach `mass`, and at least one.
/// `kept` is and stays in the order of ids.
pub(super) fn top_p(kept: &mut Vec<Kept>, mass: f64) {
    cut(kept, mass, |kept| f64::from(kept.weight));
}

/// Keeps the shortest run of first tokens whose measure reaches `goal`, and at least one.
fn cut(kept: &mut Vec<Kept>, goal: f64, measure: impl Fn(&Kept) -> f64) {
    let Some(last) = threshold(kept, 0.0, goal, measure) else {
        return;
    };
    kept.retain(|kept| {
        kept.logit > last.logit || kept.logit == last.logit && kept.token <= last.token
    });
}

/// The token at which the measure of the first tokens, `before` without those given, reaches
/// `goal`; the last if it never does. `None` of none.
///
/// A radix search from the highest byte of the logit: each round sums the measure of every
/// bucket among the tokens that agree with the threshold so far, and goes on in the bucket
/// in which the sum crosses the goal. Four rounds find the threshold's exact value.
pub(super) fn threshold(
    kept: &[Kept],
    mut before: f64,
    goal: f64,
    measure: impl Fn(&Kept) -> f64,
) -> Option<Kept> {
    let mut threshold = 0u32;
    let mut ties: Vec<Kept> = kept.to_vec();
    for shift in [24, 16, 8, 0] {
        let mut sums = [0.0; 256];
        let mut filled = [false; 256];
        for kept in &ties {
            let bucket = (key(kept.logit) >> shift & 0xFF) as usize;
            sums[bucket] += measure(kept);
            filled[bucket] = true;
        }
        let mut chosen = None;
        for bucket in (0..256).rev().filter(|&bucket| filled[bucket]) {
            if let Some(last) = chosen {
                before += sums[last];
            }
            chosen = Some(bucket);
            if before + sums[bucket] >= goal {
                break;
            }
        }
        threshold |= (chosen? as u32) << shift;
        ties.retain(|kept| key(kept.logit) >> shift == threshold >> shift);
    }
    // All ties have one logit; the lowest ids come first.
    let mut last = None;
    for tie in ties {
        if last.is_some() && before >= goal {
            break;
        }
        before += measure(&tie);
        last = Some(tie);
    }
    last
}

/// Integers in the order of the logits; the two zeros are equal.
fn key(logit: f32) -> u32 {
    let bits = (logit + 0.0).to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

/// The drawn token and its probability among the kept ones (at least one, in order of ids).
pub(super) fn draw(kept: &[Kept], uniform: f64) -> (u32, f64) {
    let total: f64 = kept.iter().map(|kept| f64::from(kept.weight)).sum();
    let (at, weight) = walk(kept.iter().map(|kept| kept.weight), uniform * total);
    (kept[at].token, f64::from(weight) / total)
}

/// The first place at which the cumulative weight exceeds `target` (or the last with any
/// weight, where rounding has left the target too large), and the weight there.
pub(super) fn walk(weights: impl Iterator<Item = f32>, target: f64) -> (usize, f32) {
    let mut cumulative = 0.0;
    let mut chosen = (0, 0.0);
    for (i, weight) in weights.enumerate().filter(|(_, weight)| *weight > 0.0) {
        chosen = (i, weight);
        cumulative += f64::from(weight);
        if cumulative > target {
            break;
        }
    }
    chosen
}
