//! `score`.

use crate::harness::Place;

#[test]
fn the_trained_answer_is_likelier() {
    let place = Place::new();
    let args = [
        "score",
        "-p",
        "Where is the lamp?",
        "--choice",
        "The lamp",
        "--choice",
        "The sea",
        "--json",
    ];
    let json = place.json(&args);
    let one = &json["suffixes"][0];
    let (lamp, sea) = (
        one["probabilities"][0].as_f64().unwrap(),
        one["probabilities"][1].as_f64().unwrap(),
    );
    assert!(lamp > 0.9 && (lamp + sea - 1.0).abs() < 1e-5, "{json}");
    let mass = one["mass"].as_f64().unwrap();
    assert!(0.0 < mass && mass <= 1.0 + 1e-5, "{json}");
}

#[test]
fn suffixes_are_scored_apart_and_as_if_alone() {
    let place = Place::new();
    let base = [
        "score",
        "--raw",
        "-p",
        "The lamp is",
        "--choice",
        " warm",
        "--choice",
        " deep",
        "--json",
    ];
    let both = place.json(&[&base[..], &["--suffix", " not", "--suffix", ""]].concat());
    assert_eq!(both["suffixes"].as_array().unwrap().len(), 2);
    let alone = place.json(&[&base[..], &["--suffix", " not"]].concat());
    assert_eq!(both["suffixes"][0], alone["suffixes"][0]);
    assert_ne!(
        both["suffixes"][0]["logprobs"],
        both["suffixes"][1]["logprobs"]
    );
}

#[test]
fn a_table_for_people() {
    let finished = Place::new().good(&[
        "score", "-p", "Hello!", "--choice", "Hello", "--choice", "Yes",
    ]);
    let lines: Vec<_> = finished.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", finished.stdout);
    assert!(lines[1].contains("\"Hello\""), "{}", finished.stdout);
}
