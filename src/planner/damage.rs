//! What differs between a Secret and what the controller wrote, in words that name keys and never values.
//!
//! A mutating admission policy or webhook changes a write on its way: [`alteration`] compares the API server's answer with what was sent.
//! Another client changes the Secret later: `damage` in `drift.rs` compares.

use super::{
    inputs::Inputs,
    observed::SecretView,
    sorted_map::SortedMap,
    step::{SecretContent, SecretWrite},
};
use crate::api::{FIELD_MANAGER, MANAGED_BY, MANAGED_BY_LABEL};

/// A longer list of differences is cut.
const MAX_DIFFERENCES: usize = 5;

/// A difference between a Secret and what the controller wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What differs and what to do.
    pub message: String,
    /// Whether a value that the controller wrote is missing or another.
    pub lost_data: bool,
}

/// The differences that have been found so far.
#[derive(Debug, Default)]
pub(super) struct Differences {
    found: Vec<String>,
    /// Whether a value that the controller wrote is missing or another.
    pub lost_data: bool,
}

impl Differences {
    /// Adds a difference.
    pub fn add(&mut self, what: impl Into<String>) {
        self.found.push(what.into());
    }

    /// Adds those of another list.
    pub fn append(&mut self, other: Self) {
        self.found.extend(other.found);
        self.lost_data |= other.lost_data;
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Adds the entries of `wanted` that `there` does not have. `kind` is `label` or `annotation`.
    pub fn add_missing<'w>(
        &mut self,
        kind: &str,
        wanted: impl IntoIterator<Item = (&'w str, &'w str)>,
        there: &SortedMap<Box<str>>,
    ) {
        for (name, value) in wanted {
            match there.get(name) {
                Some(there) if **there == *value => {}
                Some(_) => self.add(format!("{kind} {name:?} has another value")),
                None => self.add(format!("{kind} {name:?} is missing")),
            }
        }
    }

    /// Adds that a value under this key is missing or another.
    pub fn add_lost(&mut self, key: &str, is_there: bool) {
        self.lost_data = true;
        self.add(format!("data.{key} {}", if is_there { "has another value" } else { "is missing" }));
    }

    /// Adds that a key is there that the controller did not write.
    pub fn add_foreign(&mut self, key: &str) {
        self.add(format!("data.{key} was added"));
    }
}

impl std::fmt::Display for Differences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.found.len().min(MAX_DIFFERENCES);
        f.write_str(&self.found[..shown].join(", "))?;
        match self.found.len() - shown {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Compares what the API server stored with what the controller sent for the PAT with this uid, and returns what differs, if anything.
///
/// The answer is to the write itself, so only admission can have changed it.
///
/// # Errors
/// What differs, if the write has failed: the Secret does not hold the token that was written, or holds data although it was cleared.
pub fn alteration(
    write: &SecretWrite,
    uid: &str,
    sent: &SecretView,
    stored: &SecretView,
) -> Result<Option<Damage>, Damage> {
    let mut differences = Differences::default();
    if !matches!(write.content, SecretContent::MetadataOnly { .. }) {
        compare_data(&mut differences, sent, stored);
    }
    let data_differs = !differences.is_empty();
    for (kind, wanted, there) in
        [("label", &sent.labels, &stored.labels), ("annotation", &sent.annotations, &stored.annotations)]
    {
        differences.add_missing(kind, wanted.iter().map(|(name, value)| (name, &**value)), there);
    }
    let record_differs = sent.record != stored.record;
    if record_differs {
        differences.add("annotations under pat-operator.io/ differ");
    }
    if write.set_owner && !stored.is_controlled_by(uid) {
        differences.add("the owner reference is missing");
    }
    if differences.is_empty() {
        return Ok(None);
    }
    let has_failed = match &write.content {
        SecretContent::Token { layout, .. } => {
            let token = sent.data.get(&layout.key);
            !stored.data.iter().any(|(_, value)| Some(value) == token)
        }
        SecretContent::MetadataOnly { layout: Some(_), .. } => false,
        SecretContent::MetadataOnly { layout: None, .. } | SecretContent::Cleared { .. } => {
            data_differs || record_differs
        }
    };
    let message = format!(
        "Secret {:?} is not stored as field manager {FIELD_MANAGER:?} writes it: {differences}; a mutating admission policy or webhook changes it: \
         exempt Secrets with the label {MANAGED_BY_LABEL}={MANAGED_BY}",
        write.name
    );
    let damage = Damage { message, lost_data: differences.lost_data };
    if has_failed { Err(damage) } else { Ok(Some(damage)) }
}

/// Returns the damage to a Secret to which the token is copied again and again. The first time it is only new.
pub(super) fn of_move(inputs: &Inputs<'_>, secret: Option<&SecretView>) -> Damage {
    let message = format!(
        "another client keeps changing Secret {:?}: it {}; the token stays in its former Secret, and the controller copies it again after a delay: \
         find out what changes it",
        inputs.secret_name,
        of_lost_token(inputs, secret)
    );
    Damage { message, lost_data: false }
}

/// Returns how the Secret lost its token, as a part of a message.
pub(super) fn of_lost_token(inputs: &Inputs<'_>, secret: Option<&SecretView>) -> String {
    let key = inputs.intent.layout.as_ref().map_or("token", |layout| layout.key.as_str());
    match secret.map(|secret| secret.data.get(key)) {
        None => "does not exist".into(),
        Some(None) => format!("has no data.{key}"),
        Some(Some(_)) => format!("has another value in data.{key}"),
    }
}

/// Returns the damage to a Secret that was cleared before.
pub(super) fn of_cleared(inputs: &Inputs<'_>) -> Damage {
    let message = format!("another client keeps writing to Secret {:?}, which is cleared", inputs.secret_name);
    Damage { message, lost_data: false }
}

fn compare_data(differences: &mut Differences, sent: &SecretView, stored: &SecretView) {
    for (key, value) in sent.data.iter() {
        let there = stored.data.get(key);
        if there != Some(value) {
            differences.add_lost(key, there.is_some());
        }
    }
    for (key, _) in stored.data.iter().filter(|(key, _)| sent.data.get(key).is_none()) {
        differences.add_foreign(key);
    }
}
