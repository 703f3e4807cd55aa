//! Products with a matrix and their gradients: `y = x W^T + bias`, where W is frozen with an
//! adapter beside it or not, or trained itself.

use super::Pass;
use super::compute::{Compute, Form, LowRank};
use crate::Result;
use crate::parameters::{ParameterId, Sums};

/// A weight matrix (out, in) with an optional bias (out).
#[derive(Debug)]
pub(super) enum Matrix<C: Compute> {
    Frozen {
        base: C::Linear,
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

impl<C: Compute> Matrix<C> {
    /// The product with an input (T, in): (T, out).
    pub(super) fn forward(&self, pass: &Pass<'_, C>, x: &C::Array) -> Result<C::Array> {
        let compute = pass.compute;
        match self {
            Self::Frozen { base, lora } => {
                let y = compute.product(base, x)?;
                match lora {
                    Some(lora) => lora.add(pass, x, y),
                    None => Ok(y),
                }
            }
            Self::Trained { weight, bias } => {
                let y = compute.matmul((x, pass.value(*weight)), Form::ABt, 1.0)?;
                match bias {
                    Some(bias) => compute.add_bias(y, pass.value(*bias)),
                    None => Ok(y),
                }
            }
        }
    }

    /// Gradient of the input (T, in), for the input (T, in) and the output's gradient (T, out);
    /// adds those of the trained tensors. Nothing if nobody trains below.
    pub(super) fn backward(
        &self,
        pass: &Pass<'_, C>,
        (x, gradient): (&C::Array, &C::Array),
        below: Below,
        sums: &mut Sums<C::Array>,
    ) -> Result<Option<C::Array>> {
        let compute = pass.compute;
        match self {
            Self::Frozen { base, lora } => {
                let low = match lora {
                    Some(lora) => Some((lora, lora.backward(pass, (x, gradient), sums)?)),
                    None => None,
                };
                if below == Below::Frozen {
                    return Ok(None);
                }
                let direct = compute.product_backward(base, gradient)?;
                match low {
                    Some((lora, low)) => Ok(Some(lora.add_input_gradient(pass, direct, &low)?)),
                    None => Ok(Some(direct)),
                }
            }
            Self::Trained { weight, bias } => {
                compute.add_outer(sums.slot(*weight), gradient, x)?;
                if let Some(bias) = bias {
                    compute.add_rows(sums.slot(*bias), gradient)?;
                }
                match below {
                    Below::Trained => {
                        let factors = (gradient, pass.value(*weight));
                        Ok(Some(compute.matmul(factors, Form::AB, 1.0)?))
                    }
                    Below::Frozen => Ok(None),
                }
            }
        }
    }
}

impl Lora {
    /// `y` (T, out) with the adapter's share added.
    fn add<C: Compute>(&self, pass: &Pass<'_, C>, x: &C::Array, y: C::Array) -> Result<C::Array> {
        let weights = LowRank {
            a: pass.value(self.a),
            b: pass.value(self.b),
            scale: self.scale,
        };
        match pass.dropout {
            Some(dropout) => {
                let dropped = pass.compute.dropout(x, dropout, self.site)?;
                pass.compute.add_low_rank(y, &dropped, weights)
            }
            None => pass.compute.add_low_rank(y, x, weights),
        }
    }

    /// Adds the gradients of A and B; gives scale * gradient * B, (T, r).
    fn backward<C: Compute>(
        &self,
        pass: &Pass<'_, C>,
        (x, gradient): (&C::Array, &C::Array),
        sums: &mut Sums<C::Array>,
    ) -> Result<C::Array> {
        let compute = pass.compute;
        let dropped = match pass.dropout {
            Some(dropout) => Some(compute.dropout(x, dropout, self.site)?),
            None => None,
        };
        let x = dropped.as_ref().unwrap_or(x);
        let (a, b) = (pass.value(self.a), pass.value(self.b));
        let low = compute.matmul((gradient, b), Form::AB, self.scale)?;
        let hidden = compute.matmul((x, a), Form::ABt, self.scale)?;
        compute.add_outer(sums.slot(self.a), &low, x)?;
        compute.add_outer(sums.slot(self.b), gradient, &hidden)?;
        Ok(low)
    }

    /// `direct` (T, in) with what the adapter adds to the gradient of its input.
    fn add_input_gradient<C: Compute>(
        &self,
        pass: &Pass<'_, C>,
        direct: C::Array,
        low: &C::Array,
    ) -> Result<C::Array> {
        let (compute, a) = (pass.compute, pass.value(self.a));
        match pass.dropout {
            Some(dropout) => {
                let through = compute.matmul((low, a), Form::AB, 1.0)?;
                let through = compute.dropout(&through, dropout, self.site)?;
                compute.add(direct, &through)
            }
            None => compute.add_matmul(direct, low, a),
        }
    }
}
