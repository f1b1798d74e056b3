//! Checks the tables that show fields for `spec`: the API server accepts each of them.

use serde_json::{Value, json};

use super::pages::pages;
use crate::support::fences;
use crate::support::process::place::Place;

/// The start of the heading of such a column.
const HEADING: &str = "Write in `spec`";

/// The fields with values in backticks in such columns.
fn written(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut column = None;
    for line in text.lines() {
        if !line.starts_with('|') {
            column = None;
            continue;
        }
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let Some(at) = cells.iter().position(|cell| cell.starts_with(HEADING)) {
            column = Some(at);
        } else if let Some(cell) = column.and_then(|at: usize| cells.get(at)) {
            found.extend(cell.split('`').skip(1).step_by(2).filter(|code| code.contains(": ")).map(str::to_owned));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_accepts_spec_fields_shown_in_tables() {
    let place = Place::new("cells").await;
    let mut count = 0;
    for page in pages() {
        for code in written(&fences::read(&page)) {
            count += 1;
            let text = code.replace("<now>", "\"2026-11-22T10:00:00Z\"").replace("<id>", "\"000000000000\"");
            let spec: Value = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{page}: {code}: {error}"));
            let taken = place.try_apply(&format!("cell-{count}"), json!({}), spec.clone()).await;
            let taken = taken.unwrap_or_else(|error| panic!("{page}: {code}: {error}"));
            // The API server would drop an unknown field.
            assert_eq!(taken.data["spec"], spec, "{page}: {code}");
        }
    }
    assert!(count >= 10, "{count}");
}
