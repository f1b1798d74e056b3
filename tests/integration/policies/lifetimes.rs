//! The policy `lifetimes`: how long the credentials of a namespace can live.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    guard::{Guard, put_parameters},
    people,
    write::{Change, Create, Outcome, pat, pats},
};
use crate::support::process::place::{Place, eventually, eventually_within, in_seconds};

const LIMITS: &str = "pat-operator-lifetime-limits";

/// The end of each refusal.
fn otherwise(home: &Place, key: &str) -> String {
    format!(
        "; otherwise ask the administrator of pat-operator to change the limit under the key {key} of the ConfigMap {}/{LIMITS} (with Helm: \
         the value lifetimeLimits.{key})",
        home.name()
    )
}

/// The time this many days from now.
fn in_days(days: i64) -> String {
    in_seconds(days * 24 * 60 * 60)
}

fn expiry(expiry: Value) -> Value {
    json!({ "expiry": expiry })
}

fn rotation(interval: &str) -> Value {
    json!({"rotation": {"interval": interval}})
}

#[tokio::test(flavor = "multi_thread")]
async fn lifetimes_are_limited_by_namespace() {
    let home = Place::new("lifetimes-home").await;
    let (named, other, free) =
        (Place::new("lifetimes-named").await, Place::new("lifetimes-other").await, Place::new("lifetimes-free").await);
    let broken = Place::new("lifetimes-broken").await;
    for (name, spec) in [
        ("year", expiry(json!({"after": "365d"}))),
        ("eternal", expiry(json!({"never": true}))),
        ("slow", rotation("90d")),
        ("plain", json!({})),
    ] {
        named.apply(name, spec).await;
    }
    put_parameters(
        &home,
        LIMITS,
        json!({
            "_default": "maxLifetime: 1d12h", "_defaultLifetime": "90d",
            named.name(): "# for machines\n  maxLifetime:  60d \nmaxInterval: 20d\r\nallowNever: false\n",
            free.name(): "", broken.name(): "maxLifetime: 1y\nallowNever: False\n",
        }),
    )
    .await;
    let guard = Guard::apply("lifetimes", &home, &[&named, &other, &free, &broken]).await;
    let mut apis = Vec::new();
    for place in [&named, &other, &free, &broken] {
        apis.push(pats(&people::administrator_of(place, "ann").await.1, place.name()));
    }
    let [in_named, in_other, in_free, in_broken] = &apis[..] else { unreachable!("four places") };
    eventually_within(Duration::from_secs(180), "the limits are in force", async || {
        let refused = Create::Post.dry_run(in_other, &pat("x", json!({}))).await;
        refused.is_err_and(|sentence| sentence.starts_with("spec.expiry: "))
    })
    .await;

    let refusal = |place: &Place, key: &str, sentence: String| -> Outcome {
        Err(format!("{}{}", sentence.replace("{}", place.name()), otherwise(&home, key)))
    };
    let key = named.name();
    let longer = || {
        let sentence = "spec.expiry: a token of namespace {} may live for at most 60d: set after to at most that, or set spec.rotation";
        refusal(&named, key, sentence.to_owned())
    };
    let never = || {
        refusal(&named, key, "spec.expiry: tokens of namespace {} must expire: set after or at instead of never".into())
    };
    let slower = || {
        refusal(
            &named,
            key,
            "spec.rotation: tokens of namespace {} must be rotated at least every 20d: set interval to at most that"
                .into(),
        )
    };
    let too_slow = |place: &Place, key: &str, most: &str| {
        let sentence = format!(
            "spec.rotation: a credential lives for two intervals, and in namespace {{}} for at most {most}: set interval to at most half of that"
        );
        refusal(place, key, sentence)
    };
    let short = || {
        let sentence = "spec.expiry: a token of namespace {} may live for at most 1d12h: set after to at most that, or set spec.rotation";
        refusal(&other, "_default", sentence.to_owned())
    };
    // A limit that cannot be read is not "no limit".
    let unreadable = || {
        let sentence = "spec.expiry: maxLifetime or maxInterval of namespace {} is no duration such as 90d or 12h";
        refusal(&broken, broken.name(), sentence.to_owned())
    };
    let with = |mut spec: Value, more: Value| {
        spec.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        spec
    };
    let cases = [
        (in_named, json!({}), longer()),
        (in_named, expiry(json!({"after": "60d"})), Ok(())),
        (in_named, expiry(json!({"after": "8w3d23h59m60s"})), Ok(())),
        (in_named, expiry(json!({"after": "8w4d1s"})), longer()),
        (in_named, expiry(json!({"after": "1441h"})), longer()),
        (in_named, expiry(json!({"at": in_days(59)})), Ok(())),
        (in_named, expiry(json!({"at": in_days(61)})), longer()),
        (in_named, expiry(json!({"never": true})), never()),
        (in_named, rotation("20d"), Ok(())),
        (in_named, rotation("20d1s"), slower()),
        (in_named, rotation("31d"), too_slow(&named, key, "60d")),
        (in_named, with(rotation("31d"), expiry(json!({"after": "10d"}))), slower()),
        (in_named, with(rotation("10d"), expiry(json!({"after": "900d"}))), Ok(())),
        (in_named, with(rotation("10d"), expiry(json!({"never": true}))), never()),
        (in_other, json!({}), short()),
        (in_other, expiry(json!({"after": "36h"})), Ok(())),
        (in_other, expiry(json!({"after": "2d"})), short()),
        (in_other, rotation("18h"), Ok(())),
        (in_other, rotation("19h"), too_slow(&other, "_default", "1d12h")),
        (in_other, expiry(json!({"never": true})), short()),
        (in_free, json!({}), Ok(())),
        (in_free, expiry(json!({"never": true})), Ok(())),
        (in_free, rotation("999d"), Ok(())),
        (in_broken, json!({}), unreadable()),
    ];
    for (api, spec, expected) in cases {
        for create in Create::ALL {
            assert_eq!(create.dry_run(api, &pat("app", spec.clone())).await, expected, "{create:?}: {spec}");
        }
    }

    // Changes of tokens that were there before the limits.
    let changes = [
        ("year", json!({"description": "x", "scopes": ["a"], "suspend": true}), Ok(())),
        ("year", expiry(json!({"after": "300d"})), Ok(())),
        ("year", expiry(json!({"after": "366d"})), longer()),
        ("year", expiry(json!({"after": null, "never": true})), never()),
        ("year", rotation("20d"), Ok(())),
        ("year", rotation("100d"), slower()),
        ("year", json!({"revoked": true}), Ok(())),
        // Otherwise the longer life would count once the token is no longer revoked.
        ("year", with(expiry(json!({"after": "366d"})), json!({"revoked": true})), longer()),
        ("eternal", expiry(json!({"never": null, "after": "300d"})), Ok(())),
        ("eternal", rotation("10d"), Ok(())),
        ("slow", rotation("80d"), Ok(())),
        ("slow", rotation("91d"), too_slow(&named, key, "60d")),
        ("slow", json!({"rotation": null}), Ok(())),
        ("plain", expiry(json!({"after": "60d"})), Ok(())),
        ("plain", expiry(json!({"after": "91d"})), longer()),
    ];
    for (name, spec, expected) in changes {
        // An apply cannot remove what another manager has set.
        for change in [Change::Put, Change::MergePatch, Change::JsonPatch] {
            let found = change.dry_run(in_named, name, &json!({ "spec": spec })).await;
            assert_eq!(found, expected, "{name} by {change:?}: {spec}");
        }
    }
    guard.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_limits_lives_are_unlimited_and_without_the_config_map_refused() {
    let home = Place::new("lifetimes-none").await;
    let guard = Guard::apply("lifetimes", &home, &[&home]).await;
    let api = pats(&people::administrator_of(&home, "ann").await.1, home.name());
    let eternal = || pat("x", expiry(json!({"never": true})));
    eventually("the policy is in force", async || {
        let found = Create::Post.dry_run(&api, &eternal()).await;
        found.is_err_and(|message| message.contains("no params found"))
    })
    .await;
    // As the chart writes it by default.
    put_parameters(&home, LIMITS, json!({"_defaultLifetime": "90d"})).await;
    eventually_within(Duration::from_secs(180), "nothing is limited", async || {
        Create::Post.dry_run(&api, &eternal()).await.is_ok()
    })
    .await;
    guard.end().await;
}
