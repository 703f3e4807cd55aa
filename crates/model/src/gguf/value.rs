//! Metadata values and the typed look-ups.

use super::GgufFile;
use crate::ModelError;

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    missing_docs,
    reason = "the variants are the specification's value types"
)]
pub enum GgufValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(GgufArray),
}

/// An array of one type.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufArray {
    /// Integers of any width; above `i64::MAX` they are refused.
    Integers(Vec<i64>),
    /// `f32` or `f64`.
    Floats(Vec<f64>),
    /// Truth values.
    Bools(Vec<bool>),
    /// Text.
    Strings(Vec<String>),
    /// Arrays.
    Arrays(Vec<GgufArray>),
}

impl GgufArray {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Integers(items) => items.len(),
            Self::Floats(items) => items.len(),
            Self::Bools(items) => items.len(),
            Self::Strings(items) => items.len(),
            Self::Arrays(items) => items.len(),
        }
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Integers(_) => "integers",
            Self::Floats(_) => "floats",
            Self::Bools(_) => "bools",
            Self::Strings(_) => "strings",
            Self::Arrays(_) => "arrays",
        }
    }
}

impl GgufValue {
    pub(super) fn as_float(&self) -> Option<f64> {
        match *self {
            Self::F32(value) => Some(value.into()),
            Self::F64(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(value) => value.into(),
            Self::I8(value) => value.into(),
            Self::U16(value) => value.into(),
            Self::I16(value) => value.into(),
            Self::U32(value) => value.into(),
            Self::I32(value) => value.into(),
            Self::U64(value) => value.into(),
            Self::I64(value) => value.into(),
            _ => return None,
        })
    }

    /// The value for an error message: short, without the elements of an array.
    fn describe(&self) -> String {
        match self {
            Self::Array(array) => format!("an array of {} {}", array.len(), array.kind()),
            Self::String(text) => {
                format!("the string {:?}", text.chars().take(40).collect::<String>())
            }
            Self::F32(value) => format!("the float {value}"),
            Self::F64(value) => format!("the float {value}"),
            Self::Bool(value) => value.to_string(),
            integer => format!("the integer {}", integer.as_integer().unwrap_or_default()),
        }
    }
}

/// Typed look-ups. Those ending in `_opt` give `None` for a key that is not there; all fail
/// on a value of another type, naming file, key, expectation and value. An integer may be
/// stored in any width.
impl GgufFile {
    fn get<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a GgufValue) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.metadata().get(key) else {
            return Ok(None);
        };
        let wrong = || ModelError::field(self.path(), key, expected, value.describe());
        read(value).map(Some).ok_or_else(wrong)
    }

    fn required<T>(
        &self,
        key: &str,
        expected: &'static str,
        found: Option<T>,
    ) -> Result<T, ModelError> {
        found.ok_or_else(|| ModelError::missing(self.path(), key, expected))
    }

    /// An unsigned integer, if there.
    ///
    /// # Errors
    /// Another type, or out of range.
    pub fn u32_opt(&self, key: &str) -> Result<Option<u32>, ModelError> {
        self.get(key, "a 32-bit unsigned integer", |value| {
            value.as_integer()?.try_into().ok()
        })
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// Missing, another type, or out of range.
    pub fn u32(&self, key: &str) -> Result<u32, ModelError> {
        let found = self.u32_opt(key)?;
        self.required(key, "a 32-bit unsigned integer", found)
    }

    /// A float, if there.
    ///
    /// # Errors
    /// Another type.
    pub fn f32_opt(&self, key: &str) -> Result<Option<f32>, ModelError> {
        self.get(key, "a float", |value| match *value {
            GgufValue::F32(value) => Some(value),
            #[expect(clippy::cast_possible_truncation, reason = "the model computes in f32")]
            GgufValue::F64(value) => Some(value as f32),
            _ => None,
        })
    }

    /// A float.
    ///
    /// # Errors
    /// Missing or another type.
    pub fn f32(&self, key: &str) -> Result<f32, ModelError> {
        let found = self.f32_opt(key)?;
        self.required(key, "a float", found)
    }

    /// A truth value, if there.
    ///
    /// # Errors
    /// Another type.
    pub fn bool_opt(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.get(key, "a bool", |value| match *value {
            GgufValue::Bool(value) => Some(value),
            _ => None,
        })
    }

    /// Text, if there.
    ///
    /// # Errors
    /// Another type.
    pub fn str_opt(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.get(key, "a string", |value| match value {
            GgufValue::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Text.
    ///
    /// # Errors
    /// Missing or another type.
    pub fn str(&self, key: &str) -> Result<&str, ModelError> {
        let found = self.str_opt(key)?;
        self.required(key, "a string", found)
    }

    /// An array of text, if there.
    ///
    /// # Errors
    /// Another type.
    pub fn strings_opt(&self, key: &str) -> Result<Option<&[String]>, ModelError> {
        self.get(key, "an array of strings", |value| match value {
            GgufValue::Array(GgufArray::Strings(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// An array of text.
    ///
    /// # Errors
    /// Missing or another type.
    pub fn strings(&self, key: &str) -> Result<&[String], ModelError> {
        let found = self.strings_opt(key)?;
        self.required(key, "an array of strings", found)
    }

    /// An array of integers, if there.
    ///
    /// # Errors
    /// Another type.
    pub fn integers_opt(&self, key: &str) -> Result<Option<&[i64]>, ModelError> {
        self.get(key, "an array of integers", |value| match value {
            GgufValue::Array(GgufArray::Integers(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// An array of floats, if there.
    ///
    /// # Errors
    /// Another type.
    pub fn floats_opt(&self, key: &str) -> Result<Option<&[f64]>, ModelError> {
        self.get(key, "an array of floats", |value| match value {
            GgufValue::Array(GgufArray::Floats(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// An array of truth values, if there.
    ///
    /// # Errors
    /// Another type.
    pub fn bools_opt(&self, key: &str) -> Result<Option<&[bool]>, ModelError> {
        self.get(key, "an array of bools", |value| match value {
            GgufValue::Array(GgufArray::Bools(items)) => Some(items.as_slice()),
            _ => None,
        })
    }
}
