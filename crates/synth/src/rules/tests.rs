//! What has a rule, and what must not have one.
#![expect(clippy::too_many_lines, reason = "tables of texts")]

use super::*;
use serde_json::json;
use verify::compose::{Draws, Kind, Material, describe, phrasings, sample, satisfying_text};

const REQUEST: &str = "Tell me something about the harbour in the north and its old boats.";

fn records(text: &str) -> Option<Value> {
    recognise(text, REQUEST).map(|rule| json!(rule.records()))
}

#[test]
fn every_phrasing_of_the_describer_is_read_back() {
    for kind in Kind::ALL {
        for seed in 0..60 {
            let mut draws = Draws::new(seed);
            let constraint = sample(kind, &Material::default(), &mut || draws.bits());
            let expected = Rule::all([constraint.clone()]);
            for text in phrasings(&constraint) {
                let found = recognise(&text, REQUEST);
                assert_eq!(found.as_ref(), Some(&expected), "{text}");
            }
            // As the constraint of a question that nobody can count, too.
            let text = describe(&constraint, seed);
            let question = "Does the response do what is asked?";
            assert_eq!(
                rule_for(Some(&text), question, REQUEST),
                Some(expected),
                "{text}"
            );
        }
    }
}

#[test]
fn a_rule_judges_as_its_constraint_does() {
    for kind in Kind::ALL {
        let mut draws = Draws::new(7);
        let constraint = sample(kind, &Material::default(), &mut || draws.bits());
        let rule = recognise(&describe(&constraint, 1), REQUEST).unwrap();
        let good = satisfying_text(std::slice::from_ref(&constraint)).unwrap();
        assert!(rule.check(&good).followed, "{kind}: {good}");
        let bad = verify::compose::violating_text(&constraint).unwrap();
        assert!(!rule.check(&bad).followed, "{kind}: {bad}");
        assert!(!rule.check("  ").followed, "{kind}");
    }
}

#[test]
fn common_phrasings_have_rules() {
    let one = |id: &str, args: Value| json!([{"id": id, "args": args, "negated": false}]);
    let bounds = |id: &str, name: &str, list: &[(&str, usize)]| {
        let records = list.iter().map(|(relation, count)| {
            json!({"id": id, "args": {"relation": relation, name: count}, "negated": false})
        });
        Value::Array(records.collect())
    };
    let words = |list: &[_]| bounds("length_constraints:number_words", "num_words", list);
    let sentences =
        |list: &[_]| bounds("length_constraints:number_sentences", "num_sentences", list);
    let check = |expected: Value, texts: &[&str]| {
        for text in texts {
            assert_eq!(records(text).as_ref(), Some(&expected), "{text}");
        }
    };
    check(
        words(&[("at least", 100)]),
        &[
            "at least 100 words",
            "Please write at least 100 words.",
            "The response must be at least 100 words long.",
            "Is the response at least 100 words long?",
            "Does the answer contain a minimum of 100 words?",
            "Use 100 or more words",
            "100 words minimum",
            "no fewer than 100 words in total",
        ],
    );
    check(
        words(&[("less than", 1501)]),
        &[
            "at most 1,500 words",
            "no more than 1500 words",
            "Keep your answer within 1500 words.",
            "Limit the response to 1,500 words.",
            "Is the response limited to 1500 words?",
            "Does the response not exceed 1500 words?",
            "Your answer should not exceed 1500 words.",
            "1500 words or fewer",
            "Does the response stay within 1500 words?",
            "maximum 1500 words",
        ],
    );
    check(
        words(&[("less than", 50)]),
        &[
            "under 50 words",
            "Is the response fewer than fifty words?",
            "in less than 50 words",
        ],
    );
    check(
        words(&[("at least", 100), ("less than", 151)]),
        &[
            "between 100 and 150 words",
            "100-150 words",
            "Is the answer between 100 and 150 words long?",
        ],
    );
    check(
        sentences(&[("at least", 3), ("less than", 4)]),
        &[
            "exactly three sentences",
            "Does the response consist of exactly 3 sentences?",
        ],
    );
    check(sentences(&[("at least", 6)]), &["more than five sentences"]);
    check(
        one(
            "detectable_format:number_bullet_lists",
            json!({"num_bullets": 3}),
        ),
        &[
            "Use exactly three bullet points.",
            "Does the response include exactly 3 bullet points?",
            "Are there exactly three bullet points in the response?",
        ],
    );
    let fewer = |count: usize| json!({"id": "detectable_format:number_bullet_lists", "args": {"num_bullets": count}, "negated": true});
    check(
        json!([fewer(0), fewer(1), fewer(2)]),
        &[
            "Use at least three bullet points.",
            "Does the response contain at least 3 bullet points?",
        ],
    );
    check(
        one("keywords:existence", json!({"keywords": ["tea", "Milk"]})),
        &[
            "Include the words \"tea\" and \"Milk\".",
            "Does the response use the words 'tea' and 'Milk'?",
            "The response must contain both of the keywords “tea” and “Milk”",
            "Are the words \"tea\" and \"Milk\" used in the response?",
        ],
    );
    check(
        one(
            "keywords:existence",
            json!({"keywords": ["climate change"]}),
        ),
        &["Mention the phrase \"climate change\" at least once."],
    );
    check(
        one(
            "keywords:forbidden_words",
            json!({"forbidden_words": ["tea", "milk"]}),
        ),
        &[
            "Do not use the words \"tea\" or \"milk\".",
            "Does the response avoid using the words \"tea\" and \"milk\"?",
            "Is the response free of the words 'tea' and 'milk'?",
            "Avoid the words \"tea,\" and \"milk.\"",
            "The words \"tea\" and \"milk\" must not appear in the response.",
        ],
    );
    check(
        one(
            "keywords:frequency",
            json!({"keyword": "tea", "relation": "at least", "frequency": 2}),
        ),
        &[
            "Use the word \"tea\" at least twice.",
            "Does the word 'tea' appear at least two times in the response?",
            "The word \"tea\" should appear 2 or more times.",
        ],
    );
    check(
        one(
            "keywords:letter_frequency",
            json!({"letter": "e", "let_relation": "less than", "let_frequency": 1}),
        ),
        &[
            "Do not use the letter 'e'.",
            "Avoid the letter e.",
            "Is the response written without using the letter \"E\"?",
        ],
    );
    check(
        one("language:response_language", json!({"language": "fr"})),
        &[
            "Write your answer in French.",
            "Is the response written entirely in French?",
            "Respond only in French",
        ],
    );
    check(
        one("change_case:english_lowercase", json!({})),
        &[
            "Use only lowercase letters.",
            "No capital letters are allowed.",
            "The response must be in English and all lowercase letters.",
            "Is the entire response in lowercase?",
            "Write the response in all lowercase letters",
            "Does the response avoid using any capital letters?",
        ],
    );
    check(
        one("change_case:english_capital", json!({})),
        &[
            "Is the response written in all capital letters?",
            "Your entire response should be in English, and in all capital letters.",
            "Respond in all caps.",
        ],
    );
    check(
        one("punctuation:no_comma", json!({})),
        &[
            "no commas",
            "Don't use commas",
            "You are not allowed to use any commas in your response.",
            "Does the response avoid using any commas?",
            "Is the response free of commas?",
            "Does the response contain no commas?",
            "The response should not contain any commas.",
        ],
    );
    check(
        one("detectable_format:title", json!({})),
        &[
            "Include a title wrapped in double angular brackets, such as <<poem of joy>>.",
            "Does the response have a title in <<this form>>?",
        ],
    );
    check(
        one("detectable_format:json_format", json!({})),
        &[
            "The entire response must be in JSON format.",
            "Is the response valid JSON?",
            "Format your entire response as JSON",
        ],
    );
    check(
        one("startend:quotation", json!({})),
        &[
            "Wrap your entire response in double quotation marks.",
            "Is the response wrapped in double quotes?",
        ],
    );
    check(
        one(
            "startend:end_checker",
            json!({"end_phrase": "Is there anything else?"}),
        ),
        &[
            "End with the phrase \"Is there anything else?\"",
            "Does the response end with the exact phrase 'Is there anything else?'",
        ],
    );
    check(
        one(
            "combination:repeat_prompt",
            json!({"prompt_to_repeat": "Once upon a time"}),
        ),
        &[
            "Start with the phrase \"Once upon a time\".",
            "Does the response begin with 'Once upon a time'?",
        ],
    );
    check(
        one(
            "detectable_content:postscript",
            json!({"postscript_marker": "P.S."}),
        ),
        &[
            "Add a postscript starting with P.S.",
            "At the end of your response, please explicitly add a postscript starting with P.S.",
            "Does the response include a postscript starting with \"P.S.\"?",
        ],
    );
    check(
        one(
            "detectable_content:number_placeholders",
            json!({"num_placeholders": 3}),
        ),
        &[
            "Include at least three placeholders in square brackets, such as [name].",
            "Make sure to include at least 3 placeholder represented by square brackets, such as [address], [name].",
        ],
    );
    check(
        one(
            "detectable_format:number_highlighted_sections",
            json!({"num_highlights": 2}),
        ),
        &[
            "Highlight at least 2 sections in your answer with markdown, i.e. *highlighted section*.",
        ],
    );
}

#[test]
fn where_there_is_doubt_there_is_no_rule() {
    for text in [
        "",
        "Be concise.",
        "at least 3 examples of bullet journals",
        "about 100 words",
        "around 100 words",
        "approximately 3 sentences",
        "100 words",
        "Write 3 sentences.",
        "a few sentences",
        "Use three bullet points.",
        "Use bullet points.",
        "at most 5 bullet points",
        "at least 3 sentences about the harbour",
        "at least 3 sentences per paragraph",
        "at least 3 sentences in the first paragraph",
        "Each bullet point must be at least 10 words long.",
        "The summary should be at least 100 words.",
        "The title must be under 10 words.",
        "If the answer is long, use at least three bullet points.",
        "Use at least three bullet points and a table.",
        "Use at least three bullet points unless it is a poem.",
        "at least 3 long words",
        "at least 100 words but no more than 50 sentences",
        "no sentence longer than 20 words",
        "Does the response contain any commas?",
        "Does the response exceed 100 words?",
        "Does the response fail to include the word \"tea\"?",
        "Is the response not in French?",
        "Is the response not at least 100 words long?",
        "Does the response use the word \"tea\" in the first sentence?",
        "Does the response use the word \"tea\" as a verb?",
        "Include the word \"tea\" or \"milk\".",
        "Mention \"the Great War\".",
        "Include a quote from \"Hamlet\".",
        "Use the word \"tea\" twice.",
        "Use the word tea.",
        "Include the phrase \"C++\".",
        "Include a word that means \"tea\".",
        "Avoid commas in the title.",
        "Use few commas.",
        "Use commas sparingly.",
        "avoid jargon",
        "in French cuisine",
        "in French",
        "Write in Klingon.",
        "Write the title in French.",
        "Use lowercase letters for names.",
        "Start each sentence with a capital letter.",
        "Use capital letters.",
        "Include a JSON example.",
        "in JSON",
        "Explain JSON.",
        "Give it a title.",
        "Wrap the title in double quotation marks.",
        "End with a question.",
        "End with \"no\".",
        "End with the phrase \"thank you\".",
        "End each paragraph with \"That is all.\"",
        "Start with the word \"a\".",
        "Add a postscript.",
        "two paragraphs",
        "exactly 3 paragraphs",
        "Include at least 3 placeholders.",
        "at least 0 words",
        "fewer than 1 words",
        "between 50 and 20 words",
        "an unclosed \"quote",
    ] {
        assert_eq!(records(text), None, "{text}");
    }
    // Of letter case only where English is expected.
    let german = "Erzähle mir etwas über den alten Hafen im Norden und seine Boote.";
    assert_eq!(recognise("Use only lowercase letters.", german), None);
    assert!(recognise("Use only lowercase letters.", REQUEST).is_some());
}

#[test]
fn constraint_and_question_have_to_agree() {
    let check = |constraint: Option<&str>, question: &str, expected: Option<&str>| {
        let found = rule_for(constraint, question, REQUEST);
        let expected = expected.and_then(|text| recognise(text, REQUEST));
        assert_eq!(found, expected, "{constraint:?} {question}");
    };
    let three = "at least 3 sentences";
    check(
        Some(three),
        "Does the response have at least three sentences?",
        Some(three),
    );
    check(
        None,
        "Does the response have at least three sentences?",
        Some(three),
    );
    check(Some(three), "Is the response long enough?", Some(three));
    check(
        Some("a certain length"),
        "Is the response at least 3 sentences long?",
        Some(three),
    );
    check(
        Some(three),
        "Does the response have at least 4 sentences?",
        None,
    );
    check(
        Some(three),
        "Are there 3 sentences with 10 words each?",
        None,
    );
    check(Some(three), "Do 3 sentences mention \"tea\"?", None);
    check(Some("about tea"), "Is it about tea?", None);
}

#[test]
fn bullets_are_counted() {
    let rule = recognise("Use at least two bullet points.", REQUEST).unwrap();
    let check = |text: &str, expected: bool| {
        let verdict = rule.check(text);
        assert_eq!(verdict.followed, expected, "{text}");
        assert_eq!(verdict.reason.is_none(), expected, "{text}");
    };
    check("So:\n* one\n* two\n* three", true);
    check("* one\n- two", true);
    check("* one", false);
    check("one, two", false);
    check("", false);
}

#[test]
fn the_plainest_phrasings_have_rules_and_their_questions_the_same() {
    // Demand, question, what it is.
    let alike = [
        (
            "Include the word helmet.",
            "Is the word helmet in the answer?",
            "keywords:existence",
        ),
        (
            "The answer must mention the word fox.",
            "Can the word fox be found in the text?",
            "keywords:existence",
        ),
        (
            "Avoid the word summer.",
            "Is the word summer left out?",
            "keywords:forbidden_words",
        ),
        (
            "Use the word fountain at least two times.",
            "Does the word fountain occur at least two times?",
            "keywords:frequency",
        ),
        (
            "Say magnet fewer than three times.",
            "Is magnet used fewer than three times?",
            "keywords:frequency",
        ),
        (
            "Put a P.S. after the text.",
            "Does the answer have a P.S.?",
            "detectable_content:postscript",
        ),
        (
            "Close with a note marked P.S.",
            "Is there a postscript marked P.S.?",
            "detectable_content:postscript",
        ),
        (
            "Start with a <<title>>.",
            "Is there a title in double angle brackets?",
            "detectable_format:title",
        ),
        (
            "Give it a title in << and >>.",
            "Does the answer have a <<title>>?",
            "detectable_format:title",
        ),
        (
            "Put the whole answer in double quotes.",
            "Does the answer begin and end with a double quote?",
            "startend:quotation",
        ),
        (
            "Write without commas.",
            "Is the answer free of commas?",
            "punctuation:no_comma",
        ),
        (
            "The last words must be \"so it is\".",
            "Are the last words \"so it is\"?",
            "startend:end_checker",
        ),
        (
            "Leave at least two placeholders in square brackets.",
            "Does the answer have at least two placeholders?",
            "detectable_content:number_placeholders",
        ),
        (
            "Put at least three words between asterisks.",
            "Are at least three words highlighted with asterisks?",
            "detectable_format:number_highlighted_sections",
        ),
        (
            "Write four bullet points.",
            "Is the number of bullets four?",
            "detectable_format:number_bullet_lists",
        ),
        (
            "Use exactly four bullet points.",
            "Does the answer have four bullet points?",
            "detectable_format:number_bullet_lists",
        ),
        (
            "All letters must be capitals.",
            "Is the answer in capital letters only?",
            "change_case:english_capital",
        ),
        (
            "Write everything in small letters.",
            "Are all letters small?",
            "change_case:english_lowercase",
        ),
    ];
    for (demand, question, id) in alike {
        let said = recognise(demand, REQUEST).unwrap_or_else(|| panic!("{demand}"));
        assert_eq!(
            Some(&said),
            recognise(question, REQUEST).as_ref(),
            "{demand} {question}"
        );
        assert_eq!(said.records()[0].id, id, "{demand}");
        assert_eq!(rule_for(Some(demand), question, REQUEST), Some(said));
    }
    for text in [
        "Is the word helmet?",
        "Include the word helmet and be brief.",
        "Use small letters only in the title.",
        "Put a P.S. after the text and a title before it.",
        "Say it three times.",
    ] {
        assert_eq!(recognise(text, REQUEST), None, "{text}");
    }
}
