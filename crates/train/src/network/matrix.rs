//! Products with a matrix and their gradients: `y = x W^T + bias`, where W is frozen with an
//! adapter beside it or not, or trained itself.

use super::Pass;
use crate::Result;
use crate::pack::stretches;
use crate::parameters::{Gradients, ParameterId, tensor};
use candle_core::Tensor;
use kernels::{Linear, LoraWeights, lora_add};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::ops::Range;
use std::sync::Arc;

/// A weight matrix (out, in) with an optional bias (out).
#[derive(Debug)]
pub(super) enum Matrix {
    Frozen {
        base: Arc<Linear>,
        lora: Option<Lora>,
    },
    Trained {
        weight: ParameterId,
        bias: Option<ParameterId>,
    },
}

/// y += scale * dropout(x) A^T B^T
#[derive(Debug, Clone, Copy)]
pub(super) struct Lora {
    /// (r, in)
    pub(super) a: ParameterId,
    /// (out, r)
    pub(super) b: ParameterId,
    pub(super) scale: f32,
    /// Which of the network's adapters, for dropout.
    pub(super) site: u64,
}

/// Whether the gradient of a product's input is wanted: below the first layer of a frozen
/// embedding nobody asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Below {
    Trained,
    Frozen,
}

/// Zeroes an adapter's inputs at random (Srivastava et al. 2014), drawn from a counter: a pass
/// that is computed again draws the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropout {
    pub(super) probability: f64,
    pub(super) key: u64,
}

impl Dropout {
    /// `x` (T, in) with some entries zero and the others scaled up.
    fn apply(&self, x: &Tensor, site: u64) -> Result<Tensor> {
        Ok((x * self.mask(x, site)?)?)
    }

    fn mask(&self, like: &Tensor, site: u64) -> Result<Tensor> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.key);
        rng.set_stream(site);
        let kept = (1.0 / (1.0 - self.probability)) as f32;
        let threshold = (self.probability * 2f64.powi(32)) as u32;
        let values = (0..like.elem_count())
            .map(|_| {
                if rng.next_u32() < threshold {
                    0.0
                } else {
                    kept
                }
            })
            .collect();
        tensor(values, like.dims())
    }
}

/// Bytes of a quantised matrix that exist as plain f32 at a time.
const PLAIN_BYTES: usize = 64 << 20;

/// x (T, in) times a frozen matrix, (T, out). Kernels for quantised weights round activations
/// to 8 bits: good enough to generate, but the gradient would be that of another function. The
/// values that the weights encode are multiplied here instead, some rows of them at a time.
pub(super) fn frozen_product(base: &Linear, x: &Tensor) -> Result<Tensor> {
    if base.format().is_dense() {
        return Ok(base.forward(x)?);
    }
    let rows = PLAIN_BYTES / (base.in_features() * size_of::<f32>());
    let parts = plain_rows(base, rows).map(|part| Ok(x.matmul(&part?.1.t()?)?));
    let y = Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 1)?;
    match base.bias() {
        Some(bias) => Ok(y.broadcast_add(&tensor(bias.to_vec(), &[bias.len()])?)?),
        None => Ok(y),
    }
}

/// gradient (T, out) times a frozen matrix (out, in), (T, in).
pub(super) fn frozen_backward(base: &Linear, gradient: &Tensor) -> Result<Tensor> {
    let rows = PLAIN_BYTES / (base.in_features() * size_of::<f32>());
    let mut sum: Option<Tensor> = None;
    for part in plain_rows(base, rows) {
        let (range, weights) = part?;
        let share = gradient
            .narrow(1, range.start, range.len())?
            .matmul(&weights)?;
        sum = Some(match sum {
            Some(sum) => (sum + share)?,
            None => share,
        });
    }
    Ok(sum.expect("a matrix is not empty"))
}

/// The matrix as plain f32, `rows` rows of it at a time.
fn plain_rows(base: &Linear, rows: usize) -> impl Iterator<Item = Result<(Range<usize>, Tensor)>> {
    stretches(base.out_features(), rows).map(|range| {
        let ids: Vec<u32> = (0u32..).skip(range.start).take(range.len()).collect();
        let weights = base.rows(&ids)?;
        Ok((range, weights))
    })
}

impl Matrix {
    /// The product with an input (T, in): (T, out).
    pub(super) fn forward(&self, pass: &Pass<'_>, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Frozen { base, lora } => {
                let y = frozen_product(base, x)?;
                if let Some(lora) = lora {
                    lora.add(pass, x, &y)?;
                }
                Ok(y)
            }
            Self::Trained { weight, bias } => {
                let y = x.matmul(&pass.parameters.value(*weight).t()?)?;
                match bias {
                    Some(bias) => Ok(y.broadcast_add(pass.parameters.value(*bias))?),
                    None => Ok(y),
                }
            }
        }
    }

    /// Gradient of the input (T, in), for the input (T, in) and the output's gradient (T, out);
    /// adds those of the trained tensors. Nothing if nobody trains below.
    pub(super) fn backward(
        &self,
        pass: &Pass<'_>,
        (x, gradient): (&Tensor, &Tensor),
        below: Below,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        match self {
            Self::Frozen { base, lora } => {
                let direct = match below {
                    Below::Trained => Some(frozen_backward(base, gradient)?),
                    Below::Frozen => None,
                };
                let Some(lora) = lora else {
                    return Ok(direct);
                };
                let low = lora.backward(pass, (x, gradient), gradients)?;
                match direct {
                    Some(direct) => Ok(Some((direct + lora.input_gradient(pass, x, &low)?)?)),
                    None => Ok(None),
                }
            }
            Self::Trained { weight, bias } => {
                gradients.add(*weight, gradient.t()?.matmul(x)?)?;
                if let Some(bias) = bias {
                    gradients.add(*bias, gradient.sum(0)?)?;
                }
                match below {
                    Below::Trained => Ok(Some(gradient.matmul(pass.parameters.value(*weight))?)),
                    Below::Frozen => Ok(None),
                }
            }
        }
    }
}

impl Lora {
    /// Adds the adapter's share to `y` (T, out), which is nobody else's.
    fn add(&self, pass: &Pass<'_>, x: &Tensor, y: &Tensor) -> Result<()> {
        let rows: Vec<u32> = (0..).take(x.dim(0)?).collect();
        let weights = LoraWeights {
            a: pass.parameters.value(self.a),
            b: pass.parameters.value(self.b),
            scale: self.scale,
        };
        let dropped = match &pass.dropout {
            Some(dropout) => &dropout.apply(x, self.site)?,
            None => x,
        };
        Ok(lora_add(y, dropped, &weights, &rows)?)
    }

    /// Adds the gradients of A and B; gives scale * gradient * B, (T, r).
    fn backward(
        &self,
        pass: &Pass<'_>,
        (x, gradient): (&Tensor, &Tensor),
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let dropped = match &pass.dropout {
            Some(dropout) => dropout.apply(x, self.site)?,
            None => x.clone(),
        };
        let (a, b) = (pass.parameters.value(self.a), pass.parameters.value(self.b));
        let scale = f64::from(self.scale);
        let low = (gradient.matmul(b)? * scale)?;
        let hidden = (dropped.matmul(&a.t()?)? * scale)?;
        gradients.add(self.a, low.t()?.matmul(&dropped)?)?;
        gradients.add(self.b, gradient.t()?.matmul(&hidden)?)?;
        Ok(low)
    }

    /// What the adapter adds to the gradient of the input `x`.
    fn input_gradient(&self, pass: &Pass<'_>, x: &Tensor, low: &Tensor) -> Result<Tensor> {
        let through = low.matmul(pass.parameters.value(self.a))?;
        Ok(match &pass.dropout {
            Some(dropout) => (through * dropout.mask(x, self.site)?)?,
            None => through,
        })
    }
}
