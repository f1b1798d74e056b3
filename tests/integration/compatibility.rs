//! Objects that version 0.1.0 wrote, read with today's types: the names in a status and in a Secret's annotations are frozen.
//!
//! The objects in `tests/data/0.1.0` come from a controller of that version. Their tokens belong to a control plane that no longer exists.

use std::fs;

use k8s_openapi::api::core::v1::Secret;
use pat_operator::{
    api::{
        Credential, CredentialState, DeliveryState, OwnerKind, PersonalAccessToken, PersonalAccessTokenStatus,
        StoredPat,
    },
    index::IndexedPat,
    planner::observed::SecretView,
    token::Presented,
};
use serde::de::DeserializeOwned;

fn read<T: DeserializeOwned>(file: &str) -> T {
    let path = format!("{}/tests/data/0.1.0/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn status(name: &str) -> PersonalAccessTokenStatus {
    read::<PersonalAccessToken>(&format!("{name}.pat")).status.expect("a status")
}

fn texts(credentials: &[Credential]) -> Vec<String> {
    credentials
        .iter()
        .map(|one| {
            let ends = one.expires_at.expect("an end");
            format!("{} {} {:?} {} {ends} {}", one.id.as_str(), one.revision, one.state, one.issued_at, one.sha256)
        })
        .collect()
}

/// The credentials of `reports`, newest first.
const CREDENTIALS: [&str; 3] = [
    "XJYkLfekbwDW 3 Active 2026-11-29T17:42:15.329764Z 2027-01-28T17:42:16Z 1ced271f4e4a9f7c918038bac1b83c60ea9e2f24b12c30334998d3f8d4e197bd",
    "Rjw7QIhPsWg1 2 Grace 2026-11-29T17:42:12.002092Z 2026-11-30T17:42:16Z 8e081f369fc366b884d6de8fd464910abd4af9da94eb46bbad077896e7d26be0",
    "oWmIUzPbbvXI 1 Grace 2026-11-29T17:42:10.743317Z 2026-11-30T17:42:13Z 880ea5656a94831d401fb821bb4020970a3bb163435ee16525884a821ff3a5d5",
];

#[test]
fn a_status_of_0_1_0_is_read() {
    let status = status("reports");
    assert_eq!(status.observed_generation, Some(2));
    let owner = status.owner.as_ref().expect("an owner");
    assert_eq!((owner.kind, &*owner.name), (OwnerKind::User, "jane@example.com"));
    assert_eq!((status.secret_name.as_deref(), status.revision), (Some("reports-token"), Some(3)));
    let time = |time: Option<pat_operator::api::Time>| time.map(|time| time.to_string());
    for (name, value, expected) in [
        ("firstIssuedAt", status.first_issued_at, "2026-11-29T17:42:10.743317Z"),
        ("lastIssuedAt", status.last_issued_at, "2026-11-29T17:42:15.329764Z"),
        ("expiresAt", status.expires_at, "2027-11-28T17:42:11Z"),
        ("nextRotationAt", status.next_rotation_at, "2026-12-29T11:59:56Z"),
        ("lastUsedAt", status.last_used_at, "2026-11-29T17:42:19Z"),
        ("unplannedMints", status.unplanned_mints.first().copied(), "2026-11-29T17:42:15.329764Z"),
        ("usage", status.usage.get("XJYkLfekbwDW").copied(), "2026-11-29T17:42:19Z"),
    ] {
        assert_eq!(time(value).as_deref(), Some(expected), "{name}");
    }
    assert_eq!((status.unplanned_mints.len(), status.usage.len(), status.delivery), (1, 1, None));
    assert_eq!(texts(&status.credentials), CREDENTIALS);
    let conditions: Vec<_> = status
        .conditions
        .iter()
        .map(|one| {
            format!(
                "{} {} {} {} {:?}",
                one.type_, one.status, one.reason, one.last_transition_time, one.observed_generation
            )
        })
        .collect();
    assert_eq!(
        conditions,
        [
            "Ready True Issued 2026-11-29T17:42:15Z Some(2)",
            "InGracePeriod True PreviousCredentialLive 2026-11-29T17:42:12Z Some(2)",
        ]
    );
}

#[test]
fn a_default_end_and_a_delivery_of_0_1_0_are_read() {
    let (plain, once) = (status("plain"), status("once"));
    for status in [&plain, &once] {
        assert_eq!(status.default_expires_at.map(|end| end.to_string()).as_deref(), Some("2027-02-27T17:42:11Z"));
        assert_eq!(status.credentials[0].state, CredentialState::Active);
    }
    assert_eq!((plain.delivery, once.delivery), (None, Some(DeliveryState::Waiting)));
    assert_eq!(plain.owner.expect("an owner").name, "team/plain");
}

#[test]
fn a_secret_of_0_1_0_is_read() {
    let secret: Secret = read("reports.secret");
    let token = secret.data.as_ref().expect("data")["token"].0.clone();
    let view = SecretView::of(secret);
    let record = view.record.as_ref().expect("its annotations are read");
    assert_eq!(&*record.pat_uid, "07aa15ee-8161-4f89-9d08-2c0fd421d8e6");
    assert_eq!(record.ledger.revision, 3);
    assert_eq!(
        record.ledger.first_issued_at.map(|time| time.to_string()).as_deref(),
        Some("2026-11-29T17:42:10.743317Z")
    );
    assert_eq!(record.ledger.default_expires_at, None);
    assert_eq!(texts(&record.ledger.live), CREDENTIALS);
    assert_eq!(
        (&*record.owned.labels, &*record.owned.annotations),
        (&["team".to_owned()][..], &["example.com/source".to_owned()][..])
    );
    assert_eq!(record.data_hash.to_string(), "711531c40be4a41a957996b3cffa1c69a9f62d74000924d521d7406000cf162c");
    assert_eq!(record.render_hash.to_string(), "eafa2ede0f3f6c95d96073e7be0de01bb6af6692454f5289de3ae95e0bb024df");
    let token = Presented::try_from(&*token).expect("a token");
    assert_eq!(token.hash().to_string(), record.ledger.live[0].sha256.to_string(), "the Secret holds the active token");

    let plain = SecretView::of(read("plain.secret"));
    let ledger = &plain.record.as_ref().expect("its annotations are read").ledger;
    assert_eq!(ledger.default_expires_at.map(|time| time.to_string()).as_deref(), Some("2027-02-27T17:42:11Z"));
}

#[test]
fn a_verifier_knows_the_tokens_of_0_1_0() {
    let pat = IndexedPat::read(&read::<StoredPat>("reports.pat")).expect("it is read");
    assert_eq!((pat.namespace(), pat.name(), pat.subject()), ("team", "reports", "jane@example.com"));
    assert_eq!((pat.scopes().joined(), pat.audiences().joined()), ("reports:read", "billing"));
    let hashes: Vec<_> = pat.credentials.iter().map(|one| format!("{} {}", one.id, one.hash)).collect();
    let expected: Vec<_> = CREDENTIALS
        .iter()
        .map(|text| {
            let words: Vec<_> = text.split(' ').collect();
            format!("{} {}", words[0], words[5])
        })
        .collect();
    assert_eq!(hashes, expected);
    let reported = pat.credentials.iter().next().and_then(|one| one.reported_use());
    assert_eq!(reported.map(|time| time.to_string()).as_deref(), Some("2026-11-29T17:42:19Z"));
}
