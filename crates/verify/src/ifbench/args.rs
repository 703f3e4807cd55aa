//! Reading an instruction's parameters.

use std::num::NonZeroUsize;

use serde_json::{Map, Value};

use super::text::strip;
use crate::Error;

/// Parameters of one instruction; nulls count as absent.
///
/// The original draws absent and out-of-range parameters at random; here they are errors.
pub(super) struct Args<'a> {
    pub(super) id: &'a str,
    pub(super) values: &'a Map<String, Value>,
}

impl Args<'_> {
    fn get(&self, name: &'static str) -> Result<&Value, Error> {
        let value = self.values.get(name).filter(|value| !value.is_null());
        value.ok_or_else(|| Error::MissingParameter {
            id: self.id.to_owned(),
            name,
        })
    }

    fn bad(&self, name: &'static str, expected: &'static str, got: &Value) -> Error {
        Error::BadParameter {
            id: self.id.to_owned(),
            name,
            expected,
            got: got.to_string(),
        }
    }

    /// Any text.
    pub(super) fn text(&self, name: &'static str) -> Result<&str, Error> {
        let value = self.get(name)?;
        value
            .as_str()
            .ok_or_else(|| self.bad(name, "a text", value))
    }

    /// A text with at least one character.
    pub(super) fn nonempty(&self, name: &'static str) -> Result<&str, Error> {
        match self.text(name)? {
            "" => Err(self.bad(name, "a text that is not empty", &Value::from(""))),
            text => Ok(text),
        }
    }

    /// A text without its outer white space.
    pub(super) fn stripped(&self, name: &'static str) -> Result<String, Error> {
        self.text(name).map(|text| strip(text).to_owned())
    }

    /// A whole number, also spelled as a float (`3.0`), as the published data does.
    pub(super) fn integer(&self, name: &'static str) -> Result<i64, Error> {
        let value = self.get(name)?;
        let whole = value.as_i64().or_else(|| {
            let float = value.as_f64()?;
            (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
        });
        whole.ok_or_else(|| self.bad(name, "a whole number", value))
    }

    /// A whole number, 0 or more.
    pub(super) fn natural(&self, name: &'static str) -> Result<i64, Error> {
        let number = self.integer(name)?;
        if number < 0 {
            return Err(self.bad(name, "a whole number, 0 or more", &number.into()));
        }
        Ok(number)
    }

    /// A whole number, 0 or more.
    pub(super) fn size(&self, name: &'static str) -> Result<usize, Error> {
        let number = self.integer(name)?;
        usize::try_from(number)
            .map_err(|_| self.bad(name, "a whole number, 0 or more", &number.into()))
    }

    /// A whole number, 1 or more.
    pub(super) fn positive(&self, name: &'static str) -> Result<NonZeroUsize, Error> {
        let number = self.integer(name)?;
        usize::try_from(number)
            .ok()
            .and_then(NonZeroUsize::new)
            .ok_or_else(|| self.bad(name, "a whole number, 1 or more", &number.into()))
    }

    /// A number, 0 or more.
    pub(super) fn percentage(&self, name: &'static str) -> Result<f64, Error> {
        let value = self.get(name)?;
        let number = value.as_f64().filter(|number| *number >= 0.0);
        number.ok_or_else(|| self.bad(name, "a number, 0 or more", value))
    }
}
