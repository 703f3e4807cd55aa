//! Losses and their derivatives by the log-probabilities they are made of. Plain f64: a pair
//! enters its loss by two numbers only.

/// log(sigmoid(z)), stable for any z.
fn log_sigmoid(z: f64) -> f64 {
    -((-z).max(0.0) + (-z.abs()).exp().ln_1p())
}

fn sigmoid(z: f64) -> f64 {
    if z >= 0.0 {
        1.0 / (1.0 + (-z).exp())
    } else {
        z.exp() / (1.0 + z.exp())
    }
}

/// How a pair of answers is compared. Names as TRL has them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PreferenceLoss {
    /// DPO (Rafailov et al. 2023, eq. 7), with label smoothing (cDPO, Mitchell 2023).
    Sigmoid {
        /// Probability that a pair is the wrong way round.
        label_smoothing: f64,
    },
    /// NCA on pairs (Chen et al. 2024): holds the chosen answer's own likelihood up.
    Nca,
    /// IPO (Azar et al. 2023, eq. 17), on means over the tokens of an answer, as TRL has it.
    Ipo,
}

/// How the supervised term of a preference loss is averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SftReduction {
    /// Over the chosen tokens of the whole step (TRL's `["sigmoid", "sft"]`).
    #[default]
    BatchTokens,
    /// Over the tokens of each chosen answer, then over the pairs (LLaMA-Factory's `pref_ftx`).
    PerSequence,
}

/// Sums of log-probabilities of one pair's answers by the policy and by the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairScores {
    /// By the policy: of the chosen, of the rejected answer.
    pub policy: (f64, f64),
    /// The same by the reference.
    pub reference: (f64, f64),
    /// Scored tokens of the two answers.
    pub tokens: (usize, usize),
}

/// A pair's loss and its derivatives by the policy's two sums.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairLoss {
    /// The loss.
    pub loss: f64,
    /// By the chosen answer's sum.
    pub by_chosen: f64,
    /// By the rejected answer's sum.
    pub by_rejected: f64,
}

impl PairScores {
    /// beta * (policy - reference) of the two answers.
    pub fn rewards(&self, beta: f64) -> (f64, f64) {
        let a = self.policy.0 - self.reference.0;
        let b = self.policy.1 - self.reference.1;
        (beta * a, beta * b)
    }
}

impl PreferenceLoss {
    /// The loss of one pair.
    pub fn of(self, beta: f64, pair: &PairScores) -> PairLoss {
        let (chosen, rejected) = pair.rewards(beta);
        match self {
            Self::Sigmoid { label_smoothing: e } => {
                let z = chosen - rejected;
                let slope = -(1.0 - e) * sigmoid(-z) + e * sigmoid(z);
                PairLoss {
                    loss: -(1.0 - e) * log_sigmoid(z) - e * log_sigmoid(-z),
                    by_chosen: beta * slope,
                    by_rejected: -beta * slope,
                }
            }
            Self::Nca => PairLoss {
                loss: -log_sigmoid(chosen)
                    - 0.5 * log_sigmoid(-chosen)
                    - 0.5 * log_sigmoid(-rejected),
                by_chosen: beta * (0.5 * sigmoid(chosen) - sigmoid(-chosen)),
                by_rejected: beta * 0.5 * sigmoid(rejected),
            },
            Self::Ipo => {
                let (n, m) = (pair.tokens.0.max(1) as f64, pair.tokens.1.max(1) as f64);
                let (a, b) = (chosen / beta / n, rejected / beta / m);
                let distance = a - b - 1.0 / (2.0 * beta);
                PairLoss {
                    loss: distance * distance,
                    by_chosen: 2.0 * distance / n,
                    by_rejected: -2.0 * distance / m,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [PreferenceLoss; 4] = [
        PreferenceLoss::Sigmoid {
            label_smoothing: 0.0,
        },
        PreferenceLoss::Sigmoid {
            label_smoothing: 0.2,
        },
        PreferenceLoss::Nca,
        PreferenceLoss::Ipo,
    ];

    fn pair(policy: (f64, f64), reference: (f64, f64)) -> PairScores {
        PairScores {
            policy,
            reference,
            tokens: (7, 4),
        }
    }

    #[test]
    fn constants_where_policy_and_reference_agree() {
        let start = pair((-31.5, -20.25), (-31.5, -20.25));
        let losses = ALL.map(|loss| loss.of(0.1, &start).loss);
        let expected = [2f64.ln(), 2f64.ln(), 2.0 * 2f64.ln(), 25.0];
        for (loss, expected) in losses.iter().zip(expected) {
            assert!((loss - expected).abs() < 1e-12, "{loss} {expected}");
        }
    }

    proptest! {
        #[test]
        fn derivatives_are_those_of_the_loss(
            policy in (-80f64..0.0, -80f64..0.0), reference in (-80f64..0.0, -80f64..0.0), beta in 0.01f64..0.5,
        ) {
            for loss in ALL {
                let at = |chosen: f64, rejected: f64| loss.of(beta, &pair((chosen, rejected), reference)).loss;
                let found = loss.of(beta, &pair(policy, reference));
                let h = 1e-4;
                let by_chosen = (at(policy.0 + h, policy.1) - at(policy.0 - h, policy.1)) / (2.0 * h);
                let by_rejected = (at(policy.0, policy.1 + h) - at(policy.0, policy.1 - h)) / (2.0 * h);
                prop_assert!((found.by_chosen - by_chosen).abs() < 1e-6 * (1.0 + by_chosen.abs()), "{loss:?} {found:?} {by_chosen}");
                prop_assert!((found.by_rejected - by_rejected).abs() < 1e-6 * (1.0 + by_rejected.abs()), "{loss:?} {found:?} {by_rejected}");
            }
        }

        #[test]
        fn swapping_the_answers_negates_dpo_s_margin(policy in (-80f64..0.0, -80f64..0.0), reference in (-80f64..0.0, -80f64..0.0)) {
            let (a, b) = pair(policy, reference).rewards(0.1);
            let (c, d) = pair((policy.1, policy.0), (reference.1, reference.0)).rewards(0.1);
            prop_assert_eq!((a, b), (d, c));
        }
    }

    #[test]
    fn extreme_margins_stay_finite() {
        for loss in ALL {
            for z in [-1e6, 1e6] {
                let found = loss.of(0.1, &pair((z, -z), (0.0, 0.0)));
                assert!(
                    found.loss.is_finite()
                        && found.by_chosen.is_finite()
                        && found.by_rejected.is_finite()
                );
            }
        }
    }
}
