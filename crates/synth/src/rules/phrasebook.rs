//! Plain phrasings of rules, as data. Fields in braces: `{w}` a word, `{b}` a bound ("at least
//! three"), `{n}` and `{m}` numbers in words, `{t}` a text. The model inside the program was
//! trained on these words, the last of each list excepted.

/// The phrasings of one kind.
#[derive(Debug)]
pub struct Phrases {
    /// Id of the kind, as IFEval has it, or its name.
    pub kind: &'static str,
    /// Demands, a sentence each.
    pub demands: [&'static str; 4],
    /// Questions that YES answers where the demand was met.
    pub questions: [&'static str; 3],
}

/// One entry for each kind of rule.
pub static PHRASEBOOK: [Phrases; 22] = [
    Phrases {
        kind: "keywords:existence",
        demands: [
            "Include the word {w}.",
            "Use the word {w} somewhere.",
            "The answer must mention the word {w}.",
            "Work in the word {w}.",
        ],
        questions: [
            "Does the answer include the word {w}?",
            "Is the word {w} in the answer?",
            "Can the word {w} be found in the text?",
        ],
    },
    Phrases {
        kind: "keywords:frequency",
        demands: [
            "Say {w} {b} times.",
            "Use the word {w} {b} times.",
            "The word {w} should occur {b} times.",
            "Repeat {w} so that it stands there {b} times.",
        ],
        questions: [
            "Does the word {w} occur {b} times?",
            "Is {w} used {b} times?",
            "Do we read {w} {b} times?",
        ],
    },
    Phrases {
        kind: "keywords:forbidden_words",
        demands: [
            "Do not use the word {w}.",
            "Avoid the word {w}.",
            "Leave out the word {w}.",
            "Never write the word {w}.",
        ],
        questions: [
            "Does the answer avoid the word {w}?",
            "Is the word {w} left out?",
            "Is the text free of the word {w}?",
        ],
    },
    Phrases {
        kind: "keywords:letter_frequency",
        demands: [
            "Use the letter {w} {b} times.",
            "The letter {w} must occur {b} times.",
            "Let the letter {w} appear {b} times.",
            "Write {b} times the letter {w}.",
        ],
        questions: [
            "Does the letter {w} occur {b} times?",
            "Is the letter {w} used {b} times?",
            "Are there {b} letters {w}?",
        ],
    },
    Phrases {
        kind: "detectable_content:postscript",
        demands: [
            "Add a postscript that starts with P.S.",
            "Put a P.S. after the text.",
            "Close with a note marked P.S.",
            "Append a P.S. to the answer.",
        ],
        questions: [
            "Is there a postscript marked P.S.?",
            "Does the answer have a P.S.?",
            "Does a note marked P.S. follow?",
        ],
    },
    Phrases {
        kind: "startend:end_checker",
        demands: [
            "End with the words \"{t}\".",
            "The last words must be \"{t}\".",
            "Finish with \"{t}\" and nothing more.",
            "Let \"{t}\" be the very end.",
        ],
        questions: [
            "Does the answer end with \"{t}\"?",
            "Are the last words \"{t}\"?",
            "Does \"{t}\" close the answer?",
        ],
    },
    Phrases {
        kind: "detectable_content:number_placeholders",
        demands: [
            "Leave at least {n} placeholders in square brackets.",
            "Use at least {n} placeholders such as [name].",
            "Put in at least {n} square brackets to be filled.",
            "I want {n} or more placeholders in square brackets.",
        ],
        questions: [
            "Are there at least {n} placeholders in square brackets?",
            "Does the answer have at least {n} placeholders?",
            "Can {n} or more square brackets be filled?",
        ],
    },
    Phrases {
        kind: "length_constraints:number_sentences",
        demands: [
            "Write {b} sentences.",
            "Use {b} sentences.",
            "The answer should have {b} sentences.",
            "Keep it to {b} sentences.",
        ],
        questions: [
            "Does the answer have {b} sentences?",
            "Are there {b} sentences?",
            "Is the number of sentences {b}?",
        ],
    },
    Phrases {
        kind: "length_constraints:number_words",
        demands: [
            "Write {b} words.",
            "Use {b} words.",
            "The length should be {b} words.",
            "Keep the text to {b} words.",
        ],
        questions: [
            "Does the answer have {b} words?",
            "Is the length {b} words?",
            "Is the number of words {b}?",
        ],
    },
    Phrases {
        kind: "length_constraints:number_paragraphs",
        demands: [
            "Write {n} paragraphs with *** between them.",
            "Divide the text into {n} paragraphs by ***.",
            "Give me exactly {n} paragraphs divided by ***.",
            "Use *** to part the text into {n} paragraphs.",
        ],
        questions: [
            "Are there exactly {n} paragraphs divided by ***?",
            "Does *** divide the answer into {n} paragraphs?",
            "Do we find {n} paragraphs with *** between them?",
        ],
    },
    Phrases {
        kind: "length_constraints:nth_paragraph_first_word",
        demands: [
            "Write {n} paragraphs with blank lines between them and begin paragraph {m} with \"{t}\".",
            "Use {n} paragraphs with blank lines between them; paragraph {m} must start with \"{t}\".",
            "In {n} paragraphs with blank lines between them let paragraph {m} open with \"{t}\".",
            "Make {n} paragraphs, set apart by blank lines, with \"{t}\" as the first word of paragraph {m}.",
        ],
        questions: [
            "Are there {n} paragraphs and does paragraph {m} begin with \"{t}\"?",
            "Of {n} paragraphs, does paragraph {m} start with \"{t}\"?",
            "With {n} paragraphs in all, is \"{t}\" the first word of paragraph {m}?",
        ],
    },
    Phrases {
        kind: "detectable_format:number_bullet_lists",
        demands: [
            "Use exactly {n} bullet points.",
            "Write {n} bullet points.",
            "The answer must have exactly {n} bullets.",
            "Put it into {n} bullet points.",
        ],
        questions: [
            "Are there exactly {n} bullet points?",
            "Does the answer have {n} bullet points?",
            "Is the number of bullets {n}?",
        ],
    },
    Phrases {
        kind: "detectable_format:number_highlighted_sections",
        demands: [
            "Highlight at least {n} words with asterisks.",
            "Put at least {n} words between asterisks.",
            "Mark at least {n} words like *this*.",
            "Set {n} or more words in *asterisks*.",
        ],
        questions: [
            "Are at least {n} words highlighted with asterisks?",
            "Do at least {n} words stand between asterisks?",
            "Are {n} or more words in asterisks?",
        ],
    },
    Phrases {
        kind: "detectable_format:multiple_sections",
        demands: [
            "Write at least {n} sections headed {w} 1 and so on.",
            "Divide it into at least {n} sections; head them {w} 1 and so on.",
            "Use at least {n} headings like {w} 1.",
            "Number {n} or more sections after the word {w}.",
        ],
        questions: [
            "Are there at least {n} sections headed {w} and a number?",
            "Does the answer have at least {n} headings with {w} and a number?",
            "Do {n} or more sections have a number after {w}?",
        ],
    },
    Phrases {
        kind: "change_case:capital_word_frequency",
        demands: [
            "Write {b} words in capital letters.",
            "Put {b} words in capitals.",
            "Use capitals for {b} words.",
            "Let {b} words shout in capitals.",
        ],
        questions: [
            "Are {b} words in capital letters?",
            "Does the answer have {b} words in capitals?",
            "Do {b} words shout in capitals?",
        ],
    },
    Phrases {
        kind: "detectable_format:json_format",
        demands: [
            "Answer in JSON.",
            "The whole answer must be JSON.",
            "Write nothing but JSON.",
            "Wrap everything up as JSON.",
        ],
        questions: [
            "Is the answer valid JSON?",
            "Is the whole answer JSON?",
            "Can the text be read as JSON?",
        ],
    },
    Phrases {
        kind: "detectable_format:title",
        demands: [
            "Add a title in double angle brackets like <<this>>.",
            "Start with a <<title>>.",
            "Give it a title in << and >>.",
            "Put a heading in the form <<heading>>.",
        ],
        questions: [
            "Is there a title in double angle brackets?",
            "Does the answer have a <<title>>?",
            "Is a heading set in << and >>?",
        ],
    },
    Phrases {
        kind: "combination:two_responses",
        demands: [
            "Give two different answers with ****** between them.",
            "Answer twice and put ****** between the two.",
            "Write two answers divided by ******.",
            "I want a pair of answers with ****** in the middle.",
        ],
        questions: [
            "Are there two different answers with ****** between them?",
            "Does ****** divide two different answers?",
            "Is ****** between a pair of answers?",
        ],
    },
    Phrases {
        kind: "change_case:english_capital",
        demands: [
            "Use capital letters only.",
            "Write everything in capital letters.",
            "All letters must be capitals.",
            "Keep the whole text in upper case.",
        ],
        questions: [
            "Is the answer in capital letters only?",
            "Are all letters capitals?",
            "Is the whole text in upper case?",
        ],
    },
    Phrases {
        kind: "change_case:english_lowercase",
        demands: [
            "Use small letters only.",
            "Write everything in small letters.",
            "Do not use any capital letters.",
            "Keep the whole text in lower case.",
        ],
        questions: [
            "Is the answer in small letters only?",
            "Are all letters small?",
            "Is the whole text in lower case?",
        ],
    },
    Phrases {
        kind: "startend:quotation",
        demands: [
            "Put the whole answer in double quotes.",
            "Begin and end with a double quote.",
            "Wrap the answer in double quotes.",
            "Set double quotes around it all.",
        ],
        questions: [
            "Is the whole answer in double quotes?",
            "Does the answer begin and end with a double quote?",
            "Do double quotes surround it all?",
        ],
    },
    Phrases {
        kind: "punctuation:no_comma",
        demands: [
            "Do not use any commas.",
            "Write without commas.",
            "Use no commas.",
            "Leave out every comma.",
        ],
        questions: [
            "Is the answer free of commas?",
            "Is the answer without commas?",
            "Has every comma been left out?",
        ],
    },
];
