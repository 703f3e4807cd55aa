//! Changes to logits before the draw.

use super::SampleError;

/// Penalties on tokens that were seen before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalties {
    /// Divides positive and multiplies negative logits of seen tokens; 1 = off.
    pub repetition: f32,
    /// Subtracted from the logit of every token in the output; 0 = off.
    pub presence: f32,
    /// Subtracted once per occurrence in the output; 0 = off.
    pub frequency: f32,
}

/// A token of prompt or output; each token is named once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The token.
    pub token: u32,
    /// How often the output has it; 0 if only the prompt does.
    pub output_count: u32,
}

/// Adds a bias to the logits (V) of single tokens.
///
/// # Errors
/// A token outside of the vocabulary.
pub fn apply_bias(
    logits: &mut [f32],
    bias: impl IntoIterator<Item = (u32, f32)>,
) -> Result<(), SampleError> {
    for (token, bias) in bias {
        *logit(logits, token)? += bias;
    }
    Ok(())
}

/// Lowers the logits (V) of tokens that were seen: first the repetition penalty (Keskar et
/// al. 2019), then presence and frequency.
///
/// # Errors
/// A token outside of the vocabulary.
pub fn apply_penalties(
    logits: &mut [f32],
    penalties: &Penalties,
    seen: impl IntoIterator<Item = Seen>,
) -> Result<(), SampleError> {
    for Seen {
        token,
        output_count,
    } in seen
    {
        let logit = logit(logits, token)?;
        if *logit > 0.0 {
            *logit /= penalties.repetition;
        } else {
            *logit *= penalties.repetition;
        }
        if output_count > 0 {
            *logit -= penalties.presence + penalties.frequency * output_count as f32;
        }
    }
    Ok(())
}

/// Forbids every token whose bit in `allowed` is 0 or missing (token t is bit t % 32 of word
/// t / 32) and returns how many tokens are allowed.
pub fn apply_mask(logits: &mut [f32], allowed: &[u32]) -> usize {
    let mut count = 0;
    let words = allowed.iter().copied().chain(std::iter::repeat(0));
    for (logits, word) in logits.chunks_mut(32).zip(words) {
        let word = if logits.len() == 32 {
            word
        } else {
            word & ((1 << logits.len()) - 1)
        };
        count += word.count_ones() as usize;
        match word {
            0 => logits.fill(f32::NEG_INFINITY),
            u32::MAX => {}
            _ => {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    if word >> bit & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
    count
}

fn logit(logits: &mut [f32], token: u32) -> Result<&mut f32, SampleError> {
    let vocabulary = logits.len();
    logits
        .get_mut(token as usize)
        .ok_or(SampleError::UnknownToken { token, vocabulary })
}
