//! Finding the end of a completion's text while it is being written.

/// What a new piece of text means for the completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopScan {
    /// A stop string begins at this byte of the text.
    Found(usize),
    /// No stop string yet; text up to this byte can no longer become part of one.
    Safe(usize),
}

/// Looks for the earliest stop string in `text`, of which everything before
/// `old_len` was scanned before.
pub(crate) fn scan(text: &str, old_len: usize, stops: &[String]) -> StopScan {
    let Some(longest) = stops.iter().map(String::len).max() else {
        return StopScan::Safe(text.len());
    };
    // A stop string that ends in the new part begins at most `longest - 1` bytes before it.
    let from = floor_boundary(text, old_len.saturating_sub(longest.saturating_sub(1)));
    let found = stops
        .iter()
        .filter_map(|stop| text[from..].find(stop.as_str()))
        .min();
    if let Some(offset) = found {
        return StopScan::Found(from + offset);
    }
    let tail_from = floor_boundary(text, text.len().saturating_sub(longest));
    let held = (tail_from..text.len())
        .filter(|start| text.is_char_boundary(*start))
        .find(|start| {
            stops
                .iter()
                .any(|stop| stop.as_bytes().starts_with(&text.as_bytes()[*start..]))
        });
    StopScan::Safe(held.unwrap_or(text.len()))
}

fn floor_boundary(text: &str, mut index: usize) -> usize {
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stops(list: &[&str]) -> Vec<String> {
        list.iter().map(|stop| (*stop).to_owned()).collect()
    }

    #[test]
    fn earliest_stop_wins_and_prefixes_are_held_back() {
        let cases: &[(&str, usize, &[&str], StopScan)] = &[
            ("abc", 0, &[], StopScan::Safe(3)),
            ("abcEND", 3, &["END"], StopScan::Found(3)),
            ("abcENDxSTOP", 0, &["STOP", "END"], StopScan::Found(3)),
            ("abcEN", 3, &["END"], StopScan::Safe(3)),
            ("äöü", 0, &["ü!"], StopScan::Safe(4)),
            ("a\n\n", 2, &["\n\n"], StopScan::Found(1)),
        ];
        for (text, old, list, expected) in cases {
            assert_eq!(
                scan(text, *old, &stops(list)),
                *expected,
                "{text:?} {list:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn piecewise_scan_finds_what_find_finds(
            pieces in prop::collection::vec("[abé]{0,3}", 0..12),
            list in prop::collection::vec("[abé]{1,3}", 1..3),
        ) {
            let whole: String = pieces.concat();
            let expected = list.iter().filter_map(|stop| whole.find(stop.as_str())).min();
            let (mut text, mut shown, mut found) = (String::new(), 0, None);
            for piece in &pieces {
                let old = text.len();
                text.push_str(piece);
                match scan(&text, old, &list) {
                    StopScan::Found(at) => { found = Some(at); break; }
                    StopScan::Safe(upto) => shown = upto.max(shown),
                }
            }
            // A completion ends at the first piece that completes a stop string, so a later
            // piece could hold an earlier start only if the strings overlap.
            if let Some(at) = found {
                prop_assert!(shown <= at, "text of a stop string was shown");
                prop_assert!(list.iter().any(|stop| text[at..].starts_with(stop.as_str())));
            }
            prop_assert_eq!(found.is_some(), expected.is_some());
        }
    }
}
