//! The environment templates run in: what Hugging Face transformers offers them, on minijinja.
//!
//! Source: transformers 5, `utils/chat_template_utils.py` (what is offered, and how blocks
//! are trimmed).

use super::limits::{self, MAX_TEXT_BYTES};
use super::{json, python};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use std::cell::Cell;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

/// Steps a template may take; a long conversation takes some thousands.
const FUEL: u64 = 2_000_000;
/// Stack to render on. A step may put one value inside another, and values are dropped and
/// compared by recursion: so deep that all steps together do not exhaust it. Only the pages
/// that are touched count.
const STACK_BYTES: usize = 1 << 30;
/// Variable that holds the mark put inside control tokens of messages; empty if there is none.
pub(super) const MARK_VARIABLE: &str = "__mark";

/// Why nothing was rendered.
pub(super) enum Failure {
    /// The template called `raise_exception`.
    Refused(String),
    /// Anything else.
    Broken(String),
}

/// A day, for templates that write one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

/// No such day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no date: expected YYYY-MM-DD")]
pub struct InvalidDate(String);

impl Default for Date {
    /// 26 July 2024: what the templates of the Llama 3 family fall back to.
    fn default() -> Self {
        Self {
            year: 2024,
            month: 7,
            day: 26,
        }
    }
}

impl std::str::FromStr for Date {
    type Err = InvalidDate;

    fn from_str(text: &str) -> Result<Self, InvalidDate> {
        let invalid = || InvalidDate(text.to_owned());
        let mut numbers = text
            .splitn(3, '-')
            .map(|part| part.parse::<u16>().map_err(|_| invalid()));
        let mut next = || numbers.next().ok_or_else(invalid)?;
        let (year, month, day) = (next()?, next()?, next()?);
        let month = u8::try_from(month).map_err(|_| invalid())?;
        let day = u8::try_from(day).map_err(|_| invalid())?;
        if !(1..=9999).contains(&year) || !(1..=12).contains(&month) {
            return Err(invalid());
        }
        if !(1..=days_in(year, month)).contains(&day) {
            return Err(invalid());
        }
        Ok(Self { year, month, day })
    }
}

fn days_in(year: u16, month: u8) -> u8 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Date {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const WEEKDAYS: [&str; 7] = [
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
    ];

    /// Day of the year, from 1.
    fn ordinal(self) -> u16 {
        let before: u16 = (1..self.month)
            .map(|month| u16::from(days_in(self.year, month)))
            .sum();
        before + u16::from(self.day)
    }

    /// 0 = Sunday.
    fn weekday(self) -> usize {
        let years = usize::from(self.year) - 1;
        (years * 365 + years / 4 - years / 100 + years / 400 + usize::from(self.ordinal())) % 7
    }

    /// The day at midnight in the C locale, by `strftime` directives; `None` for one that is
    /// not supported.
    fn format(self, directives: &str) -> Option<String> {
        let month = Self::MONTHS[usize::from(self.month) - 1];
        let weekday = Self::WEEKDAYS[self.weekday()];
        let mut text = String::new();
        let mut characters = directives.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                text.push(character);
                continue;
            }
            let mut directive = characters.next()?;
            let padded = directive != '-';
            if !padded {
                directive = characters.next()?;
            }
            let number = |value: u16, width: usize| {
                if padded {
                    format!("{value:0width$}")
                } else {
                    value.to_string()
                }
            };
            text.push_str(&match directive {
                'd' => number(self.day.into(), 2),
                'm' => number(self.month.into(), 2),
                'Y' => self.year.to_string(),
                'y' => number(self.year % 100, 2),
                'j' => number(self.ordinal(), 3),
                'H' | 'M' | 'S' => number(0, 2),
                'I' => number(12, 2),
                'p' => "AM".into(),
                'b' | 'h' => month[..3].into(),
                'B' => month.into(),
                'a' => weekday[..3].into(),
                'A' => weekday.into(),
                'w' => self.weekday().to_string(),
                'F' => self.format("%Y-%m-%d")?,
                'D' | 'x' => self.format("%m/%d/%y")?,
                'T' | 'X' => "00:00:00".into(),
                '%' => "%".into(),
                _ => return None,
            });
        }
        Some(text)
    }
}

/// The function `strftime_now` on a given day.
pub(super) fn strftime_now(date: Date) -> Value {
    Value::from_function(move |directives: String| {
        date.format(&directives).ok_or_else(|| {
            let detail = format!("strftime_now does not know a directive in {directives:?}");
            Error::new(ErrorKind::InvalidOperation, detail)
        })
    })
}

/// An environment without templates.
pub(super) fn new() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_fuel(Some(FUEL));
    environment.set_debug(false);
    environment.set_unknown_method_callback(python::method);
    environment.set_formatter(|output, _, value| {
        let text = python::text(value)?;
        write!(output, "{text}").map_err(|_| Error::from(ErrorKind::WriteFailure))
    });
    limits::guard_filters(&mut environment);
    environment.add_filter("tojson", to_json);
    environment.add_filter("trim", python::trim);
    environment.add_filter("string", |value: &Value| python::text(value));
    // The engine's own takes time quadratic in the depth.
    environment.add_filter("pprint", |value: &Value| python::text(value));
    environment.add_function(
        "raise_exception",
        |message: &Value| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, "raise_exception")
                .with_source(Raised(python::text(message)?)))
        },
    );
    // As in Python: None cannot be iterated over, text is a sequence.
    environment.add_test("iterable", |value: &Value| {
        !value.is_none() && value.try_iter().is_ok()
    });
    environment.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::Map | ValueKind::String
        )
    });
    environment
}

/// Compiles a template.
pub(super) fn add(
    environment: &mut Environment<'static>,
    name: &str,
    source: &str,
) -> Result<(), String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n"); // as Jinja reads it
    environment
        .add_template_owned(name.to_owned(), without_generation_tags(&source))
        .map_err(|error| describe(&error))
}

/// Renders a template that has been added.
pub(super) fn render(
    environment: &Environment<'static>,
    name: &str,
    variables: Value,
) -> Result<String, Failure> {
    let rendered = on_template_stack(|| {
        // minijinja 3.0 panics where a template reverses an empty list by slicing (`[][::-1]`).
        let work = AssertUnwindSafe(|| render_here(environment, name, variables));
        catch_unwind(work)
            .unwrap_or_else(|_| Err(Failure::Broken("the template engine panicked".into())))
    });
    rendered
        .unwrap_or_else(|error| Err(Failure::Broken(format!("no thread to render on: {error}"))))
}

thread_local! {
    /// Whether this thread has the stack that templates need.
    static HAS_STACK: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on a thread with as much stack as rendering a template may need. Rendering takes
/// such a thread each time; whoever renders thousands of conversations does all of it on one.
///
/// # Errors
/// The system gives no thread.
pub fn on_template_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    if HAS_STACK.get() {
        return Ok(work());
    }
    thread::scope(|scope| {
        let running = thread::Builder::new()
            .name("template".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || {
                HAS_STACK.set(true);
                work()
            })?;
        Ok(running.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

fn render_here(
    environment: &Environment<'static>,
    name: &str,
    variables: Value,
) -> Result<String, Failure> {
    let template = environment
        .get_template(name)
        .map_err(|error| failure(&error))?;
    let mut output = Limited(Vec::new());
    template
        .render_captured_to(variables, &mut output)
        .map_err(|error| failure(&error))?;
    String::from_utf8(output.0).map_err(|error| Failure::Broken(error.to_string()))
}

fn failure(error: &Error) -> Failure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return Failure::Refused(message.clone());
        }
        source = inner.source();
    }
    Failure::Broken(describe(error))
}

/// The error with those below it.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// What a template said with `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

/// Output up to a limit.
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_TEXT_BYTES {
            let limit = MAX_TEXT_BYTES >> 20;
            return Err(std::io::Error::other(format!(
                "the output is longer than {limit} MiB"
            )));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `{% generation %}` marks what an assistant wrote, for training; it has a scope of its own
/// and no other effect, like a `with` without variables.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        text.push_str(before);
        // From behind the opening: in `{%}` the two share their percent sign.
        let Some(length) = tag[2..].find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(2 + length + 2);
        let word = tag[2..2 + length].trim_matches(['-', '+']).trim();
        match word {
            "generation" => text.push_str(&tag.replace("generation", "with")),
            "endgeneration" => text.push_str(&tag.replace("endgeneration", "endwith")),
            _ => text.push_str(tag),
        }
        rest = after;
    }
    text + rest
}

/// `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
#[expect(
    clippy::needless_pass_by_value,
    reason = "minijinja passes arguments by value"
)]
fn to_json(
    state: &State,
    value: &Value,
    positional: Rest<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let argument = |index: usize, name: &str| -> Result<Option<Value>, Error> {
        match positional.get(index) {
            Some(value) => Ok(Some(value.clone())),
            None => named.get::<Option<Value>>(name),
        }
    };
    let is_set = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let ensure_ascii = is_set(argument(0, "ensure_ascii")?);
    let indent = argument(1, "indent")?;
    let separators = argument(2, "separators")?;
    let sort_keys = is_set(argument(3, "sort_keys")?);
    named.assert_all_used()?;
    let mark = state
        .lookup(MARK_VARIABLE)
        .and_then(|mark| mark.as_str()?.chars().next());
    let mut style = json::Style::new(indent.as_ref(), separators.as_ref())?;
    style.escape_all_but = ensure_ascii.then_some(mark);
    style.sort_keys = sort_keys;
    json::write(value, &style).map(Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let check = |date: &str, directives: &str, expected: Option<&str>| {
            let date: Date = date.parse().unwrap();
            assert_eq!(date.format(directives).as_deref(), expected);
        };
        check("2024-07-26", "%d %b %Y", Some("26 Jul 2024"));
        check(
            "2024-12-31",
            "%A, %B %-d, %y (%j, %a) %H:%M 100%%",
            Some("Tuesday, December 31, 24 (366, Tue) 00:00 100%"),
        );
        check("2000-01-01", "%F %A %w", Some("2000-01-01 Saturday 6"));
        check("1999-03-04", "%Q", None);
        check("1999-03-04", "%", None);
        for bad in [
            "",
            "2024",
            "2024-13-01",
            "2023-02-29",
            "2024-00-10",
            "x-1-1",
            "2024-1-1-1",
            "0-1-1",
        ] {
            assert!(bad.parse::<Date>().is_err(), "{bad}");
        }
    }

    #[test]
    fn generation_tags_become_scopes() {
        let check =
            |source: &str, expected: &str| assert_eq!(without_generation_tags(source), expected);
        check(
            "a{%- generation -%}b{% endgeneration %}c",
            "a{%- with -%}b{% endwith %}c",
        );
        check("{% if generation %}{%", "{% if generation %}{%");
        check("no tags", "no tags");
        check("{%}", "{%}");
        check("{%} generation %}", "{%} generation %}");
    }
}
