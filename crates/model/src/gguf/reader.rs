//! Reads the header of one GGUF file and checks every length in it.

use super::{GgufArray, GgufValue, TensorInfo};
use crate::ModelError;
use candle_core::quantized::GgmlDType;
use indexmap::IndexMap;
use std::ops::Range;
use std::path::Path;

const DEFAULT_ALIGNMENT: usize = 32;
const MAX_DIMENSIONS: usize = 4;
const MAX_KEY_BYTES: usize = 65_535; // the specification's limit
const MAX_ARRAY_DEPTH: usize = 4;
/// Smallest possible size of a key with its value: an empty key, a type, one byte.
const MIN_ENTRY_BYTES: usize = 8 + 4 + 1;
/// Smallest possible tensor description: an empty name, dimension count, type, offset.
const MIN_TENSOR_BYTES: usize = 8 + 4 + 4 + 8;
/// Array elements in the metadata of one file, all arrays together. The largest vocabularies
/// need about a million; in memory an element takes more room than in the file.
const MAX_ELEMENTS: u64 = 1 << 25;
/// Entries to reserve room for before the file has shown that it has them.
const MAX_RESERVED: usize = 1 << 12;

type Metadata = IndexMap<String, GgufValue>;
type Tensors = IndexMap<String, TensorInfo>;

/// Metadata and tensors of one file.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<(Metadata, Tensors), ModelError> {
    let mut cursor = Cursor {
        path,
        bytes,
        at: 0,
        elements_left: MAX_ELEMENTS,
    };
    cursor.magic_and_version()?;
    let tensor_count = cursor.u64("the tensor count")?;
    let entry_count = cursor.u64("the metadata count")?;
    let reserved = cursor.checked_count(entry_count, MIN_ENTRY_BYTES, "the metadata")?;
    let mut metadata = Metadata::with_capacity(reserved.min(MAX_RESERVED));
    for index in 0..entry_count {
        let key = cursor.string(&format!("the key of metadata entry {index}"))?;
        if key.len() > MAX_KEY_BYTES {
            let got = format!("{} bytes", key.len());
            let field = format!("the key of metadata entry {index}");
            return Err(cursor.wrong(&field, "at most 65535 bytes", got));
        }
        let kind = cursor.u32(&key)?;
        let value = cursor.value(kind, &key)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(cursor.wrong(&key, "each key once", "a second one"));
        }
    }
    let tensors = cursor.tensors(tensor_count, alignment(path, &metadata)?)?;
    Ok((metadata, tensors))
}

/// The type candle knows by this ggml id.
pub(super) fn dtype_of(id: u32) -> Option<GgmlDType> {
    Some(match id {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        9 => GgmlDType::Q8_1,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        15 => GgmlDType::Q8K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}

fn alignment(path: &Path, metadata: &Metadata) -> Result<usize, ModelError> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(GgufValue::U32(value)) if value.is_power_of_two() => Ok(*value as usize),
        Some(other) => Err(ModelError::field(
            path,
            "general.alignment",
            "a power of two (u32)",
            format!("{other:?}"),
        )),
    }
}

/// A place in the file that only moves forward.
struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
    elements_left: u64,
}

impl<'a> Cursor<'a> {
    fn wrong(
        &self,
        field: &str,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> ModelError {
        ModelError::field(self.path, field, expected, got)
    }

    fn truncated(&self, reading: &str, needed: u64, available: usize) -> ModelError {
        let available = available as u64;
        ModelError::Truncated {
            path: self.path.into(),
            reading: reading.into(),
            needed,
            available,
        }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, count: u64, reading: &str) -> Result<&'a [u8], ModelError> {
        if count > self.left() as u64 {
            return Err(self.truncated(reading, count, self.left()));
        }
        let start = self.at;
        self.at += usize::try_from(count).expect("not more than what is left of a slice");
        Ok(&self.bytes[start..self.at])
    }

    fn array<const N: usize>(&mut self, reading: &str) -> Result<[u8; N], ModelError> {
        let taken = self.take(N as u64, reading)?;
        Ok(taken
            .try_into()
            .expect("take gives as many bytes as asked for"))
    }

    fn u32(&mut self, reading: &str) -> Result<u32, ModelError> {
        Ok(u32::from_le_bytes(self.array(reading)?))
    }

    fn u64(&mut self, reading: &str) -> Result<u64, ModelError> {
        Ok(u64::from_le_bytes(self.array(reading)?))
    }

    /// `count` as a size, if that many things of at least `min_bytes` can still come.
    fn checked_count(
        &self,
        count: u64,
        min_bytes: usize,
        reading: &str,
    ) -> Result<usize, ModelError> {
        let needed = count.saturating_mul(min_bytes as u64);
        if needed > self.left() as u64 {
            return Err(self.truncated(reading, needed, self.left()));
        }
        Ok(usize::try_from(count).expect("less than what is left of a slice"))
    }

    fn string(&mut self, reading: &str) -> Result<String, ModelError> {
        let length = self.u64(reading)?;
        let bytes = self.take(length, reading)?;
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned)
            .map_err(|error| self.wrong(reading, "UTF-8", error.to_string()))
    }

    fn magic_and_version(&mut self) -> Result<(), ModelError> {
        let magic = self.array::<4>("the magic number")?;
        if &magic != b"GGUF" {
            return Err(self.wrong(
                "the magic number",
                "GGUF",
                format!("{:?}", magic.escape_ascii().to_string()),
            ));
        }
        match self.u32("the version")? {
            2 | 3 => Ok(()),
            version if (1..=3).contains(&version.swap_bytes()) => {
                Err(self.wrong("the version", "a little-endian file", "a big-endian one"))
            }
            version => Err(self.wrong("the version", "2 or 3", version.to_string())),
        }
    }

    fn bool(&mut self, key: &str) -> Result<bool, ModelError> {
        match self.array::<1>(key)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.wrong(key, "a bool (0 or 1)", other.to_string())),
        }
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<GgufValue, ModelError> {
        Ok(match kind {
            0 => GgufValue::U8(u8::from_le_bytes(self.array(key)?)),
            1 => GgufValue::I8(i8::from_le_bytes(self.array(key)?)),
            2 => GgufValue::U16(u16::from_le_bytes(self.array(key)?)),
            3 => GgufValue::I16(i16::from_le_bytes(self.array(key)?)),
            4 => GgufValue::U32(u32::from_le_bytes(self.array(key)?)),
            5 => GgufValue::I32(i32::from_le_bytes(self.array(key)?)),
            6 => GgufValue::F32(f32::from_le_bytes(self.array(key)?)),
            7 => GgufValue::Bool(self.bool(key)?),
            8 => GgufValue::String(self.string(key)?),
            9 => GgufValue::Array(self.array_value(key, MAX_ARRAY_DEPTH)?),
            10 => GgufValue::U64(u64::from_le_bytes(self.array(key)?)),
            11 => GgufValue::I64(i64::from_le_bytes(self.array(key)?)),
            12 => GgufValue::F64(f64::from_le_bytes(self.array(key)?)),
            other => return Err(self.wrong(key, "a value type from 0 to 12", other.to_string())),
        })
    }

    fn array_value(&mut self, key: &str, depth: usize) -> Result<GgufArray, ModelError> {
        if depth == 0 {
            return Err(self.wrong(key, "arrays nested at most 4 deep", "a deeper one"));
        }
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        let min_bytes = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 4 + 8,
            other => {
                return Err(self.wrong(key, "an element type from 0 to 12", other.to_string()));
            }
        };
        let within = self.elements_left.checked_sub(count);
        let count = self.checked_count(count, min_bytes, key)?;
        self.elements_left = within.ok_or_else(|| {
            let expected = format!("at most {MAX_ELEMENTS} elements in all arrays of the file");
            self.wrong(key, expected, format!("an array of {count}"))
        })?;
        Ok(match kind {
            8 => GgufArray::Strings(
                (0..count)
                    .map(|_| self.string(key))
                    .collect::<Result<_, _>>()?,
            ),
            7 => GgufArray::Bools(
                (0..count)
                    .map(|_| self.bool(key))
                    .collect::<Result<_, _>>()?,
            ),
            9 => GgufArray::Arrays(
                (0..count)
                    .map(|_| self.array_value(key, depth - 1))
                    .collect::<Result<_, _>>()?,
            ),
            6 | 12 => GgufArray::Floats(self.numbers(kind, count, key, GgufValue::as_float)?),
            _ => GgufArray::Integers(self.numbers(kind, count, key, |value| {
                value.as_integer().and_then(|value| value.try_into().ok())
            })?),
        })
    }

    fn numbers<T>(
        &mut self,
        kind: u32,
        count: usize,
        key: &str,
        convert: fn(&GgufValue) -> Option<T>,
    ) -> Result<Vec<T>, ModelError> {
        (0..count)
            .map(|_| {
                let value = self.value(kind, key)?;
                let range = || self.wrong(key, "integers below 2^63", format!("{value:?}"));
                convert(&value).ok_or_else(range)
            })
            .collect()
    }

    fn tensors(&mut self, count: u64, alignment: usize) -> Result<Tensors, ModelError> {
        let count = self.checked_count(count, MIN_TENSOR_BYTES, "the tensor descriptions")?;
        let mut described = Vec::with_capacity(count.min(MAX_RESERVED));
        for index in 0..count {
            described.push(self.description(index)?);
        }
        // A file without tensors (a vocabulary) need not be padded.
        let data = self.at.next_multiple_of(alignment);
        let mut tensors = Tensors::with_capacity(described.len());
        for description in described {
            let name = description.name.clone();
            let range = self.data_range(&description, data, alignment)?;
            let Description {
                name: own_name,
                dtype_id,
                shape,
                ..
            } = description;
            let info = TensorInfo {
                name: own_name,
                dtype_id,
                shape,
                part: 0,
                range,
            };
            if tensors.insert(name.clone(), info).is_some() {
                return Err(self.wrong(&name, "each tensor once", "a second one"));
            }
        }
        Ok(tensors)
    }

    fn description(&mut self, index: usize) -> Result<Description, ModelError> {
        let name = self.string(&format!("the name of tensor {index}"))?;
        let place = format!("tensor {name}");
        let dimensions = self.u32(&place)? as usize;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(self.wrong(&place, "1 to 4 dimensions", dimensions.to_string()));
        }
        let mut shape = Vec::with_capacity(dimensions);
        for _ in 0..dimensions {
            let size = self.u64(&place)?;
            let fits = usize::try_from(size).ok().filter(|size| *size > 0);
            shape.push(fits.ok_or_else(|| self.wrong(&place, "sizes above 0", size.to_string()))?);
        }
        shape.reverse();
        let dtype_id = self.u32(&place)?;
        let offset = self.u64(&place)?;
        Ok(Description {
            name,
            dtype_id,
            shape,
            offset,
        })
    }

    /// Where the tensor's bytes lie, once it is sure that they do.
    fn data_range(
        &self,
        tensor: &Description,
        data: usize,
        alignment: usize,
    ) -> Result<Range<usize>, ModelError> {
        let place = format!("tensor {}", tensor.name);
        let elements = tensor
            .shape
            .iter()
            .try_fold(1usize, |all, size| all.checked_mul(*size));
        let too_many = || {
            self.wrong(
                &place,
                "a countable number of elements",
                format!("shape {:?}", tensor.shape),
            )
        };
        let elements = elements.ok_or_else(too_many)?;
        if !tensor.offset.is_multiple_of(alignment as u64) {
            let expected = format!("an offset aligned to {alignment} bytes");
            return Err(self.wrong(&place, expected, tensor.offset.to_string()));
        }
        let size = match dtype_of(tensor.dtype_id) {
            None => 0,
            Some(dtype) => {
                let row = tensor.shape.last().copied().unwrap_or_default();
                let block = dtype.block_size();
                if row % block != 0 {
                    let expected = format!("rows of a multiple of {block} elements for {dtype:?}");
                    return Err(self.wrong(&place, expected, row.to_string()));
                }
                (elements / block)
                    .checked_mul(dtype.type_size())
                    .ok_or_else(too_many)?
            }
        };
        let needed = tensor.offset.saturating_add(size as u64);
        let available = self.bytes.len().saturating_sub(data);
        if needed > available as u64 {
            return Err(self.truncated(&format!("the data of {place}"), needed, available));
        }
        let start = data + usize::try_from(tensor.offset).expect("inside a slice, just checked");
        Ok(start..start + size)
    }
}

/// What the file says about a tensor.
struct Description {
    name: String,
    dtype_id: u32,
    shape: Vec<usize>,
    offset: u64,
}
