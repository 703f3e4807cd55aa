//! Reading an instruction's parameters.

use std::cell::RefCell;
use std::num::NonZeroUsize;

use serde_json::{Map, Value};

use crate::{Error, python};

/// Parameters of one instruction; nulls count as absent.
///
/// The originals draw absent and out-of-range parameters at random; here they are errors.
pub(crate) struct Args<'a> {
    id: &'a str,
    values: &'a Map<String, Value>,
    read: RefCell<Vec<&'static str>>,
}

impl<'a> Args<'a> {
    pub(crate) fn new(id: &'a str, values: &'a Map<String, Value>) -> Self {
        Self {
            id,
            values,
            read: RefCell::default(),
        }
    }

    /// Refuses parameters that nothing asked for.
    pub(crate) fn refuse_others(&self) -> Result<(), Error> {
        let read = self.read.borrow();
        let other = self
            .values
            .iter()
            .find(|(name, value)| !value.is_null() && !read.contains(&name.as_str()));
        other.map_or(Ok(()), |(name, _)| {
            Err(Error::UnknownParameter {
                id: self.id.to_owned(),
                name: name.clone(),
            })
        })
    }

    fn get(&self, name: &'static str) -> Result<&Value, Error> {
        self.read.borrow_mut().push(name);
        let value = self.values.get(name).filter(|value| !value.is_null());
        value.ok_or_else(|| Error::MissingParameter {
            id: self.id.to_owned(),
            name,
        })
    }

    pub(crate) fn bad(&self, name: &'static str, expected: &'static str, got: &Value) -> Error {
        Error::BadParameter {
            id: self.id.to_owned(),
            name,
            expected,
            got: got.to_string(),
        }
    }

    /// Any text.
    pub(crate) fn text(&self, name: &'static str) -> Result<&str, Error> {
        let value = self.get(name)?;
        value
            .as_str()
            .ok_or_else(|| self.bad(name, "a text", value))
    }

    /// A text with at least one character.
    pub(crate) fn nonempty(&self, name: &'static str) -> Result<&str, Error> {
        match self.text(name)? {
            "" => Err(self.bad(name, "a text that is not empty", &"".into())),
            text => Ok(text),
        }
    }

    /// A text without its outer white space.
    pub(crate) fn stripped(&self, name: &'static str) -> Result<String, Error> {
        self.text(name).map(|text| python::strip(text).to_owned())
    }

    /// A whole number, also spelled as a float (`3.0`), as the published data does.
    pub(crate) fn integer(&self, name: &'static str) -> Result<i64, Error> {
        let value = self.get(name)?;
        let whole = value.as_i64().or_else(|| {
            let float = value.as_f64()?;
            (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
        });
        whole.ok_or_else(|| self.bad(name, "a whole number", value))
    }

    /// A whole number, 0 or more.
    pub(crate) fn natural(&self, name: &'static str) -> Result<i64, Error> {
        let number = self.integer(name)?;
        if number < 0 {
            return Err(self.bad(name, "a whole number, 0 or more", &number.into()));
        }
        Ok(number)
    }

    /// A whole number, 0 or more.
    pub(crate) fn size(&self, name: &'static str) -> Result<usize, Error> {
        let number = self.integer(name)?;
        usize::try_from(number)
            .map_err(|_| self.bad(name, "a whole number, 0 or more", &number.into()))
    }

    /// A whole number, 1 or more.
    pub(crate) fn positive(&self, name: &'static str) -> Result<NonZeroUsize, Error> {
        let number = self.integer(name)?;
        let size = usize::try_from(number).ok().and_then(NonZeroUsize::new);
        size.ok_or_else(|| self.bad(name, "a whole number, 1 or more", &number.into()))
    }

    /// A number, 0 or more.
    pub(crate) fn percentage(&self, name: &'static str) -> Result<f64, Error> {
        let value = self.get(name)?;
        let number = value.as_f64().filter(|number| *number >= 0.0);
        number.ok_or_else(|| self.bad(name, "a number, 0 or more", value))
    }
}

#[cfg(test)]
mod tests {
    use super::Args;
    use serde_json::{Map, Value, json};

    fn values() -> Map<String, Value> {
        let values =
            json!({"a": 3.0, "b": -1, "c": null, "d": 2.5, "e": " x ", "f": "", "g": 1e300});
        values.as_object().unwrap().clone()
    }

    #[test]
    fn numbers_may_be_floats_but_whole() {
        let values = values();
        let args = Args::new("x:y", &values);
        assert_eq!(args.integer("a"), Ok(3));
        assert_eq!(args.percentage("d"), Ok(2.5));
        assert_eq!(args.stripped("e").as_deref(), Ok("x"));
        for (error, expected) in [
            (
                args.natural("b").unwrap_err(),
                "x:y: parameter b: expected a whole number, 0 or more, got -1",
            ),
            (
                args.integer("c").unwrap_err(),
                "x:y: parameter c is missing",
            ),
            (
                args.integer("d").unwrap_err(),
                "x:y: parameter d: expected a whole number, got 2.5",
            ),
            (
                args.integer("g").unwrap_err(),
                "x:y: parameter g: expected a whole number, got 1e+300",
            ),
            (
                args.integer("h").unwrap_err(),
                "x:y: parameter h is missing",
            ),
            (
                args.nonempty("f").unwrap_err(),
                "x:y: parameter f: expected a text that is not empty, got \"\"",
            ),
            (
                args.text("a").unwrap_err(),
                "x:y: parameter a: expected a text, got 3.0",
            ),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn what_was_not_read_is_refused() {
        let values = json!({"a": 3, "b": null}).as_object().unwrap().clone();
        let args = Args::new("x:y", &values);
        let error = args.refuse_others().unwrap_err().to_string();
        assert_eq!(error, "x:y: unknown parameter \"a\"");
        args.integer("a").unwrap();
        assert_eq!(args.refuse_others(), Ok(()));
    }
}
