//! Lines of a table: each figure beside what it should be, with a plain yes or no.
//!
//! Must not know what the figures are of.

use std::fmt;

use serde::Serialize;

/// One line of the table.
#[derive(Serialize)]
pub struct Row {
    what: String,
    /// A figure for each column.
    figures: Vec<Option<f64>>,
    digits: usize,
    target: Option<String>,
    /// Whether the target is met, in every column that it is for.
    met: Option<bool>,
}

/// The one in the middle.
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
    /// Only told.
    pub fn plain(what: impl Into<String>, digits: usize, figures: Vec<Option<f64>>) -> Self {
        Self { what: what.into(), figures, digits, target: None, met: None }
    }

    /// The same, judged: `target` in words, and whether a figure is good.
    #[must_use]
    pub fn judged(self, target: String, good: impl Fn(f64) -> bool) -> Self {
        let met = self.figures.iter().flatten().all(|figure| good(*figure));
        Self { target: Some(target), met: Some(met), ..self }
    }

    /// To be at least so much.
    pub fn least(what: impl Into<String>, digits: usize, figures: Vec<Option<f64>>, least: f64) -> Self {
        Self::plain(what, digits, figures).judged(format!("≥ {least}"), |figure| figure >= least)
    }

    /// To be at most so much.
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
