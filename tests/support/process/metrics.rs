//! A strict parser of OpenMetrics.

use std::collections::BTreeMap;

/// Metrics that comply with <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The type of each family.
    pub types: BTreeMap<String, String>,
    /// The value of each series. The key is its name and labels, as written.
    pub values: BTreeMap<String, f64>,
    /// The text.
    pub text: String,
}

impl Metrics {
    /// Parses a text. Panics at anything that the specification forbids.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with("\n# EOF\n"), "the text must end with # EOF and a line feed: {text}");
        let (mut types, mut helps) = (BTreeMap::new(), BTreeMap::new());
        let mut values = BTreeMap::new();
        let mut family = String::new();
        for line in text.lines() {
            assert!(
                !line.is_empty() && !line.contains('\r') && line.trim() == line,
                "a line without surrounding spaces: {line:?}"
            );
            if line == "# EOF" {
                assert!(
                    text.trim_end().ends_with("# EOF") && text.matches("# EOF").count() == 1,
                    "# EOF occurs once, at the end"
                );
            } else if let Some(about) = line.strip_prefix("# ") {
                let mut words = about.splitn(3, ' ');
                let (keyword, name, rest) = (words.next(), words.next().unwrap_or(""), words.next().unwrap_or(""));
                match keyword {
                    Some("HELP") => {
                        assert!(helps.insert(name.to_owned(), ()).is_none(), "a second HELP: {line}");
                    }
                    Some("TYPE") => {
                        assert!(["counter", "gauge", "histogram", "info"].contains(&rest), "{line}");
                        assert!(types.insert(name.to_owned(), rest.to_owned()).is_none(), "a second TYPE: {line}");
                    }
                    Some("UNIT") => {
                        assert!(name.ends_with(&format!("_{rest}")), "the name must end with the unit: {line}")
                    }
                    _ => panic!("not a line of OpenMetrics: {line}"),
                }
                family = name.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
                // Rust parses each number that the specification allows, with `inf` and `NaN` in any case.
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
                let name = series.split('{').next().unwrap_or_default();
                assert!(name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b':'), "{line}");
                let suffix =
                    name.strip_prefix(&*family).unwrap_or_else(|| panic!("a series outside its family: {line}"));
                let fits = match types.get(&family).map(String::as_str) {
                    Some("counter") => suffix == "_total" || suffix == "_created",
                    Some("gauge") => suffix.is_empty(),
                    Some("histogram") => ["_bucket", "_count", "_sum", "_created"].contains(&suffix),
                    Some("info") => suffix == "_info",
                    _ => false,
                };
                assert!(fits, "{family:?} has no such series: {line}");
                assert!(series.contains('{') == series.ends_with('}'), "{line}");
                assert!(values.insert(series.to_owned(), value).is_none(), "the same series again: {line}");
            }
        }
        assert!(types.keys().all(|name| helps.contains_key(name)), "each family has a HELP");
        Self { types, values, text: text.to_owned() }
    }

    /// The value of a series that must exist.
    pub fn value(&self, series: &str) -> f64 {
        *self.values.get(series).unwrap_or_else(|| panic!("no {series} in:\n{}", self.text))
    }
}
