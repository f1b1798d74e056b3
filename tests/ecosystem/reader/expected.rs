//! Compares the output of a command with what the page shows.
//!
//! Times, ages and tokens only need to be of the same kind. `…` as a word stands for any words, and `…` as a line for any lines.

/// The difference, if there is one.
pub fn differs(shown: &str, printed: &str) -> Option<String> {
    let (shown_lines, printed_lines) = (lines(shown), lines(printed));
    if matches(&shown_lines, &printed_lines, &|line: &Vec<String>| *line == ["…"], &|one, other| {
        matches(one, other, &|word: &String| word == "…", &|one: &String, other: &String| same(one, other))
    }) {
        return None;
    }
    Some(format!("--- the page shows:\n{shown}\n--- the command printed:\n{printed}\n---"))
}

fn lines(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .map(|line| line.split_whitespace().map(class).collect::<Vec<_>>())
        .filter(|line| !line.is_empty())
        .collect()
}

/// The kind of a word that varies, or the word itself.
fn class(word: &str) -> String {
    let bare = word.trim_matches(|c| "\"',;()[]".contains(c));
    let kind = if is_time(bare) {
        "<time>"
    } else if is_age(bare) {
        "<age>"
    } else if bare.starts_with("kpat_") && bare.len() > 12 {
        "<token>"
    } else {
        return word.to_owned();
    };
    word.replace(bare, kind)
}

fn is_time(word: &str) -> bool {
    word.len() >= 20 && word.starts_with("20") && word.as_bytes()[10] == b'T' && word.ends_with('Z')
}

fn is_age(word: &str) -> bool {
    let mut units = word.split_inclusive(|c: char| c.is_ascii_alphabetic()).peekable();
    units.peek().is_some()
        && units.all(|part| {
            let number = part.strip_suffix(|unit: char| "smhdy".contains(unit));
            number.is_some_and(|number| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
        })
}

/// A word with `…` matches each word with the same start and end.
fn same(shown: &str, printed: &str) -> bool {
    match shown.split_once('…') {
        Some((begin, end)) => {
            printed.len() >= begin.len() + end.len() && printed.starts_with(begin) && printed.ends_with(end)
        }
        None => shown == printed,
    }
}

fn matches<T>(shown: &[T], printed: &[T], is_any: &dyn Fn(&T) -> bool, same: &dyn Fn(&T, &T) -> bool) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if is_any(first) => {
            (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..], is_any, same))
        }
        Some((first, rest)) => {
            printed.split_first().is_some_and(|(one, others)| same(first, one) && matches(rest, others, is_any, same))
        }
    }
}

#[test]
fn comparison_ignores_only_text_that_varies() {
    for (shown, printed, is_same) in [
        ("NAME  READY\nci    True", "NAME   READY\nci     True\n", true),
        ("ci 2026-12-21T19:30:15Z 2s", "ci 2027-01-01T00:00:00Z 1m30s", true),
        ("ci True", "ci False", false),
        ("ci True", "ci True\nother True", false),
        ("…\nci True", "NAME READY\nb True\nci True", true),
        ("denied: … ask for x", "denied: by the policy ask for x", true),
        ("denied: … ask for x", "denied: by the policy ask for y", false),
        ("HTTP/1.1 200 …", "HTTP/1.1 200 OK", true),
        ("pod/app-… created", "pod/app-7d9f created", true),
        ("token kpat_4fTq8sX0aB3k…", "token kpat_0000000000000000", true),
        ("", "something", false),
    ] {
        assert_eq!(differs(shown, printed).is_none(), is_same, "{shown:?} and {printed:?}");
    }
}
