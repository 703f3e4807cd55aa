//! `chat`: turn by turn, with the history kept. Without a terminal every line of standard
//! input is a turn.

use crate::args::ChatArgs;
use crate::commands::Env;
use crate::commands::generate::closing_line;
use crate::output;
use crate::request;
use crate::session::{self, Session};
use crate::threads;
use anyhow::{Context, Result};
use data::{Generate, Message, Prompt, RequestError};
use std::io::{self, BufRead};
use std::process::ExitCode;

const HELP: &str =
    "/reset forgets the conversation, /system TEXT sets the system message and forgets, /exit ends";

/// What a line typed by the user means.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Empty,
    Exit,
    Reset,
    System(&'a str),
    Help,
    Turn(&'a str),
}

/// Runs the command.
pub(crate) fn run(env: &mut Env, args: &ChatArgs) -> Result<ExitCode> {
    for setting in args
        .model
        .settings()
        .into_iter()
        .chain(args.sampling.settings())
    {
        env.config.insert(setting)?;
    }
    threads::apply(&env.config)?;
    let opened = session::open(&args.model, &mut env.config)?;
    let base = request::base_request(&args.sampling, &env.config)?;
    // A model without a template is refused before its weights are read.
    opened.check(
        &Prompt::Messages(vec![Message::new("user", "Hello")]),
        &base,
    )?;
    let session = opened.start(&env.config)?;
    let interactive = output::stdin_is_terminal();
    if interactive {
        output::say(&format!("{} | {HELP}", session.describe(&base.sampling)));
    }
    let mut chat = Chat {
        session,
        base,
        history: Vec::new(),
        interactive,
    };
    chat.reset(args.system.as_deref());
    let mut input = io::stdin().lock();
    let mut text = String::new();
    loop {
        if interactive {
            output::ask("> ");
        }
        text.clear();
        if input
            .read_line(&mut text)
            .context("cannot read standard input")?
            == 0
        {
            return Ok(ExitCode::SUCCESS);
        }
        match parse(&text) {
            Line::Empty => {}
            Line::Exit => return Ok(ExitCode::SUCCESS),
            Line::Help => output::say(HELP),
            Line::Reset => {
                let system = chat.system();
                chat.reset(system.as_deref());
            }
            Line::System(system) => chat.reset(Some(system)),
            Line::Turn(turn) => chat.answer(env, turn)?,
        }
    }
}

struct Chat {
    session: Session,
    /// The request of every turn but for its prompt.
    base: Generate,
    history: Vec<Message>,
    /// Somebody is at the keyboard.
    interactive: bool,
}

impl Chat {
    fn reset(&mut self, system: Option<&str>) {
        self.history = request::with_system(system.filter(|text| !text.is_empty()), Vec::new());
    }

    fn system(&self) -> Option<String> {
        self.history
            .first()
            .filter(|first| first.role == "system")
            .map(|first| first.content.clone())
    }

    fn answer(&mut self, env: &Env, turn: &str) -> Result<()> {
        self.history.push(Message::new("user", turn));
        let request = Generate {
            prompt: Prompt::Messages(self.history.clone()),
            adapter: self.session.adapter.clone(),
            ..self.base.clone()
        };
        let reply = self.session.reply(request, &env.interrupt, output::print);
        let overflowed = |error: &anyhow::Error| {
            matches!(
                error.downcast_ref(),
                Some(RequestError::ContextOverflow { .. })
            )
        };
        match reply {
            Ok(Some(reply)) => {
                output::print("\n")?;
                let text = reply
                    .completions
                    .first()
                    .map_or("", |one| one.text.as_str());
                self.history.push(Message::new("assistant", text));
                if self.interactive {
                    output::say(&closing_line(&reply));
                }
                Ok(())
            }
            Ok(None) => {
                self.history.pop();
                output::say("\nstopped; this turn is forgotten");
                Ok(())
            }
            Err(error) if self.interactive && overflowed(&error) => {
                self.history.pop();
                output::say(&format!(
                    "{error}\nthe conversation is full: /reset begins a new one"
                ));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn parse(line: &str) -> Line<'_> {
    let line = line.trim();
    match line.split_once(char::is_whitespace).unwrap_or((line, "")) {
        ("", _) => Line::Empty,
        ("/exit" | "/quit", _) => Line::Exit,
        ("/reset", _) => Line::Reset,
        ("/system", text) => Line::System(text.trim()),
        ("/help", _) => Line::Help,
        _ => Line::Turn(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let cases = [
            ("\n", Line::Empty),
            ("/exit\n", Line::Exit),
            ("/reset", Line::Reset),
            ("/system  be brief \n", Line::System("be brief")),
            ("/system", Line::System("")),
            ("/help", Line::Help),
            (" what is /exit?\n", Line::Turn("what is /exit?")),
            ("/other", Line::Turn("/other")),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
