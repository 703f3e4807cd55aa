//! The one place through which everything reaches a device: memory, copies, kernel starts, dense
//! products, graphs and events.

use super::buffer::Kind;
use super::device::DeviceInfo;
use crate::error::{KernelError, Result};

/// A device: the driver's, or the emulator. Addresses are the device's.
pub(super) trait Backend: Send + Sync + std::fmt::Debug {
    fn info(&self) -> Result<DeviceInfo>;
    /// Bytes free and in all.
    fn memory(&self) -> Result<(u64, u64)>;
    fn allocate(&self, bytes: usize) -> Result<u64>;
    fn free(&self, address: u64) -> Result<()>;
    /// Page-locked host memory.
    fn allocate_pinned(&self, bytes: usize) -> Result<u64>;
    fn free_pinned(&self, address: u64) -> Result<()>;
    /// Starts a copy; the caller keeps both sides alive and untouched until it is done.
    fn copy(&self, copy: Copy) -> Result<()>;
    fn fill(&self, address: u64, byte: u8, bytes: usize) -> Result<()>;
    fn launch(&self, launch: &Launch) -> Result<()>;
    fn product(&self, product: &Product) -> Result<()>;
    fn synchronize(&self) -> Result<()>;
    fn begin_capture(&self) -> Result<()>;
    /// What was captured, under a number.
    fn end_capture(&self) -> Result<u64>;
    fn launch_graph(&self, graph: u64) -> Result<()>;
    fn free_graph(&self, graph: u64) -> Result<()>;
    fn new_event(&self) -> Result<u64>;
    fn record_event(&self, event: u64) -> Result<()>;
    fn wait_event(&self, event: u64) -> Result<()>;
    fn free_event(&self, event: u64) -> Result<()>;
    /// Milliseconds between two recorded events.
    fn elapsed(&self, start: u64, end: u64) -> Result<f32>;
}

#[derive(Debug, Clone, std::marker::Copy, PartialEq, Eq)]
pub(super) enum Direction {
    ToDevice,
    ToHost,
}

#[derive(Debug, Clone, std::marker::Copy)]
pub(super) struct Copy {
    pub(super) direction: Direction,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) bytes: usize,
}

/// A kernel and what it is started with.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) kernel: String,
    pub(super) grid: [u32; 3],
    pub(super) threads: u32,
    /// One entry for each parameter: its bytes, padded to whole words.
    pub(super) arguments: Vec<Vec<u64>>,
}

impl Launch {
    pub(super) fn new(kernel: impl Into<String>, grid: [usize; 3], threads: u32) -> Result<Self> {
        let kernel = kernel.into();
        let limits = [u32::MAX as usize / 2, 65535, 65535];
        if grid
            .iter()
            .zip(limits)
            .any(|(&n, limit)| n == 0 || n > limit)
        {
            let problem = format!("{kernel}: a grid of {grid:?} blocks");
            let op = "cuda";
            return Err(KernelError::Invalid { op, problem });
        }
        Ok(Self {
            kernel,
            grid: grid.map(|n| n as u32),
            threads,
            arguments: Vec::new(),
        })
    }

    /// Adds a parameter.
    pub(super) fn arg(mut self, value: impl Argument) -> Self {
        self.arguments.push(value.words());
        self
    }
}

/// What a kernel can be given.
pub(super) trait Argument {
    fn words(self) -> Vec<u64>;
}

impl Argument for u64 {
    fn words(self) -> Vec<u64> {
        vec![self]
    }
}

impl Argument for u32 {
    fn words(self) -> Vec<u64> {
        vec![u64::from(self)]
    }
}

impl Argument for f32 {
    fn words(self) -> Vec<u64> {
        vec![u64::from(self.to_bits())]
    }
}

/// A structure of four- and eight-byte fields, laid out as C++ does on the devices we build for.
#[derive(Debug, Default)]
pub(super) struct Fields {
    bytes: Vec<u8>,
}

impl Fields {
    pub(super) fn u64(mut self, value: u64) -> Self {
        while !self.bytes.len().is_multiple_of(8) {
            self.bytes.push(0);
        }
        self.bytes.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.bytes.extend(value.to_le_bytes());
        self
    }

    pub(super) fn f32(self, value: f32) -> Self {
        self.u32(value.to_bits())
    }
}

impl Argument for Fields {
    fn words(self) -> Vec<u64> {
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        };
        self.bytes.chunks(8).map(word).collect()
    }
}

/// How the operands of a product lie; all row-major.
#[derive(Debug, Clone, std::marker::Copy, PartialEq, Eq)]
pub enum Form {
    /// c (m, n) = a (m, k) times b (n, k) transposed.
    ABt,
    /// c (m, n) = a (m, k) times b (k, n).
    AB,
    /// c (m, n) = a (k, m) transposed times b (k, n).
    AtB,
}

/// What happens to the values that an output holds.
#[derive(Debug, Clone, std::marker::Copy, PartialEq, Eq)]
pub enum Update {
    /// They are forgotten; they need not be numbers.
    Set,
    /// The result is added to them.
    Add,
}

impl Update {
    /// As kernels are told.
    pub(super) fn code(self) -> u32 {
        u32::from(self == Self::Add)
    }
}

/// c = or += scale * a product of a and b, in one of the forms.
#[derive(Debug, Clone, std::marker::Copy)]
pub(super) struct Product {
    pub(super) a: u64,
    pub(super) b: u64,
    /// Of a and b; sums and c are f32.
    pub(super) kind: Kind,
    pub(super) c: u64,
    pub(super) form: Form,
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) a_stride: usize,
    pub(super) b_stride: usize,
    pub(super) c_stride: usize,
    pub(super) scale: f32,
    pub(super) update: Update,
}
