//! Reads what `/metrics` serves, as strictly as the specification is.
//!
//! It must not know which figures there are.

use std::collections::BTreeMap;

/// Metrics as <https://prometheus.io/docs/specs/om/open_metrics_spec/> wants them, read strictly.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The type of each family.
    pub types: BTreeMap<String, String>,
    /// The value of each series, by its name and labels as written.
    pub values: BTreeMap<String, f64>,
    /// The text.
    pub text: String,
}

impl Metrics {
    /// Reads the text; whatever the specification forbids is a failure.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with("\n# EOF\n"), "it ends with # EOF and a line feed: {text}");
        let (mut types, mut helps) = (BTreeMap::new(), BTreeMap::new());
        let mut values = BTreeMap::new();
        let mut family = String::new();
        for line in text.lines() {
            assert!(!line.is_empty() && !line.contains('\r') && line.trim() == line, "a bare line: {line:?}");
            if line == "# EOF" {
                assert!(text.trim_end().ends_with("# EOF") && text.matches("# EOF").count() == 1, "once, at the end");
            } else if let Some(about) = line.strip_prefix("# ") {
                let mut words = about.splitn(3, ' ');
                let (keyword, name, rest) = (words.next(), words.next().unwrap_or(""), words.next().unwrap_or(""));
                match keyword {
                    Some("HELP") => {
                        assert!(helps.insert(name.to_owned(), ()).is_none(), "helped twice: {line}");
                    }
                    Some("TYPE") => {
                        assert!(["counter", "gauge", "histogram", "info"].contains(&rest), "{line}");
                        assert!(types.insert(name.to_owned(), rest.to_owned()).is_none(), "families are whole: {line}");
                    }
                    Some("UNIT") => assert!(name.ends_with(&format!("_{rest}")), "the unit ends the name: {line}"),
                    _ => panic!("not a line of OpenMetrics: {line}"),
                }
                family = name.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
                // The specification's numbers are Rust's, `inf` and `NaN` in any case included.
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
                let name = series.split('{').next().unwrap_or_default();
                assert!(name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b':'), "{line}");
                let suffix = name.strip_prefix(&*family).unwrap_or_else(|| panic!("outside of its family: {line}"));
                let fits = match types.get(&family).map(String::as_str) {
                    Some("counter") => suffix == "_total" || suffix == "_created",
                    Some("gauge") => suffix.is_empty(),
                    Some("histogram") => ["_bucket", "_count", "_sum", "_created"].contains(&suffix),
                    Some("info") => suffix == "_info",
                    _ => false,
                };
                assert!(fits, "{family:?} has no such series: {line}");
                assert!(series.contains('{') == series.ends_with('}'), "{line}");
                assert!(values.insert(series.to_owned(), value).is_none(), "a series twice: {line}");
            }
        }
        assert!(types.keys().all(|name| helps.contains_key(name)), "every family says what it is");
        Self { types, values, text: text.to_owned() }
    }

    /// The value of a series that must be there.
    pub fn value(&self, series: &str) -> f64 {
        *self.values.get(series).unwrap_or_else(|| panic!("no {series} in:\n{}", self.text))
    }
}
