//! The states of a token and the transitions between them, each as a story of what leads to it.
//!
//! A condition, reason or event that no story meets fails the test: add one.

use pat_operator::{
    api::{Condition, ConditionType},
    planner::observed::WriteRefusalKind,
};
use serde_json::json;

use super::world::{Frame, World};

/// The end of a story.
pub struct Scene {
    conditions: Vec<Condition>,
    /// The events of the last part of the story.
    pub events: Vec<PublishedEvent>,
    /// The states after each write.
    pub frames: Vec<Frame>,
}

/// One event.
pub struct PublishedEvent {
    pub reason: String,
    pub warning: bool,
}

impl Scene {
    /// The condition of that type, if the status has it.
    pub fn condition(&self, type_: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_.as_str())
    }
}

impl From<World> for Scene {
    fn from(mut world: World) -> Self {
        let (conditions, frames) = (world.conditions().to_vec(), world.frames().to_vec());
        let events = world.events().into_iter();
        let published = events.map(|event| PublishedEvent { reason: event.reason.to_string(), warning: event.warning });
        Self { conditions, events: published.collect(), frames }
    }
}

type Story = (&'static str, fn() -> Scene);

/// The states, in the order of the table.
pub const STATES: &[Story] = &[
    ("The first token is being issued", || {
        let mut world = World::new(json!({}));
        world.run_for(1);
        world.into()
    }),
    ("Issued", || World::settled(json!({})).into()),
    ("A rotation is in progress: the new hash is published, the Secret still holds the old token", || {
        let mut world = World::settled(json!({"rotation": {"interval": "30d"}}));
        world.pass("30d");
        world.run();
        world.into()
    }),
    ("Rotated: the old token is in its grace period", || rotated().into()),
    ("The token expires soon", || {
        let mut world = World::settled(json!({"expiry": {"after": "90d"}}));
        world.pass("85d");
        world.run();
        world.into()
    }),
    ("Expired", || {
        let mut world = World::settled(json!({"expiry": {"after": "90d"}}));
        world.pass("90d");
        world.run();
        world.into()
    }),
    ("`spec.revoked`", || {
        let mut world = World::settled(json!({}));
        world.edit(json!({"revoked": true}));
        world.run();
        world.into()
    }),
    ("`spec.revokeIfIssuedBefore` revoked every token: a new one is being issued", || {
        let mut world = World::settled(json!({}));
        world.pass("1d");
        world.edit(json!({"revokeIfIssuedBefore": world.now()}));
        world.run_for(2);
        world.into()
    }),
    ("`spec.suspend`, with a valid token", || {
        let mut world = World::settled(json!({}));
        world.edit(json!({"suspend": true}));
        world.run();
        world.into()
    }),
    ("`spec.suspend` prevents a rotation, and the token expires soon", || {
        let mut world = World::settled(json!({"rotation": {"interval": "30d"}}));
        world.edit(json!({"rotation": {"interval": "30d"}, "suspend": true}));
        world.pass("58d");
        world.run();
        world.into()
    }),
    ("`spec.suspend`, without a token", || World::settled(json!({"suspend": true})).into()),
    ("Another owner has a Secret with that name", || {
        let mut world = World::new(json!({}));
        world.add_foreign("app");
        world.run();
        world.into()
    }),
    ("An older PersonalAccessToken uses the same Secret name", || {
        let mut world = World::new(json!({}));
        world.conflicting_pat = Some("older".into());
        world.run();
        world.into()
    }),
    ("`spec.secret.name` was changed to a name that is taken; the token still works in its former Secret", || {
        let mut world = World::settled(json!({}));
        world.add_foreign("taken");
        world.edit(json!({"secret": {"name": "taken"}}));
        world.run();
        world.into()
    }),
    ("The spec is invalid, and there is no token", || World::settled(bad_template()).into()),
    ("The spec is invalid; an earlier token still works", || {
        let mut world = World::settled(json!({}));
        world.edit(bad_template());
        world.run();
        world.into()
    }),
    ("The API server refuses the first Secret (quota, admission, permission)", || {
        refused(WriteRefusalKind::Other).into()
    }),
    ("The API server refuses the Secret of a rotation; the current token still works", || {
        let mut world = World::settled(json!({"rotation": {"interval": "30d"}}));
        world.refuses = Some(WriteRefusalKind::Other);
        world.pass("30d");
        world.run_on();
        world.into()
    }),
    (
        "`spec.secret.name` was changed and the API server refuses the new Secret; the token still works in its former one",
        || {
            let mut world = World::settled(json!({}));
            world.refuses = Some(WriteRefusalKind::Other);
            world.edit(json!({"secret": {"name": "other"}}));
            world.run();
            world.into()
        },
    ),
    ("The namespace is being deleted, and there is no token", || {
        refused(WriteRefusalKind::NamespaceTerminating).into()
    }),
    ("`delivery: Once`: the token waits in the Secret", || World::settled(once()).into()),
    ("`delivery: Once`: the token was taken", || taken().into()),
    ("`delivery: Once`: taken, and a second token was requested and waits", || {
        let mut world = taken();
        request_another(&mut world);
        world.into()
    }),
    ("`delivery: Once`: not taken within 10 minutes", || missed().into()),
    ("`delivery: Once`: taken, then revoked by `spec.revokedCredentials`", || {
        let mut world = taken();
        let id = world.credentials()[0].id.clone();
        world.edit(json!({"secret": {"delivery": "Once"}, "revokedCredentials": [id]}));
        world.run();
        world.into()
    }),
    ("Something keeps deleting the Secret: 3 tokens within an hour", || {
        let mut world = World::settled(json!({}));
        for _ in 0..4 {
            world.pass("1m");
            world.delete("app");
            world.events();
            world.run();
        }
        world.into()
    }),
    ("8 credentials are live and a rotation is due; the current token still works", || eight_live().into()),
    ("8 credentials are live, and the Secret was deleted", || {
        let mut world = eight_live();
        world.delete("app");
        world.run();
        world.into()
    }),
];

/// The transitions, in the order of the table.
pub const TURNS: &[Story] = &[
    ("A token is issued for the first time", || {
        let mut world = World::new(json!({}));
        world.run();
        world.into()
    }),
    ("A token is rotated", || rotated().into()),
    ("A grace period ends", || {
        let mut world = rotated();
        world.events();
        world.pass("1d");
        world.run();
        world.into()
    }),
    ("The Secret is deleted", || {
        let mut world = World::settled(json!({}));
        world.delete("app");
        world.run();
        world.into()
    }),
    ("A label or a value of the Secret is changed", || {
        let mut world = World::settled(json!({"secret": {"template": {"data": {"config": "{{ token }}"}}}}));
        world.tamper("app", "config");
        world.run();
        world.into()
    }),
    ("`spec.secret.name` is changed", || {
        let mut world = World::settled(json!({}));
        world.edit(json!({"secret": {"name": "other"}}));
        world.run();
        world.into()
    }),
    ("`spec.revokeIfIssuedBefore` takes effect", || {
        let mut world = World::settled(json!({}));
        world.pass("1d");
        world.edit(json!({"revokeIfIssuedBefore": world.now()}));
        world.run();
        world.into()
    }),
    ("`spec.revokedCredentials` names the token in the Secret", || {
        let mut world = World::settled(json!({}));
        let id = world.credentials()[0].id.clone();
        world.edit(json!({"revokedCredentials": [id]}));
        world.run();
        world.into()
    }),
    ("`spec.revoked` is set", || {
        let mut world = World::settled(json!({}));
        world.edit(json!({"revoked": true}));
        world.run();
        world.into()
    }),
    ("A token approaches its expiry, and expires", || {
        let mut world = World::settled(json!({"expiry": {"after": "90d"}}));
        world.pass("85d");
        world.run();
        world.pass("5d");
        world.run();
        world.into()
    }),
    ("The operator was down for more than two rotation intervals", || {
        let mut world = World::settled(json!({"rotation": {"interval": "30d"}}));
        world.pass("61d");
        world.run();
        world.into()
    }),
    ("The status is lost (a restored backup, an accidental `kubectl replace`)", || {
        let mut world = World::settled(json!({}));
        world.lose_status();
        world.run();
        world.into()
    }),
    ("`delivery: Once`: the token is taken", || taken().into()),
    ("`delivery: Once`: a second token is requested after that", || {
        let mut world = taken();
        request_another(&mut world);
        world.into()
    }),
    ("`delivery: Once`: the token is not taken within 10 minutes", || missed().into()),
    ("The API server refuses a Secret", || refused(WriteRefusalKind::Other).into()),
];

fn once() -> serde_json::Value {
    json!({"secret": {"delivery": "Once"}})
}

fn taken() -> World {
    let mut world = World::settled(once());
    world.delete("app");
    world.run();
    world
}

fn missed() -> World {
    let mut world = World::settled(once());
    world.pass("10m");
    world.run();
    world
}

fn request_another(world: &mut World) {
    world.pass("1d");
    let mut spec = once();
    spec["rotateIfIssuedBefore"] = json!(world.now());
    world.edit(spec);
    world.run();
}

fn rotated() -> World {
    let mut world = World::settled(json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "previous"}}));
    world.pass("30d");
    world.run_on();
    world
}

fn refused(kind: WriteRefusalKind) -> World {
    let mut world = World::new(json!({}));
    world.refuses = Some(kind);
    world.run();
    world
}

fn bad_template() -> serde_json::Value {
    json!({"secret": {"template": {"data": {"config": "{{ nonsense }}"}}}})
}

/// Rotated on request 8 times within one grace period.
fn eight_live() -> World {
    let mut world = World::settled(json!({"gracePeriod": "30d"}));
    for _ in 0..8 {
        world.pass("1m");
        world.edit(json!({"gracePeriod": "30d", "rotateIfIssuedBefore": world.now()}));
        world.events();
        world.run_on();
    }
    assert_eq!(world.credentials().len(), 8);
    world
}
