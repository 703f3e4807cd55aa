//! From candle's CPU storage to slices. Knows no kernel.

use candle_core::{CpuStorage, Layout, WithDType};

/// The elements of a contiguous CPU tensor.
pub(crate) fn slice<'a, T: WithDType>(
    storage: &'a CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a [T]> {
    let (start, end) = contiguous(layout)?;
    Ok(&storage.as_slice::<T>()?[start..end])
}

/// The elements of a contiguous CPU tensor, to be written.
pub(crate) fn slice_mut<'a, T: Element>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a mut [T]> {
    let (start, end) = contiguous(layout)?;
    let dtype = storage_dtype(storage);
    match T::vec_mut(storage) {
        Some(data) => Ok(&mut data[start..end]),
        None => candle_core::bail!("storage holds {dtype}, expected {:?}", T::DTYPE),
    }
}

/// Element types whose storage can be borrowed for writing.
pub(crate) trait Element: WithDType {
    /// The vector in `storage`, if it holds this type.
    fn vec_mut(storage: &mut CpuStorage) -> Option<&mut Vec<Self>>;
}

impl Element for f32 {
    fn vec_mut(storage: &mut CpuStorage) -> Option<&mut Vec<Self>> {
        if let CpuStorage::F32(data) = storage {
            Some(data)
        } else {
            None
        }
    }
}

impl Element for half::f16 {
    fn vec_mut(storage: &mut CpuStorage) -> Option<&mut Vec<Self>> {
        if let CpuStorage::F16(data) = storage {
            Some(data)
        } else {
            None
        }
    }
}

fn contiguous(layout: &Layout) -> candle_core::Result<(usize, usize)> {
    layout
        .contiguous_offsets()
        .ok_or_else(|| candle_core::Error::Msg("operand is not contiguous".to_owned()))
}

fn storage_dtype(storage: &CpuStorage) -> String {
    use candle_core::backend::BackendStorage as _;
    format!("{:?}", storage.dtype())
}
