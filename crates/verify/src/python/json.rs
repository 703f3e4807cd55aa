//! JSON as Python's `json.loads` accepts it.

/// Why a text is not JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at character {at}")]
pub struct JsonError {
    /// What is wrong.
    pub reason: &'static str,
    /// Where, in code points from the start.
    pub at: usize,
}

/// Whether `json.loads(text)` accepts the text.
///
/// # Errors
///
/// It does not.
pub fn check(text: &str) -> Result<(), JsonError> {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(JsonError {
            reason: "bad",
            at: 0,
        }),
    }
}
