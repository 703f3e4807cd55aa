//! Reading the parameters of one instruction.

use crate::error::Error;
use crate::ifeval::Relation;
use serde_json::{Map, Value};

/// The parameters of one instruction. What Python calls false (null, 0, `""`, `[]`) counts as
/// absent, as in the reference, which then draws a random value; here it is an error.
pub(super) struct Arguments<'a> {
    pub(super) id: &'a str,
    pub(super) values: &'a Map<String, Value>,
}

impl Arguments<'_> {
    fn get(&self, name: &'static str) -> Result<&Value, Error> {
        let value = self.values.get(name).filter(|value| !is_false(value));
        value.ok_or_else(|| Error::MissingParameter {
            id: self.id.to_owned(),
            name,
        })
    }

    pub(super) fn bad(&self, name: &'static str, expected: &'static str) -> Error {
        let got = self
            .values
            .get(name)
            .map_or_else(String::new, Value::to_string);
        Error::BadParameter {
            id: self.id.to_owned(),
            name,
            expected,
            got,
        }
    }

    /// No parameter but these may be present.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Error> {
        let mut present = self.values.iter().filter(|(_, value)| !is_false(value));
        match present.find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => Err(Error::UnknownParameter {
                id: self.id.to_owned(),
                name: name.clone(),
            }),
        }
    }

    /// A text that is not empty.
    pub(super) fn text(&self, name: &'static str) -> Result<&str, Error> {
        let value = self.get(name)?;
        value.as_str().ok_or_else(|| self.bad(name, "a text"))
    }

    /// Texts, at least one.
    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<&str>, Error> {
        let bad = || self.bad(name, "a list of texts");
        let list = self.get(name)?.as_array().ok_or_else(bad)?;
        list.iter()
            .map(|text| text.as_str().ok_or_else(bad))
            .collect()
    }

    /// A whole number, 1 or more, also spelled as a float (`3.0`).
    pub(super) fn count(&self, name: &'static str) -> Result<usize, Error> {
        let value = self.get(name)?;
        let whole = value.as_u64().or_else(|| {
            let float = value.as_f64()?;
            (float.fract() == 0.0 && (1.0..9e15).contains(&float)).then_some(float as u64)
        });
        whole
            .and_then(|whole| usize::try_from(whole).ok())
            .ok_or_else(|| self.bad(name, "a whole number, 1 or more"))
    }

    /// `less than` or `at least`.
    pub(super) fn relation(&self, name: &'static str) -> Result<Relation, Error> {
        match self.text(name)? {
            "less than" => Ok(Relation::LessThan),
            "at least" => Ok(Relation::AtLeast),
            _ => Err(self.bad(name, "\"less than\" or \"at least\"")),
        }
    }
}

/// What Python calls false.
fn is_false(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}
