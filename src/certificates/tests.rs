use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::{SignedDuration, Timestamp},
};
use proptest::prelude::*;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use super::{
    material::{AUTHORITY_KEY, CERTIFICATE, KEY, Material, TRUSTED, wipe},
    plan::{AUTHORITY_LIFETIME, Plan, Why, days, plan},
    stored,
    wanted::{Names, Wanted},
};
use crate::service::tls::validity;

fn start() -> Timestamp {
    "2026-01-01T00:00:00.5Z".parse().unwrap()
}

fn names(text: &str) -> Names {
    text.parse().unwrap()
}

/// What a Secret holds over the years, looked after by what is under test.
struct Life {
    data: BTreeMap<String, ByteString>,
    names: Option<Names>,
    now: Timestamp,
}

impl Life {
    fn new() -> Self {
        Self { data: BTreeMap::new(), names: None, now: start() }
    }

    /// One look. What it finds it reads anew from the bytes, as a process does that has just started.
    fn look(&mut self, wanted: &Names) -> Plan {
        let material = Material::read(&self.data);
        let plan = plan(&material.held(self.names.clone()), wanted, self.now);
        let material = match plan {
            Plan::Keep(_) => return plan,
            Plan::Certificate(_) => material.with_certificate(wanted, self.now).unwrap(),
            Plan::Authority(_) => material.with_authority(wanted, self.now).unwrap(),
        };
        (self.data, self.names) = (material.write(), Some(wanted.clone()));
        plan
    }

    fn pass(&mut self, time: SignedDuration) {
        self.now = self.now.checked_add(time).unwrap();
    }

    fn text(&self, key: &str) -> String {
        String::from_utf8(self.data[key].0.clone()).unwrap()
    }

    fn set(&mut self, key: &str, value: impl Into<Vec<u8>>) {
        self.data.insert(key.to_owned(), ByteString(value.into()));
    }
}

fn certificates(text: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().unwrap()
}

/// Whether a client that trusts just this takes the server for this host.
fn accepts(trusted: &[CertificateDer<'static>], served: &str, host: &str, now: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    trusted.iter().for_each(|one| roots.add(one.clone()).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let (chain, host) = (certificates(served), ServerName::try_from(host.to_owned()).unwrap());
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap()));
    client.verify_server_cert(&chain[0], &chain[1..], &host, &[], now).is_ok()
}

#[test]
fn the_first_look_makes_what_a_client_with_only_the_authority_takes_for_all_names_and_no_others() {
    let mut life = Life::new();
    let wanted = names("verifier.system.svc,*.tokens.example.com,10.0.0.1,fd00::1");
    assert_eq!(life.look(&wanted), Plan::Authority(Why::Missing));
    let Plan::Keep(until) = life.look(&wanted) else { panic!("it is of use") };
    assert_eq!(until.duration_since(life.now).as_hours() / 24, 59, "two thirds of 90 days");
    let (trusted, served) = (certificates(&life.text(TRUSTED)), life.text(CERTIFICATE));
    for (host, expected) in [
        ("verifier.system.svc", true),
        ("a.tokens.example.com", true),
        ("10.0.0.1", true),
        ("fd00::1", true),
        ("tokens.example.com", false),
        ("verifier", false),
        ("10.0.0.2", false),
    ] {
        assert_eq!(accepts(&trusted, &served, host, life.now), expected, "{host}");
    }
    let other = certificates(&{
        let mut other = Life::new();
        other.look(&wanted);
        other.text(TRUSTED)
    });
    assert!(!accepts(&other, &served, "verifier.system.svc", life.now), "another authority vouches for nothing here");
    assert!(life.text(KEY).starts_with("-----BEGIN PRIVATE KEY-----"), "as every server reads it");
    assert_ne!(life.text(KEY), life.text(AUTHORITY_KEY));
}

#[test]
fn a_renewal_keeps_the_authority_and_takes_a_new_key() {
    let (mut life, wanted) = (Life::new(), names("a.example.com"));
    life.look(&wanted);
    let before = life.data.clone();
    life.pass(days(59));
    assert!(matches!(life.look(&wanted), Plan::Keep(_)));
    assert_eq!(life.data, before);
    life.pass(days(1));
    assert_eq!(life.look(&wanted), Plan::Certificate(Why::Due));
    for (key, same) in [(TRUSTED, true), (AUTHORITY_KEY, true), (CERTIFICATE, false), (KEY, false)] {
        assert_eq!(life.data[key] == before[key], same, "{key}");
    }
    assert_eq!(life.look(&names("b.example.com")), Plan::Certificate(Why::OtherNames));
    assert!(accepts(&certificates(&life.text(TRUSTED)), &life.text(CERTIFICATE), "b.example.com", life.now));
}

#[test]
fn a_new_authority_breaks_nobody_who_has_only_the_old_one() {
    let (mut life, wanted) = (Life::new(), names("a.example.com"));
    life.look(&wanted);
    let old = certificates(&life.text(TRUSTED));
    life.pass(SignedDuration::from_secs(AUTHORITY_LIFETIME.as_secs() / 3 * 2));
    assert_eq!(life.look(&wanted), Plan::Authority(Why::Due));
    let both = certificates(&life.text(TRUSTED));
    assert_eq!((both.len(), &both[1]), (2, &old[0]));
    let mut renewals = 0;
    while life.now < validity::read(&old[0]).unwrap().until {
        let served = life.text(CERTIFICATE);
        for trusted in [&old[..], &both[..1], &both[..]] {
            assert!(accepts(trusted, &served, "a.example.com", life.now), "at {}", life.now);
        }
        life.pass(days(7));
        renewals += usize::from(life.look(&wanted) == Plan::Certificate(Why::Due));
    }
    assert!(renewals > 15, "{renewals} renewals on the way");
    // It has ended, and with the next renewal it is gone.
    while !matches!(life.look(&wanted), Plan::Certificate(Why::Due)) {
        life.pass(days(7));
    }
    assert_eq!(certificates(&life.text(TRUSTED)), both[..1]);
    assert_eq!(certificates(&life.text(CERTIFICATE)).len(), 1, "nothing vouches for what needs it no more");
}

#[test]
fn what_somebody_has_damaged_is_mended_and_what_is_still_trusted_stays_so() {
    let wanted = names("a.example.com");
    let mut other = Life::new();
    other.look(&wanted);
    type Damage = fn(&mut Life, &Life);
    let certificate = Plan::Certificate(Why::Missing);
    let authority = Plan::Authority(Why::Missing);
    let cases: [(&str, Damage, Plan); 10] = [
        ("no certificate", |life, _| drop(life.data.remove(CERTIFICATE)), certificate),
        ("no key", |life, _| life.set(KEY, ""), certificate),
        ("somebody else's certificate", |life, other| life.set(CERTIFICATE, other.text(CERTIFICATE)), certificate),
        ("somebody else's key", |life, other| life.set(KEY, other.text(KEY)), certificate),
        (
            "somebody else's pair",
            |life, other| {
                life.set(CERTIFICATE, other.text(CERTIFICATE));
                life.set(KEY, other.text(KEY));
            },
            certificate,
        ),
        ("bytes that are no text", |life, _| life.set(CERTIFICATE, [0xff, 0xfe]), certificate),
        ("no key of the authority", |life, _| drop(life.data.remove(AUTHORITY_KEY)), authority),
        ("another's key of the authority", |life, other| life.set(AUTHORITY_KEY, other.text(AUTHORITY_KEY)), authority),
        (
            "what cannot sign in place of the authority",
            |life, _| {
                life.set(AUTHORITY_KEY, life.text(KEY));
                life.set(TRUSTED, life.text(CERTIFICATE));
            },
            certificate,
        ),
        ("nothing to trust", |life, _| life.set(TRUSTED, "junk"), authority),
    ];
    for (what, damage, expected) in cases {
        let mut life = Life::new();
        life.look(&wanted);
        let trusted = life.text(TRUSTED);
        damage(&mut life, &other);
        assert_eq!(life.look(&wanted), expected, "{what}");
        assert!(matches!(life.look(&wanted), Plan::Keep(_)), "{what} is mended at once");
        assert!(accepts(&certificates(&life.text(TRUSTED))[..1], &life.text(CERTIFICATE), "a.example.com", life.now));
        let lost = ["nothing to trust", "what cannot sign in place of the authority"].contains(&what);
        assert!(lost || life.text(TRUSTED).contains(&trusted), "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whoever has taken what is published at any time, be it only once, takes the server for what it is at any later time, until the newest
    /// authority of which they know has ended; also if the names change meanwhile, for names that stay.
    #[test]
    fn whoever_trusts_what_was_published_once_goes_on_until_that_has_ended(
        gaps in proptest::collection::vec((1i64..28, any::<bool>()), 1..24), jump in 0i64..1200,
    ) {
        let mut life = Life::new();
        let mut taken: Vec<Vec<CertificateDer<'static>>> = Vec::new();
        for (step, (gap, other)) in gaps.into_iter().enumerate() {
            // Some years with nothing but renewals, so that authorities follow each other.
            let years = if step % 4 == 3 { jump } else { 0 };
            for _ in 0..=years / 28 {
                life.look(&names("a.example.com"));
                life.pass(days(27));
            }
            life.look(&names(if other { "a.example.com,b.example.com" } else { "a.example.com" }));
            taken.push(certificates(&life.text(TRUSTED)));
            life.pass(days(gap));
            let served = life.text(CERTIFICATE);
            for trusted in &taken {
                let end = validity::read(&trusted[0]).unwrap().until;
                if life.now < end {
                    prop_assert!(accepts(trusted, &served, "a.example.com", life.now));
                    prop_assert!(accepts(&trusted[..1], &served, "a.example.com", life.now));
                }
            }
            prop_assert!(certificates(&life.text(TRUSTED)).len() <= 2);
            let is_lost = matches!(life.look(&names("a.example.com")), Plan::Authority(Why::Missing) | Plan::Certificate(Why::Missing));
            prop_assert!(!is_lost, "what was made is always of use");
        }
    }

    /// Whatever somebody puts in: it is read without a panic, and mended in one step.
    #[test]
    fn whatever_is_in_the_secret_is_mended_in_one_step(
        parts in proptest::collection::vec((0usize..4, 0usize..6, proptest::collection::vec(any::<u8>(), 0..64)), 0..6),
    ) {
        let (mut life, wanted) = (Life::new(), names("a.example.com"));
        life.look(&wanted);
        let before = life.data.clone();
        let keys = [CERTIFICATE, KEY, TRUSTED, AUTHORITY_KEY];
        for (key, kind, bytes) in parts {
            let value = match keys.get(kind) {
                Some(other) => before[*other].0.clone(),
                None if kind == 4 => bytes,
                None => {
                    let mut value = before[keys[key]].0.clone();
                    for (at, byte) in bytes.into_iter().enumerate() {
                        let length = value.len();
                        value[(at * 97) % length] = byte;
                    }
                    value
                }
            };
            life.set(keys[key], value);
        }
        life.look(&wanted);
        prop_assert!(matches!(life.look(&wanted), Plan::Keep(_)));
        let (trusted, served) = (certificates(&life.text(TRUSTED)), life.text(CERTIFICATE));
        prop_assert!(accepts(&trusted[..1], &served, "a.example.com", life.now));
    }
}

#[test]
fn only_what_bears_our_mark_is_touched() {
    let wanted: Wanted = "tls:a.example.com".parse().unwrap();
    let ours = stored::secret(None, &wanted, BTreeMap::new());
    assert_eq!(stored::not_ours(&ours), None);
    assert_eq!(stored::names(&ours).as_ref(), Some(wanted.names()));
    type Spoil = fn(&mut ObjectMeta);
    let owner: Spoil = |metadata| {
        let owner = OwnerReference { kind: "PersonalAccessToken".into(), name: "a".into(), ..Default::default() };
        metadata.owner_references = Some(vec![owner]);
    };
    let managed: Spoil = |metadata| {
        metadata.labels = Some([("app.kubernetes.io/managed-by".into(), "pat-operator".into())].into());
    };
    let unmarked: Spoil = |metadata| metadata.annotations = None;
    let map = stored::config_map(None, &wanted, String::new());
    assert_eq!(stored::map_not_ours(&map, "tls"), None);
    assert!(stored::map_not_ours(&map, "other").unwrap().contains("the authority of \"tls\""));
    for (spoil, words) in [
        (owner, "it belongs to PersonalAccessToken \"a\""),
        (managed, "that pat-operator manages it"),
        (unmarked, "it has no annotation pat-operator.io/"),
    ] {
        let (mut secret, mut map) = (ours.clone(), map.clone());
        spoil(&mut secret.metadata);
        spoil(&mut map.metadata);
        for problem in [stored::not_ours(&secret), stored::map_not_ours(&map, "tls")] {
            assert!(problem.as_ref().is_some_and(|problem| problem.contains(words)), "{words}: {problem:?}");
        }
    }
    let opaque = Secret { type_: Some("Opaque".into()), ..ours };
    assert!(stored::not_ours(&opaque).unwrap().contains("its type is \"Opaque\""));
}

#[test]
fn what_others_put_on_the_objects_stays_and_the_version_that_was_read_is_what_is_written_over() {
    let wanted: Wanted = "tls:a.example.com,b.example.com".parse().unwrap();
    let more = |metadata: &mut ObjectMeta| {
        metadata.resource_version = Some("7".into());
        metadata.labels.get_or_insert_default().insert("team".into(), "a".into());
    };
    let mut read = stored::secret(None, &"tls:a.example.com".parse().unwrap(), BTreeMap::new());
    more(&mut read.metadata);
    let written = stored::secret(Some(&read), &wanted, BTreeMap::new());
    assert_eq!(written.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(written.metadata.labels.unwrap()["team"], "a");
    assert_eq!(written.metadata.annotations.unwrap()[stored::NAMES], "a.example.com,b.example.com");
    let mut read: ConfigMap = stored::config_map(None, &wanted, String::new());
    more(&mut read.metadata);
    let written = stored::config_map(Some(&read), &wanted, "new".into());
    assert_eq!((written.metadata.resource_version.as_deref(), &*written.data.unwrap()[TRUSTED]), (Some("7"), "new"));
}

#[test]
fn values_are_wiped() {
    let mut life = Life::new();
    life.look(&names("a.example.com"));
    wipe(&mut life.data);
    assert!(life.data.len() == 4 && life.data.values().all(|value| value.0.iter().all(|byte| *byte == 0)));
}
