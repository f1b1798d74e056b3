//! The language of `filters`: `lastUsed le <time>` and `lastUsed isnull`, joined by `and`, `or`, `not` and parentheses.
//!
//! `not` binds closest, then `and`, then `or`. All words are written as here, in small letters but for `lastUsed`. Errors tell the character
//! they are at. It must not know any token.

use crate::rest::{
    filter::{Field, Filter, MAX_DEPTH, Test, Value},
    when,
};

/// The one field that can be filtered by.
const LAST_USED: &str = "lastUsed";

/// The most comparisons that a filter may have: each token is held against all of them.
const MAX_COMPARISONS: usize = 100;

/// A filter that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {problem}")]
pub struct InvalidFilter {
    /// Where: the first character is 1.
    at: usize,
    /// What is wrong there, and what would be right.
    problem: Problem,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("expected lastUsed, not or ( here")]
    NoComparison,
    #[error("{0:?} is not a field to filter by: write lastUsed")]
    Field(String),
    #[error("{0:?} is not an operator of lastUsed: write le or isnull, in small letters")]
    Operator(String),
    #[error("lastUsed needs an operator: le or isnull")]
    NoOperator,
    #[error("le needs a time, which {}", when::WORDS)]
    Time,
    #[error("expected and, or, or the end here")]
    NoEnd,
    #[error("this parenthesis is never closed")]
    Unclosed,
    #[error("this quotation mark is never closed")]
    Unquoted,
    #[error("it nests deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("there are more than {MAX_COMPARISONS} comparisons")]
    TooMany,
}

/// Reads a filter; `None` for one that says nothing.
///
/// # Errors
/// See [`InvalidFilter`].
pub fn parse(text: &str) -> Result<Option<Filter>, InvalidFilter> {
    let mut parser = Parser { text, at: 0, comparisons: 0 };
    if parser.peek()? == Token::End {
        return Ok(None);
    }
    let filter = parser.any(0)?;
    match parser.peek()? {
        Token::End => Ok(Some(filter)),
        _ => Err(parser.wrong(Problem::NoEnd)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    Open,
    Close,
    Word(&'a str),
    Quoted(&'a str),
    End,
}

struct Parser<'a> {
    text: &'a str,
    /// The byte that is read next; at the start of a token after [`Parser::peek`].
    at: usize,
    comparisons: usize,
}

impl<'a> Parser<'a> {
    /// One of several, one of which must be true.
    fn any(&mut self, depth: usize) -> Result<Filter, InvalidFilter> {
        let mut filters = vec![self.every(depth)?];
        while self.takes("or")? {
            filters.push(self.every(depth)?);
        }
        Ok(one_or(filters, Filter::Any))
    }

    /// Several that must all be true.
    fn every(&mut self, depth: usize) -> Result<Filter, InvalidFilter> {
        let mut filters = vec![self.one(depth)?];
        while self.takes("and")? {
            filters.push(self.one(depth)?);
        }
        Ok(one_or(filters, Filter::Every))
    }

    fn one(&mut self, depth: usize) -> Result<Filter, InvalidFilter> {
        let token = self.peek()?;
        if depth >= MAX_DEPTH && matches!(token, Token::Open | Token::Word("not")) {
            return Err(self.wrong(Problem::TooDeep));
        }
        match token {
            Token::Open => {
                let opened = self.at;
                self.skip(token);
                let filter = self.any(depth + 1)?;
                match self.peek()? {
                    closing @ Token::Close => self.skip(closing),
                    Token::End => return Err(self.wrong_at(opened, Problem::Unclosed)),
                    _ => return Err(self.wrong(Problem::NoEnd)),
                }
                Ok(filter)
            }
            Token::Word("not") => {
                self.skip(token);
                Ok(Filter::Not(Box::new(self.one(depth + 1)?)))
            }
            Token::Word("and" | "or") | Token::Quoted(_) | Token::Close | Token::End => {
                Err(self.wrong(Problem::NoComparison))
            }
            Token::Word(LAST_USED) => {
                self.comparisons += 1;
                if self.comparisons > MAX_COMPARISONS {
                    return Err(self.wrong(Problem::TooMany));
                }
                self.skip(token);
                Ok(Filter::Test(Field::LastUsedAt, self.comparison()?))
            }
            Token::Word(field) => Err(self.wrong(Problem::Field(shortened(field)))),
        }
    }

    fn comparison(&mut self) -> Result<Test, InvalidFilter> {
        let token = self.peek()?;
        match token {
            Token::Word("isnull") => {
                self.skip(token);
                Ok(Test::IsNull)
            }
            Token::Word("le") => {
                self.skip(token);
                self.time().map(|time| Test::Le(Value::Time(time)))
            }
            Token::Word("and" | "or" | "not") | Token::Open | Token::Close | Token::End => {
                Err(self.wrong(Problem::NoOperator))
            }
            Token::Word(operator) | Token::Quoted(operator) => Err(self.wrong(Problem::Operator(shortened(operator)))),
        }
    }

    fn time(&mut self) -> Result<crate::api::Time, InvalidFilter> {
        let token = self.peek()?;
        let start = self.at;
        let (Token::Word(text) | Token::Quoted(text)) = token else { return Err(self.wrong(Problem::Time)) };
        self.skip(token);
        // A plus that was sent as it is has become a space on the way: `+00:00`.
        let offset = matches!(token, Token::Word(_)).then(|| offset_after(&self.text[self.at..])).flatten();
        let time = match offset {
            Some(offset) => {
                self.at += 1 + offset.len();
                when::read(&format!("{text}+{offset}"))
            }
            None => when::read(text),
        };
        time.map_err(|_| self.wrong_at(start, Problem::Time))
    }

    /// Takes this word, if it is the next.
    fn takes(&mut self, word: &str) -> Result<bool, InvalidFilter> {
        let token = self.peek()?;
        let is_next = token == Token::Word(word);
        if is_next {
            self.skip(token);
        }
        Ok(is_next)
    }

    /// The next token; what stands before it is passed over.
    fn peek(&mut self) -> Result<Token<'a>, InvalidFilter> {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        Ok(match rest.chars().next() {
            None => Token::End,
            Some('(') => Token::Open,
            Some(')') => Token::Close,
            Some('"') => match rest[1..].split_once('"') {
                Some((text, _)) => Token::Quoted(text),
                None => return Err(self.wrong(Problem::Unquoted)),
            },
            Some(_) => {
                let ends = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '"');
                Token::Word(&rest[..rest.find(ends).unwrap_or(rest.len())])
            }
        })
    }

    /// Goes behind the token that [`Parser::peek`] has shown.
    fn skip(&mut self, token: Token<'_>) {
        self.at += match token {
            Token::Open | Token::Close => 1,
            Token::Word(text) => text.len(),
            Token::Quoted(text) => text.len() + 2,
            Token::End => 0,
        };
    }

    fn wrong(&self, problem: Problem) -> InvalidFilter {
        self.wrong_at(self.at, problem)
    }

    fn wrong_at(&self, byte: usize, problem: Problem) -> InvalidFilter {
        InvalidFilter { at: self.text[..byte].chars().count() + 1, problem }
    }
}

/// The offset at the start of what follows a time, without its sign: exactly one space, and `dd:dd`.
fn offset_after(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix(' ')?;
    let (offset, after) = rest.split_at_checked(5)?;
    let is_offset =
        offset.bytes().enumerate().all(|(at, byte)| if at == 2 { byte == b':' } else { byte.is_ascii_digit() });
    let ends = after.chars().next().is_none_or(|c| c.is_whitespace() || c == ')');
    (is_offset && ends).then_some(offset)
}

fn one_or(mut filters: Vec<Filter>, several: impl FnOnce(Vec<Filter>) -> Filter) -> Filter {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::Time;

    fn le(time: &str) -> Filter {
        Filter::Test(Field::LastUsedAt, Test::Le(Value::Time(time.parse().unwrap())))
    }

    fn is_null() -> Filter {
        Filter::Test(Field::LastUsedAt, Test::IsNull)
    }

    fn not(filter: Filter) -> Filter {
        Filter::Not(Box::new(filter))
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
                Filter::Any(vec![is_null(), Filter::Every(vec![early(), not(is_null())])]),
            ),
            (
                "(lastUsed isnull or lastUsed le 2023-02-05T10:59:27.214Z) and not lastUsed isnull",
                Filter::Every(vec![Filter::Any(vec![is_null(), early()]), not(is_null())]),
            ),
            (
                "lastUsed isnull and lastUsed isnull and lastUsed isnull",
                Filter::Every(vec![is_null(), is_null(), is_null()]),
            ),
        ] {
            assert_eq!(parse(text), Ok(Some(filter)), "{text}");
        }
        assert_eq!((parse(""), parse("  ")), (Ok(None), Ok(None)));
    }

    #[test]
    fn a_time_comes_in_many_forms_also_with_a_plus_that_became_a_space() {
        for (text, time) in [
            ("lastUsed le 2023-02-05", "2023-02-05T00:00:00Z"),
            ("lastUsed le 2023-02-05T10:59", "2023-02-05T10:59:00Z"),
            ("lastUsed le 2023-02-05T10:59:27.214+00:00", "2023-02-05T10:59:27.214Z"),
            ("lastUsed le 2023-02-05T10:59:27.214 00:00", "2023-02-05T10:59:27.214Z"),
            ("(lastUsed le 2023-02-05T10:59:27 01:00)", "2023-02-05T09:59:27Z"),
            ("lastUsed le \"2023-02-05T10:59:27Z\"", "2023-02-05T10:59:27Z"),
            ("lastUsed le \"2023-02-05 10:59:27+01:00\"", "2023-02-05T09:59:27Z"),
        ] {
            assert_eq!(parse(text), Ok(Some(le(time))), "{text}");
        }
    }

    #[test]
    fn all_else_is_refused_with_the_place_and_what_would_be_right() {
        for (text, words) in [
            ("name eq \"a\"", "at character 1: \"name\" is not a field to filter by: write lastUsed"),
            ("lastused isnull", "at character 1: \"lastused\" is not a field to filter by: write lastUsed"),
            (
                "lastUsed LE 2023-02-05",
                "at character 10: \"LE\" is not an operator of lastUsed: write le or isnull, in small letters",
            ),
            (
                "lastUsed ge 2023-02-05",
                "at character 10: \"ge\" is not an operator of lastUsed: write le or isnull, in small letters",
            ),
            (
                "lastUsed eq null",
                "at character 10: \"eq\" is not an operator of lastUsed: write le or isnull, in small letters",
            ),
            ("lastUsed", "at character 9: lastUsed needs an operator: le or isnull"),
            ("lastUsed and lastUsed isnull", "at character 10: lastUsed needs an operator: le or isnull"),
            (
                "lastUsed le",
                "at character 12: le needs a time, which must be a time such as 2030-12-31T23:59:59Z, 2030-12-31T23:59 (which is UTC) or 2030-12-31",
            ),
            (
                "lastUsed le yesterday",
                "at character 13: le needs a time, which must be a time such as 2030-12-31T23:59:59Z, 2030-12-31T23:59 (which is UTC) or 2030-12-31",
            ),
            ("lastUsed isnull AND lastUsed isnull", "at character 17: expected and, or, or the end here"),
            ("lastUsed isnull lastUsed isnull", "at character 17: expected and, or, or the end here"),
            ("lastUsed isnull)", "at character 16: expected and, or, or the end here"),
            ("lastUsed isnull and", "at character 20: expected lastUsed, not or ( here"),
            ("or lastUsed isnull", "at character 1: expected lastUsed, not or ( here"),
            ("()", "at character 2: expected lastUsed, not or ( here"),
            ("not", "at character 4: expected lastUsed, not or ( here"),
            ("(lastUsed isnull", "at character 1: this parenthesis is never closed"),
            ("lastUsed le \"2023-02-05", "at character 13: this quotation mark is never closed"),
            ("ü isnull", "at character 1: \"ü\" is not a field to filter by: write lastUsed"),
            ("lastUsed isnull ü", "at character 17: expected and, or, or the end here"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), words, "{text}");
        }
    }

    #[test]
    fn a_filter_that_nests_ten_thousand_deep_is_refused_where_it_gets_too_deep() {
        let nested = |depth: usize, open: &str, close: &str| {
            format!("{}lastUsed isnull{}", open.repeat(depth), close.repeat(depth))
        };
        for (open, close) in [("(", ")"), ("not ", ""), ("not(", ")"), ("(not ", ")")] {
            let words = parse(&nested(10_000, open, close)).unwrap_err().to_string();
            assert!(words.ends_with("it nests deeper than 32"), "{words}");
        }
        assert_eq!(parse(&"(".repeat(10_000)).unwrap_err().problem, Problem::TooDeep);
        assert!(parse(&nested(MAX_DEPTH, "(", ")")).is_ok());
        assert!(parse(&nested(MAX_DEPTH, "not ", "")).is_ok());
        assert!(parse(&nested(MAX_DEPTH + 1, "not ", "")).is_err());
    }

    #[test]
    fn a_filter_has_no_more_comparisons_than_can_be_made_for_each_token() {
        let many = |count: usize| vec!["lastUsed isnull"; count].join(" or ");
        assert!(parse(&many(MAX_COMPARISONS)).is_ok());
        assert_eq!(parse(&many(MAX_COMPARISONS + 1)).unwrap_err().problem, Problem::TooMany);
    }

    /// A filter, its text, and whether it is true of a token that was last used at this time.
    fn filters() -> impl Strategy<Value = (String, Model)> {
        let leaf = prop_oneof![
            Just(("lastUsed isnull".to_owned(), Model::IsNull)),
            (0_i64..100).prop_map(|second| {
                let time = Time::from_micros(second * 1_000_000);
                (format!("lastUsed le {}", when::millis(time)), Model::Le(time))
            }),
        ];
        leaf.prop_recursive(8, 40, 4, |inner| {
            prop_oneof![
                inner.clone().prop_map(|(text, model)| (format!("not ({text})"), Model::Not(Box::new(model)))),
                proptest::collection::vec(inner.clone(), 2..4).prop_map(|parts| joined(parts, "and", Model::Every)),
                proptest::collection::vec(inner, 2..4).prop_map(|parts| joined(parts, "or", Model::Any)),
            ]
        })
    }

    fn joined(parts: Vec<(String, Model)>, word: &str, model: fn(Vec<Model>) -> Model) -> (String, Model) {
        let (texts, models): (Vec<String>, Vec<Model>) =
            parts.into_iter().map(|(text, model)| (format!("({text})"), model)).unzip();
        (texts.join(&format!(" {word} ")), model(models))
    }

    #[derive(Clone, Debug)]
    enum Model {
        IsNull,
        Le(Time),
        Not(Box<Model>),
        Every(Vec<Model>),
        Any(Vec<Model>),
    }

    impl Model {
        fn says(&self, last_used: Option<Time>) -> bool {
            match self {
                Self::IsNull => last_used.is_none(),
                Self::Le(time) => last_used.is_some_and(|last_used| last_used <= *time),
                Self::Not(model) => !model.says(last_used),
                Self::Every(models) => models.iter().all(|model| model.says(last_used)),
                Self::Any(models) => models.iter().any(|model| model.says(last_used)),
            }
        }
    }

    /// What the filter says, without a whole item.
    fn passes(filter: &Filter, last_used: Option<Time>) -> bool {
        match filter {
            Filter::Every(filters) => filters.iter().all(|filter| passes(filter, last_used)),
            Filter::Any(filters) => filters.iter().any(|filter| passes(filter, last_used)),
            Filter::Not(filter) => !passes(filter, last_used),
            Filter::Test(Field::LastUsedAt, Test::IsNull) => last_used.is_none(),
            Filter::Test(Field::LastUsedAt, Test::Le(Value::Time(time))) => last_used.is_some_and(|used| used <= *time),
            other => panic!("no filter makes {other:?}"),
        }
    }

    proptest! {
        #[test]
        fn what_is_read_says_what_was_meant((text, model) in filters(), last_used in proptest::option::of(0_i64..100)) {
            let last_used = last_used.map(|second| Time::from_micros(second * 1_000_000));
            let filter = parse(&text).unwrap().unwrap();
            prop_assert_eq!(passes(&filter, last_used), model.says(last_used), "{}", text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "(lastUsed |le |isnull |and |or |not |\\(|\\)|\"|2023-01-01|0 00:00|ü){0,60}|.{0,60}") {
            let _ = parse(&text);
        }
    }
}
