//! What can be wrong with a constraint before any text is checked.

/// A constraint that cannot be made from its id and parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No instruction has this id.
    #[error("unknown instruction {id:?}")]
    UnknownId {
        /// The id as given.
        id: String,
    },
    /// A parameter that the instruction needs is absent or null.
    #[error("{id}: parameter {name} is missing")]
    MissingParameter {
        /// The instruction.
        id: String,
        /// The parameter.
        name: &'static str,
    },
    /// A parameter has a value that the instruction cannot use.
    #[error("{id}: parameter {name}: expected {expected}, got {got}")]
    BadParameter {
        /// The instruction.
        id: String,
        /// The parameter.
        name: &'static str,
        /// What would do.
        expected: &'static str,
        /// The value, as JSON.
        got: String,
    },
    /// A parameter that the instruction does not have.
    #[error("{id}: unknown parameter {name:?}")]
    UnknownParameter {
        /// The instruction.
        id: String,
        /// The parameter.
        name: String,
    },
    /// A keyword is no regular expression of Python's.
    #[error("keyword {keyword:?} is no valid regular expression: {reason} (at character {at})")]
    BadKeyword {
        /// The keyword as given.
        keyword: String,
        /// What is wrong.
        reason: String,
        /// Where, in characters from the start of the keyword.
        at: usize,
    },
    /// The list of ids and the list of parameters of one row differ in length.
    #[error("{ids} instruction ids but {kwargs} sets of parameters")]
    LengthMismatch {
        /// Number of ids.
        ids: usize,
        /// Number of parameter objects.
        kwargs: usize,
    },
}
