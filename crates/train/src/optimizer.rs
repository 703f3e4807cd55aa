//! What a step does to the parameters, and what it remembers.

use crate::objective::side_by_side;
use crate::parameters::{Kind, Parameter, Parameters};
use crate::{Result, TrainError};
use candle_core::{DType, Device, Tensor};
use kernels::training::AdamW;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How parameters move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerSettings {
    /// AdamW's two decays.
    pub betas: (f64, f64),
    /// AdamW's epsilon.
    pub eps: f64,
    /// Decay of weights per step, times the learning rate; norms and biases do not decay.
    pub weight_decay: f64,
    /// Matrices between activations move by Muon instead.
    pub muon: Option<MuonSettings>,
}

/// Muon (Jordan et al. 2024): momentum made orthogonal by five Newton-Schulz iterations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MuonSettings {
    /// Learning rate at the schedule's peak.
    pub rate: f64,
    /// Decay of the momentum.
    pub momentum: f64,
    /// Decay of weights per step, times the learning rate.
    pub weight_decay: f64,
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self {
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            muon: None,
        }
    }
}

/// Moments of every parameter.
#[derive(Debug)]
pub(crate) struct Optimizer {
    settings: OptimizerSettings,
    steps: u64,
    /// In the order of the parameters: (2, n) for AdamW, the parameter's shape for Muon.
    state: Vec<Tensor>,
}

/// The rates of one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    /// AdamW's.
    pub(crate) rate: f64,
    /// Share of the schedule's peak, for whatever has a peak of its own.
    pub(crate) share: f64,
    /// What gradients are multiplied with.
    pub(crate) gradient_scale: f64,
}

impl Optimizer {
    pub(crate) fn new(settings: OptimizerSettings, parameters: &Parameters) -> Result<Self> {
        let zeros = |one: &Parameter| {
            let shape = match settings.muon_for(one.kind) {
                Some(_) => one.value.dims().to_vec(),
                None => vec![2, one.value.elem_count()],
            };
            Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?)
        };
        Ok(Self {
            settings,
            steps: 0,
            state: parameters.iter().map(zeros).collect::<Result<_>>()?,
        })
    }

    /// Moves the parameters against their gradients, in the same order; so many at a time.
    pub(crate) fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &[Tensor],
        (rates, workers): (Rates, usize),
    ) -> Result<()> {
        self.steps += 1;
        let (settings, steps) = (self.settings, self.steps);
        let parts = parameters.iter().zip(&mut self.state).zip(gradients);
        let mut shares: Vec<Vec<_>> = (0..workers.max(1)).map(|_| vec![]).collect();
        for (index, part) in parts.enumerate() {
            shares[index % workers.max(1)].push(part);
        }
        let shares: Vec<Mutex<Vec<_>>> = shares.into_iter().map(Mutex::new).collect();
        let moved = side_by_side(0..shares.len(), |index| {
            let mut share = shares[index].lock().unwrap_or_else(PoisonError::into_inner);
            for ((one, state), gradient) in share.drain(..) {
                settings.apply(one, state, gradient, (rates, steps))?;
            }
            Ok(())
        });
        parameters.changed();
        moved.map(drop)
    }

    /// The moments by the parameters' names.
    pub(crate) fn snapshot(&self, parameters: &Parameters) -> BTreeMap<String, Tensor> {
        let names = parameters.iter().map(|one| one.name.clone());
        names.zip(self.state.iter().cloned()).collect()
    }

    /// Goes back to an earlier state.
    pub(crate) fn restore(
        &mut self,
        steps: u64,
        mut state: BTreeMap<String, Tensor>,
        parameters: &Parameters,
    ) -> Result<()> {
        self.steps = steps;
        for (one, held) in parameters.iter().zip(&mut self.state) {
            let found = state
                .remove(&one.name)
                .filter(|found| found.shape() == held.shape());
            *held = found.ok_or_else(|| TrainError::Tensors {
                problem: format!("no moments of shape {:?} for {}", held.shape(), one.name),
            })?;
        }
        Ok(())
    }
}

impl OptimizerSettings {
    fn muon_for(&self, kind: Kind) -> Option<MuonSettings> {
        self.muon.filter(|_| kind == Kind::Matrix)
    }

    /// Moves one parameter.
    fn apply(
        &self,
        one: &Parameter,
        state: &mut Tensor,
        gradient: &Tensor,
        (rates, step): (Rates, u64),
    ) -> Result<()> {
        if let Some(muon) = self.muon_for(one.kind) {
            let gradient = (gradient * rates.gradient_scale)?;
            return muon_step(&muon, rates.share, &one.value, state, &gradient);
        }
        let weight_decay = match one.kind {
            Kind::Vector => 0.0,
            Kind::Matrix | Kind::Vocabulary | Kind::Adapter => self.weight_decay,
        };
        let adamw = AdamW {
            rate: rates.rate,
            betas: self.betas,
            eps: self.eps,
            weight_decay,
            step,
            gradient_scale: rates.gradient_scale,
        };
        Ok(adamw.apply(&one.value, state, gradient)?)
    }
}

/// One step of Muon with Nesterov momentum on a matrix (out, in).
fn muon_step(
    muon: &MuonSettings,
    share: f64,
    value: &Tensor,
    momentum: &mut Tensor,
    gradient: &Tensor,
) -> Result<()> {
    *momentum = ((&*momentum * muon.momentum)? + gradient)?;
    let ahead = (gradient + (&*momentum * muon.momentum)?)?;
    let (out, input) = value.dims2()?;
    // Tall matrices get longer steps: a step then changes outputs as much for any shape.
    let scale = (out as f64 / input as f64).max(1.0).sqrt();
    let rate = muon.rate * share;
    let change = (orthogonal(&ahead)? * (-rate * scale))?;
    let moved = ((value * (1.0 - rate * muon.weight_decay))? + change)?;
    Ok(value.slice_set(&moved, 0, 0)?)
}

/// Nearly the closest matrix with orthonormal rows or columns: five iterations of a quintic
/// whose coefficients were chosen for speed, singular values end between 0.7 and 1.2.
fn orthogonal(matrix: &Tensor) -> Result<Tensor> {
    const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);
    let (rows, columns) = matrix.dims2()?;
    let wide = match rows > columns {
        true => matrix.t()?.contiguous()?,
        false => matrix.clone(),
    };
    let norm = kernels::training::sum_of_squares(&wide)?.sqrt();
    let mut x = (wide * (1.0 / (norm + 1e-7)))?;
    let (a, b, c) = COEFFICIENTS;
    for _ in 0..5 {
        let square = x.matmul(&x.t()?)?;
        let polynomial = ((&square * b)? + (square.matmul(&square)? * c)?)?;
        x = ((&x * a)? + polynomial.matmul(&x)?)?;
    }
    match rows > columns {
        true => Ok(x.t()?.contiguous()?),
        false => Ok(x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::tensor;

    #[test]
    fn muon_makes_singular_values_alike() {
        for shape in [[6usize, 10], [10, 6], [8, 8]] {
            let values =
                (0..shape[0] * shape[1]).map(|i| ((i * i * 7 + 3 * i) % 23) as f32 / 11.0 - 1.0);
            let x = orthogonal(&tensor(values.collect(), &shape).unwrap()).unwrap();
            let small = if shape[0] < shape[1] {
                x.matmul(&x.t().unwrap())
            } else {
                x.t().unwrap().contiguous().unwrap().matmul(&x)
            };
            let square: Vec<Vec<f32>> = small.unwrap().to_vec2().unwrap();
            for (i, row) in square.iter().enumerate() {
                for (j, value) in row.iter().enumerate() {
                    let expected = if i == j { 1.0 } else { 0.0 };
                    assert!((value - expected).abs() < 0.6, "{shape:?} {square:?}");
                }
            }
        }
    }
}
