//! Chores of the workspace, in Rust so that nothing has to be installed for them.
//!
//! [`tidy`] holds the rules that the compiler does not check; it runs as a test too, so
//! there is no second gate to forget.

pub mod cuda_build;
pub mod tidy;

use std::path::PathBuf;

/// Root folder of the workspace.
pub fn workspace_root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("crates/xtask lies two folders below the root")
        .to_path_buf()
}
