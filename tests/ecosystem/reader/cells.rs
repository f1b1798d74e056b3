//! Tables that say what to write in `spec`: the API server takes every such text.

use serde_json::{Value, json};

use super::pages::pages;
use crate::support::fences;
use crate::support::process::place::Place;

/// A heading of these columns begins so.
const HEADING: &str = "Write in `spec`";

/// What stands between backquotes in the columns of that name, if it is a field and its value.
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
async fn what_tables_tell_to_write_in_a_spec_is_taken() {
    let place = Place::new("cells").await;
    let mut count = 0;
    for page in pages() {
        for code in written(&fences::read(&page)) {
            count += 1;
            let text = code.replace("<now>", "\"2026-11-22T10:00:00Z\"").replace("<id>", "\"000000000000\"");
            let spec: Value = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{page}: {code}: {error}"));
            let taken = place.try_apply(&format!("cell-{count}"), json!({}), spec.clone()).await;
            let taken = taken.unwrap_or_else(|error| panic!("{page}: {code}: {error}"));
            // A field that is not known would be dropped.
            assert_eq!(taken.data["spec"], spec, "{page}: {code}");
        }
    }
    assert!(count >= 10, "{count}");
}
