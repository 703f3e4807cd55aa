//! The type of a value as Arrow would have to know it: the same in every row.

use serde_json::Value;
use std::collections::BTreeMap;

/// What is known of a column's type after some rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// Only nulls so far.
    Null,
    Bool,
    Integer,
    Float,
    Text,
    /// Of elements of one type; [`Shape::Null`] while there were none.
    List(Box<Shape>),
    Object(BTreeMap<String, Shape>),
    /// Lists in one row whose elements differ, with how.
    Mixed(String),
}

impl Shape {
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_f64() => Self::Float,
            Value::Number(_) => Self::Integer,
            Value::String(_) => Self::Text,
            Value::Array(items) => {
                let mut shape = Self::Null;
                for item in items {
                    if let Err(difference) = shape.merge(Self::of(item)) {
                        return Self::Mixed(difference);
                    }
                }
                Self::List(Box::new(shape))
            }
            Value::Object(fields) => {
                let fields = fields.iter();
                let shapes = fields.map(|(name, value)| (name.clone(), Self::of(value)));
                Self::Object(shapes.collect())
            }
        }
    }

    /// Takes in another row's.
    ///
    /// # Errors
    /// What differs; then nothing is taken in of that column.
    pub(super) fn merge(&mut self, other: Self) -> Result<(), String> {
        self.merge_at("", other)
    }

    fn merge_at(&mut self, place: &str, other: Self) -> Result<(), String> {
        match (&mut *self, other) {
            (_, Self::Mixed(difference)) => Err(format!("within {}: {difference}", shown(place))),
            (_, Self::Null) => Ok(()),
            (Self::Null, other) => {
                *self = other;
                Ok(())
            }
            (Self::List(one), Self::List(other)) => one.merge_at(&format!("{place}[]"), *other),
            (Self::Object(one), Self::Object(other)) => merge_fields(one, place, other),
            (one, other) if *one == other => Ok(()),
            (one, other) => Err(format!(
                "{} is {}, and {} in rows before",
                shown(place),
                other.name(),
                one.name()
            )),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Integer => "an integer",
            Self::Float => "a number with a fraction",
            Self::Text => "a string",
            Self::List(_) | Self::Mixed(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// Columns without a value in any row.
    pub(super) fn empty_columns(&self) -> Vec<String> {
        let Self::Object(fields) = self else {
            return Vec::new();
        };
        let empty = fields.iter().filter(|(_, shape)| **shape == Self::Null);
        empty.map(|(name, _)| name.clone()).collect()
    }
}

fn merge_fields(
    one: &mut BTreeMap<String, Shape>,
    place: &str,
    other: BTreeMap<String, Shape>,
) -> Result<(), String> {
    let list = |names: Vec<&String>| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    let missing: Vec<_> = one.keys().filter(|key| !other.contains_key(*key)).collect();
    if !missing.is_empty() {
        return Err(format!("{} lacks {}", shown(place), list(missing)));
    }
    let new: Vec<_> = other.keys().filter(|key| !one.contains_key(*key)).collect();
    if !new.is_empty() {
        return Err(format!(
            "{} has {}, which rows before have not",
            shown(place),
            list(new)
        ));
    }
    for (name, shape) in other {
        let inner = if place.is_empty() {
            name.clone()
        } else {
            format!("{place}.{name}")
        };
        if let Some(known) = one.get_mut(&name) {
            known.merge_at(&inner, shape)?;
        }
    }
    Ok(())
}

fn shown(place: &str) -> String {
    if place.is_empty() {
        "the row".into()
    } else {
        format!("`{place}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_are_the_same_in_every_row() {
        let check = |rows: &[Value], expected: Option<&str>| {
            let mut shape = Shape::of(&rows[0]);
            let found = rows[1..]
                .iter()
                .find_map(|row| shape.merge(Shape::of(row)).err());
            assert_eq!(found.as_deref(), expected, "{rows:?}");
        };
        check(&[json!({"a": 1}), json!({"a": 2})], None);
        check(
            &[json!({"a": null}), json!({"a": 2}), json!({"a": null})],
            None,
        );
        check(&[json!({"a": []}), json!({"a": [{"b": "x"}]})], None);
        let differs = "`a` is a string, and an integer in rows before";
        check(&[json!({"a": 1}), json!({"a": "x"})], Some(differs));
        let differs = "`a` is a number with a fraction, and an integer in rows before";
        check(&[json!({"a": 1}), json!({"a": 1.5})], Some(differs));
        check(
            &[json!({"a": 1, "b": 1}), json!({"a": 1})],
            Some("the row lacks `b`"),
        );
        let differs = "`a[]` has `c`, which rows before have not";
        check(
            &[json!({"a": [{"b": 1}]}), json!({"a": [{"b": 1, "c": 1}]})],
            Some(differs),
        );
        let differs = "within `a`: the row is a string, and an integer in rows before";
        check(&[json!({"a": []}), json!({"a": [1, "x"]})], Some(differs));
        check(
            &[json!(1), json!("x")],
            Some("the row is a string, and an integer in rows before"),
        );
    }

    #[test]
    fn columns_of_nulls_are_named() {
        let mut shape = Shape::of(&json!({"a": null, "b": null}));
        shape
            .merge(Shape::of(&json!({"a": null, "b": []})))
            .unwrap();
        assert_eq!(shape.empty_columns(), ["a"]);
    }
}
