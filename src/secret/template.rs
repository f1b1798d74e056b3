//! Templates: text with placeholders, without conditions and loops.
//!
//! ```text
//! template    = (any text without "{{" | placeholder)*
//! placeholder = "{{" value ("|" filter)* "}}"     spaces and line ends between these do not count
//! value       = variable | '"' any text without a quotation mark '"'
//! ```
//!
//! A literal `{{` is written `{{ "{{" }}`. A `}}` outside of a placeholder is ordinary text, because it is common in
//! JSON.

use std::{borrow::Cow, fmt};

use super::{
    buffer::{Buffer, TooLarge},
    hash::Fingerprint,
    placeholder::{TemplateFilter, TemplateVariable},
};

/// The maximum number of filters of one placeholder. Each costs a copy of the text.
const MAX_FILTERS: usize = 8;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    source: PieceSource,
    filters: Vec<TemplateFilter>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PieceSource {
    Text(String),
    Variable(TemplateVariable),
}

/// A syntax error: where it is and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    line: usize,
    column: usize,
    message: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut template = Self::default();
        let mut rest = text;
        while let Some(open) = rest.find("{{") {
            template.push_text(&rest[..open]);
            let mut placeholder = Placeholder { text, open: &rest[open..], rest: &rest[open + 2..] };
            match placeholder.read()? {
                Piece { source: PieceSource::Text(text), filters } if filters.is_empty() => template.push_text(&text),
                piece => template.pieces.push(piece),
            }
            rest = placeholder.rest;
        }
        template.push_text(rest);
        Ok(template)
    }

    fn push_text(&mut self, more: &str) {
        if let Some(Piece { source: PieceSource::Text(text), filters }) = self.pieces.last_mut()
            && filters.is_empty()
        {
            text.push_str(more);
        } else if !more.is_empty() {
            self.pieces.push(Piece { source: PieceSource::Text(more.to_owned()), filters: Vec::new() });
        }
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = TemplateVariable> {
        self.pieces.iter().filter_map(|piece| match piece.source {
            PieceSource::Variable(variable) => Some(variable),
            PieceSource::Text(_) => None,
        })
    }

    /// Fills in the values. The result, and every intermediate text, has at most `limit` bytes.
    pub(super) fn render<'a>(
        &'a self,
        value: impl Fn(TemplateVariable) -> Cow<'a, str>,
        limit: usize,
    ) -> Result<Buffer, TooLarge> {
        let mut output = Buffer::new(limit);
        for piece in &self.pieces {
            let source = match &piece.source {
                PieceSource::Text(text) => text.into(),
                PieceSource::Variable(variable) => value(*variable),
            };
            let Some((first, others)) = piece.filters.split_first() else {
                output.push(&source)?;
                continue;
            };
            let filtered = first.apply(&source, limit)?;
            let filtered = others.iter().try_fold(filtered, |text, filter| filter.apply(text.as_str(), limit))?;
            output.push(filtered.as_str())?;
        }
        Ok(output)
    }

    /// Adds everything that determines the output. `value` returns `None` for secret variables.
    pub(super) fn fingerprint<'a>(
        &'a self,
        value: impl Fn(TemplateVariable) -> Option<Cow<'a, str>>,
        hash: &mut Fingerprint,
    ) {
        hash.count(self.pieces.len());
        for piece in &self.pieces {
            match &piece.source {
                PieceSource::Text(text) => hash.text("").text(text),
                PieceSource::Variable(variable) => hash.text(variable.name()).optional(value(*variable).as_deref()),
            };
            hash.count(piece.filters.len());
            for filter in &piece.filters {
                hash.text(filter.name());
            }
        }
    }
}

/// A placeholder that is being parsed. `open` begins at its first brace, `rest` at the first unread character.
struct Placeholder<'a> {
    text: &'a str,
    open: &'a str,
    rest: &'a str,
}

impl Placeholder<'_> {
    fn read(&mut self) -> Result<Piece, SyntaxError> {
        self.skip_space();
        let source = if let Some(literal) = self.rest.strip_prefix('"') {
            let (literal, rest) = literal
                .split_once('"')
                .ok_or_else(|| self.error(self.rest, "this quotation mark is not closed: end the text with \""))?;
            self.rest = rest;
            PieceSource::Text(literal.to_owned())
        } else {
            PieceSource::Variable(self.name("variable", TemplateVariable::ALL, TemplateVariable::name)?)
        };
        let mut filters = Vec::new();
        loop {
            self.skip_space();
            if let Some(rest) = self.rest.strip_prefix("}}") {
                self.rest = rest;
                return Ok(Piece { source, filters });
            }
            let Some(rest) = self.rest.strip_prefix('|') else {
                return Err(self.unexpected("| and a filter, or }}"));
            };
            if filters.len() == MAX_FILTERS {
                return Err(self.error(self.rest, format!("a placeholder has at most {MAX_FILTERS} filters")));
            }
            self.rest = rest;
            self.skip_space();
            filters.push(self.name("filter", TemplateFilter::ALL, TemplateFilter::name)?);
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    /// Parses the name of one of `all`.
    fn name<T: Copy>(&mut self, what: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, SyntaxError> {
        let end = self.rest.find(|c: char| c.is_ascii_whitespace() || "|{}\"".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        let names = all.iter().map(|&one| name(one)).collect::<Vec<_>>().join(", ");
        if word.is_empty() {
            return Err(self.unexpected(&format!("a {what} ({names})")));
        }
        let Some(&found) = all.iter().find(|&&one| name(one) == word) else {
            return Err(self.error(self.rest, format!("unknown {what} {:?}: write one of {names}", excerpt(word))));
        };
        self.rest = rest;
        Ok(found)
    }

    fn unexpected(&self, wanted: &str) -> SyntaxError {
        if self.rest.is_empty() {
            return self.error(self.open, "this {{ is not closed by }}; a literal {{ is written {{ \"{{\" }}");
        }
        let word = self.rest.split_ascii_whitespace().next().unwrap_or_default();
        self.error(self.rest, format!("expected {wanted}, found {:?}", excerpt(word)))
    }

    /// An error at the first character of `rest`, a suffix of the template.
    fn error(&self, rest: &str, message: impl Into<String>) -> SyntaxError {
        let before = &self.text[..self.text.len() - rest.len()];
        let line = before.rsplit('\n').next().unwrap_or_default();
        SyntaxError {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
            message: message.into(),
        }
    }
}

fn excerpt(word: &str) -> String {
    word.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn render(text: &str) -> Result<String, String> {
        let template = Template::parse(text).map_err(|error| error.to_string())?;
        let output = template.render(|variable| format!("<{}>", variable.name()).into(), 1000);
        output.map(|output| output.as_str().to_owned()).map_err(|_| "too large".into())
    }

    #[test]
    fn placeholders_become_values() {
        for (text, output) in [
            ("", ""),
            ("{{ token }}", "<token>"),
            ("{{token}}{{id}}", "<token><id>"),
            ("{{\n\ttoken\n|\r\nurlencode }}", "%3Ctoken%3E"),
            ("{{token|b64encode|tojson}}", "\"PHRva2VuPg==\""),
            ("{{token|tojson|b64encode}}", "Ijx0b2tlbj4i"),
            (r#"{"a":{"b":{{ token | tojson }}}}"#, r#"{"a":{"b":"<token>"}}"#),
            (r#"{{ "{{" }} token {{ "}}" }}"#, "{{ token }}"),
            (r#"{{ "a b" | urlencode }}{{ "" }}"#, "a%20b"),
            ("}} { { é }", "}} { { é }"),
        ] {
            assert_eq!(render(text).as_deref(), Ok(output), "{text}");
        }
        for variable in TemplateVariable::ALL {
            assert_eq!(render(&format!("{{{{ {} }}}}", variable.name())), Ok(format!("<{}>", variable.name())));
        }
    }

    #[test]
    fn syntax_errors_name_the_place_and_the_fix() {
        for (text, place, message) in [
            (
                "a\nbé{{ tokn }}",
                "line 2, column 6",
                r#"unknown variable "tokn": write one of token, previousToken, id, "#,
            ),
            ("{{ token.foo }}", "line 1, column 4", r#"unknown variable "token.foo""#),
            (
                "{{ token | base64 }}",
                "line 1, column 12",
                r#"unknown filter "base64": write one of b64encode, tojson, urlencode"#,
            ),
            ("{{ }}", "line 1, column 4", "a variable (token, previousToken, "),
            ("{{}}", "line 1, column 3", r#"found "}}""#),
            ("{{ | tojson }}", "line 1, column 4", r#"found "|""#),
            ("{{ token | }}", "line 1, column 12", "expected a filter (b64encode, tojson, urlencode), found"),
            ("{{{ token }}}", "line 1, column 3", r#"found "{""#),
            ("{{ token id }}", "line 1, column 10", r#"expected | and a filter, or }}, found "id""#),
            ("{{ token }", "line 1, column 10", r#"found "}""#),
            ("\n {{ token", "line 2, column 2", "this {{ is not closed by }}"),
            ("{{", "line 1, column 1", "this {{ is not closed by }}"),
            ("{{ token |", "line 1, column 1", "this {{ is not closed by }}"),
            ("{{ \"}}", "line 1, column 4", "is not closed"),
            ("{{ \"a\" \"b\" }}", "line 1, column 8", r#"found "\"b\"""#),
            (
                "{{id|tojson|tojson|tojson|tojson|tojson|tojson|tojson|tojson|tojson}}",
                "line 1, column 61",
                "at most 8 filters",
            ),
        ] {
            let error = render(text).expect_err(text);
            assert!(error.starts_with(&format!("{place}: ")), "{text}: {error}");
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn long_word_is_cut_in_errors() {
        let error = Template::parse(&format!("{{{{ {} }}}}", "é".repeat(10_000))).unwrap_err().to_string();
        assert!(error.len() < 400, "{error}");
    }

    #[test]
    fn output_stops_at_the_limit() {
        let doubling = r#"{{ "\\\\\\\\\\" | tojson | tojson | tojson | tojson | tojson | tojson | tojson | tojson }}"#;
        assert_eq!(render(doubling), Err("too large".into()));
        assert_eq!(render(&"{{ token }}".repeat(142)).unwrap().len(), 994);
        assert_eq!(render(&"{{ token }}".repeat(143)), Err("too large".into()));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_and_keeps_the_limit(
            text in r#"\PC*|([{}|"]|\{\{|\}\}| |\n|token|id|tojson|b64encode|é|x){0,40}"#
        ) {
            if let Ok(output) = render(&text) {
                prop_assert!(output.len() <= 1000);
            }
        }

        #[test]
        fn text_without_braces_is_itself(text in "[^{]{0,200}|(\\{?[^{]){0,100}") {
            prop_assert_eq!(render(&text), Ok(text));
        }

        #[test]
        fn any_text_can_be_written_as_a_template(text in r#"([{}|"]|\{\{|\}\}| |é|x){0,40}"#) {
            prop_assert_eq!(render(&text.replace('{', r#"{{ "{" }}"#)), Ok(text));
        }
    }
}
