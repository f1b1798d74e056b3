//! Lists of many pages that change while they are read.

use std::sync::{Arc, Mutex};

use pat_operator::api::IssuerSystem;
use pat_operator::issuer::{CallError, Driver, IssuerTarget};
use serde_json::{Value, json};

use crate::support::vendor::{Vendor, VendorRequest, VendorResponse, driver_with_token};

/// The tokens of a server by number, and those that are deleted when a page was read.
type Tokens = Arc<Mutex<(Vec<u32>, Vec<u32>)>>;

async fn numbers(driver: &dyn Driver) -> Result<Vec<u32>, CallError> {
    let tokens = driver.list(&IssuerTarget::Account).await?;
    let mut numbers: Vec<u32> = tokens.into_iter().map(|token| token.id.parse().unwrap()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Returns a page, and deletes the next token that is to be deleted.
fn page(tokens: &Tokens, choose: impl FnOnce(&[u32]) -> Vec<u32>) -> Vec<u32> {
    let (all, deleted) = &mut *tokens.lock().unwrap();
    let shown = choose(all);
    if let Some(number) = deleted.pop() {
        all.retain(|one| *one != number);
    }
    shown
}

/// 500 tokens; two have the same time of creation.
fn created_at(number: u32) -> String {
    format!("2026-01-01T{:02}:{:02}:00Z", number / 2 / 60, number / 2 % 60)
}

fn cryptlex(tokens: &Tokens, request: &VendorRequest) -> VendorResponse {
    assert_eq!((&*request.query["sort"], &*request.query["limit"]), ("createdAt", "100"));
    let from = request.query.get("createdAt[gte]").cloned().unwrap_or_default();
    let shown = page(tokens, |all| all.iter().copied().filter(|one| created_at(*one) >= from).take(100).collect());
    let item = |number: &u32| {
        json!({
            "id": number.to_string(), "name": format!("po-{number}"), "createdAt": created_at(*number),
            "expiresAt": null, "revoked": false, "lastUsedAt": null,
        })
    };
    (200, vec![], Value::Array(shown.iter().map(item).collect()))
}

fn truefoundry(tokens: &Tokens, request: &VendorRequest) -> VendorResponse {
    let number = |name: &str| request.query[name].parse::<usize>().unwrap();
    let shown = page(tokens, |all| all.iter().copied().skip(number("offset")).take(number("limit")).collect());
    let item = |number: &u32| json!({"id": number.to_string(), "manifest": {"name": format!("po-{number}")}});
    let data: Vec<_> = shown.iter().map(item).collect();
    (200, vec![], json!({"data": data, "pagination": {"total": 0, "offset": 0, "limit": 0}}))
}

#[tokio::test]
async fn no_token_is_missed_when_others_are_deleted() {
    for (kind, answer) in [
        (IssuerSystem::Cryptlex, cryptlex as fn(&Tokens, &VendorRequest) -> VendorResponse),
        (IssuerSystem::TrueFoundry, truefoundry),
    ] {
        let tokens = Tokens::default();
        let shared = tokens.clone();
        let vendor = Vendor::start(move |request| answer(&shared, request)).await;
        let driver = driver_with_token(kind, &vendor.url, "token");
        let all: Vec<u32> = (0..500).collect();
        for deleted in [vec![], vec![3], vec![120, 3]] {
            *tokens.lock().unwrap() = (all.clone(), deleted.clone());
            let listed = numbers(&*driver).await.expect("a list");
            let missing: Vec<_> = all.iter().copied().filter(|one| !listed.contains(one)).collect();
            assert!(missing.iter().all(|one| deleted.contains(one)), "{kind:?}: {missing:?} are missing");
        }
    }
}

#[tokio::test]
async fn a_list_that_always_changes_is_an_error() {
    let tokens = Tokens::default();
    *tokens.lock().unwrap() = ((0..500).collect(), (0..400).rev().collect());
    let shared = tokens.clone();
    let vendor = Vendor::start(move |request| truefoundry(&shared, request)).await;
    let driver = driver_with_token(IssuerSystem::TrueFoundry, &vendor.url, "token");
    assert_eq!(numbers(&*driver).await, Err(CallError::ListChanged));
}

#[tokio::test]
async fn pages_that_do_not_end_are_an_error() {
    let shown = |_: &VendorRequest| {
        let item = |number| json!({"id": format!("{number}"), "name": "x", "createdAt": "2026-01-01T00:00:00Z", "revoked": true});
        (200, vec![], Value::Array((0..100).map(item).collect()))
    };
    let vendor = Vendor::start(shown).await;
    let error = driver_with_token(IssuerSystem::Cryptlex, &vendor.url, "token").list(&IssuerTarget::Account).await;
    assert!(matches!(error, Err(CallError::Malformed { .. })), "{error:?}");
}
