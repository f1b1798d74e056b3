//! The states a token can be in and the turns its life can take, each told as what has to happen for it.
//!
//! A condition, reason or event that no story meets fails the test: tell one.

use pat_operator::{
    api::{Condition, ConditionType},
    planner::view::RefusalKind,
};
use serde_json::json;

use super::world::{Frame, World};

/// How a story ends.
pub struct Scene {
    conditions: Vec<Condition>,
    /// What was told on the last stretch.
    pub events: Vec<Told>,
    /// How things stood after each write on the way.
    pub frames: Vec<Frame>,
}

/// One event.
pub struct Told {
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
        let told =
            |notice: pat_operator::planner::Notice| Told { reason: notice.reason.to_string(), warning: notice.warning };
        Self { conditions, events: world.events().into_iter().map(told).collect(), frames }
    }
}

type Story = (&'static str, fn() -> Scene);

/// The states, in the order of the table.
pub const STATES: &[Story] = &[
    ("The first token is on its way", || {
        let mut world = World::new(json!({}));
        world.run_for(1);
        world.into()
    }),
    ("Issued", || World::settled(json!({})).into()),
    ("A rotation is on its way: the new token is published, the Secret still holds the old one", || {
        let mut world = World::settled(json!({"rotation": {"interval": "30d"}}));
        world.pass("30d");
        world.run();
        world.into()
    }),
    ("Rotated: the old token is in its grace period", || rotated().into()),
    ("The end is near", || {
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
    ("Every token was revoked by `spec.revokeIfIssuedBefore`: a new one is on its way", || {
        let mut world = World::settled(json!({}));
        world.pass("1d");
        world.edit(json!({"revokeIfIssuedBefore": world.now()}));
        world.run_for(2);
        world.into()
    }),
    ("`spec.suspend`, and the token works", || {
        let mut world = World::settled(json!({}));
        world.edit(json!({"suspend": true}));
        world.run();
        world.into()
    }),
    ("`spec.suspend` holds up a rotation, and the token's end comes near", || {
        let mut world = World::settled(json!({"rotation": {"interval": "30d"}}));
        world.edit(json!({"rotation": {"interval": "30d"}, "suspend": true}));
        world.pass("58d");
        world.run();
        world.into()
    }),
    ("`spec.suspend`, and there is no token", || World::settled(json!({"suspend": true})).into()),
    ("The Secret's name is taken by somebody else's Secret", || {
        let mut world = World::new(json!({}));
        world.add_foreign("app");
        world.run();
        world.into()
    }),
    ("The Secret's name is wanted by an older PersonalAccessToken", || {
        let mut world = World::new(json!({}));
        world.rival = Some("older");
        world.run();
        world.into()
    }),
    ("`spec.secret.name` was changed to one that is taken; the token works on in its former Secret", || {
        let mut world = World::settled(json!({}));
        world.add_foreign("taken");
        world.edit(json!({"secret": {"name": "taken"}}));
        world.run();
        world.into()
    }),
    ("The spec cannot be followed, and there is no token", || World::settled(bad_template()).into()),
    ("The spec cannot be followed; an earlier token works on", || {
        let mut world = World::settled(json!({}));
        world.edit(bad_template());
        world.run();
        world.into()
    }),
    ("The API server refuses the first Secret (quota, admission, permission)", || refused(RefusalKind::Other).into()),
    ("The API server refuses the Secret of a rotation; the present token works on", || {
        let mut world = World::settled(json!({"rotation": {"interval": "30d"}}));
        world.refuses = Some(RefusalKind::Other);
        world.pass("30d");
        world.run_on();
        world.into()
    }),
    (
        "`spec.secret.name` was changed and the API server refuses the new Secret; the token works on in its former one",
        || {
            let mut world = World::settled(json!({}));
            world.refuses = Some(RefusalKind::Other);
            world.edit(json!({"secret": {"name": "other"}}));
            world.run();
            world.into()
        },
    ),
    ("The namespace is being deleted, and there is no token", || refused(RefusalKind::NamespaceTerminating).into()),
    ("`delivery: Once`: the token waits in the Secret to be taken", || World::settled(once()).into()),
    ("`delivery: Once`: the token was taken", || taken().into()),
    ("`delivery: Once`: taken, and another was asked for, which waits", || {
        let mut world = taken();
        ask(&mut world);
        world.into()
    }),
    ("`delivery: Once`: not taken within 10 minutes", || missed().into()),
    ("`delivery: Once`: taken, and `spec.revokedCredentials` names it", || {
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
    ("8 credentials are live and a rotation is due; the present token works on", || eight_live().into()),
    ("8 credentials are live, and the Secret was deleted", || {
        let mut world = eight_live();
        world.delete("app");
        world.run();
        world.into()
    }),
];

/// What people hear of.
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
    ("The end of a token comes near, and comes", || {
        let mut world = World::settled(json!({"expiry": {"after": "90d"}}));
        world.pass("85d");
        world.run();
        world.pass("5d");
        world.run();
        world.into()
    }),
    ("The operator was away for more than two intervals of rotation", || {
        let mut world = World::settled(json!({"rotation": {"interval": "30d"}}));
        world.pass("61d");
        world.run();
        world.into()
    }),
    ("The status is lost (a restored backup, a mistaken `kubectl replace`)", || {
        let mut world = World::settled(json!({}));
        world.lose_status();
        world.run();
        world.into()
    }),
    ("`delivery: Once`: the token is taken", || taken().into()),
    ("`delivery: Once`: another is asked for after that", || {
        let mut world = taken();
        ask(&mut world);
        world.into()
    }),
    ("`delivery: Once`: nobody takes the token within 10 minutes", || missed().into()),
    ("The API server refuses a Secret", || refused(RefusalKind::Other).into()),
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

fn ask(world: &mut World) {
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

fn refused(kind: RefusalKind) -> World {
    let mut world = World::new(json!({}));
    world.refuses = Some(kind);
    world.run();
    world
}

fn bad_template() -> serde_json::Value {
    json!({"secret": {"template": {"data": {"config": "{{ nonsense }}"}}}})
}

/// Rotated by hand, with a grace period that lasts longer than anybody's patience.
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
