//! Products with a matrix and their gradients: `y = x W^T + bias`, where W is frozen with an
//! adapter beside it or not, or trained itself.

use super::Pass;
use crate::Result;
use crate::parameters::{Gradients, ParameterId};
use candle_core::Tensor;
use kernels::{Linear, LoraWeights, lora_add};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
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
        crate::parameters::tensor(values, like.dims())
    }
}

/// Several products with one input (T, in): (T, out) each.
pub(super) fn products<const N: usize>(
    pass: &Pass<'_>,
    matrices: [&Matrix; N],
    x: &Tensor,
) -> Result<[Tensor; N]> {
    let frozen: Vec<&Linear> = matrices
        .iter()
        .filter_map(|matrix| match matrix {
            Matrix::Frozen { base, .. } => Some(&**base),
            Matrix::Trained { .. } => None,
        })
        .collect();
    let mut of_frozen = Linear::forward_many(&frozen, x)?.into_iter();
    let mut outputs = Vec::with_capacity(N);
    for matrix in matrices {
        outputs.push(match matrix {
            Matrix::Frozen { lora, .. } => {
                let y = of_frozen.next().expect("one output for each frozen matrix");
                if let Some(lora) = lora {
                    lora.add(pass, x, &y)?;
                }
                y
            }
            Matrix::Trained { weight, bias } => {
                let y = x.matmul(&pass.parameters.value(*weight).t()?)?;
                match bias {
                    Some(bias) => y.broadcast_add(pass.parameters.value(*bias))?,
                    None => y,
                }
            }
        });
    }
    Ok(outputs.try_into().expect("one output for each matrix"))
}

impl Matrix {
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
                    Below::Trained => Some(gradient.matmul(&base.dequantize()?)?),
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
        Ok(match &pass.dropout {
            Some(dropout) => lora_add(y, &dropout.apply(x, self.site)?, &weights, &rows)?,
            None => lora_add(y, x, &weights, &rows)?,
        })
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
