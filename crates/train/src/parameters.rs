//! What is trained, by name, and gradients in the same order.

#[cfg(feature = "device")]
use crate::network::cuda::Array;
use crate::{Result, TrainError};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which parameter of [`Parameters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParameterId(pub(crate) usize);

/// What a parameter is, for optimisers that tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A matrix between two layers of activations.
    Matrix,
    /// A table indexed by token, or the matrix that gives logits.
    Vocabulary,
    /// The weight of a norm, or a bias.
    Vector,
    /// One of an adapter's two matrices.
    Adapter,
}

/// One trained tensor.
#[derive(Debug)]
pub struct Parameter {
    /// As transformers or PEFT name it, without PEFT's prefix.
    pub name: String,
    /// f32, nobody else's: the optimiser changes it in place.
    pub value: Tensor,
    /// What it is.
    pub kind: Kind,
}

/// All that is trained, in the order of the names.
#[derive(Debug, Default)]
pub struct Parameters {
    list: Vec<Parameter>,
    /// Raised whenever values change, for whoever holds copies.
    version: AtomicU64,
}

impl Parameters {
    /// Sorts by name, so that sums over all of them have one order.
    pub(crate) fn new(mut list: Vec<Parameter>) -> Self {
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            list,
            version: AtomicU64::new(0),
        }
    }

    /// Which values these are.
    #[cfg(feature = "device")]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Values were changed where they lie.
    pub(crate) fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// The parameter of this name.
    pub fn id_of(&self, name: &str) -> Option<ParameterId> {
        let found = self
            .list
            .binary_search_by(|one| one.name.as_str().cmp(name));
        found.ok().map(ParameterId)
    }

    pub(crate) fn value(&self, id: ParameterId) -> &Tensor {
        &self.list[id.0].value
    }

    /// In the order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Parameter> {
        self.list.iter()
    }

    /// Numbers in all of them.
    pub fn count(&self) -> usize {
        self.list.iter().map(|one| one.value.elem_count()).sum()
    }

    /// Copies of the values by name.
    ///
    /// # Errors
    /// Those of candle.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Tensor>> {
        let copy = |one: &Parameter| Ok((one.name.clone(), one.value.copy()?));
        self.list.iter().map(copy).collect()
    }

    /// Replaces every value.
    ///
    /// # Errors
    /// A name that is missing or too many, another shape.
    pub(crate) fn restore(&mut self, mut values: BTreeMap<String, Tensor>) -> Result<()> {
        self.changed();
        for one in &mut self.list {
            let value = values
                .remove(&one.name)
                .ok_or_else(|| TrainError::Tensors {
                    problem: format!("{} is missing", one.name),
                })?;
            if value.shape() != one.value.shape() {
                let (expected, got) = (one.value.shape(), value.shape());
                let problem = format!("{} has shape {got:?}, expected {expected:?}", one.name);
                return Err(TrainError::Tensors { problem });
            }
            one.value = value;
        }
        match values.keys().next() {
            Some(name) => Err(TrainError::Tensors {
                problem: format!("{name} is not a parameter of this run"),
            }),
            None => Ok(()),
        }
    }
}

/// Sums of gradients where they are computed, in the order of the parameters.
#[derive(Debug)]
pub(crate) struct Sums<A> {
    list: Vec<Option<A>>,
}

impl<A> Sums<A> {
    pub(crate) fn new(parameters: usize) -> Self {
        let list = (0..parameters).map(|_| None).collect();
        Self { list }
    }

    /// Where the gradient of a parameter is summed up.
    pub(crate) fn slot(&mut self, id: ParameterId) -> &mut Option<A> {
        &mut self.list[id.0]
    }
}

/// Adds a gradient to those before it.
pub(crate) fn add_to(sum: &mut Option<Tensor>, gradient: Tensor) -> Result<()> {
    *sum = Some(match sum.take() {
        Some(sum) => (sum + gradient)?,
        None => gradient,
    });
    Ok(())
}

/// Sums of gradients, in the order of the parameters.
#[derive(Debug)]
pub struct Gradients {
    host: Sums<Tensor>,
    /// What is still on a device.
    #[cfg(feature = "device")]
    device: Sums<Array>,
}

impl Gradients {
    /// No gradient yet.
    pub fn new(parameters: &Parameters) -> Self {
        Self {
            host: Sums::new(parameters.list.len()),
            #[cfg(feature = "device")]
            device: Sums::new(parameters.list.len()),
        }
    }

    /// Those on a device.
    #[cfg(feature = "device")]
    pub(crate) fn on_device(&mut self) -> &mut Sums<Array> {
        &mut self.device
    }

    /// Adds what is on a device to what is on the host; frees it there.
    ///
    /// # Errors
    /// The device failed.
    #[cfg(feature = "device")]
    pub fn come_home(&mut self, parameters: &Parameters) -> Result<()> {
        let arrived = self.device.list.iter_mut().zip(&mut self.host.list);
        for ((array, sum), parameter) in arrived.zip(parameters.iter()) {
            let Some(array) = array.take() else {
                continue;
            };
            add_to(sum, tensor(array.read()?, parameter.value.dims())?)?;
        }
        Ok(())
    }

    /// There is no device without the feature `cuda`.
    ///
    /// # Errors
    /// None.
    #[cfg(not(feature = "device"))]
    pub fn come_home(&mut self, _: &Parameters) -> Result<()> {
        Ok(())
    }

    /// Those on the processor.
    pub(crate) fn host(&mut self) -> &mut Sums<Tensor> {
        &mut self.host
    }

    /// Adds those of another pack.
    pub(crate) fn merge(&mut self, other: Self) -> Result<()> {
        for (sum, gradient) in self.host.list.iter_mut().zip(other.host.list) {
            if let Some(gradient) = gradient {
                add_to(sum, gradient)?;
            }
        }
        Ok(())
    }

    /// The gradient of a parameter, where one has arrived on the host.
    pub fn get(&self, id: ParameterId) -> Option<&Tensor> {
        self.host.list[id.0].as_ref()
    }

    /// Every gradient in the order of the parameters.
    ///
    /// # Errors
    /// A parameter got none: it would silently stay as it is.
    pub(crate) fn complete(self, parameters: &Parameters) -> Result<Vec<Tensor>> {
        let pairs = self.host.list.into_iter().zip(parameters.iter());
        pairs
            .map(|(gradient, parameter)| {
                gradient.ok_or_else(|| TrainError::NoGradient {
                    parameter: parameter.name.clone(),
                })
            })
            .collect()
    }
}

/// Euclidean norm over all gradients, summed in f64 in the order given.
///
/// # Errors
/// Those of candle.
pub fn global_norm(gradients: &[Tensor]) -> Result<f64> {
    let mut total = 0.0;
    for gradient in gradients {
        total += kernels::training::sum_of_squares(gradient)?;
    }
    Ok(total.sqrt())
}

/// A tensor on the host.
pub(crate) fn tensor(values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_without_a_gradient_is_named() {
        let one = |name: &str| Parameter {
            name: name.into(),
            value: tensor(vec![1.0, 2.0], &[2]).unwrap(),
            kind: Kind::Vector,
        };
        let parameters = Parameters::new(vec![one("b"), one("a")]);
        let mut gradients = Gradients::new(&parameters);
        let id = parameters.id_of("b").unwrap();
        *gradients.host().slot(id) = Some(tensor(vec![1.0, 1.0], &[2]).unwrap());
        let mut other = Gradients::new(&parameters);
        *other.host().slot(id) = Some(tensor(vec![1.0, 2.0], &[2]).unwrap());
        gradients.merge(other).unwrap();
        let sum: Vec<f32> = gradients.get(id).unwrap().to_vec1().unwrap();
        assert_eq!(sum, [2.0, 3.0]);
        let error = gradients.complete(&parameters).unwrap_err().to_string();
        assert!(error.starts_with("a got no gradient"), "{error}");
    }
}
