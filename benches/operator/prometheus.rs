//! Parses the parts of the Prometheus text format that the API server and the operator use.

/// One line, such as `name{label="value",…} 1.5`.
pub struct Sample<'t> {
    /// The metric's name.
    pub name: &'t str,
    labels: &'t str,
    /// The value.
    pub value: f64,
}

impl<'t> Sample<'t> {
    /// The value of a label, or an empty text.
    pub fn label(&self, name: &str) -> &'t str {
        let parts = self.labels.split(',').filter_map(|part| part.split_once('='));
        parts.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value.trim_matches('"'))
    }
}

/// All samples of a text. Label values must not contain commas or braces.
pub fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (head, value) = line.rsplit_once(' ')?;
        let (name, labels) = match head.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (head, ""),
        };
        Some(Sample { name, labels, value: value.parse().ok()? })
    })
}
