//! JSON as Python's `json.loads` accepts it.
//!
//! Wider than the standard: `NaN`, `Infinity`, `-Infinity`, lone surrogate escapes, numbers of
//! any magnitude. Narrower: integers have at most 4,300 digits.

/// Why a text is not JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at character {at}")]
pub struct JsonError {
    /// What is wrong.
    pub reason: &'static str,
    /// Where, in code points from the start.
    pub at: usize,
}

/// Digits that Python converts to an integer.
const MAX_INTEGER_DIGITS: usize = 4300;

/// Open arrays and objects within which Python still reads; beyond, it raises `RecursionError`,
/// which no checker catches. Where exactly it does depends on its caller's own depth.
const MAX_DEPTH: usize = 990;

/// Whether `json.loads(text)` accepts the text.
///
/// # Errors
///
/// It does not.
pub fn check(text: &str) -> Result<(), JsonError> {
    let mut reader = Reader {
        bytes: text.as_bytes(),
        at: 0,
    };
    reader.document().map_err(|reason| {
        let before = &text.as_bytes()[..reader.at.min(text.len())];
        let is_start = |byte: &&u8| **byte & 0xc0 != 0x80;
        JsonError {
            reason,
            at: before.iter().filter(is_start).count(),
        }
    })
}

/// What an array or object expects next.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    Array,
    Object,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Check = Result<(), &'static str>;

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.bytes[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// One value and white space around it. The open arrays and objects are kept on a stack of
    /// our own, so that no nesting overflows the program's.
    fn document(&mut self) -> Check {
        let mut open: Vec<Open> = Vec::new();
        self.skip_space();
        loop {
            // A value starts here.
            let entered = match self.peek() {
                Some(b'[') => Some(Open::Array),
                Some(b'{') => Some(Open::Object),
                _ => None,
            };
            match entered {
                Some(kind) => {
                    self.at += 1;
                    self.skip_space();
                    let end = if kind == Open::Array { b']' } else { b'}' };
                    if !self.eat(end) {
                        open.push(kind);
                        if open.len() > MAX_DEPTH {
                            return Err("nested too deeply");
                        }
                        if kind == Open::Object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                None => self.scalar()?,
            }
            if !self.after_value(&mut open)? {
                break;
            }
        }
        if self.at < self.bytes.len() {
            return Err("extra data");
        }
        Ok(())
    }

    /// Closes what ends after a value; whether another value follows.
    fn after_value(&mut self, open: &mut Vec<Open>) -> Result<bool, &'static str> {
        loop {
            self.skip_space();
            let Some(kind) = open.last().copied() else {
                return Ok(false);
            };
            if self.eat(b',') {
                self.skip_space();
                if kind == Open::Object {
                    self.key()?;
                }
                return Ok(true);
            }
            let end = if kind == Open::Array { b']' } else { b'}' };
            if !self.eat(end) {
                return Err("a comma or the end of the list or object is missing");
            }
            open.pop();
        }
    }

    /// A name, its colon and the white space after it.
    fn key(&mut self) -> Check {
        if self.peek() != Some(b'"') {
            return Err("a name in double quotes is missing");
        }
        self.string()?;
        self.skip_space();
        if !self.eat(b':') {
            return Err("a colon is missing");
        }
        self.skip_space();
        Ok(())
    }

    fn scalar(&mut self) -> Check {
        const WORDS: [&str; 6] = ["null", "true", "false", "NaN", "Infinity", "-Infinity"];
        if self.peek() == Some(b'"') {
            return self.string();
        }
        if WORDS.into_iter().any(|word| self.eat_word(word)) {
            return Ok(());
        }
        self.number()
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    /// What does not belong to a number any more is left for the caller to refuse.
    fn number(&mut self) -> Check {
        let start = self.at;
        self.eat(b'-');
        let integer = match self.eat(b'0') {
            true => 1,
            false => self.digits(),
        };
        if integer == 0 {
            self.at = start;
            return Err("a value is missing");
        }
        let whole = self.at;
        if self.eat(b'.') && self.digits() == 0 {
            self.at = whole;
        }
        let fraction = self.at;
        if self.eat(b'e') || self.eat(b'E') {
            let _sign = self.eat(b'+') || self.eat(b'-');
            if self.digits() == 0 {
                self.at = fraction;
            }
        }
        if self.at == whole && integer > MAX_INTEGER_DIGITS {
            return Err("an integer has more than 4300 digits");
        }
        Ok(())
    }

    fn string(&mut self) -> Check {
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err("a string does not end"),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(..0x20) => return Err("a control character in a string"),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Check {
        let kind = self.bytes.get(self.at + 1).copied();
        match kind {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let digits = self.bytes.get(self.at + 2..self.at + 6).unwrap_or_default();
                if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err("\\u without four hexadecimal digits");
                }
                self.at += 6;
                Ok(())
            }
            _ => Err("an unknown escape"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_python_accepts() {
        let long = "1".repeat(4300);
        let deep = format!("{}1{}", "[".repeat(900), "]".repeat(900));
        for text in [
            "1",
            "-0",
            "1e999",
            "1.5E-3",
            "NaN",
            "[Infinity, -Infinity]",
            "\"\"",
            " [ ] ",
            "{}",
            "{ \"a\" : [ 1 , 2 ] , \"a\" : null }",
            "\"\\ud800\"",
            "\"\u{7f}\u{2028}\"",
            "\t\r\n1\n",
            "\"\\u12Ab\\/\"",
            &long,
            &deep,
            &format!("{long}1.0"),
            "[[],{},[[]]]",
        ] {
            assert_eq!(check(text), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn refuses_what_python_refuses() {
        let long = "1".repeat(4301);
        let deep = "[".repeat(1_000_000);
        for (text, at) in [
            ("", 0),
            ("é", 0),
            ("\u{feff}1", 0),
            ("[1,]", 3),
            ("{\"a\":1,}", 7),
            ("{a:1}", 1),
            ("01", 1),
            ("1.", 1),
            (".5", 0),
            ("+1", 0),
            ("1e", 1),
            ("-", 0),
            ("--1", 0),
            ("'a'", 0),
            ("\"a", 2),
            ("\"\t\"", 1),
            ("\"\0\"", 1),
            ("\"\\x41\"", 1),
            ("\"\\u12\"", 1),
            ("\u{a0}1", 0),
            ("[1\u{c}]", 2),
            ("[1 2]", 3),
            ("{\"a\" 1}", 5),
            ("1 1", 2),
            ("nul", 0),
            ("-Infinit", 0),
            ("[", 1),
            ("]", 0),
            ("\"é\"x", 3),
            ("\"\\u+123\"", 1),
            (&long, 4301),
            (&deep, 991),
        ] {
            let found = check(text).map_err(|error| error.at);
            assert_eq!(
                found,
                Err(at),
                "{:?}",
                text.chars().take(20).collect::<String>()
            );
        }
    }
}
