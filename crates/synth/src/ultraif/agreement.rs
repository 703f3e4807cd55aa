//! How far two evaluators agree.

use serde::Serialize;
use serde_json::Value;

/// Agreement of the written verdict with the one read from probabilities, over questions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Agreement {
    /// Questions that both judged.
    pub questions: u64,
    /// Share of equal verdicts.
    pub rate: f64,
    /// Cohen's kappa: agreement beyond chance; 0 where one of them always says the same.
    pub kappa: f64,
    /// Share of YES, written.
    pub explain_yes: f64,
    /// Share of YES, read.
    pub logits_yes: f64,
}

/// Sums up the rows of [`super::AGREEMENT_FILE`].
pub fn agreement<'a>(rows: impl IntoIterator<Item = &'a Value>) -> Agreement {
    let mut counts = [[0_u64; 2]; 2];
    for row in rows {
        if let (Some(explain), Some(logits)) = (row["explain"].as_bool(), row["logits"].as_bool()) {
            counts[usize::from(explain)][usize::from(logits)] += 1;
        }
    }
    let questions: u64 = counts.iter().flatten().sum();
    if questions == 0 {
        return Agreement::default();
    }
    let share = |count: u64| count as f64 / questions as f64;
    let rate = share(counts[0][0] + counts[1][1]);
    let explain_yes = share(counts[1][0] + counts[1][1]);
    let logits_yes = share(counts[0][1] + counts[1][1]);
    let chance = explain_yes * logits_yes + (1.0 - explain_yes) * (1.0 - logits_yes);
    let kappa = if chance < 1.0 {
        (rate - chance) / (1.0 - chance)
    } else {
        0.0
    };
    Agreement {
        questions,
        rate,
        kappa,
        explain_yes,
        logits_yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kappa_of_the_textbook() {
        // 20 both yes, 5 and 10 apart, 15 both no: kappa 0.4 (Cohen's example as usually told).
        let row = |explain, logits, count| {
            std::iter::repeat_n(json!({"explain": explain, "logits": logits}), count)
        };
        let rows: Vec<Value> = row(true, true, 20)
            .chain(row(true, false, 5))
            .chain(row(false, true, 10))
            .chain(row(false, false, 15))
            .collect();
        let found = agreement(&rows);
        assert_eq!(found.questions, 50);
        assert!((found.rate - 0.7).abs() < 1e-12 && (found.kappa - 0.4).abs() < 1e-12);
        assert_eq!(agreement(&Vec::new()), Agreement::default());
        let always: Vec<Value> = row(true, true, 3).collect();
        assert_eq!(agreement(&always).kappa, 0.0);
    }
}
