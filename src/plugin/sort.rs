//! `kubectl pat list --sort-by`: sorts by a named key, or by a JSONPath as in kubectl.

use std::cmp::Ordering;

use clap::{
    Arg, Command, Error as ClapError, ValueEnum,
    builder::{PossibleValue, TypedValueParser},
    error::ErrorKind,
};
use jsonpath_rust::JsonPath;
use serde_json::Value;

use super::{error::Error, list::ListRow, terminal::Tone};
use crate::api::Time;

/// A named key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SortKey {
    /// The next event first, then tokens that need action
    Next,
    /// By name
    Name,
    /// The oldest object first
    Age,
    /// The next to expire first
    Expires,
    /// The longest unused first
    LastUsed,
    /// By owner
    Owner,
    /// By state
    State,
}

/// The value of `--sort-by`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortBy {
    /// A named key.
    Key(SortKey),
    /// A JSONPath of RFC 9535.
    Path(String),
}

/// Parses the value of `--sort-by`.
#[derive(Clone, Copy, Debug)]
pub struct SortByParser;

impl TypedValueParser for SortByParser {
    type Value = SortBy;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &std::ffi::OsStr) -> Result<SortBy, ClapError> {
        let text = value.to_string_lossy();
        parse(&text).map_err(|problem| {
            let flag = arg.map_or_else(String::new, ToString::to_string);
            ClapError::raw(ErrorKind::ValueValidation, format!("invalid value {text:?} for '{flag}': {problem}\n"))
                .with_cmd(command)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(SortKey::value_variants().iter().filter_map(ValueEnum::to_possible_value)))
    }
}

fn parse(text: &str) -> Result<SortBy, String> {
    if !text.contains(['.', '[', '{']) {
        let names =
            || SortKey::value_variants().iter().filter_map(|key| Some(key.to_possible_value()?.get_name().to_owned()));
        let unknown = |_| {
            let names = names().collect::<Vec<_>>().join(", ");
            format!("must be one of {names}, or a JSONPath such as .metadata.name")
        };
        return SortKey::from_str(text, false).map(SortBy::Key).map_err(unknown);
    }
    // kubectl writes {.metadata.name}, .metadata.name or metadata.name.
    let path = text.strip_prefix('{').and_then(|path| path.strip_suffix('}')).unwrap_or(text);
    let path = path.strip_prefix('$').unwrap_or(path);
    let path = if path.starts_with(['.', '[']) { format!("${path}") } else { format!("$.{path}") };
    Value::Null.query(&path).map_err(|_| "not a JSONPath; write one such as .metadata.name".to_owned())?;
    Ok(SortBy::Path(path))
}

/// What rows are compared by. Numbers come before texts.
#[derive(Debug, PartialEq, PartialOrd)]
enum SortValue {
    Number(f64),
    Time(Time),
    Text(String),
}

impl SortValue {
    fn of(row: &ListRow, by: &SortBy) -> Option<Self> {
        let pat = &row.pat;
        match by {
            SortBy::Key(SortKey::Next) => row.next.as_ref().map(|next| Self::Time(next.at)),
            SortBy::Key(SortKey::Name) => Some(Self::Text(pat.name().to_owned())),
            SortBy::Key(SortKey::Age) => {
                pat.stored.metadata.creation_timestamp.as_ref().map(|time| Self::Time(time.0.into()))
            }
            SortBy::Key(SortKey::Expires) => row.end.map(Self::Time),
            SortBy::Key(SortKey::LastUsed) => pat.last_used_at().map(Self::Time),
            SortBy::Key(SortKey::Owner) => Some(Self::Text(pat.owner())),
            SortBy::Key(SortKey::State) => Some(Self::Text(row.state.word.clone())),
            SortBy::Path(path) => match pat.printable().query(path).ok()?.first()? {
                Value::Null => None,
                Value::Number(number) => number.as_f64().map(Self::Number),
                Value::String(text) => Some(text.parse().map_or_else(|_| Self::Text(text.clone()), Self::Time)),
                other => Some(Self::Text(other.to_string())),
            },
        }
    }
}

/// Sorts rows. Those without a value come last: with [`SortKey::Next`], those that need action first.
///
/// # Errors
/// No row has a value at the path.
pub fn sort(rows: Vec<ListRow>, by: &SortBy) -> Result<Vec<ListRow>, Error> {
    let mut keyed: Vec<_> = rows.into_iter().map(|row| (SortValue::of(&row, by), row)).collect();
    if let SortBy::Path(path) = by
        && !keyed.is_empty()
        && keyed.iter().all(|(value, _)| value.is_none())
    {
        return Err(Error::Usage(format!("--sort-by: no token has a value at {}", path.trim_start_matches('$'))));
    }
    let rest = |row: &ListRow| {
        let is_bad = row.state.tone == Tone::Bad;
        (by == &SortBy::Key(SortKey::Next) && !is_bad, row.pat.namespace().to_owned(), row.pat.name().to_owned())
    };
    keyed.sort_by(|(a, a_row), (b, b_row)| {
        let value = a.partial_cmp(b).unwrap_or(Ordering::Equal);
        a.is_none().cmp(&b.is_none()).then(value).then_with(|| rest(a_row).cmp(&rest(b_row)))
    });
    Ok(keyed.into_iter().map(|(_, row)| row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_or_path_is_parsed_as_in_kubectl() {
        for (text, by) in [
            ("name", SortBy::Key(SortKey::Name)),
            ("last-used", SortBy::Key(SortKey::LastUsed)),
            (".metadata.name", SortBy::Path("$.metadata.name".into())),
            ("metadata.name", SortBy::Path("$.metadata.name".into())),
            ("{.metadata.name}", SortBy::Path("$.metadata.name".into())),
            ("$.metadata.name", SortBy::Path("$.metadata.name".into())),
            (
                ".status.conditions[?(@.type==\"Ready\")].reason",
                SortBy::Path("$.status.conditions[?(@.type==\"Ready\")].reason".into()),
            ),
        ] {
            assert_eq!(parse(text), Ok(by), "{text}");
        }
        for (text, part) in
            [("size", "must be one of next, name, age"), (".a[", "not a JSONPath"), ("", "must be one of")]
        {
            let problem = parse(text).expect_err(text);
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }
}
