//! `cargo xtask cuda-build`: the program with the kernels for NVIDIA GPUs, and what a GPU
//! machine needs beside it, in one folder.

use crate::workspace_root;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Name of the test targets that run on a device.
const DEVICE_TESTS: &str = "cuda";
/// Scripts that go along.
const SCRIPTS: [&str; 2] = ["gpu-check.sh", "bench-hf-batching.py"];

/// Builds in release mode and fills `out` with `autodidact`, `tests/PACKAGE-cuda`, what the tests
/// read, and the scripts. Returns the files with their sizes in bytes.
///
/// # Errors
/// No nvcc, a build that fails, a folder that cannot be written.
pub fn run(out: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let nvcc = find_nvcc(|name| env::var_os(name).map(PathBuf::from))?;
    let version = version_of(&nvcc)?;
    ensure!(
        is_supported(&version),
        "{}: release {version}; 12.0 or newer is needed",
        nvcc.display()
    );
    let build = [
        "build",
        "--release",
        "--workspace",
        "--features",
        "cli/cuda",
    ];
    let program = executables(&[&build[..], &["--bin", "autodidact"]].concat(), &nvcc)?;
    let tests = [
        "test",
        "--release",
        "--workspace",
        "--no-run",
        "--features",
        "cli/cuda",
        "--test",
        DEVICE_TESTS,
    ];
    let tests = executables(&tests, &nvcc)?;
    fs::create_dir_all(out.join("tests")).with_context(|| out.display().to_string())?;
    let mut files = Vec::new();
    let mut put = |from: &Path, to: PathBuf| -> Result<()> {
        let bytes = fs::copy(from, &to).with_context(|| to.display().to_string())?;
        files.push((to, bytes));
        Ok(())
    };
    for path in program.values() {
        put(path, out.join("autodidact"))?;
    }
    for (package, path) in &tests {
        put(
            path,
            out.join("tests").join(format!("{package}-{DEVICE_TESTS}")),
        )?;
    }
    for (package, place) in [("model", "fixtures"), ("train", "fixtures/train")] {
        let fixtures = workspace_root().join(format!("crates/{package}/tests/fixtures"));
        copy_folder(&fixtures, &out.join(place), &mut put)?;
    }
    for script in SCRIPTS {
        put(
            &workspace_root().join("scripts").join(script),
            out.join(script),
        )?;
    }
    Ok(files)
}

/// Hands every file below `from` to `put`, with its place below `to`.
fn copy_folder(
    from: &Path,
    to: &Path,
    put: &mut impl FnMut(&Path, PathBuf) -> Result<()>,
) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => copy_folder(&path, &target, put)?,
            false => put(&path, target)?,
        }
    }
    Ok(())
}

/// The compiler: in `CUDA_HOME`, `CUDA_PATH` or `PATH`.
///
/// # Errors
/// It is in none of them.
fn find_nvcc(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf> {
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(&variable);
    let homes = homes.map(|home| home.join("bin"));
    let path = variable("PATH").unwrap_or_default();
    let folders = homes.chain(env::split_paths(&path).collect::<Vec<_>>());
    let found = folders
        .map(|folder| folder.join("nvcc"))
        .find(|nvcc| nvcc.is_file());
    found.context(
        "no nvcc in CUDA_HOME/bin, CUDA_PATH/bin or PATH: install the CUDA toolkit, 12.0 or newer (the compiler and its headers are enough; no GPU and no driver are needed to build)",
    )
}

/// `13.0` out of `Cuda compilation tools, release 13.0, V13.0.88`.
fn version_of(nvcc: &Path) -> Result<String> {
    let output = Command::new(nvcc)
        .arg("--version")
        .output()
        .with_context(|| format!("{} does not run", nvcc.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    release_in(&text).with_context(|| format!("{} --version says:\n{text}", nvcc.display()))
}

fn release_in(text: &str) -> Option<String> {
    let rest = text.split_once("release ")?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    Some(rest[..end].to_owned())
}

fn is_supported(release: &str) -> bool {
    let major = release.split('.').next();
    major
        .and_then(|major| major.parse::<u32>().ok())
        .is_some_and(|major| major >= 12)
}

/// Runs cargo and returns the programs it made, by package.
fn executables(arguments: &[&str], nvcc: &Path) -> Result<BTreeMap<String, PathBuf>> {
    eprintln_line(&format!("$ cargo {}", arguments.join(" ")));
    let toolkit = nvcc.parent().and_then(Path::parent);
    let output = Command::new(env!("CARGO"))
        .current_dir(workspace_root())
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .envs(toolkit.map(|toolkit| ("CUDA_HOME", toolkit)))
        .stderr(Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    if !output.status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(executables_in(&String::from_utf8_lossy(&output.stdout)))
}

fn executables_in(messages: &str) -> BTreeMap<String, PathBuf> {
    let message = |line: &str| -> Option<(String, PathBuf)> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = message["executable"].as_str()?;
        let manifest = Path::new(message["manifest_path"].as_str()?);
        let package = manifest.parent()?.file_name()?.to_str()?.to_owned();
        Some((package, path.into()))
    };
    messages.lines().filter_map(message).collect()
}

#[expect(clippy::print_stderr, reason = "a command line tool")]
fn eprintln_line(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_is_found_where_it_may_be() {
        let folder = env::temp_dir().join(format!("nvcc-{}", std::process::id()));
        let bin = folder.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let home = |name: &str| (name == "CUDA_PATH").then(|| folder.clone());
        let error = find_nvcc(home).unwrap_err().to_string();
        assert!(error.contains("CUDA toolkit"), "{error}");
        fs::write(bin.join("nvcc"), "").unwrap();
        assert_eq!(find_nvcc(home).unwrap(), bin.join("nvcc"));
        let path = |name: &str| (name == "PATH").then(|| bin.clone());
        assert_eq!(find_nvcc(path).unwrap(), bin.join("nvcc"));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn releases_are_read_and_held_against_the_oldest() {
        let text = "Built on Wed\nCuda compilation tools, release 13.0, V13.0.88\n";
        assert_eq!(release_in(text).as_deref(), Some("13.0"));
        assert_eq!(release_in("nvcc"), None);
        assert!(is_supported("12.4") && is_supported("13.0"));
        assert!(!is_supported("11.8") && !is_supported(""));
    }

    #[test]
    fn programs_are_told_apart_by_package() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/r/crates/cli/Cargo.toml","executable":"/t/autodidact"}
{"reason":"compiler-artifact","manifest_path":"/r/crates/kernels/Cargo.toml","executable":null}
{"reason":"compiler-artifact","manifest_path":"/r/crates/kernels/Cargo.toml","executable":"/t/cuda-12"}
not json"#;
        let found: Vec<_> = executables_in(messages).into_iter().collect();
        let expected = [("cli", "/t/autodidact"), ("kernels", "/t/cuda-12")];
        assert_eq!(
            found,
            expected.map(|(p, f)| (p.to_owned(), PathBuf::from(f)))
        );
    }
}
