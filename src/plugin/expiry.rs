//! The end of a token, as flags say it.
//!
//! Pure.

use clap::Args;
use serde_json::{Value, json};

use super::cli::time;
use crate::api::{LengthOfTime, Time};

/// The end of a token: at most one of these.
#[derive(Clone, Debug, Default, Args)]
#[group(multiple = false)]
pub struct End {
    /// It ends so long after its first issue, such as 90d; rotations do not move that
    #[arg(long, value_name = "DURATION")]
    pub after: Option<LengthOfTime>,

    /// It ends at this time, such as 2030-12-31T23:59:59Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<Time>,

    /// It never ends by itself
    #[arg(long)]
    pub never: bool,
}

impl End {
    /// As `spec.expiry` has it; `None` if no flag was given.
    pub fn expiry(&self) -> Option<Value> {
        match self {
            Self { after: Some(after), .. } => Some(json!({"after": after})),
            Self { until: Some(until), .. } => Some(json!({"at": until})),
            Self { never: true, .. } => Some(json!({"never": true})),
            _ => None,
        }
    }
}

/// A merge patch that leaves nothing of another kind of end.
pub fn patch(mut expiry: Value) -> Value {
    for kind in ["at", "after", "never"] {
        if expiry.get(kind).is_none() {
            expiry[kind] = Value::Null;
        }
    }
    json!({"expiry": expiry})
}

/// For a person to copy.
pub fn words(expiry: &Value) -> String {
    let one = expiry.as_object().and_then(|fields| fields.iter().find(|(_, value)| !value.is_null()));
    one.map_or_else(String::new, |(kind, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), |text| format!("{text:?}"));
        format!("expiry: {{{kind}: {value}}}")
    })
}
