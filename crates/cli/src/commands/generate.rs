//! `generate`: one prompt, or every row of a file.

use crate::args::GenerateArgs;
use crate::commands::Env;
use crate::error::{Failure, INTERRUPTED, SOME_ROWS_FAILED, STOPPED};
use crate::output::{self, Progress};
use crate::request::{self, PromptSource};
use crate::row_sink::{Resume, RowSink};
use crate::rows::{self, RowEvent, Tally};
use crate::session::{self, Opened, Reply, Session};
use crate::text_parts;
use crate::threads;
use anyhow::Result;
use data::{
    Completion, FinishReason, Generate, Prompt, PromptRow, RowProblem, read_prompts,
    read_prompts_from,
};
use model::Special;
use serde_json::json;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Runs the command.
pub(crate) fn run(env: &mut Env, args: &GenerateArgs) -> Result<ExitCode> {
    check(args)?;
    for setting in args
        .model
        .settings()
        .into_iter()
        .chain(args.sampling.settings())
    {
        env.config.insert(setting)?;
    }
    if !args.dry_run {
        threads::apply(&env.config)?;
    }
    if args.dry_run {
        return dry_run(env, args);
    }
    let opened = session::open(&args.model, &mut env.config)?;
    let base = Generate {
        n: args.n,
        logprobs: args.logprobs,
        prompt_logprobs: args.prompt_logprobs,
        grammar: request::grammar(&args.grammar)?,
        ..request::base_request(&args.sampling, &env.config)?
    };
    match &args.input {
        Some(input) => run_rows(env, args, opened, &base, input),
        None => run_prompt(env, args, opened, base),
    }
}

/// Completions of one prompt at most; more than any engine holds at once.
const SAMPLES_MAX: usize = 65_536;

/// What the flags allow one by one but not together.
fn check(args: &GenerateArgs) -> Result<()> {
    if args.n == 0 {
        return Err(Failure::usage("-n 0: at least one completion is needed"));
    }
    if args.n > SAMPLES_MAX {
        let message = format!("-n {}: at most {SAMPLES_MAX} per prompt", args.n);
        return Err(Failure::usage(message));
    }
    let wants_logprobs = args.logprobs.is_some() || args.prompt_logprobs;
    if wants_logprobs && !args.json && args.input.is_none() {
        return Err(Failure::usage(
            "log-probabilities are part of the JSON only: add --json",
        ));
    }
    Ok(())
}

fn dry_run(env: &mut Env, args: &GenerateArgs) -> Result<ExitCode> {
    let text = session::open_text(&args.model, &mut env.config)?;
    let prompt = prompt(args)?;
    let tokens = match &prompt {
        Prompt::Text(raw) if args.special => text.tokenizer().encode(raw, Special::Parse)?,
        prompt => text_parts::tokenize(&text, prompt)?,
    };
    let rendered = match &prompt {
        Prompt::Messages(messages) => text.render(messages)?.text,
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(_) => String::new(),
    };
    if args.json {
        let facts = json!({ "prompt": rendered, "num_tokens": tokens.len(), "token_ids": tokens });
        output::print_json(&facts)?;
    } else {
        output::print_line(&rendered)?;
        output::say(&format!("[{} tokens: {tokens:?}]", tokens.len()));
    }
    Ok(ExitCode::SUCCESS)
}

fn prompt(args: &GenerateArgs) -> Result<Prompt> {
    PromptSource {
        prompt: args.prompt.as_deref(),
        messages: args.messages.as_deref(),
        system: args.system.as_deref(),
        raw: args.raw,
    }
    .read()
}

fn run_prompt(env: &Env, args: &GenerateArgs, opened: Opened, base: Generate) -> Result<ExitCode> {
    let prompt = match prompt(args)? {
        Prompt::Text(raw) if args.special => {
            Prompt::Tokens(opened.text().tokenizer().encode(&raw, Special::Parse)?)
        }
        prompt => prompt,
    };
    // A prompt that cannot be rendered or does not fit fails before the weights are read.
    opened.check(&prompt, &base)?;
    let session = opened.start(&env.config)?;
    let request = Generate {
        prompt,
        adapter: session.adapter.clone(),
        ..base
    };
    let streams = args.n == 1 && !args.json;
    let (sampling, seed) = (request.sampling.clone(), request.seed);
    let reply = session.reply(request, &env.interrupt, |text| {
        if streams { output::print(text) } else { Ok(()) }
    })?;
    let Some(reply) = reply else {
        output::say("\nstopped");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if args.json {
        output::print_json(&json!({
            "model": session.name, "seed": seed, "sampling": sampling,
            "completions": reply.completions, "timing": reply.timing_json(),
        }))?;
    } else if streams {
        let ends_line = reply
            .completions
            .first()
            .is_some_and(|one| one.text.ends_with('\n'));
        if !ends_line {
            output::print("\n")?;
        }
    } else {
        for one in &reply.completions {
            output::print_line(&format!("[{}/{}]\n{}", one.index + 1, args.n, one.text))?;
        }
    }
    output::say(&closing_line(&reply));
    Ok(ExitCode::SUCCESS)
}

/// Tokens, speeds and what a reader should know about how the texts ended.
pub(crate) fn closing_line(reply: &Reply) -> String {
    let cut = reply
        .completions
        .iter()
        .filter(|one| one.finish_reason == FinishReason::Length)
        .count();
    let cut = match (cut, reply.completions.len()) {
        (0, _) => String::new(),
        (1, 1) => ", cut by the token limit".to_owned(),
        (cut, all) => format!(", {cut} of {all} cut by the token limit"),
    };
    format!("[{}{cut}]", reply.timing())
}

fn run_rows(
    env: &Env,
    args: &GenerateArgs,
    opened: Opened,
    base: &Generate,
    input: &Path,
) -> Result<ExitCode> {
    opened.check_rules(base)?;
    opened.check_template()?;
    let mut source = open_input(input)?;
    let resume = if args.resume { Resume::Yes } else { Resume::No };
    let mut sink = RowSink::open(args.output.as_deref(), resume)?;
    let head = Head::read(&mut source, sink.resumed().last_line);
    if !head.has_row() {
        return head.conclude(sink, input);
    }
    let session = opened.start(&env.config)?;
    let (finished, started) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let counter = Arc::clone(&finished);
    let progress = Progress::start(move || {
        let rows = counter.load(Ordering::Relaxed);
        let seconds = started.elapsed().as_secs_f64();
        Some(format!("{rows} rows, {:.1} rows/s", rows as f64 / seconds))
    });
    let orderly = env.interrupt.orderly();
    let system = args.system.as_deref();
    let request_of = |row: &PromptRow| Generate {
        prompt: Prompt::Messages(request::with_system(system, row.messages.clone())),
        seed: rows::row_seed(base.seed, row.line),
        adapter: session.adapter.clone(),
        ..base.clone()
    };
    let mut written = Counts::default();
    let (resumed, passed) = (sink.resumed().rows, head.passed);
    let rows = head.lines.into_iter().chain(source);
    let driven = rows::drive(
        session.engine.as_ref(),
        rows,
        request_of,
        &env.interrupt,
        |event| {
            finished.fetch_add(1, Ordering::Relaxed);
            written.report(event, &mut sink)
        },
    );
    drop((progress, orderly));
    let failed_before = passed.saturating_sub(resumed);
    conclude(
        driven,
        sink,
        &Run {
            written,
            resumed,
            failed_before,
            started,
            session: &session,
        },
    )
}

/// The rows of a file of any known format, or of standard input.
fn open_input(path: &Path) -> Result<Box<dyn Iterator<Item = SourceRow>>> {
    Ok(if path == Path::new("-") {
        Box::new(read_prompts_from(Box::new(io::stdin()), path)?)
    } else {
        Box::new(read_prompts(path)?)
    })
}

type SourceRow = Result<PromptRow, RowProblem>;

/// The beginning of a source, read before the weights are.
struct Head {
    /// Lines up to the first row that is to be done, that row included.
    lines: Vec<SourceRow>,
    /// Readable rows that an earlier run has passed already.
    passed: usize,
}

impl Head {
    /// Reads up to the first row after `last_line`.
    fn read(source: &mut impl Iterator<Item = SourceRow>, last_line: usize) -> Self {
        let mut head = Self {
            lines: Vec::new(),
            passed: 0,
        };
        for row in source {
            let line = match &row {
                Ok(row) => row.line,
                Err(problem) => usize::try_from(problem.line()).unwrap_or(usize::MAX),
            };
            if line <= last_line {
                head.passed += usize::from(row.is_ok());
                continue;
            }
            // A source that cannot be read further is told by whoever drives the rows.
            let ends = row.is_ok() || matches!(&row, Err(RowProblem::Io { .. }));
            head.lines.push(row);
            if ends {
                break;
            }
        }
        head
    }

    fn has_row(&self) -> bool {
        self.lines
            .last()
            .is_some_and(|last| !matches!(last, Err(RowProblem::Row { .. })))
    }

    /// There is nothing to do: either all was done before, or no line is a row.
    fn conclude(self, sink: RowSink, input: &Path) -> Result<ExitCode> {
        let done = sink.resumed().rows;
        for error in self
            .lines
            .iter()
            .filter_map(|line| line.as_ref().err())
            .take(LINES_SHOWN)
        {
            output::say(&error.to_string());
        }
        if done == 0 {
            sink.discard_if_empty();
            let count = self.lines.len();
            return Err(Failure::input(format!(
                "{}: none of its {count} rows can be used",
                input.display()
            )));
        }
        sink.finish()?;
        output::say(&format!("[{done} rows from before, nothing left to do]"));
        let missing = self.passed > done || !self.lines.is_empty();
        Ok(if missing {
            ExitCode::from(SOME_ROWS_FAILED)
        } else {
            ExitCode::SUCCESS
        })
    }
}

/// Lines told of an input without a usable row.
const LINES_SHOWN: usize = 5;

/// What was written, in tokens.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    completions: usize,
    prompt_tokens: usize,
    completion_tokens: usize,
    cut: usize,
}

impl Counts {
    fn report(&mut self, event: RowEvent<'_>, sink: &mut RowSink) -> Result<()> {
        match event {
            RowEvent::Done(row) => {
                row.completions.iter().for_each(|one| self.add(one));
                sink.write(&row)
            }
            RowEvent::Failed { line, error } => {
                output::say(&format!("line {line}: {error}"));
                Ok(())
            }
            RowEvent::Unreadable(reason) => {
                output::say(&reason);
                Ok(())
            }
        }
    }

    fn add(&mut self, one: &Completion) {
        self.completions += 1;
        // The samples of a request share one prompt.
        self.prompt_tokens += if one.index == 0 {
            one.usage.prompt_tokens
        } else {
            0
        };
        self.completion_tokens += one.usage.completion_tokens;
        self.cut += usize::from(one.finish_reason == FinishReason::Length);
    }
}

struct Run<'a> {
    written: Counts,
    resumed: usize,
    failed_before: usize,
    started: Instant,
    session: &'a Session,
}

fn conclude(driven: Result<Tally>, sink: RowSink, run: &Run<'_>) -> Result<ExitCode> {
    let tally = match driven {
        Ok(tally) => tally,
        Err(error) => {
            sink.discard_if_empty();
            return Err(error);
        }
    };
    if tally.stopped {
        output::say(&summary(tally, run));
        output::say("stopped; the same command with --resume continues");
        return Ok(ExitCode::from(STOPPED));
    }
    sink.finish()?;
    output::say(&summary(tally, run));
    let missing = tally.failed + tally.unreadable + run.failed_before;
    Ok(if missing > 0 {
        ExitCode::from(SOME_ROWS_FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn summary(tally: Tally, run: &Run<'_>) -> String {
    let mut parts = vec![format!("{} rows done", tally.done)];
    for (count, what) in [
        (run.resumed, "from before"),
        (tally.failed + run.failed_before, "failed"),
        (tally.unreadable, "unreadable"),
        (run.written.cut, "cut by the token limit"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let seconds = run.started.elapsed().as_secs_f64();
    parts.push(format!(
        "{} + {} tokens",
        run.written.prompt_tokens, run.written.completion_tokens
    ));
    parts.push(format!("{seconds:.1} s"));
    parts.extend(run.session.speeds());
    format!("[{}]", parts.join(", "))
}
