//! The corpus as a whole: its words are the product's, its shares are as set, its parts apart.
#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "helpers of tests, outside of any #[test]; one pass over many documents"
)]

use corpus::{
    AskKind, Corpus, Document, Item, Mix, Role, Set, Sizes, Split, TOPICS, balanced, read_demand,
    read_question, score,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use synth::prompts::PromptSet;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/embedded/prompts")
}

fn corpus(seed: u64) -> Corpus {
    Corpus::new(&folder(), Mix::default(), seed).unwrap()
}

fn documents(seed: u64, count: u64) -> Vec<Document> {
    let corpus = corpus(seed);
    (0..count)
        .map(|index| corpus.document(index).unwrap())
        .collect()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap();
    if end.is_empty() {
        rest
    } else {
        rest.rsplit_once(end).unwrap().0
    }
}

/// The variables of a rendered prompt, read back from its text.
fn variables(document: &Document, user: &str) -> (&'static str, Value) {
    match document.role {
        Role::Respond => ("ultraif/respond", json!({"query": user})),
        Role::Compose => {
            let history = between(user, "[history]: ", " \n [initial query]: ");
            let history = if history == "[]" { "" } else { history };
            (
                "ultraif/compose",
                json!({"history": history, "query": between(user, " \n [initial query]: ", "")}),
            )
        }
        Role::Decompose => (
            "ultraif/decompose",
            json!({"prompt": between(user, "[decompose]: ", "")}),
        ),
        Role::Question => (
            "ultraif/question",
            json!({"prompt": "any", "constraint": between(user, "[constraint]: ", "")}),
        ),
        Role::JudgeLogits => (
            "ultraif/judge_logits",
            json!({
                "history": "any", "instruction": "any", "response": between(user, "[answer]:\n", "\n[question]: "),
                "question": user.rsplit_once("\n[question]: ").unwrap().1,
            }),
        ),
        Role::JudgeExplain => {
            let questions = user.rsplit_once("\n[questions]:\n").unwrap().1;
            let questions: Vec<&str> = questions
                .lines()
                .map(|line| line.split_once(". ").unwrap().1)
                .collect();
            let response = between(user, "[answer]:\n", "\n[questions]:\n");
            (
                "ultraif/judge_explain",
                json!({"history": "any", "instruction": "any", "response": response, "questions": questions}),
            )
        }
        Role::Correct => {
            let (shown, failed) = user.rsplit_once("\n[correct]: ").unwrap();
            let (request, response) = shown.split_once("[answer]:\n").unwrap();
            if request.is_empty() {
                let variables = json!({"failed": failed, "response": response});
                return ("complex-to-simple/correct_alone", variables);
            }
            let instruction = between(request, "[request]: ", "\n");
            let variables = json!({
                "instruction": instruction, "constraints": ["any"], "failed": failed,
                "found": "any", "response": response,
            });
            ("complex-to-simple/correct", variables)
        }
        Role::Decif => decif_variables(document.kind, user),
        Role::Skill => panic!("skills have no prompt"),
    }
}

/// Lines `[name]: text` of a prompt, the last `[known]` as a list.
fn decif_variables(step: &'static str, user: &str) -> (&'static str, Value) {
    let field = |name: &str| {
        let start = format!("[{name}]: ");
        let found = user.lines().find_map(|line| line.strip_prefix(&start));
        found.unwrap_or_else(|| panic!("{name}: {user}"))
    };
    let count = || field("count").parse::<usize>().unwrap();
    let known = || {
        let list = user.lines().find_map(|line| line.strip_prefix("[known]: "));
        list.map_or_else(Vec::new, |list| list.split("; ").collect::<Vec<&str>>())
    };
    let whole = |name: &str| between(user, &format!("[{name}]: "), "").to_owned();
    match step {
        "domains" => (
            "decif/domains",
            json!({"count": field("domains").parse::<usize>().unwrap(), "known": known()}),
        ),
        "requests" => (
            "decif/requests",
            json!({"domain": field("requests"), "count": count(), "known": known()}),
        ),
        "scenarios" => (
            "decif/scenarios",
            json!({"domain": "any", "request": field("scenarios"), "count": count(), "known": known()}),
        ),
        "personas" => (
            "decif/personas",
            json!({"scenario": field("personas"), "request": "any", "count": count()}),
        ),
        "constraints" => (
            "decif/constraints",
            json!({"kind": field("constraints"), "count": count(), "known": known()}),
        ),
        "instruction" => {
            let (_, list) = user.split_once("\n[constraints]:\n- ").unwrap();
            let list: Vec<&str> = list.split("\n- ").collect();
            (
                "decif/instruction",
                json!({
                    "request": field("request"), "persona": field("persona"),
                    "scenario": field("scenario"), "constraints": list,
                }),
            )
        }
        "conflict" => ("decif/conflict", json!({"instruction": whole("conflict")})),
        "resolve" => {
            let (instruction, problem) = user.split_once("\n[problem]: ").unwrap();
            let instruction = between(instruction, "[resolve]: ", "");
            (
                "decif/resolve",
                json!({"instruction": instruction, "problem": problem}),
            )
        }
        "criteria" => ("decif/criteria", json!({"instruction": whole("criteria")})),
        _ => ("decif/respond", json!({"query": user})),
    }
}

#[test]
fn what_is_trained_is_what_the_product_says() {
    let prompts = PromptSet::with_overrides(&folder()).unwrap();
    let embedded = PromptSet::embedded();
    for prompt in embedded.iter() {
        assert_ne!(
            prompts.get(prompt.id()).digest(),
            embedded.get(prompt.id()).digest()
        );
        assert_eq!(prompts.get(prompt.id()).output(), prompt.output());
    }
    for document in documents(11, 1500) {
        let (answer, asked) = document.messages.split_last().unwrap();
        assert_eq!(
            (answer.role.as_str(), document.loss),
            ("assistant", "assistant")
        );
        assert!(!answer.content.trim().is_empty());
        if document.role == Role::Skill {
            continue;
        }
        // Later questions on the same answer show its last line alone.
        let asked = match document.role {
            Role::JudgeLogits => &asked[..1],
            _ => asked,
        };
        let user = &asked.last().unwrap().content;
        let (step, variables) = variables(&document, user);
        let rendered = prompts.get(step).render(variables).unwrap();
        assert_eq!(rendered, asked[asked.len() - rendered.len()..], "{step}");
    }
    let published = prompts
        .get("ultraif/compose")
        .render(json!({"history": "", "query": "q"}))
        .unwrap();
    assert_eq!(published[0].content, "[history]: [] \n [initial query]: q");
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// Whether an answer of DecIF has its form and follows from what was asked.
fn decif_answer(step: &'static str, user: &str, text: &str) {
    if step == "respond" {
        return;
    }
    let value: Value = serde_json::from_str(text).unwrap();
    let (_, asked) = decif_variables(step, user);
    let list = |key: &str| {
        assert_eq!(keys(&value), [key]);
        value[key].as_array().unwrap().clone()
    };
    let said = |key: &str| value[key].as_str().unwrap();
    match step {
        "domains" | "requests" | "scenarios" | "personas" | "constraints" => {
            let list = list(step);
            assert_eq!(list.len() as u64, asked["count"].as_u64().unwrap());
            for one in &list {
                match step {
                    "scenarios" => assert_eq!(keys(one), ["persona", "time", "place", "trigger"]),
                    "constraints" => {
                        let demand = read_demand(one["constraint"].as_str().unwrap()).unwrap();
                        let question = read_question(one["question"].as_str().unwrap());
                        assert_eq!(Some(demand), question);
                        assert!(
                            !asked["known"]
                                .as_array()
                                .unwrap()
                                .contains(&one["constraint"])
                        );
                    }
                    "personas" => {}
                    _ => assert!(!asked["known"].as_array().unwrap().contains(one), "{user}"),
                }
            }
        }
        "instruction" => {
            let instruction = said("instruction");
            let request = asked["request"].as_str().unwrap();
            assert!(instruction.contains(request), "{instruction}");
            let persona = asked["persona"].as_str().unwrap().to_lowercase();
            assert!(instruction.to_lowercase().contains(&persona));
        }
        "conflict" => {
            assert_eq!(keys(&value), ["explanation", "conflict"]);
            let yes = said("explanation").starts_with("These exclude each other: ");
            assert_eq!(said("conflict") == "YES", yes);
        }
        "resolve" => {
            let before = asked["instruction"].as_str().unwrap();
            let after = said("instruction");
            let problem = asked["problem"].as_str().unwrap();
            // The second demand of the problem is taken away.
            let mut ends = problem
                .match_indices(' ')
                .map(|(place, _)| &problem[place..]);
            assert!(
                ends.any(|demand| before.replacen(demand, "", 1) == after),
                "{user}\n{text}"
            );
        }
        _ => {
            for question in list("criteria") {
                assert!(read_question(question.as_str().unwrap()).is_some());
            }
        }
    }
}

#[test]
fn answers_have_the_form_that_the_recipe_reads() {
    let mut kept = Vec::new();
    for document in documents(12, 3000) {
        let text = &document.messages.last().unwrap().content;
        let user = &document.messages[document.messages.len() - 2].content;
        let json = || serde_json::from_str::<Value>(text).unwrap();
        match document.role {
            Role::Compose => {
                let value = json();
                assert_eq!(keys(&value), ["query", "question"]);
                let before = between(user, "[initial query]: ", "");
                let added = value["query"]
                    .as_str()
                    .unwrap()
                    .strip_prefix(before)
                    .unwrap();
                let (added, asked) = (
                    read_demand(added).unwrap(),
                    read_question(value["question"].as_str().unwrap()),
                );
                assert_eq!(Some(added), asked, "{text}");
            }
            Role::Decompose => {
                let value = json();
                assert_eq!(keys(&value), ["complex", "basic_query", "constraints"]);
                let parts = value["constraints"].as_array().unwrap();
                assert_eq!(value["complex"], !parts.is_empty());
                for part in parts {
                    assert_eq!(keys(part), ["type", "constraint", "simplified_query"]);
                    let demand = part["constraint"].as_str().unwrap();
                    assert!(read_demand(demand).is_some(), "{demand}");
                    let simplified = part["simplified_query"].as_str().unwrap();
                    assert_eq!(
                        between(user, "[decompose]: ", "").replacen(&format!(" {demand}"), "", 1),
                        simplified
                    );
                }
            }
            Role::Question => {
                let value = json();
                assert_eq!(keys(&value), ["question"]);
                let demand = read_demand(between(user, "[constraint]: ", ""));
                assert_eq!(
                    read_question(value["question"].as_str().unwrap()),
                    demand,
                    "{user}"
                );
            }
            Role::JudgeLogits => assert!(text == "YES" || text == "NO"),
            Role::JudgeExplain => {
                let value = json();
                assert_eq!(keys(&value), ["verdicts"]);
                let verdicts = value["verdicts"].as_array().unwrap();
                assert_eq!(verdicts.len(), document.checks.len());
                for (verdict, (_, yes)) in verdicts.iter().zip(&document.checks) {
                    assert_eq!(keys(verdict), ["explanation", "verdict"]);
                    assert_eq!(verdict["verdict"], if *yes { "YES" } else { "NO" });
                }
            }
            Role::Correct => {
                let (shown, failed) = user.rsplit_once("\n[correct]: ").unwrap();
                let (_, wrong) = shown.split_once("[answer]:\n").unwrap();
                let rule = read_demand(failed).unwrap().rule().cloned().unwrap();
                assert!(!rule.check(wrong).followed, "{rule:?}\n{wrong}");
                assert!(rule.check(text).followed, "{rule:?}\n{text}");
                assert_eq!(rule.id(), document.kind);
                let words = |text: &str| text.split_whitespace().map(str::to_lowercase).collect();
                let (before, after): (BTreeSet<String>, BTreeSet<String>) =
                    (words(wrong), words(text));
                kept.push(before.intersection(&after).count() as f64 / after.len() as f64);
            }
            Role::Decif => decif_answer(document.kind, user, text),
            Role::Respond | Role::Skill => {}
        }
    }
    // A correction keeps the words that it need not touch.
    let mean = kept.iter().sum::<f64>() / kept.len() as f64;
    println!("{} corrections keep {mean:.3} of the words", kept.len());
    assert!(mean > 0.75, "{mean}");
}

/// Counts of yes and of all, by key.
type Shares<K> = BTreeMap<K, (usize, usize)>;

fn count<K: Ord>(shares: &mut Shares<K>, key: K, yes: bool) {
    let entry = shares.entry(key).or_default();
    entry.0 += usize::from(yes);
    entry.1 += 1;
}

fn share((yes, all): (usize, usize)) -> f64 {
    yes as f64 / all as f64
}

#[test]
fn shares_are_as_set_and_every_cell_is_balanced() {
    let all = documents(13, 20_000);
    let (mut followed, mut judged, mut explained) = (Shares::new(), Shares::new(), Shares::new());
    let mut bounds: Shares<(&str, bool)> = Shares::new();
    let (mut roles, mut broken, mut named) = (BTreeMap::new(), (0, 0), (0, 0));
    for document in &all {
        *roles.entry(document.role).or_insert(0) += 1;
        let user = &document.messages[document.messages.len() - 2].content;
        for (kind, yes) in &document.checks {
            match document.role {
                Role::Respond => count(&mut followed, *kind, *yes),
                Role::JudgeExplain => count(&mut explained, *kind, *yes),
                _ => {
                    count(&mut judged, *kind, *yes);
                    let question = user.rsplit('\n').next().unwrap();
                    for bound in ["at least", "fewer than"]
                        .iter()
                        .filter(|bound| question.contains(*bound))
                    {
                        count(&mut bounds, (kind.name(), *bound == "at least"), *yes);
                    }
                }
            }
        }
        if document.role == Role::Respond {
            let text = document.messages.last().unwrap().content.to_lowercase();
            let topic = TOPICS
                .iter()
                .any(|topic| user.to_lowercase().contains(topic) && text.contains(topic));
            named.0 += usize::from(topic);
            named.1 += 1;
        }
        if document.role == Role::Respond && !document.checks.is_empty() {
            broken.1 += 1;
            broken.0 += usize::from(document.checks.iter().any(|(_, yes)| !yes));
        }
    }
    let weights = Mix::default().roles;
    let total = 131.0;
    for (role, weight) in [
        (Role::Respond, weights.respond),
        (Role::JudgeLogits, weights.judge_logits),
        (Role::Skill, weights.skill),
        (Role::Compose, weights.compose),
        (Role::Correct, weights.correct),
        (Role::Decif, weights.decif),
    ] {
        let found = roles[&role] as f64 / all.len() as f64;
        assert!((found - weight / total).abs() < 0.01, "{role:?} {found}");
    }
    println!(
        "broken {:.3}, topic named {:.3}",
        share(broken),
        share(named)
    );
    assert!((0.33..0.42).contains(&share(broken)), "{}", share(broken));
    assert!(share(named) > 0.98, "{}", share(named));
    assert_eq!(
        (followed.len(), judged.len(), explained.len()),
        (29, 29, 29)
    );
    for kind in AskKind::all() {
        let name = kind.name();
        println!(
            "{name:45} followed {:.2} judge {:.2} {} explain {:.2}",
            share(followed[&kind]),
            share(judged[&kind]),
            judged[&kind].1,
            share(explained[&kind])
        );
        assert!((0.65..0.92).contains(&share(followed[&kind])), "{name}");
        assert!((share(judged[&kind]) - 0.5).abs() < 0.15, "{name}");
        assert!((share(explained[&kind]) - 0.5).abs() < 0.17, "{name}");
    }
    for (key, cell) in &bounds {
        println!("{key:?} {:.2} {}", share(*cell), cell.1);
        assert!(cell.1 < 100 || (share(*cell) - 0.5).abs() < 0.15, "{key:?}");
    }
}

#[test]
fn training_never_says_what_is_held_out() {
    let held_out = corpus(0)
        .held_out(Sizes {
            respond: 60,
            judge: 4,
            compose: 20,
            copy: 20,
        })
        .unwrap();
    let texts: BTreeSet<String> = documents(14, 6000)
        .iter()
        .flat_map(|document| {
            document
                .messages
                .iter()
                .map(|message| message.content.clone())
        })
        .collect();
    let everything: String = texts
        .iter()
        .flat_map(|text| [text.as_str(), "\n"])
        .collect();
    for item in &held_out {
        assert!(
            !texts.contains(&item.messages.last().unwrap().content),
            "{}",
            item.key
        );
        for (id, kwargs) in item.instruction_id_list.iter().zip(&item.kwargs) {
            if id == "keywords:existence" && item.set == Set::Respond {
                let word = kwargs["keywords"][0].as_str().unwrap();
                assert!(!everything.contains(&format!("word {word}.")), "{word}");
            }
        }
    }
    for phrase in [
        "Work in the word",
        "Leave out every comma",
        "Is the mood",
        "Set double quotes",
        "Give me an idea of",
    ] {
        assert!(!everything.contains(phrase), "{phrase}");
    }
}

#[test]
fn held_out_prompts_can_be_scored() {
    let sizes = Sizes {
        respond: 20,
        judge: 4,
        compose: 10,
        copy: 8,
    };
    let items = corpus(0).held_out(sizes).unwrap();
    let mut texts = 0;
    assert_eq!(items.len(), 3 * 20 + 29 * 4 + 3 * 10 + 8);
    let names: BTreeSet<&str> = items.iter().map(|item| item.key.as_str()).collect();
    assert_eq!(names.len(), items.len());
    let mut splits = BTreeSet::new();
    let mut labels: Shares<&str> = Shares::new();
    for item in &items {
        let again: Item = serde_json::from_str(&serde_json::to_string(item).unwrap()).unwrap();
        assert_eq!(again, *item);
        assert_eq!(item.messages.last().unwrap().role, "user");
        splits.insert(format!("{:?} {:?}", item.set, item.split));
        let asks = item.asks().unwrap();
        match item.set {
            Set::Judge => count(
                &mut labels,
                &item.kind,
                item.expected.as_deref() == Some("YES"),
            ),
            Set::Respond => {
                assert!(!item.instruction_id_list.is_empty());
                if let Some(text) = &item.text {
                    assert!(score(item, text).unwrap().passed, "{item:?}");
                    texts += 1;
                }
            }
            Set::Compose => assert!((1..=2).contains(&asks.len())),
            Set::Explain => unreachable!("these are asked about answers of a model"),
            Set::Copy => {}
        }
        if let Some(expected) = &item.expected {
            assert!(score(item, expected).unwrap().passed);
            assert!(!score(item, "something else").unwrap().passed);
        } else {
            assert!(!score(item, "").unwrap().passed);
        }
    }
    assert!(texts >= 57, "{texts} of 60 requests have an answer");
    assert_eq!(splits.len(), 3 + 2 + 3 + 1, "{splits:?}");
    assert!(
        labels.values().all(|(yes, all)| 2 * yes == *all),
        "{labels:?}"
    );
}

#[test]
fn the_model_s_own_answers_get_the_rules_verdict() {
    let corpus = corpus(0);
    let requests = corpus.requests(120).unwrap();
    assert!(requests.iter().all(|item| item.split == Split::Train));
    let mut all = Vec::new();
    for (index, item) in requests.iter().enumerate() {
        let asks = item.asks().unwrap();
        let judged = corpus
            .judge_sampled(&asks, "the fox is red, and it sings.", index as u64)
            .unwrap();
        assert_eq!(judged.len(), 2 * item.instruction_id_list.len());
        let scored = score(item, "the fox is red, and it sings.").unwrap();
        for (both, (_, followed)) in judged.chunks(2).zip(&scored.checks) {
            let verdict = if *followed { "YES" } else { "NO" };
            assert_eq!(both[0].messages.last().unwrap().content, verdict);
            let written: Value =
                serde_json::from_str(&both[1].messages.last().unwrap().content).unwrap();
            assert_eq!(written["verdicts"][0]["verdict"], verdict);
        }
        all.extend(judged);
    }
    let mut kinds: Shares<(Role, &str)> = Shares::new();
    let kept = balanced(all.clone());
    for document in &kept {
        count(
            &mut kinds,
            (document.role, document.kind),
            document.checks[0].1,
        );
    }
    assert!(kept.len() < all.len() && !kept.is_empty());
    assert!(
        kinds.values().all(|(yes, all)| 2 * yes == *all),
        "{kinds:?}"
    );
}

#[test]
fn equal_seeds_give_equal_documents() {
    let lines: Vec<String> = documents(0, 1000)
        .iter()
        .map(|one| serde_json::to_string(one).unwrap())
        .collect();
    let digest = blake3::hash(lines.join("\n").as_bytes()).to_hex();
    assert_eq!(&digest[..16], "a37bf80aac24b2b4");
    // A document does not depend on those before it.
    assert_eq!(
        serde_json::to_string(&corpus(0).document(999).unwrap()).unwrap(),
        lines[999]
    );
    assert_ne!(
        serde_json::to_string(&corpus(1).document(999).unwrap()).unwrap(),
        lines[999]
    );
}

#[test]
fn documents_are_short() {
    // Some four bytes are a token at a vocabulary of 2,048: 256 tokens.
    let mut lengths: BTreeMap<Role, Vec<usize>> = BTreeMap::new();
    for document in documents(15, 10_000) {
        let bytes = document
            .messages
            .iter()
            .map(|message| message.content.len() + 8)
            .sum();
        lengths.entry(document.role).or_default().push(bytes);
    }
    for (role, mut lengths) in lengths {
        lengths.sort_unstable();
        let most = lengths[lengths.len() * 99 / 100];
        assert!(most < 1000, "{role:?}: {most} bytes");
    }
}

#[test]
fn the_seeds_are_those_of_the_corpus() {
    let file = folder().join("../seeds.jsonl");
    let lines: Vec<Value> = std::fs::read_to_string(file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 360);
    let mix = std::fs::read_to_string(folder().join("../final.toml")).unwrap();
    let corpus = Corpus::new(&folder(), Mix::parse(&mix).unwrap(), 0).unwrap();
    for (made, line) in corpus.seeds(360).unwrap().iter().zip(&lines) {
        assert_eq!(made, line);
    }
}

#[test]
fn the_held_out_requests_are_those_of_the_corpus() {
    let text = |name: &str| std::fs::read_to_string(folder().join("..").join(name)).unwrap();
    let corpus = Corpus::new(&folder(), Mix::parse(&text("final.toml")).unwrap(), 0).unwrap();
    let items = corpus.held_out(Sizes::default()).unwrap();
    let made: Vec<Item> = items
        .into_iter()
        .filter(|item| item.set == Set::Respond)
        .collect();
    let kept = text("held-out.jsonl");
    let kept: Vec<Value> = kept
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(made.len(), kept.len());
    for (item, row) in made.iter().zip(&kept) {
        assert_eq!(row["prompt"], *item.prompt);
        assert_eq!(row["instruction_id_list"], json!(item.instruction_id_list));
        assert_eq!(row["text"].as_str(), item.text.as_deref());
    }
    let right = |item: &Item| score(item, item.text.as_deref().unwrap_or_default()).unwrap();
    let answered = made.iter().filter(|item| item.text.is_some());
    assert!(answered.clone().all(|item| right(item).passed));
    assert!(answered.count() > 290);
}

#[test]
fn the_kinds_on_offer_were_trained() {
    let text = |name: &str| std::fs::read_to_string(folder().join("..").join(name)).unwrap();
    let mix = Mix::parse(&text("final.toml")).unwrap();
    let trained: Vec<&str> = AskKind::all()
        .into_iter()
        .filter(|kind| matches!(kind, AskKind::Rule(_)) && mix.weight(*kind) > 0.0)
        .map(AskKind::name)
        .collect();
    let listed = text("kinds.txt");
    assert!(listed.lines().count() >= 8);
    assert!(listed.lines().all(|kind| trained.contains(&kind)));
}

#[test]
fn the_primer_only_repeats() {
    let text = std::fs::read_to_string(folder().join("../primer.toml")).unwrap();
    let corpus = Corpus::new(&folder(), Mix::parse(&text).unwrap(), 0).unwrap();
    for index in 0..200 {
        let document = corpus.document(index).unwrap();
        let user = &document.messages[0].content;
        assert_eq!(
            *user,
            format!("[repeat]:\n{}", document.messages[1].content)
        );
    }
}

#[test]
fn a_mix_has_to_leave_kinds_that_go_together() {
    let mut text = "[kinds]\n".to_owned();
    for kind in AskKind::all().iter().skip(8) {
        text += &format!("\"{}\" = 0.0\n", kind.name());
    }
    let corpus = Corpus::new(&folder(), Mix::parse(&text).unwrap(), 0).unwrap();
    for index in 0..300 {
        let document = corpus.document(index).unwrap();
        let known = AskKind::all()[..8].to_vec();
        assert!(document.checks.iter().all(|(kind, _)| known.contains(kind)));
    }
    let error = Mix::parse(&format!("{text}\"keywords:existence\" = 0.0\n")).unwrap_err();
    assert!(error.to_string().contains("at least 8"), "{error}");
}

#[test]
fn the_model_s_wordings_of_constraints_are_those_of_the_corpus() {
    let prompts = PromptSet::with_overrides(&folder()).unwrap();
    let mut state = 5_u64;
    let mut bits = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 31
    };
    let (mut known, mut others) = (BTreeSet::new(), BTreeSet::new());
    for kind in verify::compose::Kind::ALL {
        for choice in 0..90_u64 {
            let material = verify::compose::Material::default();
            let constraint = verify::compose::sample(kind, &material, &mut bits);
            let text = verify::compose::describe(&constraint, choice);
            let variables = json!({
                "id": kind.id(), "kwargs": constraint.kwargs(), "text": text, "choice": choice,
            });
            let form = prompts.get("complex-to-simple/constraint");
            let said = form.render(variables).unwrap()[0].content.clone();
            if said == text {
                others.insert(kind.id());
                continue;
            }
            known.insert(kind.id());
            let read = read_demand(&said).unwrap_or_else(|| panic!("{said}"));
            assert_eq!(read.rule(), Some(&constraint), "{said}");
            verify::compose::mentions_parameters(&constraint, &said)
                .unwrap_or_else(|error| panic!("{said}: {error}"));
            let form = prompts.get("complex-to-simple/instruction");
            let variables =
                json!({"seed": "Say it.", "constraints": [said, said], "choice": choice});
            let whole = form.render(variables).unwrap()[0].content.clone();
            assert_eq!(whole, format!("Say it. {said} {said}"));
        }
    }
    // All rules of the corpus have its wording; lists of words and the second marker have not,
    // and of three types it knows nothing.
    assert_eq!(known.len(), corpus::RULES.len());
    assert_eq!(others.difference(&known).count(), 3, "{others:?}");
}
