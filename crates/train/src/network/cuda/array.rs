//! Arrays on a device.

use super::pool::{Held, Pool, Type};
use crate::Result;
use kernels::cuda::{Kind, Matrix, View, cast};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// (rows, columns), f32, row-major; may share its memory with the array it is a part of.
#[derive(Debug)]
pub(crate) struct Array {
    held: Arc<Held>,
    /// Where its elements begin.
    first: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// The same as bf16, once a product wanted it.
    half: OnceLock<Held>,
}

impl Array {
    /// An array to be written.
    pub(super) fn new(pool: &Pool, rows: usize, columns: usize) -> Result<Self> {
        let held = pool.take(Type::F32, rows * columns)?;
        Ok(Self::of(held, rows, columns))
    }

    /// A copy of values on the host.
    pub(super) fn upload(
        pool: &Pool,
        values: &[f32],
        (rows, columns): (usize, usize),
    ) -> Result<Self> {
        let mut held = pool.take(Type::F32, values.len())?;
        held.write_floats(values)?;
        Ok(Self::of(held, rows, columns))
    }

    fn of(held: Held, rows: usize, columns: usize) -> Self {
        Self {
            held: Arc::new(held),
            first: 0,
            rows,
            columns,
            half: OnceLock::new(),
        }
    }

    /// The array about to be written to: what was derived from its values is dropped.
    pub(super) fn changed(self) -> Self {
        Self {
            half: OnceLock::new(),
            ..self
        }
    }

    /// Some of its rows, in the same memory.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        Self {
            held: Arc::clone(&self.held),
            first: self.first + range.start * self.columns,
            rows: range.len(),
            columns: self.columns,
            half: OnceLock::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows * self.columns
    }

    pub(super) fn view(&self) -> View<'_> {
        let range = self.first..self.first + self.len();
        self.held.view().slice(range)
    }

    pub(super) fn matrix(&self) -> Matrix<'_> {
        self.view().matrix(self.columns)
    }

    /// As pieces of `len` elements each.
    pub(super) fn pieces(&self, len: usize) -> Matrix<'_> {
        self.view().matrix(len)
    }

    /// As the factor of a product with something of this type.
    pub(super) fn factor(&self, pool: &Pool, kind: Kind) -> Result<Matrix<'_>> {
        if kind == Kind::F32 {
            return Ok(self.matrix());
        }
        if self.half.get().is_none() {
            let held = pool.take(Type::BF16, self.len())?;
            cast(
                pool.device(),
                self.matrix(),
                self.rows,
                held.view().matrix(self.columns),
            )?;
            // Another thread's is the same; ours then goes back.
            let _ = self.half.set(held);
        }
        let half = self.half.get().expect("it was just set");
        Ok(half.view().matrix(self.columns))
    }

    /// Its values on the host.
    pub(crate) fn read(&self) -> Result<Vec<f32>> {
        self.held.read(self.first, self.len())
    }
}
