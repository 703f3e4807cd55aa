//! JSON into templates and out of them, the latter exactly as Python's `json.dumps` writes it.

use super::{limits, python};
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};
use serde_json::Value as Json;

/// A template's value for JSON, every text in it (keys too) changed by `change`.
pub(super) fn to_value(json: &Json, change: &dyn Fn(&str) -> String) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::from(value),
            (None, Some(value)) => Value::from(value),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(change(text)),
        Json::Array(items) => items.iter().map(|item| to_value(item, change)).collect(),
        Json::Object(entries) => Value::from_pairs(
            entries
                .iter()
                .map(|(key, value)| (change(key), to_value(value, change))),
        ),
    }
}

/// How JSON is laid out.
#[derive(Debug, Clone)]
pub(super) struct Style {
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    /// `Some`: characters outside ASCII are escaped, except the given one.
    pub(super) escape_all_but: Option<Option<char>>,
    pub(super) sort_keys: bool,
}

impl Style {
    /// `indent`: a number of spaces, a text, or nothing; `separators`: a pair of texts.
    pub(super) fn new(indent: Option<&Value>, separators: Option<&Value>) -> Result<Self, Error> {
        let wrong = |what| Error::new(ErrorKind::InvalidOperation, what);
        let indent = match indent.filter(|indent| !indent.is_none()) {
            None => None,
            Some(indent) => match (indent.as_str(), indent.as_i64()) {
                (Some(text), _) => Some(text.to_owned()),
                (None, Some(width @ ..=64)) => {
                    Some(" ".repeat(usize::try_from(width).unwrap_or(0)))
                }
                _ => return Err(wrong("tojson: indent must be a text or a number up to 64")),
            },
        };
        let mut style = Self {
            item_separator: if indent.is_some() { "," } else { ", " }.into(),
            key_separator: ": ".into(),
            indent,
            escape_all_but: None,
            sort_keys: false,
        };
        if let Some(pair) = separators.filter(|pair| !pair.is_none()) {
            let texts: Vec<Value> = pair.try_iter()?.collect();
            let [item, key] = texts.as_slice() else {
                return Err(wrong("tojson: separators must be a pair"));
            };
            let (Some(item), Some(key)) = (item.as_str(), key.as_str()) else {
                return Err(wrong("tojson: separators must be texts"));
            };
            (style.item_separator, style.key_separator) = (item.to_owned(), key.to_owned());
        }
        Ok(style)
    }

    fn new_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }
}

/// `value` as JSON text.
pub(super) fn write(value: &Value, style: &Style) -> Result<String, Error> {
    let mut out = String::new();
    write_value(&mut out, value, style, 0)?;
    Ok(out)
}

const MAX_DEPTH: usize = 200;

fn write_value(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    limits::check_length(out)?;
    if depth > MAX_DEPTH {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "tojson: nested too deeply",
        ));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => write_text(out, value.as_str().unwrap_or_default(), style),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            write_items(out, ['[', ']'], items.len(), style, depth, |out, index| {
                write_value(out, &items[index], style, depth + 1)
            })?;
        }
        ValueKind::Map => {
            let mut entries = Vec::new();
            for key in value.try_iter()? {
                entries.push((key_text(&key)?, value.get_item(&key)?));
            }
            if style.sort_keys {
                entries.sort_by(|left, right| left.0.cmp(&right.0));
            }
            write_items(
                out,
                ['{', '}'],
                entries.len(),
                style,
                depth,
                |out, index| {
                    write_text(out, &entries[index].0, style);
                    out.push_str(&style.key_separator);
                    write_value(out, &entries[index].1, style, depth + 1)
                },
            )?;
        }
        other => {
            let detail = format!("tojson: {other} has no JSON form");
            return Err(Error::new(ErrorKind::InvalidOperation, detail));
        }
    }
    Ok(())
}

fn write_items(
    out: &mut String,
    [open, close]: [char; 2],
    count: usize,
    style: &Style,
    depth: usize,
    mut write_item: impl FnMut(&mut String, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    out.push(open);
    for index in 0..count {
        if index > 0 {
            out.push_str(&style.item_separator);
        }
        style.new_line(out, depth + 1);
        write_item(out, index)?;
    }
    if count > 0 {
        style.new_line(out, depth);
    }
    out.push(close);
    Ok(())
}

fn number(value: &Value) -> String {
    let text = python::number(value);
    match text.as_str() {
        "nan" => "NaN".into(),
        "inf" => "Infinity".into(),
        "-inf" => "-Infinity".into(),
        _ => text,
    }
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".into()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.into()),
        ValueKind::Number => Ok(number(key)),
        other => {
            let detail = format!("tojson: {other} cannot be a key");
            Err(Error::new(ErrorKind::InvalidOperation, detail))
        }
    }
}

fn write_text(out: &mut String, text: &str, style: &Style) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' => push_escape(out, character),
            '\u{7f}'.. => match style.escape_all_but {
                Some(mark) if mark != Some(character) => push_escape(out, character),
                _ => out.push(character),
            },
            other => out.push(other),
        }
    }
    out.push('"');
}

fn push_escape(out: &mut String, character: char) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        out.push_str(&format!("\\u{unit:04x}"));
    }
}
