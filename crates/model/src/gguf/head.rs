//! Writes the head of a GGUF file (version 3, little-endian): everything before the tensors' data.

use super::{GgufArray, GgufValue};
use indexmap::IndexMap;

/// Tensors begin at multiples of so many bytes.
const ALIGNMENT: usize = 32;

/// Metadata of a GGUF file to be written, and which tensors follow, in their order.
///
/// [`GgufHead::encode`] gives the bytes before the data; then comes the data of each tensor, and
/// after each [`GgufHead::padding_after`] zero bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufHead {
    metadata: IndexMap<String, GgufValue>,
    tensors: IndexMap<String, TensorHead>,
}

/// How one tensor is described.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TensorHead {
    /// Slowest axis first.
    shape: Vec<usize>,
    dtype_id: u32,
    bytes: usize,
}

impl GgufHead {
    /// Sets a key; a value that it has is replaced, in its place.
    ///
    /// Arrays of integers are written as i32 where all fit, else as i64; floats as f32 where that
    /// loses nothing, else as f64.
    pub fn set(&mut self, key: impl Into<String>, value: GgufValue) {
        self.metadata.insert(key.into(), value);
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) {
        self.metadata.shift_remove(key);
    }

    /// Adds a tensor after those that are there: its shape (slowest axis first), its type as ggml
    /// numbers it, the bytes of its data. One of this name is described anew, in its place.
    pub fn tensor(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        dtype_id: u32,
        bytes: usize,
    ) {
        let tensor = TensorHead {
            shape: shape.into(),
            dtype_id,
            bytes,
        };
        self.tensors.insert(name.into(), tensor);
    }

    /// Zero bytes that follow a tensor's data of this length.
    pub fn padding_after(bytes: usize) -> usize {
        bytes.next_multiple_of(ALIGNMENT) - bytes
    }

    /// Everything before the first tensor's data, padding included.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        put_size(&mut out, self.tensors.len());
        put_size(&mut out, self.metadata.len());
        for (key, value) in &self.metadata {
            put_text(&mut out, key);
            out.extend(kind_of(value).to_le_bytes());
            put_value(&mut out, value);
        }
        let mut offset = 0;
        for (name, tensor) in &self.tensors {
            put_text(&mut out, name);
            let dimensions = u32::try_from(tensor.shape.len()).expect("a few axes");
            out.extend(dimensions.to_le_bytes());
            for size in tensor.shape.iter().rev() {
                put_size(&mut out, *size);
            }
            out.extend(tensor.dtype_id.to_le_bytes());
            put_size(&mut out, offset);
            offset += tensor.bytes + Self::padding_after(tensor.bytes);
        }
        out.resize(out.len() + Self::padding_after(out.len()), 0);
        out
    }
}

fn put_size(out: &mut Vec<u8>, size: usize) {
    out.extend((size as u64).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_size(out, text.len());
    out.extend(text.as_bytes());
}

/// The specification's number of the value's type.
fn kind_of(value: &GgufValue) -> u32 {
    match value {
        GgufValue::U8(_) => 0,
        GgufValue::I8(_) => 1,
        GgufValue::U16(_) => 2,
        GgufValue::I16(_) => 3,
        GgufValue::U32(_) => 4,
        GgufValue::I32(_) => 5,
        GgufValue::F32(_) => 6,
        GgufValue::Bool(_) => 7,
        GgufValue::String(_) => 8,
        GgufValue::Array(_) => 9,
        GgufValue::U64(_) => 10,
        GgufValue::I64(_) => 11,
        GgufValue::F64(_) => 12,
    }
}

fn put_value(out: &mut Vec<u8>, value: &GgufValue) {
    match value {
        GgufValue::U8(value) => out.push(*value),
        GgufValue::I8(value) => out.extend(value.to_le_bytes()),
        GgufValue::U16(value) => out.extend(value.to_le_bytes()),
        GgufValue::I16(value) => out.extend(value.to_le_bytes()),
        GgufValue::U32(value) => out.extend(value.to_le_bytes()),
        GgufValue::I32(value) => out.extend(value.to_le_bytes()),
        GgufValue::F32(value) => out.extend(value.to_le_bytes()),
        GgufValue::Bool(value) => out.push(u8::from(*value)),
        GgufValue::String(value) => put_text(out, value),
        GgufValue::Array(array) => put_array(out, array),
        GgufValue::U64(value) => out.extend(value.to_le_bytes()),
        GgufValue::I64(value) => out.extend(value.to_le_bytes()),
        GgufValue::F64(value) => out.extend(value.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &GgufArray) {
    fn put<T, const N: usize>(
        out: &mut Vec<u8>,
        kind: u32,
        items: &[T],
        bytes: impl Fn(&T) -> [u8; N],
    ) {
        out.extend(kind.to_le_bytes());
        put_size(out, items.len());
        items.iter().for_each(|item| out.extend(bytes(item)));
    }
    match array {
        GgufArray::Integers(items) => {
            let narrow: Option<Vec<i32>> =
                items.iter().map(|item| i32::try_from(*item).ok()).collect();
            match narrow {
                Some(items) => put(out, 5, &items, |item| item.to_le_bytes()),
                None => put(out, 11, items, |item| item.to_le_bytes()),
            }
        }
        GgufArray::Floats(items) => {
            let fits = |item: &f64| item.is_nan() || f64::from(*item as f32) == *item;
            match items.iter().all(fits) {
                true => put(out, 6, items, |item| (*item as f32).to_le_bytes()),
                false => put(out, 12, items, |item| item.to_le_bytes()),
            }
        }
        GgufArray::Bools(items) => put(out, 7, items, |item| [u8::from(*item)]),
        GgufArray::Strings(items) => {
            out.extend(8u32.to_le_bytes());
            put_size(out, items.len());
            items.iter().for_each(|item| put_text(out, item));
        }
        GgufArray::Arrays(items) => {
            out.extend(9u32.to_le_bytes());
            put_size(out, items.len());
            items.iter().for_each(|item| put_array(out, item));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GgufFile;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = GgufValue> {
        use GgufValue as V;
        let word = "[a-zé ]{0,9}";
        prop_oneof![
            any::<u8>().prop_map(V::U8),
            any::<i8>().prop_map(V::I8),
            any::<u16>().prop_map(V::U16),
            any::<i16>().prop_map(V::I16),
            any::<u32>().prop_map(V::U32),
            any::<i32>().prop_map(V::I32),
            any::<u64>().prop_map(V::U64),
            any::<i64>().prop_map(V::I64),
            any::<f32>().prop_map(V::F32),
            any::<f64>().prop_map(V::F64),
            any::<bool>().prop_map(V::Bool),
            word.prop_map(V::String),
            array().prop_map(V::Array),
        ]
    }

    fn array() -> impl Strategy<Value = GgufArray> {
        use GgufArray as A;
        let small = any::<i32>().prop_map(i64::from);
        let single = (-1e9f32..1e9).prop_map(f64::from);
        let leaf = prop_oneof![
            prop::collection::vec(small, 0..5).prop_map(A::Integers),
            prop::collection::vec(any::<i64>(), 0..5).prop_map(A::Integers),
            prop::collection::vec(single, 0..5).prop_map(A::Floats),
            prop::collection::vec(-1e300f64..1e300, 0..5).prop_map(A::Floats),
            prop::collection::vec(any::<bool>(), 0..5).prop_map(A::Bools),
            prop::collection::vec("[a-z\n]{0,9}", 0..5).prop_map(A::Strings),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop::collection::vec(inner, 0..3).prop_map(A::Arrays)
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            entries in prop::collection::btree_map("[a-z.]{1,12}", value(), 0..8),
            sizes in prop::collection::vec((1usize..4, 1usize..9), 0..5),
        ) {
            let mut head = GgufHead::default();
            head.set("removed", GgufValue::U8(1));
            for (key, value) in &entries {
                // Takes its old value's place.
                head.set(key.clone(), GgufValue::Bool(true));
                head.set(key.clone(), value.clone());
            }
            head.remove("removed");
            let data: Vec<Vec<u8>> = (1..).zip(&sizes).map(|(n, (a, b))| vec![n; a * b * 4]).collect();
            for (index, ((a, b), bytes)) in sizes.iter().zip(&data).enumerate() {
                head.tensor(format!("t{index}"), &[*a, *b], 0, bytes.len());
            }
            let mut file = head.encode();
            for bytes in &data {
                file.extend(bytes);
                file.resize(file.len() + GgufHead::padding_after(bytes.len()), 0);
            }
            let read = GgufFile::from_vec(file).unwrap();
            prop_assert_eq!(read.metadata().len(), entries.len());
            for (key, value) in &entries {
                let got = &read.metadata()[key];
                prop_assert_eq!(format!("{got:?}"), format!("{value:?}"), "{}", key);
            }
            for (index, ((a, b), bytes)) in sizes.iter().zip(&data).enumerate() {
                let info = read.tensor(&format!("t{index}")).unwrap();
                prop_assert_eq!(&info.shape, &[*a, *b]);
                prop_assert_eq!(read.tensor_bytes(info).unwrap(), bytes.as_slice());
            }
        }
    }
}
