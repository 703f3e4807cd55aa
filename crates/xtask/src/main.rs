//! `cargo xtask ci | tidy | sim | corpus | cuda-build`: the gate, the rules, the long scheduler
//! simulation, the embedded model's corpus, the program for GPUs.
#![expect(clippy::print_stdout, reason = "a command line tool")]

use anyhow::{Context, Result, bail};
use std::env;
use std::process::Command;
use xtask::{cuda_build, tidy, workspace_root};

const USAGE: &str = "usage: cargo xtask COMMAND

  ci                        formatting, lints, documentation, tests: the whole gate
  tidy                      crate edges, file sizes, unsafe and allow lists
  sim [--seed N] [--steps M]  the scheduler simulation, one million steps unless told otherwise
  corpus --seed S --documents N --out FILE [--held-out] [--mix FILE] [--what WHAT]
                            the embedded model's corpus; --help tells the rest
  cuda-build [--out DIR]    the release program for NVIDIA GPUs, its test programs and
                            gpu-check.sh, in one folder [default: target/gpu]";

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("ci") if arguments.len() == 1 => ci(),
        Some("tidy") if arguments.len() == 1 => run_tidy(),
        Some("sim") => sim(&arguments[1..]),
        Some("corpus") => corpus(&arguments[1..]),
        Some("cuda-build") => cuda(&arguments[1..]),
        _ => bail!("{USAGE}"),
    }
}

fn ci() -> Result<()> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    let lint = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    cargo(&lint, &[])?;
    // What only a program for GPUs has, without its kernels: no nvcc is needed.
    let lint = [
        "clippy",
        "--workspace",
        "--features",
        "cli/cuda",
        "--",
        "-D",
        "warnings",
    ];
    cargo(&lint, &[("AUTODIDACT_WITHOUT_KERNELS", "1")])?;
    let deny = [("RUSTDOCFLAGS", "-D warnings")];
    cargo(&["doc", "--workspace", "--no-deps", "--quiet"], &deny)?;
    cargo(&["test", "--workspace", "--doc", "--quiet"], &[])?;
    if has_nextest() {
        cargo(&["nextest", "run", "--workspace", "--no-fail-fast"], &[])
    } else {
        let kinds = ["--lib", "--bins", "--tests", "--no-fail-fast"];
        cargo(&[&["test", "--workspace"], &kinds[..]].concat(), &[])
    }
}

fn has_nextest() -> bool {
    Command::new(env!("CARGO"))
        .args(["nextest", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

fn run_tidy() -> Result<()> {
    let complaints = tidy::check(&workspace_root())?;
    if !complaints.is_empty() {
        bail!(
            "{} complaint(s):\n{}",
            complaints.len(),
            complaints.join("\n")
        );
    }
    println!("tidy: no complaints");
    Ok(())
}

fn sim(arguments: &[String]) -> Result<()> {
    let (mut seed, mut steps) = ("0".to_owned(), "1000000".to_owned());
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let value = rest
            .next()
            .with_context(|| format!("{flag} needs a value\n{USAGE}"))?;
        value
            .parse::<u64>()
            .with_context(|| format!("{flag} {value}: not a number"))?;
        match flag.as_str() {
            "--seed" => seed.clone_from(value),
            "--steps" => steps.clone_from(value),
            _ => bail!("unknown flag {flag}\n{USAGE}"),
        }
    }
    let variables = [
        ("AUTODIDACT_SIM_SEED", seed.as_str()),
        ("AUTODIDACT_SIM_STEPS", steps.as_str()),
    ];
    cargo(
        &[
            "test",
            "--workspace",
            "--test",
            "simulation",
            "--",
            "--nocapture",
        ],
        &variables,
    )
}

fn corpus(arguments: &[String]) -> Result<()> {
    let mut command = vec!["run", "--release", "--quiet", "--package", "corpus", "--"];
    command.extend(arguments.iter().map(String::as_str));
    cargo(&command, &[])
}

fn cuda(arguments: &[String]) -> Result<()> {
    let out = match arguments {
        [] => workspace_root().join("target/gpu"),
        [flag, out] if flag == "--out" => out.into(),
        _ => bail!("{USAGE}"),
    };
    let files = cuda_build::run(&out)?;
    for (path, bytes) in &files {
        println!("{:>8.1} MB  {}", *bytes as f64 / 1e6, path.display());
    }
    println!(
        "carry {} to a machine with a GPU and run gpu-check.sh there",
        out.display()
    );
    Ok(())
}

fn cargo(arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    println!("$ cargo {}", arguments.join(" "));
    let status = Command::new(env!("CARGO"))
        .current_dir(workspace_root())
        .args(arguments)
        .envs(variables.iter().copied())
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}
