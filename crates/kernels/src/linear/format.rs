use candle_core::quantized::GgmlDType;

use crate::KernelError;

/// How the values of a weight matrix are encoded, as GGUF and safetensors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// 32 values: f16 scale, 4-bit integers around 8.
    Q4_0,
    /// 32 values: f16 scale and minimum, 4-bit integers.
    Q4_1,
    /// 32 values: f16 scale, 5-bit integers around 16.
    Q5_0,
    /// 32 values: f16 scale and minimum, 5-bit integers.
    Q5_1,
    /// 32 values: f16 scale, 8-bit integers.
    Q8_0,
    /// 256 values: 2-bit integers, scales and minima per 16.
    Q2K,
    /// 256 values: 3-bit integers, scales per 16.
    Q3K,
    /// 256 values: 4-bit integers, scales and minima per 32.
    Q4K,
    /// 256 values: 5-bit integers, scales and minima per 32.
    Q5K,
    /// 256 values: 6-bit integers, scales per 16.
    Q6K,
}

impl WeightFormat {
    /// The format with this number in a GGUF tensor table; `None` for any other number.
    pub fn from_ggml(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// The number of this format in a GGUF tensor table.
    pub fn ggml_id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2K => 10,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::BF16 => 30,
        }
    }

    /// What people call the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q8_0 => "q8_0",
            Self::Q2K => "q2_k",
            Self::Q3K => "q3_k",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
        }
    }

    /// Values in one block; rows are whole blocks.
    pub fn block_size(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of one block in a file.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes that `out_features` rows of `in_features` values take in a file.
    ///
    /// # Errors
    /// A dimension of zero, a product beyond the address space, or rows that are not whole blocks.
    pub fn bytes(self, out_features: usize, in_features: usize) -> Result<usize, KernelError> {
        let block_size = self.block_size();
        if !in_features.is_multiple_of(block_size) {
            return Err(super::invalid(format!(
                "{self:?} packs {block_size} values in a block, which does not divide in_features {in_features}"
            )));
        }
        // Eight times the values must fit as well: buffers of f32 and padding are sized from them.
        out_features
            .checked_mul(in_features)
            .filter(|&values| values != 0 && values <= isize::MAX as usize / 8)
            .map(|values| values / block_size * self.block_bytes())
            .ok_or_else(|| {
                super::invalid(format!(
                    "no weight matrix {out_features}x{in_features} in {self:?} can be held"
                ))
            })
    }

    /// A value is a value: no blocks with a common scale.
    pub fn is_dense(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    /// What candle calls the format.
    pub fn ggml(self) -> GgmlDType {
        match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::BF16 => GgmlDType::BF16,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q2K => GgmlDType::Q2K,
            Self::Q3K => GgmlDType::Q3K,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
        }
    }
}
