//! Tests with random input: no panic, and no token is accepted.

use proptest::prelude::*;

use super::*;
use crate::{
    service::authorization::Authorization,
    verifier::{introspection, proxy, requirements::ProxyRequirements},
};

proptest! {
    #[test]
    fn authorization_is_a_part_of_the_one_header_that_was_sent(name in "(?i)authorization|x-y", value: Vec<u8>, second: Option<Vec<u8>>) {
        let headers = [Some(&value), second.as_ref()].into_iter().flatten().map(|value| (&*name, &**value));
        let read = Authorization::read(headers);
        if let Ok(token) = read.token() {
            prop_assert!(second.is_none() && name.eq_ignore_ascii_case("authorization") && !value.contains(&b','));
            prop_assert!(token.len() < value.len());
        }
    }

    #[test]
    fn basic_round_trips(user in "[^:]{0,20}", password in ".{0,80}", padded: bool) {
        let mut value = basic(&user, &password);
        if !padded {
            value.truncate(value.trim_end_matches('=').len());
        }
        match Authorization::read([("authorization", value.as_bytes())]) {
            Authorization::Basic(read) => {
                prop_assert_eq!((read.user(), read.password()), (user.as_bytes(), password.as_bytes()));
            }
            _ => prop_assert!(false, "not read"),
        }
    }

    #[test]
    fn requirements_never_lose_a_scope(scopes in prop::collection::vec("[!#-\\[\\]-~]{1,9}", 0..9), client in ".{0,30}") {
        let encoded: Vec<String> = scopes.iter().map(|scope| percent_encoding::utf8_percent_encode(scope, percent_encoding::NON_ALPHANUMERIC).to_string()).collect();
        let query = encoded.iter().map(|scope| format!("scope={scope}")).collect::<Vec<_>>().join("&");
        prop_assert_eq!(ProxyRequirements::from_query(&query).unwrap().scope_text(), scopes.join(" "));
        let segment = if scopes.is_empty() { String::new() } else { format!("scope={}/", encoded.join(",")) };
        let path = format!("{segment}-/{client}");
        prop_assert_eq!(ProxyRequirements::from_path(&path).unwrap().scope_text(), scopes.join(" "));
    }

    #[test]
    fn requirements_are_parsed_or_refused(text in "(scope=|audience=|/|-|&|=|,|%[0-9a-f]{2}|[a-z+]){0,12}|.{0,40}") {
        for read in [ProxyRequirements::from_query(&text), ProxyRequirements::from_path(&text)].into_iter().flatten() {
            // No scope can break out of a challenge.
            prop_assert!(!read.scope_text().contains(['"', '\\', '\r', '\n']));
        }
    }

    #[test]
    fn an_alias_reads_like_the_name_and_is_not_the_name(at in 0..proxy::IDENTITY_HEADERS.len(), picks: Vec<u8>) {
        let ours = proxy::IDENTITY_HEADERS[at];
        let picks = picks.into_iter().chain(std::iter::repeat(0));
        // All characters of a name (RFC 9110, 5.6.2) that are neither letters nor digits.
        let separators: Vec<char> = "-_.!#$%&'*+^`|~".chars().collect();
        let name: String = ours.chars().zip(picks).map(|(char, pick)| match (char, pick % 3) {
            ('-', _) => separators[usize::from(pick) % separators.len()],
            (char, 1) => char.to_ascii_uppercase(),
            (char, _) => char,
        }).collect();
        prop_assert_eq!(proxy::is_alias(&name), !name.eq_ignore_ascii_case(ours));
    }

    #[test]
    fn a_token_in_a_form_is_never_empty(form: Vec<u8>) {
        if let Ok(token) = introspection::token(&form) {
            prop_assert!(!token.is_empty());
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_input_is_never_accepted(query in "[ -~]{0,40}", value in "(Bearer |Basic )?[ -~]{0,90}", body: Vec<u8>) {
        let fixture = HttpFixture::new();
        fixture.put(1, json!({"scopes": ["introspect"], "audiences": ["k8s"]}));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let query: String = query.chars().filter(|char| char.is_ascii_alphanumeric() || "=&%/-,.".contains(*char)).collect();
            for uri in [format!("/auth/forward?{query}"), format!("/auth/envoy/{query}/-/"), format!("/auth/envoy/{query}")] {
                assert_ne!(fixture.ask("GET", &uri, &[("Authorization", &value)], "").await.status, 200);
            }
            let form = [("Authorization", &*value), ("Content-Type", "application/x-www-form-urlencoded")];
            assert_ne!(fixture.ask("POST", "/oauth2/introspect", &form, body.clone()).await.status, 200);
            let answer = fixture.ask("POST", "/k8s/tokenreview", &[], body).await;
            assert!(!answer.body.contains("true"), "{answer:?}");
        });
    }
}
