//! Reading a matrix of results row by row on the host.

use crate::{Result, parallel};
use candle_core::{Storage, Tensor, bail};
use std::cell::RefCell;

/// The rows of an f32 matrix on the host.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    values: &'a [f32],
    columns: usize,
}

impl<'a> Rows<'a> {
    /// Row `index`.
    ///
    /// # Panics
    /// There is no such row.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.columns..(index + 1) * self.columns]
    }
}

/// Lets `read` see the rows of a contiguous f32 matrix (rows, columns).
///
/// # Errors
/// Another rank, type or layout.
pub fn read_rows<R>(matrix: &Tensor, read: impl FnOnce(Rows<'_>) -> R) -> Result<R> {
    let (_, columns) = matrix.dims2()?;
    let (storage, layout) = matrix.storage_and_layout();
    let open = || -> candle_core::Result<&[f32]> {
        match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(cpu), Some((start, end))) => Ok(&cpu.as_slice::<f32>()?[start..end]),
            (Storage::Cpu(_), None) => bail!("rows of a matrix that is not contiguous"),
            _ => bail!("rows of a matrix that is not on the host"),
        }
    };
    Ok(read(Rows {
        values: open()?,
        columns,
    }))
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
