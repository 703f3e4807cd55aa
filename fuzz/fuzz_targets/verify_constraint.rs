//! An id and its parameters: the first line and the rest of the input.
#![no_main]
use libfuzzer_sys::fuzz_target;
use verify::Constraint;

fuzz_target!(|input: &str| {
    let Some((id, kwargs)) = input.split_once('\n') else {
        return;
    };
    let Ok(kwargs) = serde_json::from_str(kwargs) else {
        return;
    };
    if let Ok(constraint) = Constraint::from_ifeval(id, &kwargs) {
        let again = Constraint::from_ifeval(id, &constraint.kwargs());
        assert_eq!(again.as_ref(), Ok(&constraint));
        let _verdict = constraint.check("The cat sat. *Here* it is.");
    }
});
