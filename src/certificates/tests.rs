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
    bundle::{AUTHORITY_KEY, CERTIFICATE, CertificateBundle, KEY, TRUSTED, wipe},
    objects,
    plan::{AUTHORITY_LIFETIME, RenewalPlan, RenewalReason, days, plan},
    request::{CertificateRequest, ServerNames},
};
use crate::service::tls::validity;

fn start() -> Timestamp {
    "2026-01-01T00:00:00.5Z".parse().unwrap()
}

fn names(text: &str) -> ServerNames {
    text.parse().unwrap()
}

/// The content of a Secret over the years, under the renewal plan.
struct SecretOverYears {
    data: BTreeMap<String, ByteString>,
    names: Option<ServerNames>,
    now: Timestamp,
}

impl SecretOverYears {
    fn new() -> Self {
        Self { data: BTreeMap::new(), names: None, now: start() }
    }

    /// One check, which reads the bytes like a process that has just started.
    fn check(&mut self, wanted: &ServerNames) -> RenewalPlan {
        let bundle = CertificateBundle::read(&self.data);
        let plan = plan(&bundle.state(self.names.clone()), wanted, self.now);
        let bundle = match plan {
            RenewalPlan::Keep(_) => return plan,
            RenewalPlan::Certificate(_) => bundle.with_certificate(wanted, self.now).unwrap(),
            RenewalPlan::CertificateAuthority(_) => bundle.with_authority(wanted, self.now).unwrap(),
        };
        (self.data, self.names) = (bundle.write(), Some(wanted.clone()));
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

/// Whether a client with this trust bundle accepts the server for this host.
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
fn a_first_certificate_is_accepted_for_its_names_only() {
    let mut life = SecretOverYears::new();
    let wanted = names("verifier.system.svc,*.tokens.example.com,10.0.0.1,fd00::1");
    assert_eq!(life.check(&wanted), RenewalPlan::CertificateAuthority(RenewalReason::Missing));
    let RenewalPlan::Keep(until) = life.check(&wanted) else { panic!("it is of use") };
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
        let mut other = SecretOverYears::new();
        other.check(&wanted);
        other.text(TRUSTED)
    });
    assert!(!accepts(&other, &served, "verifier.system.svc", life.now), "another authority vouches for nothing here");
    assert!(life.text(KEY).starts_with("-----BEGIN PRIVATE KEY-----"), "as every server reads it");
    assert_ne!(life.text(KEY), life.text(AUTHORITY_KEY));
}

#[test]
fn a_renewal_keeps_the_authority_and_changes_the_key() {
    let (mut life, wanted) = (SecretOverYears::new(), names("a.example.com"));
    life.check(&wanted);
    let before = life.data.clone();
    life.pass(days(59));
    assert!(matches!(life.check(&wanted), RenewalPlan::Keep(_)));
    assert_eq!(life.data, before);
    life.pass(days(1));
    assert_eq!(life.check(&wanted), RenewalPlan::Certificate(RenewalReason::Due));
    for (key, same) in [(TRUSTED, true), (AUTHORITY_KEY, true), (CERTIFICATE, false), (KEY, false)] {
        assert_eq!(life.data[key] == before[key], same, "{key}");
    }
    assert_eq!(life.check(&names("b.example.com")), RenewalPlan::Certificate(RenewalReason::OtherNames));
    assert!(accepts(&certificates(&life.text(TRUSTED)), &life.text(CERTIFICATE), "b.example.com", life.now));
}

#[test]
fn clients_of_the_old_authority_accept_the_new_one() {
    let (mut life, wanted) = (SecretOverYears::new(), names("a.example.com"));
    life.check(&wanted);
    let old = certificates(&life.text(TRUSTED));
    life.pass(SignedDuration::from_secs(AUTHORITY_LIFETIME.as_secs() / 3 * 2));
    assert_eq!(life.check(&wanted), RenewalPlan::CertificateAuthority(RenewalReason::Due));
    let both = certificates(&life.text(TRUSTED));
    assert_eq!((both.len(), &both[1]), (2, &old[0]));
    let mut renewals = 0;
    while life.now < validity::read(&old[0]).unwrap().until {
        let served = life.text(CERTIFICATE);
        for trusted in [&old[..], &both[..1], &both[..]] {
            assert!(accepts(trusted, &served, "a.example.com", life.now), "at {}", life.now);
        }
        life.pass(days(7));
        renewals += usize::from(life.check(&wanted) == RenewalPlan::Certificate(RenewalReason::Due));
    }
    assert!(renewals > 15, "{renewals} renewals on the way");
    // It has expired, and the next renewal removes it.
    while !matches!(life.check(&wanted), RenewalPlan::Certificate(RenewalReason::Due)) {
        life.pass(days(7));
    }
    assert_eq!(certificates(&life.text(TRUSTED)), both[..1]);
    assert_eq!(certificates(&life.text(CERTIFICATE)).len(), 1, "nothing vouches for what needs it no more");
}

#[test]
fn a_damaged_secret_is_repaired() {
    let wanted = names("a.example.com");
    let mut other = SecretOverYears::new();
    other.check(&wanted);
    type Damage = fn(&mut SecretOverYears, &SecretOverYears);
    let certificate = RenewalPlan::Certificate(RenewalReason::Missing);
    let authority = RenewalPlan::CertificateAuthority(RenewalReason::Missing);
    let cases: [(&str, Damage, RenewalPlan); 10] = [
        ("no certificate", |life, _| drop(life.data.remove(CERTIFICATE)), certificate),
        ("no key", |life, _| life.set(KEY, ""), certificate),
        ("another Secret's certificate", |life, other| life.set(CERTIFICATE, other.text(CERTIFICATE)), certificate),
        ("another Secret's key", |life, other| life.set(KEY, other.text(KEY)), certificate),
        (
            "another Secret's pair",
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
        let mut life = SecretOverYears::new();
        life.check(&wanted);
        let trusted = life.text(TRUSTED);
        damage(&mut life, &other);
        assert_eq!(life.check(&wanted), expected, "{what}");
        assert!(matches!(life.check(&wanted), RenewalPlan::Keep(_)), "{what} is mended at once");
        assert!(accepts(&certificates(&life.text(TRUSTED))[..1], &life.text(CERTIFICATE), "a.example.com", life.now));
        let lost = ["nothing to trust", "what cannot sign in place of the authority"].contains(&what);
        assert!(lost || life.text(TRUSTED).contains(&trusted), "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A client that copied the trust bundle at any time accepts the server until the newest authority in its copy expires, also if other names
    /// change meanwhile.
    #[test]
    fn a_copied_trust_bundle_works_until_it_expires(
        gaps in proptest::collection::vec((1i64..28, any::<bool>()), 1..24), jump in 0i64..1200,
    ) {
        let mut life = SecretOverYears::new();
        let mut taken: Vec<Vec<CertificateDer<'static>>> = Vec::new();
        for (step, (gap, other)) in gaps.into_iter().enumerate() {
            // Some years with only renewals, so that authorities succeed each other.
            let years = if step % 4 == 3 { jump } else { 0 };
            for _ in 0..=years / 28 {
                life.check(&names("a.example.com"));
                life.pass(days(27));
            }
            life.check(&names(if other { "a.example.com,b.example.com" } else { "a.example.com" }));
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
            let is_lost = matches!(life.check(&names("a.example.com")), RenewalPlan::CertificateAuthority(RenewalReason::Missing) | RenewalPlan::Certificate(RenewalReason::Missing));
            prop_assert!(!is_lost, "what was made is always of use");
        }
    }

    /// Any content is read without a panic and repaired in one step.
    #[test]
    fn any_content_is_repaired_in_one_step(
        parts in proptest::collection::vec((0usize..4, 0usize..6, proptest::collection::vec(any::<u8>(), 0..64)), 0..6),
    ) {
        let (mut life, wanted) = (SecretOverYears::new(), names("a.example.com"));
        life.check(&wanted);
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
        life.check(&wanted);
        prop_assert!(matches!(life.check(&wanted), RenewalPlan::Keep(_)));
        let (trusted, served) = (certificates(&life.text(TRUSTED)), life.text(CERTIFICATE));
        prop_assert!(accepts(&trusted[..1], &served, "a.example.com", life.now));
    }
}

#[test]
fn only_annotated_objects_are_touched() {
    let wanted: CertificateRequest = "tls:a.example.com".parse().unwrap();
    let ours = objects::secret(None, &wanted, BTreeMap::new());
    assert_eq!(objects::not_ours(&ours), None);
    assert_eq!(objects::names(&ours).as_ref(), Some(wanted.names()));
    type Spoil = fn(&mut ObjectMeta);
    let owner: Spoil = |metadata| {
        let owner = OwnerReference { kind: "PersonalAccessToken".into(), name: "a".into(), ..Default::default() };
        metadata.owner_references = Some(vec![owner]);
    };
    let managed: Spoil = |metadata| {
        metadata.labels = Some([("app.kubernetes.io/managed-by".into(), "pat-operator".into())].into());
    };
    let unmarked: Spoil = |metadata| metadata.annotations = None;
    let map = objects::config_map(None, &wanted, String::new());
    assert_eq!(objects::map_not_ours(&map, "tls"), None);
    assert!(objects::map_not_ours(&map, "other").unwrap().contains("the authority of \"tls\""));
    for (spoil, words) in [
        (owner, "it belongs to PersonalAccessToken \"a\""),
        (managed, "that pat-operator manages it"),
        (unmarked, "it has no annotation pat-operator.io/"),
    ] {
        let (mut secret, mut map) = (ours.clone(), map.clone());
        spoil(&mut secret.metadata);
        spoil(&mut map.metadata);
        for problem in [objects::not_ours(&secret), objects::map_not_ours(&map, "tls")] {
            assert!(problem.as_ref().is_some_and(|problem| problem.contains(words)), "{words}: {problem:?}");
        }
    }
    let opaque = Secret { type_: Some("Opaque".into()), ..ours };
    assert!(objects::not_ours(&opaque).unwrap().contains("its type is \"Opaque\""));
}

#[test]
fn foreign_labels_and_the_version_are_kept() {
    let wanted: CertificateRequest = "tls:a.example.com,b.example.com".parse().unwrap();
    let more = |metadata: &mut ObjectMeta| {
        metadata.resource_version = Some("7".into());
        metadata.labels.get_or_insert_default().insert("team".into(), "a".into());
    };
    let mut read = objects::secret(None, &"tls:a.example.com".parse().unwrap(), BTreeMap::new());
    more(&mut read.metadata);
    let written = objects::secret(Some(&read), &wanted, BTreeMap::new());
    assert_eq!(written.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(written.metadata.labels.unwrap()["team"], "a");
    assert_eq!(written.metadata.annotations.unwrap()[objects::NAMES], "a.example.com,b.example.com");
    let mut read: ConfigMap = objects::config_map(None, &wanted, String::new());
    more(&mut read.metadata);
    let written = objects::config_map(Some(&read), &wanted, "new".into());
    assert_eq!((written.metadata.resource_version.as_deref(), &*written.data.unwrap()[TRUSTED]), (Some("7"), "new"));
}

#[test]
fn values_are_zeroized() {
    let mut life = SecretOverYears::new();
    life.check(&names("a.example.com"));
    wipe(&mut life.data);
    assert!(life.data.len() == 4 && life.data.values().all(|value| value.0.iter().all(|byte| *byte == 0)));
}
