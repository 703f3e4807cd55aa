//! Instructions of any benchmark by id and parameters, under one runner.

use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;

use crate::ifbench::IfBench;
use crate::multi_if::MultiIf;
use crate::{Check, Constraint, Error, Judgement, Verdict, judge, livebench, python};

/// A benchmark: which instructions there are, and how a response is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// The 25 instructions of IFEval.
    IfEval,
    /// IFBench's 58 besides IFEval's.
    IfBench,
    /// IFEval's, on the answer without its thoughts.
    LiveBench,
    /// IFEval's, counting by language.
    MultiIf,
}

impl Suite {
    /// All suites.
    pub const ALL: [Self; 4] = [Self::IfEval, Self::IfBench, Self::LiveBench, Self::MultiIf];

    /// The name on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IfEval => "ifeval",
            Self::IfBench => "ifbench",
            Self::LiveBench => "livebench",
            Self::MultiIf => "multi-if",
        }
    }

    /// The suite with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.as_str() == name)
    }

    /// The instruction with this id and these parameters; nulls count as absent.
    ///
    /// # Errors
    ///
    /// The id is unknown, or a parameter is absent, unknown or of the wrong kind.
    pub fn parse(self, id: &str, kwargs: &Map<String, Value>) -> Result<Instruction, Error> {
        match self {
            Self::IfEval | Self::LiveBench => {
                Constraint::from_ifeval(id, kwargs).map(Instruction::IfEval)
            }
            Self::IfBench => match IfBench::parse(id, kwargs)? {
                Some(rule) => Ok(Instruction::IfBench(rule)),
                None => Constraint::from_ifeval(id, kwargs).map(Instruction::IfEval),
            },
            Self::MultiIf => MultiIf::parse(id, kwargs).map(Instruction::MultiIf),
        }
    }

    /// The instructions of one row.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`], or the lists differ in length.
    pub fn parse_all(
        self,
        ids: &[String],
        kwargs: &[Map<String, Value>],
    ) -> Result<Vec<Instruction>, Error> {
        if ids.len() != kwargs.len() {
            let (ids, kwargs) = (ids.len(), kwargs.len());
            return Err(Error::LengthMismatch { ids, kwargs });
        }
        let pairs = ids.iter().zip(kwargs);
        pairs.map(|(id, kwargs)| self.parse(id, kwargs)).collect()
    }

    /// The text that is judged: for LiveBench the answer without its thoughts, else the response.
    #[must_use]
    pub fn prepare(self, response: &str) -> Cow<'_, str> {
        match self {
            Self::LiveBench => Cow::Owned(livebench::prepare(response)),
            Self::IfEval | Self::IfBench | Self::MultiIf => Cow::Borrowed(response),
        }
    }

    /// Strict and loose verdicts on a response, which is prepared first.
    ///
    /// Multi-IF checks a response of white space strictly too; elsewhere it follows nothing.
    #[must_use]
    pub fn judge(self, instructions: &[Instruction], response: &str) -> Judgement {
        let response = self.prepare(response);
        let mut judgement = judge(instructions, &response);
        if self == Self::MultiIf && !response.is_empty() && python::is_blank(&response) {
            let checks = instructions.iter().map(|one| one.check(&response));
            judgement.strict = checks.collect();
        }
        judgement
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One instruction of some suite.
#[derive(Debug, Clone, PartialEq)]
pub enum Instruction {
    /// One of IFEval's.
    IfEval(Constraint),
    /// One of IFBench's own.
    IfBench(IfBench),
    /// One of Multi-IF's.
    MultiIf(MultiIf),
}

impl Instruction {
    /// Why no verdict can be given on `response`; none where one can. A verdict on such a
    /// response says "not followed" and must not be counted.
    #[must_use]
    pub fn unsupported(&self, response: &str) -> Option<&'static str> {
        match self {
            Self::IfEval(_) => None,
            Self::IfBench(rule) => rule.unsupported(),
            Self::MultiIf(rule) => rule.unsupported(response),
        }
    }
}

impl Check for Instruction {
    fn id(&self) -> &str {
        match self {
            Self::IfEval(rule) => rule.id(),
            Self::IfBench(rule) => Check::id(rule),
            Self::MultiIf(rule) => Check::id(rule),
        }
    }

    fn check(&self, text: &str) -> Verdict {
        match self {
            Self::IfEval(rule) => rule.check(text),
            Self::IfBench(rule) => rule.check(text),
            Self::MultiIf(rule) => rule.check(text),
        }
    }
}
