//! `chat` by standard input.

use crate::harness::Place;

#[test]
fn turns_line_by_line() {
    let place = Place::new();
    let args = ["chat", "--temperature", "0"];
    let finished = place.run_with_input(
        &args,
        "Where is the lamp?\n\n/reset\nWhere is the clock?\n/exit\nHello!\n",
    );
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(
        finished.stdout,
        "The lamp is beside the piano.\nThe clock is on the station wall.\n"
    );
    assert_eq!(finished.stderr, "", "nobody watches");
}

#[test]
fn the_history_is_read() {
    let place = Place::new();
    let args = ["chat", "--temperature", "0", "--context", "40"];
    let finished = place.run_with_input(
        &args,
        "Where is the lamp?\nWhere is the lamp?\nWhere is the lamp?\n",
    );
    assert_eq!(
        finished.code,
        Some(4),
        "the third turn does not fit: {finished:?}"
    );
    assert!(
        finished.stderr.contains("the context holds 40"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_model_without_a_template_is_refused() {
    let place = Place::new();
    let empty = place.write("raises.jinja", "{{ raise_exception('only questions') }}");
    let args = ["chat", "--chat-template", empty.to_str().unwrap()];
    let finished = place.run_with_input(&args, "Hello!\n");
    assert_eq!(finished.code, Some(4), "{finished:?}");
    assert!(
        finished.stderr.contains("only questions"),
        "{}",
        finished.stderr
    );
}
