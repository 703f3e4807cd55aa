//! Reading a matrix of results row by row on the host.

use crate::{KernelError, Result, parallel};
use candle_core::{Storage, Tensor};
use std::cell::RefCell;
use std::sync::RwLockReadGuard;

/// The rows of a contiguous f32 matrix, readable on the host.
pub struct Rows<'a> {
    storage: RwLockReadGuard<'a, Storage>,
    start: usize,
    rows: usize,
    columns: usize,
}

impl<'a> Rows<'a> {
    /// Opens a matrix (rows, columns), f32, contiguous.
    ///
    /// # Errors
    /// Another rank or type.
    pub fn new(matrix: &'a Tensor) -> Result<Self> {
        let (rows, columns) = matrix.dims2()?;
        let (storage, layout) = matrix.storage_and_layout();
        let (start, _) = layout.contiguous_offsets().ok_or_else(|| {
            KernelError::from(candle_core::Error::Msg("rows of a matrix that is not contiguous".into()))
        })?;
        match &*storage {
            Storage::Cpu(cpu) => drop(cpu.as_slice::<f32>()?),
            _ => return Err(candle_core::Error::Msg("rows of a matrix that is not on the host".into()).into()),
        }
        Ok(Self { storage, start, rows, columns })
    }

    /// Row `index`.
    ///
    /// # Panics
    /// There is no such row.
    pub fn row(&self, index: usize) -> &[f32] {
        assert!(index < self.rows, "row {index} of {}", self.rows);
        let Storage::Cpu(cpu) = &*self.storage else { unreachable!("checked when opened") };
        let values = cpu.as_slice::<f32>().expect("checked when opened");
        let begin = self.start + index * self.columns;
        &values[begin..begin + self.columns]
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` on every item, spread over the thread pool; each thread lends it a buffer
/// whose content is left over from before.
pub fn for_each_mut<T: Send>(items: &mut [T], work: impl Fn(&mut T, &mut Vec<f32>) + Sync) {
    parallel::each(items, |item| {
        SCRATCH.with_borrow_mut(|scratch| work(item, scratch));
    });
}
