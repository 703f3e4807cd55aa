//! Runs the binary in a folder and an environment of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_autodidact");

/// Its name in every place.
const TINY: &str = "tiny.gguf";

/// The model that tests talk to, unless they name another: small, and its words never change.
pub(crate) fn tiny_gguf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/tiny/tiny.gguf")
}

/// An empty folder with a home of its own: no configuration, no cache, no variables from
/// outside.
pub(crate) struct Place {
    folder: TempDir,
}

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(tiny_gguf(), folder.path().join(TINY)).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The binary with `args`, ready to be started here.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(args);
        self.settle(&mut command);
        command
    }

    /// Gives `command` this place's folder and environment.
    pub(crate) fn settle(&self, command: &mut Command) {
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("AUTODIDACT_MODEL", TINY)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        Finished::of(self.command(args).output().unwrap())
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Finished {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        feed(&mut child, input);
        Finished::of(child.wait_with_output().unwrap())
    }

    /// Runs and expects exit code 0.
    pub(crate) fn good(&self, args: &[&str]) -> Finished {
        let finished = self.run(args);
        assert_eq!(finished.code, Some(0), "{args:?}: {finished:?}");
        finished
    }

    /// Runs, expects exit code 0 and a JSON document.
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let finished = self.good(args);
        serde_json::from_str(&finished.stdout)
            .unwrap_or_else(|error| panic!("{error}: {finished:?}"))
    }
}

impl Finished {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Writes `input` and closes the pipe. A child that stopped reading is judged by its exit code.
pub(crate) fn feed(child: &mut Child, input: &str) {
    let mut stdin = child.stdin.take().unwrap();
    drop(stdin.write_all(input.as_bytes()));
}
