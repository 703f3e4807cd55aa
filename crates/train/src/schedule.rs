//! Learning rates as closed forms of the step number, as transformers' `get_scheduler` has them.

/// What the learning rate does after warming up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// Stays.
    Constant,
    /// Falls to `end` times its peak in a straight line.
    Linear {
        /// Share of the peak at the end.
        end: f64,
    },
    /// Falls to `end` times its peak along half a cosine.
    Cosine {
        /// Share of the peak at the end.
        end: f64,
    },
}

/// A learning rate over a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Highest rate.
    pub peak: f64,
    /// Steps in which the rate rises from 0 to its peak, in a straight line.
    pub warmup_steps: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// What comes after warming up.
    pub shape: Shape,
}

impl Schedule {
    /// The rate of a step, counted from 0: the first step of a warm-up has rate 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let left = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let done = ((step - self.warmup_steps) as f64 / left as f64).min(1.0);
        let (end, kept) = match self.shape {
            Shape::Constant => return self.peak,
            Shape::Linear { end } => (end, 1.0 - done),
            Shape::Cosine { end } => (end, 0.5 * (1.0 + (std::f64::consts::PI * done).cos())),
        };
        self.peak * (end + (1.0 - end) * kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_points() {
        let cosine = Schedule {
            peak: 1.0,
            warmup_steps: 2,
            total_steps: 10,
            shape: Shape::Cosine { end: 0.0 },
        };
        let rates: Vec<f64> = [0, 1, 2, 6, 10, 99].map(|step| cosine.rate(step)).into();
        for (rate, expected) in rates.iter().zip([0.0, 0.5, 1.0, 0.5, 0.0, 0.0]) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
        let linear = Schedule {
            shape: Shape::Linear { end: 0.1 },
            warmup_steps: 0,
            ..cosine
        };
        assert!((linear.rate(0) - 1.0).abs() < 1e-12 && (linear.rate(5) - 0.55).abs() < 1e-12);
        assert!((linear.rate(10) - 0.1).abs() < 1e-12);
        assert_eq!(
            Schedule {
                shape: Shape::Constant,
                ..cosine
            }
            .rate(7),
            1.0
        );
    }
}
