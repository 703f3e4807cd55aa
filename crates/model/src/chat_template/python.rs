//! Python's ways with texts, as far as templates see them: how values print, what counts as
//! whitespace, methods of `str`, `list` and `dict`.

use super::limits;
use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// What `str.strip` and `str.isspace` take for whitespace.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// `str(value)`: texts as they are, everything inside lists and dicts as `repr` writes it.
///
/// # Errors
/// It would be too long: a value may hold another one many times.
pub(super) fn text(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => {
            let mut out = String::new();
            repr(&mut out, value, 0)?;
            Ok(out)
        }
    }
}

fn repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    limits::check_length(out)?;
    if depth > 100 {
        out.push_str("...");
        return Ok(());
    }
    let items = |value: &Value| -> Vec<Value> {
        value.try_iter().map(Iterator::collect).unwrap_or_default()
    };
    match value.kind() {
        ValueKind::String => out.push_str(&quoted(value.as_str().unwrap_or_default())),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::Seq => {
            let items = items(value);
            let (open, close) = match (value.downcast_object_ref::<Tuple>(), items.len()) {
                (Some(_), 1) => ('(', ",)"),
                (Some(_), _) => ('(', ")"),
                (None, _) => ('[', "]"),
            };
            out.push(open);
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                repr(out, item, depth + 1)?;
            }
            out.push_str(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in items(value).iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                repr(out, key, depth + 1)?;
                out.push_str(": ");
                repr(out, &value.get_item(key).unwrap_or_default(), depth + 1)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// `str` of a number.
pub(super) fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(number) if !value.is_integer() => float(number),
        _ => value.to_string(),
    }
}

/// `repr` of a float: the shortest digits that read back the same.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.into();
    }
    let text = format!("{number:?}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    let digits = digits.strip_suffix(".0").unwrap_or(digits);
    match exponent.strip_prefix('-') {
        Some(exponent) => format!("{digits}e-{exponent:0>2}"),
        None => format!("{digits}e+{exponent:0>2}"),
    }
}

/// `repr` of a text.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character == quote => {
                out.push('\\');
                out.push(quote);
            }
            '\0'..='\u{1f}' | '\u{7f}'..='\u{a0}' | '\u{ad}' => {
                out.push_str(&format!("\\x{:02x}", u32::from(character)));
            }
            '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{3000}' | '\u{feff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => out.push(other),
        }
    }
    out.push(quote);
    out
}

/// The filter `trim`.
#[expect(
    clippy::needless_pass_by_value,
    reason = "minijinja passes arguments by value"
)]
pub(super) fn trim(value: &Value, characters: Option<String>) -> Result<String, Error> {
    Ok(strip(&text(value)?, characters.as_deref(), Ends::Both).to_owned())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Left,
    Right,
    Both,
}

fn strip<'a>(text: &'a str, characters: Option<&str>, ends: Ends) -> &'a str {
    let drop = |character: char| match characters {
        Some(set) => set.contains(character),
        None => is_space(character),
    };
    let text = if ends == Ends::Right {
        text
    } else {
        text.trim_start_matches(drop)
    };
    if ends == Ends::Left {
        text
    } else {
        text.trim_end_matches(drop)
    }
}

/// Methods: those below are exact, others are as near to Python as minijinja's own
/// compatibility layer is.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let known = match (value.as_str(), value.kind()) {
        (Some(text), _) => text_method(text, name, arguments)?,
        (None, ValueKind::Seq) if name == "index" => {
            let (wanted,): (Value,) = from_args(arguments)?;
            let found = value.try_iter()?.position(|item| item == wanted);
            let missing =
                || Error::new(ErrorKind::InvalidOperation, "the value is not in the list");
            Some(Value::from(found.ok_or_else(missing)?))
        }
        (None, ValueKind::Seq | ValueKind::Map) if name == "copy" => Some(value.clone()),
        _ => None,
    };
    match known {
        Some(result) => Ok(result),
        None => pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

fn text_method(text: &str, name: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        "strip" | "lstrip" | "rstrip" => {
            let (characters,): (Option<String>,) = from_args(arguments)?;
            let ends = match name {
                "strip" => Ends::Both,
                "lstrip" => Ends::Left,
                _ => Ends::Right,
            };
            Value::from(strip(text, characters.as_deref(), ends))
        }
        "split" | "rsplit" => split_method(text, name, arguments)?,
        "splitlines" => {
            let (keep_ends,): (Option<bool>,) = from_args(arguments)?;
            lines(text, keep_ends == Some(true))
        }
        "removeprefix" => {
            let (prefix,): (String,) = from_args(arguments)?;
            Value::from(text.strip_prefix(prefix.as_str()).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (String,) = from_args(arguments)?;
            Value::from(text.strip_suffix(suffix.as_str()).unwrap_or(text))
        }
        "partition" | "rpartition" => {
            let (separator,): (String,) = from_args(arguments)?;
            let first = name == "partition";
            let found = if first {
                text.split_once(&*separator)
            } else {
                text.rsplit_once(&*separator)
            };
            let parts = match found {
                Some((before, after)) => [before, &separator, after],
                None if first => [text, "", ""],
                None => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from).to_vec()))
        }
        "isspace" => Value::from(!text.is_empty() && text.chars().all(is_space)),
        "casefold" => Value::from(text.to_lowercase()),
        "format" => {
            let (positional, named): (Rest<Value>, Kwargs) = from_args(arguments)?;
            let all: Vec<Value> = [&[Value::from(text)], positional.as_slice()].concat();
            limits::check_format(&all, &named)?;
            return Ok(None); // and now for the compatibility layer
        }
        _ => return Ok(None),
    }))
}

fn split_method(text: &str, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (positional, named): (Rest<Value>, Kwargs) = from_args(arguments)?;
    let argument = |index: usize, name: &str| match positional.get(index) {
        Some(value) => Ok(Some(value.clone())),
        None => named.get::<Option<Value>>(name),
    };
    let separator = argument(0, "sep")?.filter(|separator| !separator.is_none());
    let limit = argument(1, "maxsplit")?.and_then(|limit| limit.as_i64());
    named.assert_all_used()?;
    let limit = limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX - 1);
    let from_left = name == "split";
    let Some(separator) = separator else {
        return Ok(words(text, limit, from_left).into_iter().collect());
    };
    let Some(separator) = separator.as_str().filter(|separator| !separator.is_empty()) else {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "split: the separator must be a text",
        ));
    };
    if from_left {
        return Ok(text.splitn(limit + 1, separator).collect());
    }
    let mut parts: Vec<&str> = text.rsplitn(limit + 1, separator).collect();
    parts.reverse();
    Ok(parts.into_iter().collect())
}

/// Words between runs of whitespace; after `limit` cuts, the rest is one.
fn words(text: &str, limit: usize, from_left: bool) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.trim_matches(is_space);
    while !rest.is_empty() {
        let cut = if from_left {
            rest.find(is_space)
        } else {
            rest.rfind(is_space)
        };
        let Some(cut) = cut.filter(|_| found.len() < limit) else {
            found.push(rest);
            break;
        };
        if from_left {
            found.push(&rest[..cut]);
            rest = rest[cut..].trim_start_matches(is_space);
        } else {
            found.push(rest[cut..].trim_start_matches(is_space));
            rest = rest[..cut].trim_end_matches(is_space);
        }
    }
    if !from_left {
        found.reverse();
    }
    found
}

fn lines(text: &str, keep_ends: bool) -> Value {
    let is_end = |character: char| matches!(character, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(is_end) {
        let tail = &rest[end..];
        let width = if tail.starts_with("\r\n") {
            2
        } else {
            tail.chars().next().map_or(1, char::len_utf8)
        };
        found.push(&rest[..if keep_ends { end + width } else { end }]);
        rest = &rest[end + width..];
    }
    if !rest.is_empty() {
        found.push(rest);
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_python() {
        let check = |number: f64, expected: &str| assert_eq!(float(number), expected);
        check(1.0, "1.0");
        check(0.1, "0.1");
        check(1e16, "1e+16");
        check(1.5e300, "1.5e+300");
        check(123_456_789_012_345.0, "123456789012345.0");
        check(0.0001, "0.0001");
        check(0.00001, "1e-05");
        check(-2.5e-7, "-2.5e-07");
        check(f64::NEG_INFINITY, "-inf");
        check(f64::NAN, "nan");
    }

    #[test]
    fn words_are_cut_as_in_python() {
        let check = |limit, from_left, expected: &[&str]| {
            assert_eq!(words(" a \u{1c}b  c ", limit, from_left), expected);
        };
        check(9, true, &["a", "b", "c"]);
        check(1, true, &["a", "b  c"]);
        check(1, false, &["a \u{1c}b", "c"]);
        check(0, true, &["a \u{1c}b  c"]);
        assert!(words("  ", 9, true).is_empty());
    }
}
