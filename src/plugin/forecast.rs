//! The steps of a simulated plan, in words.

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{Condition, ConditionType, Credential, CredentialState, PersonalAccessTokenStatus, StoredPat, Time},
    planner::{
        EventToPublish, RemoteRequest, SecretContent, SecretWrite, Step, TokenSource,
        simulate::{SimulationError, Simulator},
    },
};

/// The maximum number of steps. The longest plan of one token has a dozen.
const MAX_STEPS: usize = 40;

/// A wait of up to this length is part of the plan, such as the one after a hash is published.
const SHORT: SignedDuration = SignedDuration::from_mins(2);

/// The tokens at an issuer are listed about this long after one was revoked.
const LIST_DELAY: SignedDuration = SignedDuration::from_secs(15);

/// All steps of the operator until it only waits.
#[derive(Debug)]
pub struct Forecast {
    /// The steps, in order.
    pub steps: Vec<ForecastStep>,
    /// When the operator would plan again even if nothing changes.
    pub wake_at: Option<Time>,
}

/// One step.
#[derive(Debug)]
pub struct ForecastStep {
    /// When it happens.
    pub at: Time,
    /// What happens.
    pub what: String,
    /// The events that would be published by default.
    pub events: Vec<String>,
}

/// Plans and performs each step in the simulation until there is nothing to do but wait.
///
/// # Errors
/// The random number generator fails.
pub fn forecast(simulator: &mut Simulator) -> Result<Forecast, SimulationError> {
    let mut steps = Vec::new();
    let mut awaits_list = false;
    // The controller has listed the tokens before.
    simulator.issuer.iter_mut().for_each(|issuer| issuer.poll(simulator.now));
    simulator.perform(Step::ReadUncached)?;
    for _ in 0..MAX_STEPS {
        let plan = simulator.next_plan();
        let at = simulator.now;
        let what = match &plan.step {
            Step::Rest => match plan.wake_at.filter(|wake| plan.keep_held && wake.since(at) <= SHORT) {
                Some(wake) => {
                    simulator.now = wake.max(at);
                    continue;
                }
                None if std::mem::take(&mut awaits_list) => {
                    simulator.now = at.plus(LIST_DELAY);
                    simulator.issuer.iter_mut().for_each(|issuer| issuer.poll(simulator.now));
                    let what = "list the tokens at the issuer, which confirms the revocation".to_owned();
                    steps.push(ForecastStep { at: simulator.now, what, events: Vec::new() });
                    continue;
                }
                None => return Ok(Forecast { steps, wake_at: plan.wake_at }),
            },
            Step::ReadUncached => None,
            Step::Mint(prefix) => Some(format!("mint a token {prefix}_… in memory")),
            Step::DryRun(write) => {
                Some(format!("check by a dry run that the API server accepts Secret {}", write.name))
            }
            Step::WriteStatus(status) => Some(status_write(&simulator.pat, status)),
            Step::WriteSecret(write) => Some(secret_write(write)),
            Step::DeleteSecret(target) => Some(format!("delete Secret {}, which is no longer needed", target.name)),
            Step::Reserve => Some("choose the name of a new token at the issuer".into()),
            Step::AddFinalizer => {
                Some("add the finalizer that keeps the object until its tokens are revoked at the issuer".into())
            }
            Step::RemoveFinalizer(_) => Some("remove the finalizer: the object can go".into()),
            Step::CreateRemote(request) => Some(remote_creation(request)),
            Step::DeleteRemote(deletion) => Some(format!("revoke token {} at the issuer", deletion.name)),
        };
        awaits_list |= matches!(plan.step, Step::DeleteRemote(_));
        simulator.perform(plan.step)?;
        if let Some(what) = what {
            let events = plan.events.iter().filter(|event| !event.reason.is_routine()).map(event).collect();
            steps.push(ForecastStep { at, what, events });
        }
    }
    Ok(Forecast { steps, wake_at: None })
}

fn remote_creation(request: &RemoteRequest) -> String {
    let target = request.target.text();
    let target = if target.is_empty() { String::new() } else { format!(" for {target}") };
    let end =
        request.expires_at.map_or_else(|| ", which never ends".to_owned(), |end| format!(", which ends at {end}"));
    format!("ask the issuer for a token{target}{end}")
}

fn status_write(pat: &StoredPat, next: &PersonalAccessTokenStatus) -> String {
    let stored = pat.status.as_ref().ok();
    let all = |status: &PersonalAccessTokenStatus| status.all_credentials().cloned().collect::<Vec<_>>();
    let (before, after) = (stored.map(all).unwrap_or_default(), all(next));
    let conditions = &next.conditions;
    let mut parts: Vec<_> = after.iter().filter_map(|credential| credential_change(&before, credential)).collect();
    let ended = before.iter().filter(|old| after.iter().all(|one| one.id != old.id));
    parts.extend(ended.map(|old| format!("token {} has ended and is removed from the status", old.id)));
    let ready = |conditions: &[Condition]| {
        let ready = conditions.iter().find(|one| one.type_ == ConditionType::Ready.as_str());
        ready.map(|ready| format!("Ready={} {}: {}", ready.status, ready.reason, ready.message))
    };
    let present = stored.and_then(|status| ready(&status.conditions));
    parts.extend(ready(conditions).filter(|next| parts.is_empty() || Some(next) != present.as_ref()));
    format!("write the status: {}", parts.join("; "))
}

fn credential_change(before: &[Credential], now: &Credential) -> Option<String> {
    let old = before.iter().find(|old| old.id == now.id);
    match (old.map(|old| old.state), now.state) {
        (None, CredentialState::Pending) if now.remote.is_some() => {
            Some(format!("record the name of a new token (revision {}) at the issuer", now.revision))
        }
        (Some(_), CredentialState::Pending) if old.is_some_and(|old| old.remote != now.remote) => {
            Some(format!("record the ID and the hash of the token of revision {}", now.revision))
        }
        (
            Some(CredentialState::Active | CredentialState::Grace | CredentialState::Pending),
            CredentialState::Revoking,
        ) => Some(format!("token {} has ended and is to be revoked at the issuer", now.id)),
        (None, CredentialState::Pending) => Some(format!(
            "publish the hash of a new token (revision {}): verifiers accept it from now on",
            now.revision
        )),
        (Some(CredentialState::Pending) | None, CredentialState::Active) => {
            Some(format!("the token of revision {} is active", now.revision))
        }
        (Some(CredentialState::Active), CredentialState::Grace) => {
            let end = now.expires_at.map_or_else(String::new, |end| format!(" until {}", end.floor_second()));
            Some(format!("token {} is replaced and stays valid{end}", now.id))
        }
        _ if old.is_some_and(|old| old.expires_at != now.expires_at) => {
            let end = now.expires_at.map_or_else(|| "never".to_owned(), |end| format!("at {}", end.floor_second()));
            Some(format!("token {} now ends {end}", now.id))
        }
        _ => None,
    }
}

fn secret_write(write: &SecretWrite) -> String {
    let verb = if write.base.is_some() { "change" } else { "create" };
    let name = &write.name;
    match &write.content {
        SecretContent::Token { token, layout, previous, .. } => {
            let what = match token {
                TokenSource::Held { .. } => "the new token",
                TokenSource::Secret { .. } | TokenSource::Throwaway => "the active token",
            };
            let previous = match (&layout.previous_key, previous) {
                (Some(key), Some(_)) => format!(", the previous one under {key}"),
                _ => String::new(),
            };
            format!("{verb} Secret {name} ({}): {what} under the key {}{previous}", layout.type_, layout.key)
        }
        SecretContent::MetadataOnly { .. } => {
            format!("{verb} labels and annotations of Secret {name}; its data stays the same")
        }
        SecretContent::Cleared { .. } => format!("remove the token from Secret {name}"),
    }
}

fn event(event: &EventToPublish) -> String {
    format!("{}: {}", event.reason, event.note)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::{IssuerSystem, RemoteTarget, duration},
        planner::{intent::ControllerConfig, remote::IssuerView, simulate::SimulatedIssuer},
        token::Token,
    };

    const NOW: &str = "2030-01-01T00:00:00Z";

    fn simulator(spec: Value) -> Simulator {
        let metadata = json!({"name": "ci", "namespace": "shop", "uid": "u", "resourceVersion": "1", "generation": 1});
        let pat = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
        Simulator::new(pat, ControllerConfig::default(), NOW.parse().unwrap(), Box::new(Token::mint))
    }

    fn verbs(forecast: &Forecast) -> Vec<&str> {
        forecast.steps.iter().map(|step| step.what.split([':', ' ']).next().unwrap()).collect()
    }

    fn assert_at_rest(simulator: &mut Simulator) {
        let again = forecast(simulator).unwrap();
        assert!(again.steps.is_empty(), "{again:?}");
    }

    #[test]
    fn first_token_takes_a_mint_and_three_writes() {
        for spec in [
            json!({}),
            json!({"secret": {"template": {"preset": "DockerConfigJson", "host": "registry.example.com"}}}),
            json!({"secret": {"labels": {"a": "b"}, "template": {"data": {"env": "TOKEN={{ token }} {{ id }}"}}}}),
        ] {
            let mut simulator = simulator(spec);
            let found = forecast(&mut simulator).unwrap();
            assert_eq!(verbs(&found), ["mint", "write", "create", "write"], "{found:?}");
            let end = "2030-04-01T00:00:00Z".parse::<Time>().unwrap();
            assert_eq!(simulator.pat.status.as_ref().unwrap().expires_at, Some(end));
            assert_at_rest(&mut simulator);
        }
    }

    #[test]
    fn rotation_waits_for_verifiers_and_keeps_the_previous_token() {
        let mut simulator = simulator(json!({"rotation": {"interval": "10d"}, "secret": {"previousKey": "old"}}));
        forecast(&mut simulator).unwrap();
        simulator.now = simulator.now.plus(duration::parse("11d").unwrap());
        let found = forecast(&mut simulator).unwrap();
        assert_eq!(verbs(&found), ["mint", "write", "change", "write"], "{found:?}");
        assert_eq!(found.steps[2].at.since(found.steps[1].at), SignedDuration::from_secs(2));
        assert!(found.steps[2].what.contains("the previous one under old"), "{found:?}");
        assert!(found.steps[3].events.iter().any(|event| event.starts_with("Rotated: ")), "{found:?}");
        assert_at_rest(&mut simulator);
    }

    #[test]
    fn revocation_removes_the_token_from_the_secret() {
        let mut simulator = simulator(json!({}));
        forecast(&mut simulator).unwrap();
        simulator.pat.spec.as_mut().unwrap().revoked = Some(true);
        let found = forecast(&mut simulator).unwrap();
        assert!(found.steps.iter().any(|step| step.what.starts_with("remove the token from Secret ci")), "{found:?}");
        assert_at_rest(&mut simulator);
    }

    #[test]
    fn token_of_another_system_is_requested_and_revoked_there() {
        let mut simulator = simulator(json!({
            "issuerRef": {"kind": "ClusterTokenIssuer", "name": "git"}, "gitLab": {"project": "shop/web"},
            "scopes": ["read_repository"], "rotation": {"interval": "30d"},
        }));
        simulator.issuer = Some(SimulatedIssuer::new(IssuerView {
            title: "ClusterTokenIssuer \"git\"".into(),
            uid: "i".into(),
            system: IssuerSystem::GitLab,
            mark: "00000000".into(),
            policy: None,
            deleting: false,
            problem: None,
        }));
        let target = simulator.pat.spec.as_ref().unwrap().git_lab.as_deref().cloned();
        simulator.issuer.as_mut().unwrap().target = RemoteTarget { git_lab: target, ..RemoteTarget::default() };
        let found = forecast(&mut simulator).unwrap();
        let request = "ask the issuer for a token for project/shop/web, which ends at 2030-03-02T00:00:00Z";
        assert!(found.steps.iter().any(|step| step.what == request), "{found:?}");
        assert_at_rest(&mut simulator);

        simulator.pat.spec.as_mut().unwrap().revoked = Some(true);
        let found = forecast(&mut simulator).unwrap();
        let revoke = found.steps.iter().position(|step| step.what.starts_with("revoke token po-")).expect("a step");
        assert!(found.steps[revoke + 1..].iter().any(|step| step.what.starts_with("list the tokens")), "{found:?}");
        assert!(simulator.pat.status.as_ref().unwrap().remote_credentials.is_empty(), "{found:?}");
        assert_at_rest(&mut simulator);
    }

    #[test]
    fn invalid_spec_is_reported_in_the_status() {
        let found =
            forecast(&mut simulator(json!({"secret": {"template": {"data": {"a": "{{ nonsense }}"}}}}))).unwrap();
        assert!(found.steps.iter().any(|step| step.what.contains("InvalidSpec")), "{found:?}");
        assert!(!verbs(&found).contains(&"create"), "{found:?}");
    }
}
