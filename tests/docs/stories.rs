//! The states of a token and the transitions between them, each as a story of what leads to it.
//!
//! Each condition, reason and event must occur in a story. Otherwise the test fails.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pat_operator::{
    api::{Condition, ConditionType, IssuerSystem, Reason, duration},
    planner::{observed::WriteRefusalKind, remote::IssuerProblem, simulate::RemoteAnswer},
};
use serde_json::json;

use super::simulation::{Frame, Simulation, with_issuer};

/// The status and events at the end of a story.
pub struct StoryEnd {
    conditions: Vec<Condition>,
    /// The events since the last reset in the story.
    pub events: Vec<PublishedEvent>,
    /// The states after each write.
    pub frames: Vec<Frame>,
}

/// One event.
pub struct PublishedEvent {
    pub reason: String,
    pub warning: bool,
    /// Whether it is published only with `--issue-events`.
    pub is_routine: bool,
}

impl StoryEnd {
    /// The condition of that type, if the status has it.
    pub fn condition(&self, type_: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_.as_str())
    }
}

impl From<Simulation> for StoryEnd {
    fn from(mut simulation: Simulation) -> Self {
        let (conditions, frames) = (simulation.conditions().to_vec(), simulation.frames().to_vec());
        let events = simulation.events().into_iter();
        let published = events.map(|event| PublishedEvent {
            reason: event.reason.to_string(),
            warning: event.warning,
            is_routine: event.reason.is_routine(),
        });
        Self { conditions, events: published.collect(), frames }
    }
}

type Story = (&'static str, fn() -> StoryEnd);

/// The states, in the order of the table.
pub const STATES: &[Story] = &[
    ("The first token is being issued", || {
        let mut simulation = Simulation::new(json!({}));
        simulation.run_writes(1);
        simulation.into()
    }),
    ("Issued", || Simulation::settled(json!({})).into()),
    ("A rotation is in progress: the new hash is published, the Secret still holds the old token", || {
        let mut simulation = Simulation::settled(json!({"rotation": {"interval": "30d"}}));
        simulation.advance("30d");
        simulation.run();
        simulation.into()
    }),
    ("Rotated: the old token is in its grace period", || rotated().into()),
    ("The token expires soon", || {
        let mut simulation = Simulation::settled(json!({"expiry": {"after": "90d"}}));
        simulation.advance("85d");
        simulation.run();
        simulation.into()
    }),
    ("Expired", || {
        let mut simulation = Simulation::settled(json!({"expiry": {"after": "90d"}}));
        simulation.advance("90d");
        simulation.run();
        simulation.into()
    }),
    ("`spec.revoked`", || {
        let mut simulation = Simulation::settled(json!({}));
        simulation.edit(json!({"revoked": true}));
        simulation.run();
        simulation.into()
    }),
    ("`spec.revokeIfIssuedBefore` revoked every token: a new one is being issued", || {
        let mut simulation = Simulation::settled(json!({}));
        simulation.advance("1d");
        simulation.edit(json!({"revokeIfIssuedBefore": simulation.now()}));
        simulation.run_writes(2);
        simulation.into()
    }),
    ("`spec.suspend`, with a valid token", || {
        let mut simulation = Simulation::settled(json!({}));
        simulation.edit(json!({"suspend": true}));
        simulation.run();
        simulation.into()
    }),
    ("`spec.suspend` prevents a rotation, and the token expires soon", || {
        let mut simulation = Simulation::settled(json!({"rotation": {"interval": "30d"}}));
        simulation.edit(json!({"rotation": {"interval": "30d"}, "suspend": true}));
        simulation.advance("58d");
        simulation.run();
        simulation.into()
    }),
    ("`spec.suspend`, without a token", || Simulation::settled(json!({"suspend": true})).into()),
    ("A `TokenOwner` disables the owner", || owner_disabled().into()),
    ("The clocks of controller and API server differ by more than 5 minutes, and there is no token", || {
        let mut simulation = Simulation::new(json!({}));
        simulation.clock_skew = duration::parse("2d").expect("a duration");
        simulation.run();
        simulation.into()
    }),
    ("The clocks differ, and a rotation is due; the current token still works", || {
        let mut simulation = Simulation::settled(json!({"rotation": {"interval": "30d"}}));
        simulation.clock_skew = duration::parse("2d").expect("a duration");
        simulation.advance("30d");
        simulation.run();
        simulation.into()
    }),
    ("`spec.revokeIfIssuedBefore` spares a token whose issue lies in the future", || spared().into()),
    ("Another owner has a Secret with that name", || {
        let mut simulation = Simulation::new(json!({}));
        simulation.add_foreign("app");
        simulation.run();
        simulation.into()
    }),
    ("An older PersonalAccessToken uses the same Secret name", || {
        let mut simulation = Simulation::new(json!({}));
        simulation.conflicting_pat = Some("older".into());
        simulation.run();
        simulation.into()
    }),
    (
        "`spec.secret.name` was changed to a name that is taken; the token still works in its former Secret, and is rotated there",
        || {
            let mut simulation = Simulation::settled(json!({}));
            simulation.add_foreign("taken");
            simulation.edit(json!({"secret": {"name": "taken"}}));
            simulation.run();
            simulation.into()
        },
    ),
    ("The spec is invalid, and there is no token", || Simulation::settled(bad_template()).into()),
    ("The spec is invalid; an earlier token still works", || {
        let mut simulation = Simulation::settled(json!({}));
        simulation.edit(bad_template());
        simulation.run();
        simulation.into()
    }),
    ("The API server refuses the first Secret (quota, admission, permission)", || {
        refused(WriteRefusalKind::Other).into()
    }),
    ("The API server refuses the Secret of a rotation; the current token still works", || {
        let mut simulation = Simulation::settled(json!({"rotation": {"interval": "30d"}}));
        simulation.refuses = Some(WriteRefusalKind::Other);
        simulation.advance("30d");
        simulation.run_on();
        simulation.into()
    }),
    (
        "`spec.secret.name` was changed and the API server refuses the new Secret; the token still works in its former one, and is rotated there",
        || {
            let mut simulation = Simulation::settled(json!({}));
            simulation.refuses = Some(WriteRefusalKind::Other);
            simulation.edit(json!({"secret": {"name": "other"}}));
            simulation.run();
            simulation.into()
        },
    ),
    ("The Secret is immutable and a rotation is due; the current token still works", || frozen().into()),
    ("The Secret is immutable and does not hold the token", || {
        let mut simulation = Simulation::settled(json!({}));
        simulation.tamper("app", "token");
        simulation.freeze("app");
        simulation.run();
        simulation.into()
    }),
    ("The API server refuses to remove a token that has ended from the Secret", || uncleared().into()),
    ("The namespace is being deleted, and there is no token", || {
        refused(WriteRefusalKind::NamespaceTerminating).into()
    }),
    ("`delivery: Once`: the token waits in the Secret", || Simulation::settled(once()).into()),
    ("`delivery: Once`: the token was taken", || taken().into()),
    ("`delivery: Once`: taken, and a second token was requested and waits", || {
        let mut simulation = taken();
        request_another(&mut simulation);
        simulation.into()
    }),
    ("`delivery: Once`: not taken within 10 minutes", || missed().into()),
    ("`delivery: Once`: taken, then revoked by `spec.revokedCredentials`", || {
        let mut simulation = taken();
        let id = simulation.credentials()[0].id.clone();
        simulation.edit(json!({"secret": {"delivery": "Once"}, "revokedCredentials": [id]}));
        simulation.run();
        simulation.into()
    }),
    ("Something keeps deleting the Secret: 3 tokens within an hour", || {
        let mut simulation = Simulation::settled(json!({}));
        for _ in 0..4 {
            simulation.advance("1m");
            simulation.delete("app");
            simulation.events();
            simulation.run();
        }
        simulation.into()
    }),
    ("An admission policy or webhook removes the token from the Secret", || {
        let mut simulation = Simulation::new(json!({}));
        simulation.admission = Some(Box::new(|secret, _| secret.data = None));
        simulation.run();
        simulation.into()
    }),
    ("An admission policy, a webhook or another client keeps changing a label of the Secret; the token works", || {
        let mut simulation = Simulation::new(json!({}));
        simulation.admission = Some(Box::new(|secret, _| secret.metadata.labels = None));
        simulation.run();
        simulation.into()
    }),
    ("The issuer of another system does not exist", || {
        let mut simulation = Simulation::new(with_issuer(json!({})));
        simulation.run();
        simulation.into()
    }),
    ("The issuer is not ready, and a rotation is due; the current token still works", || {
        due_while_the_issuer_has(Reason::IssuerNotReady).into()
    }),
    ("The issuer does not answer, and a rotation is due; the current token still works", || {
        due_while_the_issuer_has(Reason::IssuerUnavailable).into()
    }),
    (
        "The policy of the issuer no longer permits the token, and a rotation is due; the current token still works",
        || {
            let mut simulation = rotating_at_issuer();
            let policy = json!({"rules": [{"namespaces": ["payments"]}]});
            simulation.issuer.as_mut().expect("an issuer").view.policy =
                serde_json::from_value(policy).expect("a policy");
            simulation.advance("30d");
            simulation.run();
            simulation.into()
        },
    ),
    ("A grace period has ended, and the issuer has not confirmed the revocation; the current token works", || {
        let mut simulation = rotating_at_issuer();
        simulation.advance("30d");
        simulation.run();
        simulation.advance("2d");
        simulation.run();
        simulation.into()
    }),
    ("The issuer refuses to create a token", || {
        let mut simulation = Simulation::remote(json!({}));
        simulation.issuer.as_mut().expect("an issuer").next_answer = RemoteAnswer::Refusal;
        simulation.run();
        simulation.into()
    }),
    ("The policy of the issuer does not permit the token", || {
        let mut simulation = Simulation::remote(json!({}));
        let policy = json!({"rules": [{"namespaces": ["payments"]}]});
        simulation.issuer.as_mut().expect("an issuer").view.policy = serde_json::from_value(policy).expect("a policy");
        simulation.run();
        simulation.into()
    }),
    ("The issuer has revoked the token twice within a day", || {
        let mut simulation = lost_at_issuer();
        simulation.events();
        simulation.revoke_at_the_issuer();
        simulation.run();
        simulation.into()
    }),
    ("`spec.revoked`, and the issuer has not confirmed it", || {
        let mut simulation = Simulation::remote(json!({}));
        simulation.run();
        simulation.events();
        simulation.edit(with_issuer(json!({"revoked": true})));
        simulation.run();
        simulation.into()
    }),
    ("The issuer does not end tokens by itself", || {
        let mut simulation = Simulation::remote(json!({}));
        simulation.issuer.as_mut().expect("an issuer").view.system = IssuerSystem::Gitea;
        simulation.run();
        simulation.into()
    }),
    ("8 credentials are live and a rotation is due; the current token still works", || eight_live().into()),
    ("8 credentials are live, and the Secret was deleted", || {
        let mut simulation = eight_live();
        simulation.delete("app");
        simulation.run();
        simulation.into()
    }),
];

/// The transitions, in the order of the table.
pub const TRANSITIONS: &[Story] = &[
    ("A token is issued for the first time", || {
        let mut simulation = Simulation::new(json!({}));
        simulation.run();
        simulation.into()
    }),
    ("A token is rotated", || rotated().into()),
    ("A grace period ends", || {
        let mut simulation = rotated();
        simulation.events();
        simulation.advance("1d");
        simulation.run();
        simulation.into()
    }),
    ("The Secret is deleted", || {
        let mut simulation = Simulation::settled(json!({}));
        simulation.delete("app");
        simulation.run();
        simulation.into()
    }),
    ("A label or a value of the Secret is changed", || {
        let mut simulation = Simulation::settled(json!({"secret": {"template": {"data": {"config": "{{ token }}"}}}}));
        simulation.tamper("app", "config");
        simulation.run();
        simulation.into()
    }),
    ("`spec.secret.name` is changed", || {
        let mut simulation = Simulation::settled(json!({}));
        simulation.edit(json!({"secret": {"name": "other"}}));
        simulation.run();
        simulation.into()
    }),
    ("The Secret is copied under another name, with its label and owner reference", || {
        let mut simulation = Simulation::settled(json!({}));
        simulation.copy("app", "copy");
        simulation.run();
        simulation.into()
    }),
    ("`spec.revokeIfIssuedBefore` takes effect", || {
        let mut simulation = Simulation::settled(json!({}));
        simulation.advance("1d");
        simulation.edit(json!({"revokeIfIssuedBefore": simulation.now()}));
        simulation.run();
        simulation.into()
    }),
    ("`spec.revokedCredentials` names the token in the Secret", || {
        let mut simulation = Simulation::settled(json!({}));
        let id = simulation.credentials()[0].id.clone();
        simulation.edit(json!({"revokedCredentials": [id]}));
        simulation.run();
        simulation.into()
    }),
    ("`spec.revoked` is set", || {
        let mut simulation = Simulation::settled(json!({}));
        simulation.edit(json!({"revoked": true}));
        simulation.run();
        simulation.into()
    }),
    ("A `TokenOwner` disables the owner", || owner_disabled().into()),
    ("A token approaches its expiry, and expires", || {
        let mut simulation = Simulation::settled(json!({"expiry": {"after": "90d"}}));
        simulation.advance("85d");
        simulation.run();
        simulation.advance("5d");
        simulation.run();
        simulation.into()
    }),
    ("The operator was down for more than two rotation intervals", || {
        let mut simulation = Simulation::settled(json!({"rotation": {"interval": "30d"}}));
        simulation.advance("61d");
        simulation.run();
        simulation.into()
    }),
    ("The status is lost (a restored backup, an accidental `kubectl replace`)", || {
        let mut simulation = Simulation::settled(json!({}));
        simulation.lose_status();
        simulation.run();
        simulation.into()
    }),
    ("Another client writes credentials to the status that are none", || {
        let mut simulation = Simulation::settled(json!({}));
        simulation.pat.status.as_mut().expect("a status").credentials[0].sha256 = "none".into();
        simulation.run();
        simulation.into()
    }),
    ("`spec.revokeIfIssuedBefore` spares a token whose issue lies in the future", || spared().into()),
    ("The issuer of another system has revoked the token", || lost_at_issuer().into()),
    ("The object is deleted while the issuer of its tokens cannot be used", || {
        let mut simulation = Simulation::remote(json!({}));
        simulation.run();
        simulation.events();
        let message = "its Secret does not exist".to_owned();
        let problem = IssuerProblem { reason: Reason::IssuerNotReady, message, since: pat_operator::api::Time::MIN };
        simulation.issuer.as_mut().expect("an issuer").view.problem = Some(problem);
        let deleted = Time(simulation.now.timestamp());
        simulation.pat.metadata.deletion_timestamp = Some(deleted);
        simulation.run();
        simulation.advance("10m");
        simulation.run();
        simulation.into()
    }),
    ("`delivery: Once`: the token is taken", || taken().into()),
    ("`delivery: Once`: a second token is requested after that", || {
        let mut simulation = taken();
        request_another(&mut simulation);
        simulation.into()
    }),
    ("`delivery: Once`: the token is not taken within 10 minutes", || missed().into()),
    ("An admission policy, a webhook or another client keeps changing the Secret", || {
        let mut simulation = Simulation::settled(json!({"secret": {"template": {"data": {"config": "{{ token }}"}}}}));
        for _ in 0..5 {
            simulation.tamper("app", "config");
            simulation.events();
            simulation.run();
        }
        simulation.into()
    }),
    ("The API server refuses a Secret", || refused(WriteRefusalKind::Other).into()),
    ("The API server refuses to remove a token that has ended from the Secret", || uncleared().into()),
    ("The Secret is immutable and a rotation is due", || frozen().into()),
    ("The Secret is immutable, and `spec.revoked` is set", || {
        let mut simulation = Simulation::settled(json!({}));
        simulation.freeze("app");
        simulation.edit(json!({"revoked": true}));
        simulation.run();
        simulation.into()
    }),
];

fn rotating_at_issuer() -> Simulation {
    let mut simulation = Simulation::remote(json!({"rotation": {"interval": "30d"}, "gracePeriod": "1d"}));
    simulation.run();
    simulation.events();
    simulation
}

fn due_while_the_issuer_has(reason: Reason) -> Simulation {
    let mut simulation = rotating_at_issuer();
    let problem = IssuerProblem { reason, message: "a problem".to_owned(), since: pat_operator::api::Time::MIN };
    simulation.issuer.as_mut().expect("an issuer").view.problem = Some(problem);
    simulation.advance("30d");
    simulation.run();
    simulation
}

fn owner_disabled() -> Simulation {
    let mut simulation = Simulation::settled(json!({}));
    simulation.disabled_by = Some("shop".into());
    simulation.run();
    simulation
}

fn frozen() -> Simulation {
    let mut simulation = Simulation::settled(json!({"rotation": {"interval": "30d"}}));
    simulation.freeze("app");
    simulation.advance("30d");
    simulation.run();
    simulation
}

fn uncleared() -> Simulation {
    let mut simulation = Simulation::settled(json!({}));
    simulation.refuses = Some(WriteRefusalKind::Other);
    simulation.edit(json!({"revoked": true}));
    simulation.run();
    simulation
}

/// Issued while a clock was an hour ahead.
fn spared() -> Simulation {
    let mut simulation = Simulation::settled(json!({}));
    simulation.now = simulation.now.minus(duration::parse("1h").expect("a duration"));
    simulation.edit(json!({"revokeIfIssuedBefore": simulation.now()}));
    simulation.run();
    simulation
}

/// Revoked at the issuer, and replaced.
fn lost_at_issuer() -> Simulation {
    let mut simulation = Simulation::remote(json!({}));
    simulation.run();
    simulation.events();
    simulation.revoke_at_the_issuer();
    simulation.run();
    simulation
}

fn once() -> serde_json::Value {
    json!({"secret": {"delivery": "Once"}})
}

fn taken() -> Simulation {
    let mut simulation = Simulation::settled(once());
    simulation.delete("app");
    simulation.run();
    simulation
}

fn missed() -> Simulation {
    let mut simulation = Simulation::settled(once());
    simulation.advance("10m");
    simulation.run();
    simulation
}

fn request_another(simulation: &mut Simulation) {
    simulation.advance("1d");
    let mut spec = once();
    spec["rotateIfIssuedBefore"] = json!(simulation.now());
    simulation.edit(spec);
    simulation.run();
}

fn rotated() -> Simulation {
    let mut simulation =
        Simulation::settled(json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "previous"}}));
    simulation.advance("30d");
    simulation.run_on();
    simulation
}

fn refused(kind: WriteRefusalKind) -> Simulation {
    let mut simulation = Simulation::new(json!({}));
    simulation.refuses = Some(kind);
    simulation.run();
    simulation
}

fn bad_template() -> serde_json::Value {
    json!({"secret": {"template": {"data": {"config": "{{ nonsense }}"}}}})
}

/// Rotated on request 8 times within one grace period.
fn eight_live() -> Simulation {
    let mut simulation = Simulation::settled(json!({"gracePeriod": "30d"}));
    for _ in 0..8 {
        simulation.advance("1m");
        simulation.edit(json!({"gracePeriod": "30d", "rotateIfIssuedBefore": simulation.now()}));
        simulation.events();
        simulation.run_on();
    }
    assert_eq!(simulation.credentials().len(), 8);
    simulation
}
