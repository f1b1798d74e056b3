//! The list: its parameters, whose tokens the caller may read, the filter language, and the response.
//!
//! A filter is `lastUsed le <time>` and `lastUsed isnull`, joined by `and`, `or`, `not` and parentheses. `not` binds closest, then `and`,
//! then `or`. Keywords are case-sensitive. Errors name the position. Parser crates for SCIM filters (RFC 7644) support neither `isnull` nor
//! a maximum depth.
//!
//! The response is a JSON array that is never in memory as a whole: it is written in parts, as fast as the client reads. axum-extra's
//! `JsonLines` streams lines and not an array.

use std::{io, sync::Arc, vec};

use axum::body::{Body, Bytes};
use futures::stream;
use serde::Serialize;

use crate::{
    api::{Owner, Time},
    rest::{
        caller::{RestCaller, TokenSet, Verb},
        error::RestError,
        model::TokenItem,
        query::{Comparison, MAX_DEPTH, Operand, OwnerSelector, TokenField, TokenFilter},
        timestamp,
    },
};

/// The parameters of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SailpointListQuery {
    /// Whose tokens.
    pub owner: OwnerIdParameter,
    /// The filter.
    pub filter: Option<TokenFilter>,
}

/// The parameter `owner-id`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OwnerIdParameter {
    /// Absent or empty: all owners.
    #[default]
    All,
    /// `me`.
    Me,
    /// An owner's id.
    Id(String),
}

const OWNER_ID: &str = "owner-id";
const FILTERS: &str = "filters";

/// The value of [`OWNER_ID`] for the caller.
const ME: &str = "me";

impl SailpointListQuery {
    /// Parses a query string. Unknown parameters are errors: a client that requests a page would treat it as the whole list.
    pub fn parse(query: &str) -> Result<Self, RestError> {
        let (mut owner, mut filter) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                OWNER_ID => &mut owner,
                FILTERS => &mut filter,
                _ => {
                    let name: String = name.chars().take(40).collect();
                    return Err(RestError::invalid(name, "unknown parameter: supported are owner-id and filters"));
                }
            };
            if place.replace(value).is_some() {
                return Err(RestError::invalid(name, "must not be set more than once"));
            }
        }
        let filter = parse_filter(filter.as_deref().unwrap_or_default());
        Ok(Self {
            owner: match owner.as_deref() {
                None | Some("") => OwnerIdParameter::All,
                Some(ME) => OwnerIdParameter::Me,
                Some(id) => OwnerIdParameter::Id(id.to_owned()),
            },
            filter: filter.map_err(|error| RestError::invalid(FILTERS, error.to_string()))?,
        })
    }
}

/// Returns whose tokens the list contains, as far as the caller may read them; `None` if the owner does not exist.
pub fn owner_selector(
    caller: &RestCaller,
    requested: &OwnerIdParameter,
    known: impl FnOnce(&str) -> Option<Owner>,
) -> Result<Option<OwnerSelector>, RestError> {
    let (set, owner) = match requested {
        OwnerIdParameter::All => {
            // Managed tokens are listed only by owner.
            caller.require_one_of(&[(TokenSet::All, Verb::Read)])?;
            return Ok(Some(OwnerSelector::All));
        }
        OwnerIdParameter::Me => (TokenSet::My, Some(caller.owner.clone())),
        OwnerIdParameter::Id(id) => (TokenSet::All, known(id)),
    };
    caller.require_one_of(&[(set, Verb::Read), (TokenSet::Managed, Verb::Read)])?;
    let may_read_all = caller.permissions.allow(set, Verb::Read);
    Ok(owner.map(if may_read_all { OwnerSelector::Owner } else { OwnerSelector::Managed }))
}

/// The only field that is supported.
const LAST_USED: &str = "lastUsed";

/// The maximum number of comparisons, as each token is compared with all of them.
const MAX_COMPARISONS: usize = 100;

/// A syntax error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {problem}")]
struct InvalidFilter {
    /// The position: the first character is 1.
    at: usize,
    /// What is wrong there.
    problem: FilterProblem,
}

/// The kind of a syntax error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum FilterProblem {
    #[error("expected lastUsed, not or (")]
    NoComparison,
    #[error("unknown field {0:?}: supported is lastUsed")]
    TokenField(String),
    #[error("unknown operator {0:?}: supported are le and isnull")]
    Operator(String),
    #[error("expected an operator: le or isnull")]
    NoOperator,
    #[error("the operand of le {}", timestamp::EXPECTED)]
    Time,
    #[error("expected and, or, or the end")]
    NoEnd,
    #[error("unclosed parenthesis")]
    Unclosed,
    #[error("unclosed quotation mark")]
    Unquoted,
    #[error("the filter nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("the filter has more than {MAX_COMPARISONS} comparisons")]
    TooMany,
}

/// Parses a filter; `None` for a blank one.
fn parse_filter(text: &str) -> Result<Option<TokenFilter>, InvalidFilter> {
    let mut parser = FilterParser { text, at: 0, comparisons: 0 };
    if parser.peek()? == FilterToken::End {
        return Ok(None);
    }
    let filter = parser.any(0)?;
    match parser.peek()? {
        FilterToken::End => Ok(Some(filter)),
        _ => Err(parser.wrong(FilterProblem::NoEnd)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum FilterToken<'a> {
    Open,
    Close,
    Word(&'a str),
    Quoted(&'a str),
    End,
}

struct FilterParser<'a> {
    text: &'a str,
    /// The position of the next byte; at the start of a token after [`FilterParser::peek`].
    at: usize,
    comparisons: usize,
}

impl<'a> FilterParser<'a> {
    /// Parses filters joined by `or`.
    fn any(&mut self, depth: usize) -> Result<TokenFilter, InvalidFilter> {
        let mut filters = vec![self.all(depth)?];
        while self.takes("or")? {
            filters.push(self.all(depth)?);
        }
        Ok(one_or(filters, TokenFilter::Any))
    }

    /// Parses filters joined by `and`.
    fn all(&mut self, depth: usize) -> Result<TokenFilter, InvalidFilter> {
        let mut filters = vec![self.one(depth)?];
        while self.takes("and")? {
            filters.push(self.one(depth)?);
        }
        Ok(one_or(filters, TokenFilter::All))
    }

    fn one(&mut self, depth: usize) -> Result<TokenFilter, InvalidFilter> {
        let token = self.peek()?;
        if depth >= MAX_DEPTH && matches!(token, FilterToken::Open | FilterToken::Word("not")) {
            return Err(self.wrong(FilterProblem::TooDeep));
        }
        match token {
            FilterToken::Open => {
                let opened = self.at;
                self.skip(token);
                let filter = self.any(depth + 1)?;
                match self.peek()? {
                    closing @ FilterToken::Close => self.skip(closing),
                    FilterToken::End => return Err(self.wrong_at(opened, FilterProblem::Unclosed)),
                    _ => return Err(self.wrong(FilterProblem::NoEnd)),
                }
                Ok(filter)
            }
            FilterToken::Word("not") => {
                self.skip(token);
                Ok(TokenFilter::Not(Box::new(self.one(depth + 1)?)))
            }
            FilterToken::Word("and" | "or") | FilterToken::Quoted(_) | FilterToken::Close | FilterToken::End => {
                Err(self.wrong(FilterProblem::NoComparison))
            }
            FilterToken::Word(LAST_USED) => {
                self.comparisons += 1;
                if self.comparisons > MAX_COMPARISONS {
                    return Err(self.wrong(FilterProblem::TooMany));
                }
                self.skip(token);
                Ok(TokenFilter::Compare(TokenField::LastUsedAt, self.comparison()?))
            }
            FilterToken::Word(field) => Err(self.wrong(FilterProblem::TokenField(shortened(field)))),
        }
    }

    fn comparison(&mut self) -> Result<Comparison, InvalidFilter> {
        let token = self.peek()?;
        match token {
            FilterToken::Word("isnull") => {
                self.skip(token);
                Ok(Comparison::IsNull)
            }
            FilterToken::Word("le") => {
                self.skip(token);
                self.time().map(|time| Comparison::Le(Operand::Time(time)))
            }
            FilterToken::Word("and" | "or" | "not") | FilterToken::Open | FilterToken::Close | FilterToken::End => {
                Err(self.wrong(FilterProblem::NoOperator))
            }
            FilterToken::Word(operator) | FilterToken::Quoted(operator) => {
                Err(self.wrong(FilterProblem::Operator(shortened(operator))))
            }
        }
    }

    fn time(&mut self) -> Result<Time, InvalidFilter> {
        let token = self.peek()?;
        let start = self.at;
        let (FilterToken::Word(text) | FilterToken::Quoted(text)) = token else {
            return Err(self.wrong(FilterProblem::Time));
        };
        self.skip(token);
        // An unencoded plus arrives as a space: `+00:00`.
        let offset = matches!(token, FilterToken::Word(_)).then(|| offset_after(&self.text[self.at..])).flatten();
        let time = match offset {
            Some(offset) => {
                self.at += 1 + offset.len();
                timestamp::parse(&format!("{text}+{offset}"))
            }
            None => timestamp::parse(text),
        };
        time.map_err(|_| self.wrong_at(start, FilterProblem::Time))
    }

    /// Skips this word, if it is the next.
    fn takes(&mut self, word: &str) -> Result<bool, InvalidFilter> {
        let token = self.peek()?;
        let is_next = token == FilterToken::Word(word);
        if is_next {
            self.skip(token);
        }
        Ok(is_next)
    }

    /// Returns the next token, and skips the space before it.
    fn peek(&mut self) -> Result<FilterToken<'a>, InvalidFilter> {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        Ok(match rest.chars().next() {
            None => FilterToken::End,
            Some('(') => FilterToken::Open,
            Some(')') => FilterToken::Close,
            Some('"') => match rest[1..].split_once('"') {
                Some((text, _)) => FilterToken::Quoted(text),
                None => return Err(self.wrong(FilterProblem::Unquoted)),
            },
            Some(_) => {
                let ends = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '"');
                FilterToken::Word(&rest[..rest.find(ends).unwrap_or(rest.len())])
            }
        })
    }

    /// Skips the token that [`FilterParser::peek`] returned.
    fn skip(&mut self, token: FilterToken<'_>) {
        self.at += match token {
            FilterToken::Open | FilterToken::Close => 1,
            FilterToken::Word(text) => text.len(),
            FilterToken::Quoted(text) => text.len() + 2,
            FilterToken::End => 0,
        };
    }

    fn wrong(&self, problem: FilterProblem) -> InvalidFilter {
        self.wrong_at(self.at, problem)
    }

    fn wrong_at(&self, byte: usize, problem: FilterProblem) -> InvalidFilter {
        InvalidFilter { at: self.text[..byte].chars().count() + 1, problem }
    }
}

/// Returns the offset after a time without its sign: exactly one space, then `dd:dd`.
fn offset_after(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix(' ')?;
    let (offset, after) = rest.split_at_checked(5)?;
    let is_offset =
        offset.bytes().enumerate().all(|(at, byte)| if at == 2 { byte == b':' } else { byte.is_ascii_digit() });
    let ends = after.chars().next().is_none_or(|c| c.is_whitespace() || c == ')');
    (is_offset && ends).then_some(offset)
}

fn one_or(mut filters: Vec<TokenFilter>, several: impl FnOnce(Vec<TokenFilter>) -> TokenFilter) -> TokenFilter {
    match filters.pop() {
        Some(only) if filters.is_empty() => only,
        last => {
            filters.extend(last);
            several(filters)
        }
    }
}

fn shortened(word: &str) -> String {
    word.chars().take(40).collect()
}

/// The approximate size of a part in bytes.
const PART: usize = 32 * 1024;

/// Streams the tokens as a JSON array. `write` appends one token.
pub fn stream(
    items: Vec<Arc<TokenItem>>,
    write: impl Fn(&TokenItem, &mut Vec<u8>) -> io::Result<()> + Send + 'static,
) -> Body {
    let writer = ArrayWriter { items: items.into_iter(), begun: false, write };
    Body::from_stream(stream::unfold(Some(writer), |writer| async {
        let mut writer = writer?;
        match writer.part() {
            Ok((part, true)) => Some((Ok(part), Some(writer))),
            Ok((part, false)) => Some((Ok(part), None)),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

/// Appends a value as JSON.
pub fn append(value: &impl Serialize, to: &mut Vec<u8>) -> io::Result<()> {
    serde_json::to_writer(to, value).map_err(io::Error::from)
}

struct ArrayWriter<W> {
    items: vec::IntoIter<Arc<TokenItem>>,
    begun: bool,
    write: W,
}

impl<W: Fn(&TokenItem, &mut Vec<u8>) -> io::Result<()>> ArrayWriter<W> {
    /// Returns the next part, and whether there are more.
    fn part(&mut self) -> io::Result<(Bytes, bool)> {
        let mut part = Vec::with_capacity(if self.items.len() > 64 { PART + PART / 4 } else { 1024 });
        while part.len() < PART {
            let Some(item) = self.items.next() else {
                part.extend_from_slice(if self.begun { b"]" } else { b"[]" });
                return Ok((part.into(), false));
            };
            part.push(if self.begun { b',' } else { b'[' });
            self.begun = true;
            (self.write)(&item, &mut part)?;
        }
        Ok((part.into(), true))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rest::sailpoint::tests::lists::{day, meant};

    fn parse(query: &str) -> Result<SailpointListQuery, String> {
        SailpointListQuery::parse(query).map_err(|error| error.to_string())
    }

    #[test]
    fn owner_id_is_absent_or_empty_or_me_or_an_id() {
        for (query, owner) in [
            ("", OwnerIdParameter::All),
            ("owner-id=", OwnerIdParameter::All),
            ("owner-id", OwnerIdParameter::All),
            ("owner-id=me", OwnerIdParameter::Me),
            ("owner-id=ME", OwnerIdParameter::Id("ME".into())),
            ("owner-id=jane%40example.com", OwnerIdParameter::Id("jane@example.com".into())),
            ("filters=&owner-id=me", OwnerIdParameter::Me),
        ] {
            assert_eq!(parse(query), Ok(SailpointListQuery { owner, filter: None }), "{query}");
        }
    }

    #[test]
    fn spaces_of_a_filter_are_accepted_in_both_encodings() {
        for query in ["filters=lastUsed%20isnull", "filters=lastUsed+isnull"] {
            let filter = TokenFilter::Compare(TokenField::LastUsedAt, Comparison::IsNull);
            assert_eq!(parse(query).unwrap().filter, Some(filter), "{query}");
        }
        for query in
            ["filters=lastUsed%20le%202023-02-05T10:59:27%2B01:00", "filters=lastUsed+le+2023-02-05T10:59:27+01:00"]
        {
            let Some(TokenFilter::Compare(_, Comparison::Le(value))) = parse(query).unwrap().filter else {
                panic!("{query}")
            };
            assert_eq!(value, Operand::Time("2023-02-05T09:59:27Z".parse().unwrap()));
        }
    }

    #[test]
    fn duplicate_or_unknown_parameter_is_named() {
        for (query, words) in [
            ("owner-id=me&owner-id=me", "owner-id: must not be set more than once"),
            ("owner-id=&owner-id=me", "owner-id: must not be set more than once"),
            ("filters=&filters=lastUsed+isnull", "filters: must not be set more than once"),
            ("limit=1000000000", "limit: unknown parameter: supported are owner-id and filters"),
            ("Owner-Id=me", "Owner-Id: unknown parameter: supported are owner-id and filters"),
            ("filters=name+isnull", "filters: at character 1: unknown field \"name\": supported is lastUsed"),
        ] {
            assert_eq!(parse(query), Err(words.into()), "{query}");
        }
    }

    fn le(time: &str) -> TokenFilter {
        TokenFilter::Compare(TokenField::LastUsedAt, Comparison::Le(Operand::Time(time.parse().unwrap())))
    }

    fn is_null() -> TokenFilter {
        TokenFilter::Compare(TokenField::LastUsedAt, Comparison::IsNull)
    }

    fn not(filter: TokenFilter) -> TokenFilter {
        TokenFilter::Not(Box::new(filter))
    }

    #[test]
    fn not_binds_closest_then_and_then_or() {
        let early = || le("2023-02-05T10:59:27.214Z");
        for (text, filter) in [
            ("lastUsed le 2023-02-05T10:59:27.214Z", early()),
            ("lastUsed isnull", is_null()),
            ("  ( lastUsed\tisnull )  ", is_null()),
            ("(lastUsed isnull)", is_null()),
            ("not lastUsed isnull", not(is_null())),
            ("not(lastUsed isnull)", not(is_null())),
            ("not not lastUsed isnull", not(not(is_null()))),
            (
                "lastUsed isnull or lastUsed le 2023-02-05T10:59:27.214Z and not lastUsed isnull",
                TokenFilter::Any(vec![is_null(), TokenFilter::All(vec![early(), not(is_null())])]),
            ),
            (
                "(lastUsed isnull or lastUsed le 2023-02-05T10:59:27.214Z) and not lastUsed isnull",
                TokenFilter::All(vec![TokenFilter::Any(vec![is_null(), early()]), not(is_null())]),
            ),
            (
                "lastUsed isnull and lastUsed isnull and lastUsed isnull",
                TokenFilter::All(vec![is_null(), is_null(), is_null()]),
            ),
        ] {
            assert_eq!(parse_filter(text), Ok(Some(filter)), "{text}");
        }
        assert_eq!((parse_filter(""), parse_filter("  ")), (Ok(None), Ok(None)));
    }

    #[test]
    fn time_is_accepted_in_many_forms_and_with_an_unencoded_plus() {
        for (text, time) in [
            ("lastUsed le 2023-02-05", "2023-02-05T00:00:00Z"),
            ("lastUsed le 2023-02-05T10:59", "2023-02-05T10:59:00Z"),
            ("lastUsed le 2023-02-05T10:59:27.214+00:00", "2023-02-05T10:59:27.214Z"),
            ("lastUsed le 2023-02-05T10:59:27.214 00:00", "2023-02-05T10:59:27.214Z"),
            ("(lastUsed le 2023-02-05T10:59:27 01:00)", "2023-02-05T09:59:27Z"),
            ("lastUsed le \"2023-02-05T10:59:27Z\"", "2023-02-05T10:59:27Z"),
            ("lastUsed le \"2023-02-05 10:59:27+01:00\"", "2023-02-05T09:59:27Z"),
        ] {
            assert_eq!(parse_filter(text), Ok(Some(le(time))), "{text}");
        }
    }

    #[test]
    fn syntax_error_names_the_position() {
        for (text, message) in [
            ("name eq \"a\"", "at character 1: unknown field \"name\": supported is lastUsed"),
            ("lastused isnull", "at character 1: unknown field \"lastused\": supported is lastUsed"),
            ("lastUsed LE 2023-02-05", "at character 10: unknown operator \"LE\": supported are le and isnull"),
            ("lastUsed ge 2023-02-05", "at character 10: unknown operator \"ge\": supported are le and isnull"),
            ("lastUsed eq null", "at character 10: unknown operator \"eq\": supported are le and isnull"),
            ("lastUsed", "at character 9: expected an operator: le or isnull"),
            ("lastUsed and lastUsed isnull", "at character 10: expected an operator: le or isnull"),
            (
                "lastUsed le",
                "at character 12: the operand of le must be a timestamp such as 2030-12-31T23:59:59Z, 2030-12-31T23:59 (UTC) or 2030-12-31",
            ),
            (
                "lastUsed le yesterday",
                "at character 13: the operand of le must be a timestamp such as 2030-12-31T23:59:59Z, 2030-12-31T23:59 (UTC) or 2030-12-31",
            ),
            ("lastUsed isnull AND lastUsed isnull", "at character 17: expected and, or, or the end"),
            ("lastUsed isnull lastUsed isnull", "at character 17: expected and, or, or the end"),
            ("lastUsed isnull)", "at character 16: expected and, or, or the end"),
            ("lastUsed isnull and", "at character 20: expected lastUsed, not or ("),
            ("or lastUsed isnull", "at character 1: expected lastUsed, not or ("),
            ("()", "at character 2: expected lastUsed, not or ("),
            ("not", "at character 4: expected lastUsed, not or ("),
            ("(lastUsed isnull", "at character 1: unclosed parenthesis"),
            ("lastUsed le \"2023-02-05", "at character 13: unclosed quotation mark"),
            ("ü isnull", "at character 1: unknown field \"ü\": supported is lastUsed"),
            ("lastUsed isnull ü", "at character 17: expected and, or, or the end"),
        ] {
            assert_eq!(parse_filter(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn deeply_nested_filter_is_refused() {
        let nested = |depth: usize, open: &str, close: &str| {
            format!("{}lastUsed isnull{}", open.repeat(depth), close.repeat(depth))
        };
        for (open, close) in [("(", ")"), ("not ", ""), ("not(", ")"), ("(not ", ")")] {
            let message = parse_filter(&nested(10_000, open, close)).unwrap_err().to_string();
            assert!(message.ends_with("the filter nests deeper than 32 levels"), "{message}");
        }
        assert_eq!(parse_filter(&"(".repeat(10_000)).unwrap_err().problem, FilterProblem::TooDeep);
        assert!(parse_filter(&nested(MAX_DEPTH, "(", ")")).is_ok());
        assert!(parse_filter(&nested(MAX_DEPTH, "not ", "")).is_ok());
        assert!(parse_filter(&nested(MAX_DEPTH + 1, "not ", "")).is_err());
    }

    #[test]
    fn number_of_comparisons_is_limited() {
        let many = |count: usize| vec!["lastUsed isnull"; count].join(" or ");
        assert!(parse_filter(&many(MAX_COMPARISONS)).is_ok());
        assert_eq!(parse_filter(&many(MAX_COMPARISONS + 1)).unwrap_err().problem, FilterProblem::TooMany);
    }

    /// Evaluates the filter without a token.
    fn passes(filter: &TokenFilter, last_used: Option<Time>) -> bool {
        match filter {
            TokenFilter::All(filters) => filters.iter().all(|filter| passes(filter, last_used)),
            TokenFilter::Any(filters) => filters.iter().any(|filter| passes(filter, last_used)),
            TokenFilter::Not(filter) => !passes(filter, last_used),
            TokenFilter::Compare(TokenField::LastUsedAt, Comparison::IsNull) => last_used.is_none(),
            TokenFilter::Compare(TokenField::LastUsedAt, Comparison::Le(Operand::Time(time))) => {
                last_used.is_some_and(|used| used <= *time)
            }
            other => panic!("no filter makes {other:?}"),
        }
    }

    proptest! {
        #[test]
        fn parsed_filter_has_the_meaning_of_its_text(meant in meant(), last_used in proptest::option::of(0_u8..5)) {
            let filter = parse_filter(&meant.text()).unwrap().unwrap();
            let time = last_used.map(|number| day(number).parse().unwrap());
            prop_assert_eq!(passes(&filter, time), meant.says(last_used), "{}", meant.text());
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "(lastUsed |le |isnull |and |or |not |\\(|\\)|\"|2023-01-01|0 00:00|ü){0,60}|.{0,60}") {
            let _ = parse_filter(&text);
        }
    }
}
