//! JSON files of a model folder.

use crate::ModelError;
use serde_json::Value;
use std::path::Path;

/// Parses the content of `path`.
///
/// # Errors
/// Not JSON.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Value, ModelError> {
    serde_json::from_slice(bytes).map_err(|source| ModelError::Json {
        path: path.into(),
        source,
    })
}

/// The content of a file that need not be there.
///
/// # Errors
/// It is there but cannot be read, or is not JSON.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Value>, ModelError> {
    match std::fs::read(path) {
        Ok(bytes) => parse(path, &bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ModelError::io(path, "read", source)),
    }
}
