//! Streams, pipes, colours, help, and no network.

use crate::harness::{BINARY, Finished, Place, feed};
use std::process::{Command, Stdio};

#[test]
fn no_escape_sequences_without_a_terminal() {
    let place = Place::new();
    place.write("in.jsonl", "\"Hello!\"\n");
    for args in [
        &["generate", "-p", "Hello!", "--max-tokens", "4"][..],
        &["generate", "-i", "in.jsonl", "--max-tokens", "4"],
        &["doctor"],
        &["models", "ls"],
        &["--help"],
        &["generate", "--nonsense"],
    ] {
        let finished = place.run(args);
        for stream in [&finished.stdout, &finished.stderr] {
            assert!(
                !stream.contains('\u{1b}') && !stream.contains('\r'),
                "{args:?}: {stream:?}"
            );
        }
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let place = Place::new();
    for args in [
        &["doctor"][..],
        &[
            "generate",
            "-p",
            "Hello!",
            "--ignore-eos",
            "--max-tokens",
            "50",
        ],
    ] {
        let mut child = place.command(args).spawn().unwrap();
        drop(child.stdout.take());
        let finished = Finished::of(child.wait_with_output().unwrap());
        assert_eq!(
            (finished.code, finished.stderr.as_str()),
            (Some(0), ""),
            "{args:?}"
        );
    }
}

#[test]
fn help_is_short_and_complete() {
    let place = Place::new();
    let help = place.good(&["--help"]).stdout;
    let expected = "\
Makes, checks and measures instruction data offline: one binary, one model, no network

Usage: autodidact [OPTIONS] <COMMAND>

Commands:
  generate     Writes text: for one prompt, or for every row of a JSONL file
  chat         Talks with a model, turn by turn
  score        Gives the probability of each choice after a prompt; writes no text
  synth        Makes a dataset: verified responses, preference pairs, composer data
  run          Looks at runs and puts their parts together
  data         Checks datasets and shows their rows
  prompts      Lists and copies the prompts that recipes use
  verify       Judges existing responses by rule, strict and loose
  eval         Scores a model on a benchmark that is judged by rule
  train        Trains adapters and models on conversations and on pairs of answers
  align        Lets a model teach itself: synthesis, training and evaluation, round after round
  bench        Measures speed against the limits of this machine
  models       Lists, describes and converts models
  doctor       Says what this machine can run
  config       Shows the effective configuration
  completions  Prints shell completions
  man          Prints the manual page, or writes one per command into a folder
  help         Print this message or the help of the given subcommand(s)

Options:
      --set <KEY=VALUE>  Sets a configuration key, e.g. sampling.top_p=0.9 (repeatable)
      --config <FILE>    Reads this configuration file instead of ./autodidact.toml
  -h, --help             Print help
  -V, --version          Print version

MODEL is a path (folder or .gguf), else an id in the Hugging Face cache (org/name), else an
alias from the configuration; without one the embedded toy model answers. No command opens
a network connection.

Exit codes:
  0        done
  1        failed
  2        usage or configuration
  3        finished, but short of what was asked, or some rows failed
  4        input data invalid
  5        a model or file is missing or incomplete
  6        does not fit in memory
  75       stopped early; the same command continues (generate: with --resume)
  130,143  ended by a signal
";
    assert_eq!(help, expected);
}

#[test]
fn everything_works_without_a_network() {
    let place = Place::new();
    let cut_off = ["-rn", "--"];
    let probe = Command::new("unshare").args(cut_off).arg("true").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this system does not permit `unshare -rn`");
        return;
    }
    for (args, input) in [
        (
            &["generate", "-p", "Where is the lamp?", "--temperature", "0"][..],
            "",
        ),
        (&["generate", "--input", "-"], "\"Hello!\"\n"),
        (&["chat"], "Hello!\n"),
        (&["score", "-p", "x", "--choice", "a"], ""),
        (
            &[
                "bench",
                "engine",
                "--rows",
                "1",
                "--prompt-tokens",
                "8",
                "--new-tokens",
                "2",
                "--repeat",
                "1",
            ],
            "",
        ),
        (&["models", "ls"], ""),
        (&["models", "show"], ""),
        (&["doctor"], ""),
        (&["config", "show"], ""),
    ] {
        let mut command = Command::new("unshare");
        command.args(cut_off).arg(BINARY).args(args);
        place.settle(&mut command);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        feed(&mut child, input);
        let finished = Finished::of(child.wait_with_output().unwrap());
        assert_eq!(finished.code, Some(0), "{args:?}: {finished:?}");
    }
}
