//! The rules of the house that the compiler does not check.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crate → crates of ours it may depend on (development dependencies apart).
const EDGES: &[(&str, &[&str])] = &[
    ("data", &[]),
    ("kernels", &[]),
    ("model", &["data", "kernels"]),
    ("engine", &["data", "kernels", "model"]),
    ("train", &["data", "kernels", "model"]),
    ("verify", &[]),
    ("pipeline", &["data"]),
    ("synth", &["data", "pipeline", "verify"]),
    ("eval", &["data", "pipeline", "verify"]),
    (
        "cli",
        &[
            "data", "kernels", "model", "engine", "train", "verify", "pipeline", "synth", "eval",
        ],
    ),
    ("testkit", &["data", "kernels", "model"]),
    ("corpus", &["data", "synth", "verify"]),
    ("xtask", &[]),
];

/// Crates that may see candle.
const CANDLE: &[&str] = &["kernels", "model", "engine", "train", "testkit"];

/// Files outside `crates/kernels` that may hold `unsafe`.
const UNSAFE_FILES: &[&str] = &["crates/model/src/file_bytes.rs"];

/// Modules of the engine that decide and commit: integers only.
const INTEGER_MODULES: &[&str] = &["sequence", "block_manager", "scheduler"];

/// Lines of a source file before its tests.
const FILE_LINES_MAX: usize = 800;

/// Every broken rule under `root`, one line each; empty if all is well.
///
/// # Errors
/// If the tree cannot be read or `cargo metadata` fails.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let mut complaints = check_edges(root)?;
    for file in rust_files(root)? {
        let text =
            fs::read_to_string(root.join(&file)).with_context(|| file.display().to_string())?;
        complaints.extend(check_file(&file.to_string_lossy(), &text));
    }
    Ok(complaints)
}

/// Every broken rule in one source file.
pub fn check_file(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let in_tests = path.contains("/tests/") || path.starts_with("tests/");
    let lines: Vec<&str> = text
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .collect();
    if !in_tests && lines.len() > FILE_LINES_MAX {
        complaints.push(format!(
            "{path}: {} lines, at most {FILE_LINES_MAX}",
            lines.len()
        ));
    }
    let may_be_unsafe = path.starts_with("crates/kernels/") || UNSAFE_FILES.contains(&path);
    let is_tidy = path.ends_with("xtask/src/tidy.rs");
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let mut complain = |what: &str| complaints.push(format!("{path}:{}: {what}", index + 1));
        if is_tidy {
            continue;
        }
        if !may_be_unsafe && (code.contains("unsafe {") || code.contains("unsafe fn")) {
            complain("unsafe outside its list of files");
        }
        if code.contains("#[allow(") || code.contains("#![allow(") {
            complain("`allow`: use `expect` with a reason");
        }
        if code.contains("todo!(") || code.contains("unimplemented!(") {
            complain("unfinished");
        }
    }
    let integer_only = INTEGER_MODULES.iter().any(|module| {
        path == format!("crates/engine/src/{module}.rs")
            || path.starts_with(&format!("crates/engine/src/{module}/"))
    });
    if integer_only {
        for word in ["candle", "Instant", "SystemTime", "Tensor", "f32", "f64"] {
            if text.contains(word) {
                complaints.push(format!("{path}: the scheduler knows no `{word}`"));
            }
        }
    }
    complaints
}

fn check_edges(root: &Path) -> Result<Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut complaints = Vec::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let name = package["name"].as_str().context("name")?;
        let Some(may_use) = allowed.get(name) else {
            complaints.push(format!(
                "crate {name} is not in the table of edges (crates/xtask/src/tidy.rs)"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().context("dependencies")? {
            let other = dependency["name"].as_str().context("dependency name")?;
            let development = dependency["kind"].as_str() == Some("dev");
            if allowed.contains_key(other) && !may_use.contains(&other) && !development {
                complaints.push(format!("crate {name} may not depend on {other}"));
            }
            if other.starts_with("candle") && !CANDLE.contains(&name) {
                complaints.push(format!("crate {name} may not see {other}"));
            }
        }
    }
    Ok(complaints)
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.join("crates"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(root)?.to_path_buf());
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let complaints = check(&crate::workspace_root()).unwrap();
        assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    }

    #[test]
    fn each_rule_bites() {
        let cases: &[(&str, &str, &str)] = &[
            ("crates/model/src/a.rs", "unsafe { x() }", "unsafe outside"),
            ("crates/data/src/a.rs", "#[allow(dead_code)]", "`allow`"),
            ("crates/data/src/a.rs", "todo!()", "unfinished"),
            (
                "crates/engine/src/scheduler.rs",
                "use candle_core::Tensor;",
                "knows no `candle`",
            ),
        ];
        for (path, text, expected) in cases {
            let complaints = check_file(path, text).join("\n");
            assert!(complaints.contains(expected), "{path}: {complaints}");
        }
        let long = "let a = 1;\n".repeat(FILE_LINES_MAX + 1);
        assert!(check_file("crates/data/src/a.rs", &long)[0].contains("lines"));
        assert!(check_file("crates/kernels/src/a.rs", "unsafe { x() }").is_empty());
    }
}
