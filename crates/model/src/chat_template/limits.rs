//! Bounds on what a template can make the template engine do with one number: some of its
//! filters pad, repeat or fill as often as they are told.
//!
//! What remains without a bound: texts that a template doubles with `~` and `+`, for which the
//! engine has no hook. They cost memory, never a wrong result.

use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};

/// Largest width, count or precision; real templates indent by a handful.
const MAX_NUMBER: u64 = 100_000;
/// Largest text, of one value or of a whole conversation: more than any context holds.
pub(super) const MAX_TEXT_BYTES: usize = 64 << 20;

/// Puts a check before each filter that takes a size.
pub(super) fn guard_filters(environment: &mut Environment<'static>) {
    environment.add_filter("__batch", filters::batch);
    environment.add_filter("__format", filters::format);
    environment.add_filter("__indent", filters::indent);
    environment.add_filter("__slice", filters::slice);
    for (name, unguarded) in [
        ("batch", "__batch"),
        ("format", "__format"),
        ("indent", "__indent"),
        ("slice", "__slice"),
    ] {
        environment.add_filter(
            name,
            move |state: &mut State, arguments: Rest<Value>, named: Kwargs| {
                let mut arguments = arguments.0;
                match name {
                    "format" => check_format(&arguments, &named)?,
                    _ => check_numbers(&arguments, &named)?,
                }
                if named.args().next().is_some() {
                    arguments.push(named.into());
                }
                state.apply_filter(unguarded, &arguments)
            },
        );
    }
}

/// Refuses a format (the first of `arguments`) that asks for a huge width or precision.
///
/// # Errors
/// It does, itself or by one of the other arguments.
pub(super) fn check_format(arguments: &[Value], named: &Kwargs) -> Result<(), Error> {
    let Some(format) = arguments.first().and_then(Value::as_str) else {
        return Ok(());
    };
    let takes_widths_from_arguments = format.contains('*') || format.contains(":{");
    if takes_widths_from_arguments {
        check_numbers(arguments, named)?;
    }
    let runs = format.split(|character: char| !character.is_ascii_digit());
    let huge = |digits: &&str| {
        let number = digits.parse::<u64>();
        !digits.is_empty() && number.map_or(true, |number| number > MAX_NUMBER)
    };
    runs.into_iter()
        .find(huge)
        .map_or(Ok(()), |digits| Err(too_large(&digits)))
}

/// Refuses arguments of which one is a huge integer.
///
/// # Errors
/// One is.
fn check_numbers(positional: &[Value], named: &Kwargs) -> Result<(), Error> {
    let named = named
        .args()
        .filter_map(|name| named.peek::<Value>(name).ok());
    let huge = |value: &Value| {
        let number = value.as_i64().map(i64::unsigned_abs);
        value.is_integer() && number.is_none_or(|number| number > MAX_NUMBER)
    };
    match positional.iter().cloned().chain(named).find(huge) {
        Some(value) => Err(too_large(&value)),
        None => Ok(()),
    }
}

/// Refuses a text that has grown too long.
///
/// # Errors
/// It has.
pub(super) fn check_length(text: &str) -> Result<(), Error> {
    if text.len() <= MAX_TEXT_BYTES {
        return Ok(());
    }
    let detail = format!("a value of more than {} MiB as text", MAX_TEXT_BYTES >> 20);
    Err(Error::new(ErrorKind::InvalidOperation, detail))
}

fn too_large(number: &impl std::fmt::Display) -> Error {
    let detail = format!("{number} is too large here: at most {MAX_NUMBER}");
    Error::new(ErrorKind::InvalidOperation, detail)
}
