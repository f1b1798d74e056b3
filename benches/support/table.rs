//! The rows of a table: each result with its target and whether it is met.

use std::fmt;

use serde::Serialize;

/// One row of the table.
#[derive(Serialize)]
pub struct Row {
    what: String,
    /// A result for each column.
    figures: Vec<Option<f64>>,
    digits: usize,
    target: Option<String>,
    /// Whether all results meet the target.
    met: Option<bool>,
}

/// The median.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values[..] {
        [] => f64::NAN,
        _ if values.len() % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

impl Row {
    /// A row without a target.
    pub fn plain(what: impl Into<String>, digits: usize, figures: Vec<Option<f64>>) -> Self {
        Self { what: what.into(), figures, digits, target: None, met: None }
    }

    /// The same row with a target. `target` describes it, and `good` decides whether a result meets it.
    #[must_use]
    pub fn judged(self, target: String, good: impl Fn(f64) -> bool) -> Self {
        let met = self.figures.iter().flatten().all(|figure| good(*figure));
        Self { target: Some(target), met: Some(met), ..self }
    }

    /// A row with a minimum.
    pub fn least(what: impl Into<String>, digits: usize, figures: Vec<Option<f64>>, least: f64) -> Self {
        Self::plain(what, digits, figures).judged(format!("≥ {least}"), |figure| figure >= least)
    }

    /// A row with a maximum.
    pub fn most(what: impl Into<String>, digits: usize, figures: Vec<Option<f64>>, most: f64) -> Self {
        Self::plain(what, digits, figures).judged(format!("≤ {most}"), |figure| figure <= most)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:48}", self.what)?;
        for figure in &self.figures {
            match figure {
                Some(figure) => write!(out, "{figure:>12.0$}", self.digits)?,
                None => write!(out, "{:>12}", "")?,
            }
        }
        match (&self.target, self.met) {
            (Some(target), Some(met)) => write!(out, "  {target:>8}  {}", if met { "yes" } else { "no" }),
            _ => Ok(()),
        }
    }
}
