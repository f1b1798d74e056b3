//! How many requests of each kind the API server served, by its own count.
//!
//! Must not know who asked: the difference of two readings is everything that happened between them.

use std::{collections::BTreeMap, ops::Sub};

use serde::Serialize;

use crate::prometheus::samples;

/// Verbs that change something, as the API server names them.
const WRITES: [&str; 7] = ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION", "CONNECT"];

/// The resources that the operator deals with.
const RESOURCES: [&str; 4] = ["personalaccesstokens", "secrets", "events", "leases"];

/// Requests by `VERB resource/subresource`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Requests(BTreeMap<String, u64>);

impl Requests {
    /// Takes them from the API server's metrics. A GET of one object is counted as `GET`, of several as `LIST`.
    pub fn read(metrics: &str) -> Self {
        let mut all = BTreeMap::new();
        for sample in samples(metrics).filter(|sample| sample.name == "apiserver_request_total") {
            let (verb, resource, subresource) =
                (sample.label("verb"), sample.label("resource"), sample.label("subresource"));
            if RESOURCES.contains(&resource) {
                let slash = if subresource.is_empty() { "" } else { "/" };
                *all.entry(format!("{verb} {resource}{slash}{subresource}")).or_default() += sample.value as u64;
            }
        }
        Self(all)
    }

    /// How many had one of these verbs and concerned this resource, its subresources included.
    fn count(&self, verbs: &[&str], resource: &str) -> u64 {
        let matching = self.0.iter().filter(|(kind, _)| {
            let (verb, what) = kind.split_once(' ').unwrap_or_default();
            verbs.contains(&verb) && what.split('/').next() == Some(resource)
        });
        matching.map(|(_, count)| count).sum()
    }

    /// Writes of PATs (their status included) and Secrets.
    pub fn writes(&self) -> u64 {
        self.count(&WRITES, "personalaccesstokens") + self.count(&WRITES, "secrets")
    }

    /// Writes of events.
    pub fn events(&self) -> u64 {
        self.count(&WRITES, "events")
    }

    /// Reads of one PAT or Secret.
    pub fn single_reads(&self) -> u64 {
        self.count(&["GET"], "personalaccesstokens") + self.count(&["GET"], "secrets")
    }

    /// Every kind of request that there was, with its number.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(kind, count)| (kind.as_str(), *count))
    }
}

impl Sub for Requests {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let since = |(kind, count): (String, u64)| {
            let count = count - earlier.0.get(&kind).copied().unwrap_or(0).min(count);
            (count > 0).then_some((kind, count))
        };
        Self(self.0.into_iter().filter_map(since).collect())
    }
}
