//! Device memory and views of it.

use super::backend::{Copy as Transfer, Direction};
use super::device::{Device, Event};
use crate::error::{KernelError, Result};
use std::marker::PhantomData;
use std::ops::Range;

/// Element types that kernels know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// Indices and bit masks.
    U32,
    /// Encoded blocks.
    U8,
    /// Addresses.
    U64,
}

impl Kind {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 | Self::BF16 => 2,
            Self::F32 | Self::U32 => 4,
            Self::U64 => 8,
        }
    }

    /// The number that kernels know a type of numbers by.
    pub(super) fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            _ => 2,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::U32 => "u32",
            Self::U8 => "u8",
            Self::U64 => "u64",
        }
    }
}

/// A Rust type whose values can lie on a device.
pub trait Element: private::Sealed + Copy + Default + Send + Sync + 'static {
    /// How kernels call it.
    const KIND: Kind;
}

mod private {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($type:ty => $kind:ident),*) => {$(
        impl private::Sealed for $type {}
        impl Element for $type {
            const KIND: Kind = Kind::$kind;
        }
    )*};
}
elements!(f32 => F32, half::f16 => F16, half::bf16 => BF16, u32 => U32, u8 => U8, u64 => U64);

/// `len` elements on a device, freed when dropped.
#[derive(Debug)]
pub struct Buffer<T: Element> {
    device: Device,
    address: u64,
    len: usize,
    _elements: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    /// Room for `len` elements, all bits zero.
    ///
    /// # Errors
    /// Not enough memory: says how much was asked for and how much is free.
    pub fn zeros(device: &Device, len: usize) -> Result<Self> {
        let bytes = len * size_of::<T>();
        let address = device.backend().allocate(bytes.max(1))?;
        let buffer = Self {
            device: device.clone(),
            address,
            len,
            _elements: PhantomData,
        };
        device.backend().fill(address, 0, bytes)?;
        Ok(buffer)
    }

    /// A copy of `values`.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn from_slice(device: &Device, values: &[T]) -> Result<Self> {
        let mut buffer = Self::zeros(device, values.len())?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device it lies on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Copies `values` to `start` and on, and waits until they are there.
    ///
    /// # Errors
    /// They do not fit.
    pub fn write(&mut self, start: usize, values: &[T]) -> Result<()> {
        in_range("write", start..start + values.len(), self.len)?;
        self.device.backend().copy(Transfer {
            direction: Direction::ToDevice,
            from: values.as_ptr() as u64,
            to: self.address + (start * size_of::<T>()) as u64,
            bytes: size_of_val(values),
        })?;
        self.device.synchronize()
    }

    /// Waits for everything before and copies the elements to the host.
    ///
    /// # Errors
    /// The device failed, now or in what was started before.
    pub fn read(&self) -> Result<Vec<T>> {
        self.read_range(0..self.len)
    }

    /// As [`Buffer::read`], for a part.
    ///
    /// # Errors
    /// The range leaves the buffer; the device failed.
    pub fn read_range(&self, range: Range<usize>) -> Result<Vec<T>> {
        in_range("read", range.clone(), self.len)?;
        let mut values = vec![T::default(); range.len()];
        self.device.backend().copy(Transfer {
            direction: Direction::ToHost,
            from: self.address + (range.start * size_of::<T>()) as u64,
            to: values.as_mut_ptr() as u64,
            bytes: size_of_val(values.as_slice()),
        })?;
        self.device.synchronize()?;
        Ok(values)
    }

    /// Starts a copy of the first `count` elements of `host` to `start` and on.
    ///
    /// # Errors
    /// They do not fit.
    pub fn upload(&self, start: usize, host: &mut Pinned<T>, count: usize) -> Result<()> {
        in_range("upload", start..start + count, self.len)?;
        in_range("upload", 0..count, host.len)?;
        self.device.backend().copy(Transfer {
            direction: Direction::ToDevice,
            from: host.address,
            to: self.address + (start * size_of::<T>()) as u64,
            bytes: count * size_of::<T>(),
        })?;
        host.used()
    }

    /// Starts a copy of `range` to the beginning of `host`.
    ///
    /// # Errors
    /// It does not fit.
    pub fn download(&self, range: Range<usize>, host: &mut Pinned<T>) -> Result<()> {
        in_range("download", range.clone(), self.len)?;
        in_range("download", 0..range.len(), host.len)?;
        self.device.backend().copy(Transfer {
            direction: Direction::ToHost,
            from: self.address + (range.start * size_of::<T>()) as u64,
            to: host.address,
            bytes: range.len() * size_of::<T>(),
        })?;
        host.used()
    }

    /// All elements.
    pub fn view(&self) -> View<'_> {
        View {
            address: self.address,
            len: self.len,
            kind: T::KIND,
            _buffer: PhantomData,
        }
    }

    /// Some elements.
    ///
    /// # Panics
    /// The range leaves the buffer.
    pub fn slice(&self, range: Range<usize>) -> View<'_> {
        self.view().slice(range)
    }

    /// Rows of `columns` elements, one after the other.
    ///
    /// # Panics
    /// No column.
    pub fn matrix(&self, columns: usize) -> Matrix<'_> {
        self.view().matrix(columns)
    }

    pub(super) fn address(&self) -> u64 {
        self.address
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        // A device that has failed says so at the next use; there is nobody to tell here.
        let _ = self.device.backend().free(self.address);
    }
}

fn in_range(op: &'static str, range: Range<usize>, len: usize) -> Result<()> {
    if range.start <= range.end && range.end <= len {
        return Ok(());
    }
    Err(KernelError::OutOfRange {
        op,
        what: "element",
        index: range.end,
        len,
    })
}

/// Elements of a buffer. Kernels read or write what views name: that no two operands of one
/// operation overlap, unless it says so, is the caller's duty.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub(super) address: u64,
    pub(super) len: usize,
    pub(super) kind: Kind,
    _buffer: PhantomData<&'a ()>,
}

impl<'a> View<'a> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The type of the elements.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Some of the elements.
    ///
    /// # Panics
    /// The range leaves the view.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} of {} elements",
            self.len
        );
        Self {
            address: self.address + (range.start * self.kind.bytes()) as u64,
            len: range.len(),
            ..*self
        }
    }

    /// Rows of `columns` elements, one after the other.
    ///
    /// # Panics
    /// No column.
    pub fn matrix(&self, columns: usize) -> Matrix<'a> {
        assert!(columns > 0, "rows without columns");
        Matrix {
            view: *self,
            stride: columns,
            columns,
        }
    }

    /// The same bytes as elements of another type.
    pub(super) fn read_as(&self, kind: Kind) -> Self {
        Self {
            len: self.len * self.kind.bytes() / kind.bytes(),
            kind,
            ..*self
        }
    }

    /// Checks type and length.
    pub(super) fn check(
        &self,
        op: &'static str,
        operand: &'static str,
        kind: Kind,
        len: usize,
    ) -> Result<()> {
        if self.kind != kind || self.len < len {
            let problem = format!(
                "{operand} is {} elements of {}, expected {len} of {}",
                self.len,
                self.kind.name(),
                kind.name()
            );
            return Err(KernelError::Invalid { op, problem });
        }
        Ok(())
    }
}

/// Rows of a buffer: row i is `columns` elements from `i * stride` on.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub(super) view: View<'a>,
    pub(super) stride: usize,
    pub(super) columns: usize,
}

impl Matrix<'_> {
    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.columns
    }

    /// Elements from a row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The type of the elements.
    pub fn kind(&self) -> Kind {
        self.view.kind
    }

    /// Some columns of every row.
    ///
    /// # Panics
    /// The range leaves the row.
    pub fn columns(&self, range: Range<usize>) -> Self {
        assert!(
            range.start < range.end && range.end <= self.columns,
            "columns {range:?} of {}",
            self.columns
        );
        Self {
            view: self
                .view
                .slice(range.start.min(self.view.len)..self.view.len),
            stride: self.stride,
            columns: range.len(),
        }
    }

    /// The rows from `first` on.
    ///
    /// # Panics
    /// They start behind the buffer.
    pub fn rows_from(&self, first: usize) -> Self {
        Self {
            view: self.view.slice(first * self.stride..self.view.len),
            ..*self
        }
    }

    /// Checks type, width and that there are `rows`.
    pub(super) fn check(
        &self,
        op: &'static str,
        operand: &'static str,
        kinds: &[Kind],
        shape: (usize, usize),
    ) -> Result<()> {
        let (rows, columns) = shape;
        let needed = rows
            .checked_sub(1)
            .map_or(0, |last| last * self.stride + columns);
        if !kinds.contains(&self.view.kind) || self.columns != columns || self.view.len < needed {
            let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            let problem = format!(
                "{operand} is {} elements of {} in rows of {} every {}, expected {rows} rows of {columns} of {}",
                self.view.len,
                self.view.kind.name(),
                self.columns,
                self.stride,
                kinds.join(" or ")
            );
            return Err(KernelError::Invalid { op, problem });
        }
        Ok(())
    }

    pub(super) fn address(&self) -> u64 {
        self.view.address
    }

    pub(super) fn stride32(&self) -> u32 {
        self.stride as u32
    }
}

/// Page-locked host memory: copies from and to it do not wait, and are fast.
#[derive(Debug)]
pub struct Pinned<T: Element> {
    device: Device,
    address: u64,
    len: usize,
    /// Recorded behind the last copy.
    last_use: Option<Event>,
    _elements: PhantomData<T>,
}

impl<T: Element> Pinned<T> {
    /// Room for `len` elements, all bits zero.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn zeros(device: &Device, len: usize) -> Result<Self> {
        let bytes = (len * size_of::<T>()).max(1);
        let address = device.backend().allocate_pinned(bytes)?;
        let mut pinned = Self {
            device: device.clone(),
            address,
            len,
            last_use: None,
            _elements: PhantomData,
        };
        pinned.get_mut()?.fill(T::default());
        Ok(pinned)
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements, once the last copy from or to here is done.
    ///
    /// # Errors
    /// The device failed.
    #[expect(unsafe_code, reason = "page-locked memory comes from the driver")]
    pub fn get(&self) -> Result<&[T]> {
        self.wait()?;
        // SAFETY: `address` is `len` elements of ours, zeroed when they were made (any bits are an
        // element), and no copy is under way.
        Ok(unsafe { std::slice::from_raw_parts(self.address as *const T, self.len) })
    }

    /// The elements, to be written, once the last copy from or to here is done.
    ///
    /// # Errors
    /// The device failed.
    #[expect(unsafe_code, reason = "page-locked memory comes from the driver")]
    pub fn get_mut(&mut self) -> Result<&mut [T]> {
        self.wait()?;
        // SAFETY: as in `get`, and `self` is borrowed alone.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.address as *mut T, self.len) })
    }

    fn wait(&self) -> Result<()> {
        self.last_use.as_ref().map_or(Ok(()), Event::wait)
    }

    fn used(&mut self) -> Result<()> {
        if self.last_use.is_none() {
            self.last_use = Some(self.device.event()?);
        }
        self.last_use.as_ref().map_or(Ok(()), Event::record)
    }
}

impl<T: Element> Drop for Pinned<T> {
    fn drop(&mut self) {
        let _ = self.wait();
        let _ = self.device.backend().free_pinned(self.address);
    }
}
