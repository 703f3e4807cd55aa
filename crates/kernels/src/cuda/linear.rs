//! Weights on a device and products with them.

use super::backend::{Fields, Form, Launch, Product, Update};
use super::buffer::{Buffer, Kind, Matrix, View};
use super::device::Device;
use super::elementwise::{cast, fill_rows, row_slabs};
use crate::error::{KernelError, Result};
use crate::{Linear, WeightFormat};
use half::bf16;
use std::ops::Range;

/// Rows up to which weights are read once and multiplied without tensor cores.
const FEW: usize = 8;
/// Rows from which encoded weights are unpacked for cuBLAS, which multiplies faster: the unpacked
/// copy costs two passes over memory.
const UNPACK_FROM: usize = 192;

/// How weights lie on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    F32,
    F16,
    BF16,
    /// All integers, then all scales.
    Q8_0,
    /// Blocks as in a file.
    Q4K,
    /// Low bits, high bits, scales, then d, each of all blocks.
    Q6K,
}

impl Layout {
    /// The number that kernels know it by.
    fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::BF16 => 2,
            Self::Q8_0 => 3,
            Self::Q4K => 4,
            Self::Q6K => 5,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
            Self::Q6K => "q6_k",
        }
    }
}

/// A weight matrix (out, in) on a device, with an optional bias (out).
///
/// F32, F16, BF16, Q8_0, Q4_K and Q6_K stay as they are; other formats become bf16 when loaded.
#[derive(Debug)]
pub struct CudaLinear {
    weights: Buffer<u8>,
    bias: Option<Buffer<f32>>,
    layout: Layout,
    out_features: usize,
    in_features: usize,
}

impl CudaLinear {
    /// A layer from the bytes of a file, as [`crate::Linear::from_bytes`].
    ///
    /// # Errors
    /// A shape the format cannot hold, another number of bytes or bias values than it takes, or not
    /// enough memory.
    pub fn from_bytes(
        device: &Device,
        bytes: &[u8],
        format: WeightFormat,
        (out_features, in_features): (usize, usize),
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let expected = format.bytes(out_features, in_features)?;
        if bytes.len() != expected {
            let got = bytes.len();
            return Err(invalid(format!(
                "weights {out_features}x{in_features} in {format:?} take {expected} bytes, got {got}"
            )));
        }
        if let Some(bias) = bias
            && bias.len() != out_features
        {
            let got = bias.len();
            return Err(invalid(format!("{got} bias values for {out_features}")));
        }
        let (layout, bytes) = arrange(bytes, format, (out_features, in_features))?;
        Ok(Self {
            weights: Buffer::from_slice(device, &bytes)?,
            bias: bias
                .map(|bias| Buffer::from_slice(device, bias))
                .transpose()?,
            layout,
            out_features,
            in_features,
        })
    }

    /// (out)
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// (in)
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Bytes that the weights take on the device.
    pub fn size_in_bytes(&self) -> usize {
        self.weights.len() + self.bias.as_ref().map_or(0, |bias| bias.len() * 4)
    }

    /// Whether activations are best given as bf16: [`Products::multiply`] converts f32 otherwise.
    pub fn wants_bf16(&self) -> bool {
        self.layout != Layout::F32
    }

    /// The weights (out, in) where they lie as f32 or bf16; others want [`CudaLinear::unpack_rows`].
    pub fn dense(&self) -> Option<Matrix<'_>> {
        match self.layout {
            Layout::F32 | Layout::BF16 => self.numbers(),
            _ => None,
        }
    }

    /// (out), f32.
    pub fn bias(&self) -> Option<View<'_>> {
        self.bias.as_ref().map(Buffer::view)
    }

    /// Rows of the weights as numbers, into out (rows, in), bf16 (rounded) or f32 (the values that
    /// the weights encode).
    ///
    /// # Errors
    /// Rows that are not there; an operand of another shape or type.
    pub fn unpack_rows(&self, device: &Device, rows: Range<usize>, out: Matrix<'_>) -> Result<()> {
        let op = "unpack_rows";
        if rows.start > rows.end || rows.end > self.out_features {
            return Err(KernelError::OutOfRange {
                op,
                what: "row of weights",
                index: rows.end,
                len: self.out_features,
            });
        }
        let kinds = [Kind::F32, Kind::BF16];
        out.check(op, "out", &kinds, (rows.len(), self.in_features))?;
        if rows.is_empty() {
            return Ok(());
        }
        match self.numbers() {
            Some(numbers) => cast(device, numbers.rows_from(rows.start), rows.len(), out),
            None => self.unpack_units(device, rows, out),
        }
    }

    /// The weights (out, in) if an element is a number.
    fn numbers(&self) -> Option<Matrix<'_>> {
        let kind = match self.layout {
            Layout::F32 => Kind::F32,
            Layout::F16 => Kind::F16,
            Layout::BF16 => Kind::BF16,
            Layout::Q8_0 | Layout::Q4K | Layout::Q6K => return None,
        };
        let view = self.weights.view().read_as(kind);
        Some(view.matrix(self.in_features))
    }

    /// Unpacks rows of weights whose columns are a multiple of 16; f32 and bf16 have no kernel.
    fn unpack_units(&self, device: &Device, rows: Range<usize>, out: Matrix<'_>) -> Result<()> {
        let name = format!("unpack_{}", self.layout.name());
        let units = rows.len() * self.in_features / 16;
        let fields = Fields::default()
            .u64(self.address())
            .u64(out.address())
            .u32(self.out_features as u32)
            .u32(self.in_features as u32)
            .u32(rows.start as u32)
            .u32(rows.len() as u32)
            .u32(out.stride32())
            .u32(out.kind().code());
        let launch = Launch::new(name, [units.div_ceil(256), 1, 1], 256)?.arg(fields);
        device.backend().launch(&launch)
    }

    pub(super) fn address(&self) -> u64 {
        self.weights.address()
    }

    pub(super) fn layout_code(&self) -> u32 {
        self.layout.code()
    }

    /// bf16 values that a product by cuBLAS needs room for.
    fn unpacked_len(&self) -> usize {
        if matches!(self.layout, Layout::F32 | Layout::BF16) || !self.in_features.is_multiple_of(16)
        {
            0
        } else {
            self.out_features * self.in_features
        }
    }
}

/// A file's weights as they lie on the device.
fn arrange(
    bytes: &[u8],
    format: WeightFormat,
    (out_features, in_features): (usize, usize),
) -> Result<(Layout, Vec<u8>)> {
    // The parts of every block, each behind that of the block before.
    let planes = |block_bytes: usize, parts: &[std::ops::Range<usize>]| {
        let mut out = Vec::with_capacity(bytes.len());
        for part in parts {
            for block in bytes.chunks_exact(block_bytes) {
                out.extend_from_slice(&block[part.clone()]);
            }
        }
        out
    };
    Ok(match format {
        WeightFormat::F32 => (Layout::F32, bytes.to_vec()),
        WeightFormat::F16 => (Layout::F16, bytes.to_vec()),
        WeightFormat::BF16 => (Layout::BF16, bytes.to_vec()),
        WeightFormat::Q8_0 => (Layout::Q8_0, planes(34, &[2..34, 0..2])),
        WeightFormat::Q4K => (Layout::Q4K, bytes.to_vec()),
        WeightFormat::Q6K => {
            let parts = [0..128, 128..192, 192..208, 208..210];
            (Layout::Q6K, planes(210, &parts))
        }
        other => {
            let host = Linear::from_bytes(bytes, other, out_features, in_features, None)?;
            let values = host.dequantize()?.flatten_all()?.to_vec1::<f32>()?;
            let bytes = values
                .iter()
                .flat_map(|&value: &f32| bf16::from_f32(value).to_le_bytes());
            (Layout::BF16, bytes.collect())
        }
    })
}

/// What products may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The fastest kernel for the number of rows: a row's bits may change with it.
    Fast,
    /// One kernel for any number of rows: a row's bits depend on that row alone.
    Deterministic,
}

/// The largest products that a workspace is made for.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProductsSize {
    /// Rows of x.
    pub rows: usize,
    /// Columns of x.
    pub columns: usize,
}

/// Products, and the memory they need beside their operands.
#[derive(Debug)]
pub struct Products {
    device: Device,
    mode: Mode,
    size: ProductsSize,
    /// x as bf16.
    activations: Buffer<bf16>,
    /// Encoded weights as bf16.
    unpacked: Buffer<bf16>,
}

impl Products {
    /// For products of at most `size` with any of `weights`.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new<'a>(
        device: &Device,
        mode: Mode,
        size: ProductsSize,
        weights: impl IntoIterator<Item = &'a CudaLinear>,
    ) -> Result<Self> {
        let unpacked = if mode == Mode::Fast && size.rows >= UNPACK_FROM {
            weights.into_iter().map(CudaLinear::unpacked_len).max()
        } else {
            None
        };
        Ok(Self {
            device: device.clone(),
            mode,
            size,
            activations: Buffer::zeros(device, size.rows * size.columns)?,
            unpacked: Buffer::zeros(device, unpacked.unwrap_or(0))?,
        })
    }

    /// y (rows, out), f32 = x (rows, in) times the weights transposed, plus the bias. x: f32, or
    /// bf16 where the weights are not f32.
    ///
    /// # Errors
    /// Operands of another shape or type; larger ones than the workspace is made for.
    pub fn multiply(
        &self,
        linear: &CudaLinear,
        x: Matrix<'_>,
        rows: usize,
        y: Matrix<'_>,
    ) -> Result<()> {
        let op = "multiply";
        let kinds: &[Kind] = if linear.layout == Layout::F32 {
            &[Kind::F32]
        } else {
            &[Kind::F32, Kind::BF16]
        };
        x.check(op, "x", kinds, (rows, linear.in_features))?;
        y.check(op, "y", &[Kind::F32], (rows, linear.out_features))?;
        if rows == 0 {
            return Ok(());
        }
        match (self.mode, linear.layout) {
            (Mode::Deterministic, Layout::F32) => self.few(linear, x, rows, y),
            (Mode::Deterministic, _) => self.tile(linear, x, rows, y),
            (Mode::Fast, _) if rows <= FEW => self.few(linear, x, rows, y),
            (Mode::Fast, Layout::F32 | Layout::BF16) => self.dense(linear, x, rows, y),
            (Mode::Fast, _) if rows >= UNPACK_FROM && linear.unpacked_len() > 0 => {
                self.unpack(linear, x, rows, y)
            }
            (Mode::Fast, _) => self.tile(linear, x, rows, y),
        }
    }

    fn few(&self, linear: &CudaLinear, x: Matrix<'_>, rows: usize, y: Matrix<'_>) -> Result<()> {
        let count = rows.next_power_of_two().min(FEW);
        // As in the kernels: weight rows that a warp reads for so many rows of x.
        let features = if count <= 2 { 2 } else { 4 };
        let name = format!("few_{}_{count}", linear.layout.name());
        for (first, slab) in row_slabs(rows) {
            let grid = [
                linear.out_features.div_ceil(4 * features),
                slab.div_ceil(count),
                1,
            ];
            let arguments = fields(linear, x.rows_from(first), slab, y.rows_from(first));
            let launch = Launch::new(name.as_str(), grid, 128)?.arg(arguments);
            self.device.backend().launch(&launch)?;
        }
        Ok(())
    }

    fn tile(&self, linear: &CudaLinear, x: Matrix<'_>, rows: usize, y: Matrix<'_>) -> Result<()> {
        let grid = [linear.out_features.div_ceil(64), rows.div_ceil(64), 1];
        let name = format!("tile_{}", linear.layout.name());
        let launch = Launch::new(name, grid, 128)?.arg(fields(linear, x, rows, y));
        self.device.backend().launch(&launch)
    }

    /// By cuBLAS, from encoded weights.
    fn unpack(&self, linear: &CudaLinear, x: Matrix<'_>, rows: usize, y: Matrix<'_>) -> Result<()> {
        let values = linear.unpacked_len();
        if self.unpacked.len() < values {
            return Err(invalid(format!(
                "a workspace for {} unpacked weights, {values} needed",
                self.unpacked.len()
            )));
        }
        let rows_of_weights = 0..linear.out_features;
        let room = self.unpacked.matrix(linear.in_features);
        linear.unpack_units(&self.device, rows_of_weights, room)?;
        let weights = (self.unpacked.address(), Kind::BF16);
        self.cublas(linear, weights, (x, rows), y)
    }

    fn dense(&self, linear: &CudaLinear, x: Matrix<'_>, rows: usize, y: Matrix<'_>) -> Result<()> {
        let kind = if linear.layout == Layout::F32 {
            Kind::F32
        } else {
            Kind::BF16
        };
        self.cublas(linear, (linear.address(), kind), (x, rows), y)
    }

    fn cublas(
        &self,
        linear: &CudaLinear,
        (weights, kind): (u64, Kind),
        (x, rows): (Matrix<'_>, usize),
        y: Matrix<'_>,
    ) -> Result<()> {
        let mut x = x;
        if x.kind() != kind {
            let room = self.size.rows * self.size.columns;
            if rows * x.columns > room {
                return Err(invalid(format!(
                    "a workspace for {room} activations, {rows} rows of {} given",
                    x.columns
                )));
            }
            let converted = self.activations.matrix(x.columns);
            cast(&self.device, x, rows, converted)?;
            x = converted;
        }
        if let Some(bias) = &linear.bias {
            fill_rows(&self.device, bias.view(), y, rows)?;
        }
        self.device.backend().product(&Product {
            a: x.address(),
            b: weights,
            kind,
            c: y.address(),
            form: Form::ABt,
            m: rows,
            n: linear.out_features,
            k: linear.in_features,
            a_stride: x.stride,
            b_stride: linear.in_features,
            c_stride: y.stride,
            scale: 1.0,
            update: match linear.bias {
                Some(_) => Update::Add,
                None => Update::Set,
            },
        })
    }
}

fn fields(linear: &CudaLinear, x: Matrix<'_>, rows: usize, y: Matrix<'_>) -> Fields {
    let aligned = linear.in_features.is_multiple_of(16)
        && x.stride.is_multiple_of(8)
        && x.address().is_multiple_of(16);
    Fields::default()
        .u64(linear.address())
        .u64(linear.bias.as_ref().map_or(0, Buffer::address))
        .u64(x.address())
        .u64(y.address())
        .u32(x.stride32())
        .u32(y.stride32())
        .u32(rows as u32)
        .u32(linear.in_features as u32)
        .u32(linear.out_features as u32)
        .u32(x.kind().code())
        .u32(u32::from(aligned))
}

fn invalid(problem: String) -> KernelError {
    let op = "cuda linear";
    KernelError::Invalid { op, problem }
}
