//! One TokenIssuer or ClusterTokenIssuer: the complete object, the typed fields that the plugin uses, and its state.
//!
//! An object with an invalid spec or status is not an error here, so that a list can still show it.

use kube::{
    api::{ApiResource, DynamicObject},
    core::TypeMeta,
};
use serde_json::Value;

use super::{
    error::Error,
    pat::{PatObject, printable},
    terminal::Tone,
};
use crate::{
    api::{IssuerKind, IssuerReference, IssuerStatus, Reason, StoredIssuer, Time, TokenIssuerSpec},
    controller::issuers::{IssuerKey, view},
    planner::remote::{IssuerProblem, IssuerView},
};

/// An issuer from the API server or from a file.
#[derive(Clone, Debug)]
pub struct IssuerObject {
    /// Its kind.
    pub kind: IssuerKind,
    /// The complete object.
    pub object: DynamicObject,
    /// The typed fields.
    pub stored: StoredIssuer,
}

/// Whether an issuer can be used, as its status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerState {
    /// `True`, `False` or `Unknown`.
    pub ready: String,
    /// The severity.
    pub tone: Tone,
    /// The reason of the condition; empty without a condition.
    pub reason: String,
    /// What is wrong and what to do. Empty if the issuer is ready.
    pub message: String,
}

impl IssuerObject {
    /// Reads the typed fields of an object.
    pub fn parse(kind: IssuerKind, mut object: DynamicObject) -> Result<Self, Error> {
        // Items of a list have no apiVersion and kind.
        object.types.get_or_insert_with(|| {
            let ApiResource { api_version, kind, .. } = kind.resource();
            TypeMeta { api_version, kind }
        });
        let unreadable = |error: serde_json::Error| Error::Usage(format!("not a Kubernetes object: {error}"));
        let value = serde_json::to_value(&object).map_err(unreadable)?;
        Ok(Self { kind, stored: serde_json::from_value(value).map_err(unreadable)?, object })
    }

    /// The namespace of a TokenIssuer; empty for a ClusterTokenIssuer.
    pub fn namespace(&self) -> &str {
        self.object.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The name of the object.
    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// The kind and the name, with the namespace of a TokenIssuer, for messages.
    pub fn title(&self) -> String {
        match self.namespace() {
            "" => format!("{} {}", self.kind.as_str(), self.name()),
            namespace => format!("{} {namespace}/{}", self.kind.as_str(), self.name()),
        }
    }

    /// Whether a PersonalAccessToken in this namespace means this issuer.
    pub fn is_named(&self, namespace: &str, reference: &IssuerReference) -> bool {
        let is_there = self.kind == IssuerKind::ClusterTokenIssuer || self.namespace() == namespace;
        is_there && self.kind == reference.kind && self.name() == reference.name
    }

    /// The status, or an empty one if it is invalid.
    pub fn status(&self) -> IssuerStatus {
        self.stored.status.clone().unwrap_or_default()
    }

    /// The name of the system, and its URL; empty if the spec names none.
    pub fn system(&self) -> (String, String) {
        let spec = self.stored.spec.as_ref().ok();
        let Some((system, url)) = spec.and_then(TokenIssuerSpec::system) else { return Default::default() };
        (system.as_str().to_owned(), url.unwrap_or_default().to_owned())
    }

    /// Whether it can be used, as the controller last found.
    pub fn state(&self) -> IssuerState {
        if let Err(problem) = &self.stored.spec {
            let (reason, message) = (Reason::IssuerNotReady.as_str().to_owned(), format!("spec: {problem}"));
            return IssuerState { ready: "False".into(), tone: Tone::Bad, reason, message };
        }
        let status = self.status();
        let Some(ready) = status.conditions.into_iter().find(|one| one.type_ == "Ready") else {
            let message =
                "no controller has processed the issuer yet: start one with --issuers, or wait if it was just created";
            return IssuerState {
                ready: "Unknown".into(),
                tone: Tone::Warning,
                reason: String::new(),
                message: message.into(),
            };
        };
        let is_outdated = status.observed_generation < self.stored.metadata.generation;
        let (tone, message) = match (ready.is_true(), is_outdated) {
            (_, true) => {
                (Tone::Warning, "the controller has not processed the latest change of the spec yet".to_owned())
            }
            (true, _) => (Tone::Good, String::new()),
            (false, _) if ready.reason == Reason::IssuerUnavailable.as_str() => (Tone::Warning, ready.message),
            (false, _) => (Tone::Bad, ready.message),
        };
        IssuerState { ready: ready.status.to_string(), tone, reason: ready.reason.to_string(), message }
    }

    /// Why it cannot be used, as the controller last found.
    pub fn problem(&self) -> Option<IssuerProblem> {
        let IssuerState { ready, reason, message, .. } = self.state();
        let needs_a_person = reason == Reason::IssuerNotReady.as_str();
        let reason = if needs_a_person { Reason::IssuerNotReady } else { Reason::IssuerUnavailable };
        (ready != "True").then_some(IssuerProblem { reason, message, since: Time::MIN })
    }

    /// The issuer as the planner sees it. `problem` is why it cannot be used.
    pub fn view(&self, problem: Option<IssuerProblem>) -> IssuerView {
        let namespace = self.object.metadata.namespace.clone().filter(|_| self.kind == IssuerKind::TokenIssuer);
        let key = IssuerKey { namespace, name: self.name().to_owned() };
        // A plan shows no names of tokens at the issuer, so the mark does not matter.
        view(&key, &self.stored, "00000000".to_owned(), problem)
    }

    /// The object as JSON, without managedFields.
    pub fn printable(&self) -> Value {
        printable(&self.object)
    }
}

/// Returns the issuer that a PersonalAccessToken names.
pub fn find_issuer<'i>(issuers: &'i [IssuerObject], pat: &PatObject) -> Option<&'i IssuerObject> {
    let spec = pat.spec();
    let reference = spec.issuer_ref.as_deref()?;
    issuers.iter().find(|issuer| issuer.is_named(pat.namespace(), reference))
}
