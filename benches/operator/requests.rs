//! The number of requests of each kind that the API server served, from its metrics.
//!
//! The difference of two readings is everything that happened between them, by any client.

use std::{collections::BTreeMap, ops::Sub};

use serde::Serialize;

use crate::prometheus::samples;

/// The verbs of writes, as the API server names them.
const WRITES: [&str; 7] = ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION", "CONNECT"];

/// The resources that the operator uses.
const RESOURCES: [&str; 4] = ["personalaccesstokens", "secrets", "events", "leases"];

/// Request counts by `VERB resource/subresource`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Requests(BTreeMap<String, u64>);

impl Requests {
    /// Parses the API server's metrics. A GET of one object counts as `GET`, of several as `LIST`.
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

    /// The number of requests with one of these verbs for a resource and its subresources.
    fn count(&self, verbs: &[&str], resource: &str) -> u64 {
        let matching = self.0.iter().filter(|(kind, _)| {
            let (verb, what) = kind.split_once(' ').unwrap_or_default();
            verbs.contains(&verb) && what.split('/').next() == Some(resource)
        });
        matching.map(|(_, count)| count).sum()
    }

    /// The writes of PATs, including their status, and of Secrets.
    pub fn writes(&self) -> u64 {
        self.count(&WRITES, "personalaccesstokens") + self.count(&WRITES, "secrets")
    }

    /// The writes of events.
    pub fn events(&self) -> u64 {
        self.count(&WRITES, "events")
    }

    /// The reads of a single PAT or Secret.
    pub fn single_reads(&self) -> u64 {
        self.count(&["GET"], "personalaccesstokens") + self.count(&["GET"], "secrets")
    }

    /// Each kind of request, with its count.
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
