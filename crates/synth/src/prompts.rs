//! Prompts: Markdown files with TOML front matter and one heading per turn, filled in by
//! minijinja in strict mode. They are part of the program; a folder given by the user
//! replaces them file by file.

use data::{Generate, Grammar, Message, Prompt as Request, Sampling};
use minijinja::{Environment, UndefinedBehavior};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Every prompt of the program: path below `prompts/`, text.
const EMBEDDED: &[(&str, &str)] = &[
    (
        "complex-to-simple/constraint.md",
        include_str!("../../../prompts/complex-to-simple/constraint.md"),
    ),
    (
        "complex-to-simple/correct.md",
        include_str!("../../../prompts/complex-to-simple/correct.md"),
    ),
    (
        "complex-to-simple/correct_alone.md",
        include_str!("../../../prompts/complex-to-simple/correct_alone.md"),
    ),
    (
        "complex-to-simple/instruction.md",
        include_str!("../../../prompts/complex-to-simple/instruction.md"),
    ),
    (
        "complex-to-simple/keywords.md",
        include_str!("../../../prompts/complex-to-simple/keywords.md"),
    ),
    (
        "complex-to-simple/respond.md",
        include_str!("../../../prompts/complex-to-simple/respond.md"),
    ),
    (
        "complex-to-simple/rewrite.md",
        include_str!("../../../prompts/complex-to-simple/rewrite.md"),
    ),
    (
        "decif/conflict.md",
        include_str!("../../../prompts/decif/conflict.md"),
    ),
    (
        "decif/constraints.md",
        include_str!("../../../prompts/decif/constraints.md"),
    ),
    (
        "decif/criteria.md",
        include_str!("../../../prompts/decif/criteria.md"),
    ),
    (
        "decif/domains.md",
        include_str!("../../../prompts/decif/domains.md"),
    ),
    (
        "decif/instruction.md",
        include_str!("../../../prompts/decif/instruction.md"),
    ),
    (
        "decif/judge_explain.md",
        include_str!("../../../prompts/decif/judge_explain.md"),
    ),
    (
        "decif/judge_logits.md",
        include_str!("../../../prompts/decif/judge_logits.md"),
    ),
    (
        "decif/personas.md",
        include_str!("../../../prompts/decif/personas.md"),
    ),
    (
        "decif/requests.md",
        include_str!("../../../prompts/decif/requests.md"),
    ),
    (
        "decif/resolve.md",
        include_str!("../../../prompts/decif/resolve.md"),
    ),
    (
        "decif/respond.md",
        include_str!("../../../prompts/decif/respond.md"),
    ),
    (
        "decif/scenarios.md",
        include_str!("../../../prompts/decif/scenarios.md"),
    ),
    (
        "ultraif/compose.md",
        include_str!("../../../prompts/ultraif/compose.md"),
    ),
    (
        "ultraif/decompose.md",
        include_str!("../../../prompts/ultraif/decompose.md"),
    ),
    (
        "ultraif/judge_explain.md",
        include_str!("../../../prompts/ultraif/judge_explain.md"),
    ),
    (
        "ultraif/judge_logits.md",
        include_str!("../../../prompts/ultraif/judge_logits.md"),
    ),
    (
        "ultraif/question.md",
        include_str!("../../../prompts/ultraif/question.md"),
    ),
    (
        "ultraif/respond.md",
        include_str!("../../../prompts/ultraif/respond.md"),
    ),
];

/// What is wrong with a prompt.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// No prompt of the program has this name.
    #[error("{path}: there is no prompt of this name; there are {known}")]
    Unknown {
        /// The file.
        path: String,
        /// Names there are.
        known: String,
    },
    /// The file is not a prompt.
    #[error("{path}: {field}: {reason}")]
    Invalid {
        /// The file.
        path: String,
        /// Part of the file.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The template failed on these variables.
    #[error("prompt {id}: {reason}")]
    Render {
        /// The prompt.
        id: String,
        /// What minijinja said.
        reason: String,
    },
}

/// What a prompt's answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// Free text.
    Text,
    /// JSON; the recipe gives the schema.
    Json,
    /// One of a few words, of which only the probabilities are read.
    Choice,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrontMatter {
    id: String,
    version: u32,
    source: String,
    inputs: Vec<String>,
    output: Output,
    max_tokens: usize,
    #[serde(default)]
    sampling: Sampling,
}

/// One prompt.
#[derive(Debug, Clone)]
pub struct Prompt {
    front: FrontMatter,
    /// Role and template of each turn.
    turns: Vec<(String, String)>,
    text: String,
    digest: String,
}

impl Prompt {
    /// Reads a prompt; `path` is for messages.
    ///
    /// # Errors
    /// Front matter or template that cannot be used; inputs that are declared and not used,
    /// or used and not declared.
    pub fn parse(path: &str, text: &str) -> Result<Self, PromptError> {
        let invalid = |field: &str, reason: String| PromptError::Invalid {
            path: path.to_owned(),
            field: field.to_owned(),
            reason,
        };
        let rest = text.strip_prefix("+++\n");
        let (front, body) = rest
            .and_then(|rest| rest.split_once("\n+++\n"))
            .ok_or_else(|| {
                invalid(
                    "front matter",
                    "it has to stand between two lines `+++`".into(),
                )
            })?;
        let front: FrontMatter = toml::from_str(front)
            .map_err(|error| invalid("front matter", error.message().to_owned()))?;
        front
            .sampling
            .validate()
            .map_err(|error| invalid("sampling", error.to_string()))?;
        let turns = turns(body).map_err(|reason| invalid("turns", reason))?;
        let mut used = BTreeSet::new();
        for (role, template) in &turns {
            let environment = environment();
            let template = environment
                .template_from_str(template)
                .map_err(|error| invalid(role, error.to_string()))?;
            used.extend(template.undeclared_variables(false));
        }
        // Variables of the template language itself are no inputs.
        used.remove("loop");
        let declared: BTreeSet<String> = front.inputs.iter().cloned().collect();
        if let Some(name) = used.difference(&declared).next() {
            return Err(invalid(
                "inputs",
                format!("`{name}` is used and not declared"),
            ));
        }
        if let Some(name) = declared.difference(&used).next() {
            return Err(invalid(
                "inputs",
                format!("`{name}` is declared and not used"),
            ));
        }
        Ok(Self {
            front,
            turns,
            text: text.to_owned(),
            digest: blake3::hash(text.as_bytes()).to_hex()[..16].to_owned(),
        })
    }

    /// Name, such as `ultraif/respond`.
    pub fn id(&self) -> &str {
        &self.front.id
    }

    /// Version of the text.
    pub fn version(&self) -> u32 {
        self.front.version
    }

    /// Paper and section that the task comes from.
    pub fn source(&self) -> &str {
        &self.front.source
    }

    /// Variables.
    pub fn inputs(&self) -> &[String] {
        &self.front.inputs
    }

    /// What the answer is.
    pub fn output(&self) -> Output {
        self.front.output
    }

    /// How the answer is drawn.
    pub fn sampling(&self) -> &Sampling {
        &self.front.sampling
    }

    /// Tokens an answer may have.
    pub fn max_tokens(&self) -> usize {
        self.front.max_tokens
    }

    /// The whole file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Digest of the whole file.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The conversation with its variables filled in.
    ///
    /// # Errors
    /// A variable that is missing or of the wrong kind.
    pub fn render(&self, variables: impl Serialize) -> Result<Vec<Message>, PromptError> {
        let environment = environment();
        let variables = minijinja::Value::from(minijinja::value::Serde(variables));
        let render = |(role, template): &(String, String)| {
            let content = environment.render_str(template, &variables);
            let content = content.map_err(|error| PromptError::Render {
                id: self.front.id.clone(),
                reason: error.to_string(),
            })?;
            Ok(Message::new(role.as_str(), content.trim()))
        };
        self.turns.iter().map(render).collect()
    }

    /// A request for `messages`, drawn as this prompt says.
    pub fn request(&self, messages: Vec<Message>, seed: u64, grammar: Option<Grammar>) -> Generate {
        Generate {
            sampling: self.front.sampling.clone(),
            max_tokens: Some(self.front.max_tokens),
            seed,
            grammar,
            ..Generate::new(Request::Messages(messages))
        }
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
}

/// Splits a body at its role headings.
fn turns(body: &str) -> Result<Vec<(String, String)>, String> {
    let mut turns: Vec<(String, String)> = Vec::new();
    for line in body.lines() {
        let heading = line.strip_prefix("# ").map(str::trim);
        match heading.filter(|role| ["system", "user", "assistant"].contains(role)) {
            Some(role) => turns.push((role.to_owned(), String::new())),
            None => match turns.last_mut() {
                Some((_, template)) => {
                    template.push_str(line);
                    template.push('\n');
                }
                None if line.trim().is_empty() => {}
                None => return Err(format!("`{line}` stands before the first `# role`")),
            },
        }
    }
    match turns.last() {
        Some((role, _)) if role == "user" => Ok(turns),
        Some((role, _)) => Err(format!("the last turn is `{role}`, not `user`")),
        None => Err("there is no `# user`".into()),
    }
}

/// All prompts, by id.
#[derive(Debug, Clone)]
pub struct PromptSet(BTreeMap<String, Prompt>);

impl PromptSet {
    /// The prompts of the program.
    pub fn embedded() -> Self {
        let parse = |(path, text): &(&str, &str)| {
            let prompt = Prompt::parse(path, text).expect("a test reads every prompt");
            (prompt.id().to_owned(), prompt)
        };
        Self(EMBEDDED.iter().map(parse).collect())
    }

    /// The prompts of the program, with the files of `folder` in the place of those of the
    /// same path.
    ///
    /// # Errors
    /// A file that is no prompt or that no prompt of the program has the name of; inputs or
    /// an output that are not those of the prompt it replaces.
    pub fn with_overrides(folder: &Path) -> Result<Self, PromptError> {
        let mut set = Self::embedded();
        let paths = markdown_files(folder)?;
        for path in &paths {
            let shown = path.display().to_string();
            let relative = path.strip_prefix(folder).unwrap_or(path);
            let name = relative.with_extension("");
            let id = name.to_string_lossy().replace('\\', "/");
            let text = fs::read_to_string(path).map_err(|source| PromptError::Io {
                path: shown.clone(),
                source,
            })?;
            set = set.with(&id, &shown, &text)?;
        }
        if paths.is_empty() {
            return Err(PromptError::Invalid {
                path: folder.display().to_string(),
                field: "folder".into(),
                reason: "there is no prompt in it, such as ultraif/respond.md".into(),
            });
        }
        Ok(set)
    }

    /// The same prompts, with `text` in the place of the one called `id`; `shown` names the text
    /// in messages.
    ///
    /// # Errors
    /// No prompt, or one that the program has no use for; inputs or an output that are not those
    /// of the prompt it replaces.
    pub fn with(mut self, id: &str, shown: &str, text: &str) -> Result<Self, PromptError> {
        let Some(before) = self.0.get(id) else {
            return Err(PromptError::Unknown {
                path: shown.to_owned(),
                known: self.0.keys().cloned().collect::<Vec<_>>().join(", "),
            });
        };
        let prompt = Prompt::parse(shown, text)?;
        let must_equal = |field: &str, got: String, expected: String| {
            if got == expected {
                return Ok(());
            }
            Err(PromptError::Invalid {
                path: shown.to_owned(),
                field: field.into(),
                reason: format!("expected {expected}, got {got}"),
            })
        };
        must_equal("id", prompt.id().into(), id.to_owned())?;
        let sorted = |prompt: &Prompt| {
            let inputs: BTreeSet<&String> = prompt.inputs().iter().collect();
            format!("{inputs:?}")
        };
        must_equal("inputs", sorted(&prompt), sorted(before))?;
        let output = |prompt: &Prompt| format!("{:?}", prompt.output()).to_lowercase();
        must_equal("output", output(&prompt), output(before))?;
        self.0.insert(id.to_owned(), prompt);
        Ok(self)
    }

    /// A prompt of the program.
    ///
    /// # Panics
    /// If the program asks for a prompt it does not have, which a test excludes.
    pub fn get(&self, id: &str) -> &Prompt {
        self.find(id).expect("a test asks for every prompt by name")
    }

    /// A prompt by its name.
    pub fn find(&self, id: &str) -> Option<&Prompt> {
        self.0.get(id)
    }

    /// All prompts, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Prompt> {
        self.0.values()
    }

    /// Digest of each prompt of a recipe, by name.
    pub fn digests(&self, recipe: &str) -> BTreeMap<String, String> {
        let ours = self.0.values().filter(|prompt| {
            prompt
                .id()
                .split_once('/')
                .is_some_and(|(folder, _)| folder == recipe)
        });
        ours.map(|prompt| (prompt.id().to_owned(), prompt.digest().to_owned()))
            .collect()
    }
}

fn markdown_files(folder: &Path) -> Result<Vec<std::path::PathBuf>, PromptError> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let io = |source| PromptError::Io {
            path: folder.display().to_string(),
            source,
        };
        for entry in fs::read_dir(&folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_file_is_part_of_the_program_and_named_as_it_lies() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../prompts");
        let files = markdown_files(&folder).unwrap();
        assert_eq!(files.len(), EMBEDDED.len());
        for path in files {
            let text = fs::read_to_string(&path).unwrap();
            let prompt = Prompt::parse(&path.display().to_string(), &text).unwrap();
            assert!(
                path.ends_with(format!("{}.md", prompt.id())),
                "{}",
                prompt.id()
            );
            assert_eq!(PromptSet::embedded().get(prompt.id()).text(), text);
            assert!(!prompt.source().is_empty() && prompt.version() > 0);
        }
    }

    #[test]
    fn variables_are_filled_in_and_left_alone() {
        let set = PromptSet::embedded();
        let text = "say \"hi\" {{ not a variable }}\nsecond line é";
        let messages = set
            .get("ultraif/respond")
            .render(json!({"query": text}))
            .unwrap();
        assert_eq!(messages[0].role, "system");
        assert!(
            messages[1].content.ends_with(text),
            "{}",
            messages[1].content
        );
        let error = set.get("ultraif/respond").render(json!({})).unwrap_err();
        assert!(error.to_string().contains("ultraif/respond"), "{error}");
        let judge = set.get("ultraif/judge_explain");
        let shown = judge.render(json!({
            "history": "", "instruction": "I", "response": "R", "questions": ["a?", "b?"],
        }));
        let shown = &shown.unwrap()[1].content;
        assert_eq!(
            shown,
            "Request:\nI\n\nAnswer:\nR\n\nQuestions:\n1. a?\n2. b?"
        );
    }

    #[test]
    fn bad_prompts_are_told() {
        let front = |inputs: &str, extra: &str| {
            format!(
                "+++\nid = \"x\"\nversion = 1\nsource = \"s\"\ninputs = {inputs}\noutput = \"text\"\nmax_tokens = 1\n{extra}+++\n# user\n{{{{ q }}}}\n"
            )
        };
        let check = |text: &str, named: &str| {
            let error = Prompt::parse("p.md", text).unwrap_err().to_string();
            assert!(
                error.starts_with("p.md") && error.contains(named),
                "{error}"
            );
        };
        Prompt::parse("p.md", &front("[\"q\"]", "")).unwrap();
        check("no front matter", "between two lines");
        check(&front("[]", ""), "`q` is used and not declared");
        check(&front("[\"q\", \"r\"]", ""), "`r` is declared and not used");
        check(&front("[\"q\"]", "colour = 1\n"), "colour");
        check(&front("[\"q\"]", "[sampling]\ntop_p = 2.0\n"), "top_p");
        check(
            &front("[\"q\"]", "").replace("# user", "# system"),
            "not `user`",
        );
        check(&front("[\"q\"]", "").replace("{{ q }}", "{{ q"), "user");
    }

    #[test]
    fn a_folder_replaces_prompts_of_the_same_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = PromptSet::with_overrides(folder.path()).unwrap_err();
        assert!(error.to_string().contains("no prompt in it"), "{error}");
        let below = folder.path().join("ultraif");
        fs::create_dir(&below).unwrap();
        let embedded = PromptSet::embedded();
        let mine = embedded
            .get("ultraif/respond")
            .text()
            .replace("expert", "poet");
        fs::write(below.join("respond.md"), &mine).unwrap();
        let set = PromptSet::with_overrides(folder.path()).unwrap();
        assert_eq!(set.get("ultraif/respond").text(), mine);
        let changed: Vec<_> = set
            .digests("ultraif")
            .into_iter()
            .filter(|(id, digest)| embedded.get(id).digest() != digest)
            .collect();
        assert_eq!(changed.len(), 1);
        fs::write(below.join("respond.md"), mine.replace("query", "q")).unwrap();
        assert!(
            PromptSet::with_overrides(folder.path())
                .unwrap_err()
                .to_string()
                .contains("inputs")
        );
        fs::remove_file(below.join("respond.md")).unwrap();
        fs::write(below.join("repond.md"), &mine).unwrap();
        let error = PromptSet::with_overrides(folder.path()).unwrap_err();
        assert!(error.to_string().contains("ultraif/respond"), "{error}");
    }
}
