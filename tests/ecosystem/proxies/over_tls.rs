//! The proxies ask a verifier that has a certificate of the operator's own making, each with what the table of docs/verifier.md adds to its example.

use std::{fs, path::Path};

use super::{
    ask::ask,
    istio::Mesh,
    istio_objects::{Workload, over_tls},
    proxy::{Kind, Proxy},
    upstream::{Seen, Upstream},
    verifier::{HOST, Running},
};

const KINDS: [Kind; 5] = [Kind::Nginx, Kind::Traefik, Kind::Caddy, Kind::EnvoyHttp, Kind::EnvoyGrpc];

/// The example with what the table adds: https, whom to trust, and the name that the certificate must be for.
fn secured(kind: Kind, example: &str, http: &str, authority: &Path) -> String {
    let authority = authority.display();
    let port = http.rsplit(':').next().expect("a port");
    let (plain, secure) = match kind {
        Kind::Nginx => (
            "proxy_pass http://pat_verifier".to_owned(),
            format!(
                "proxy_ssl_verify on; proxy_ssl_trusted_certificate {authority}; proxy_ssl_name {HOST}; proxy_ssl_server_name on;\n\
                 proxy_pass https://pat_verifier"
            ),
        ),
        Kind::Traefik => (
            format!("address: http://{http}/"),
            format!("tls: {{ ca: {authority} }}\n        address: https://{HOST}:{port}/"),
        ),
        Kind::Caddy => (
            format!("forward_auth {http} {{"),
            format!(
                "forward_auth https://{http} {{\ntransport http {{\ntls_trust_pool file {authority}\ntls_server_name {HOST}\n}}"
            ),
        ),
        Kind::EnvoyHttp | Kind::EnvoyGrpc => (
            "    - name: pat_verifier\n".to_owned(),
            format!(
                r#"    - name: pat_verifier
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          sni: {HOST}
          common_tls_context:
            validation_context:
              trusted_ca: {{ filename: {authority} }}
              match_typed_subject_alt_names:
                - san_type: DNS
                  matcher: {{ exact: {HOST} }}
"#
            ),
        ),
    };
    assert_eq!(example.matches(&plain).count(), 1, "{plain:?} in the example for {kind:?}");
    example.replace(&plain, &secure)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_each_proxy_lets_in_who_may_and_trusts_nobody_but_the_authority_that_it_was_told() {
    let upstream = Upstream::start().await;
    let running = Running::start_over_tls().await;
    let (http, grpc) = (running.verifier.http, running.verifier.grpc);
    let stranger = tempfile::NamedTempFile::with_prefix("pat-proxy-tls-").expect("a file");
    let other = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).expect("a certificate");
    fs::write(stranger.path(), other.cert.pem()).expect("it is written");
    let bearer = |token: &str| format!("Bearer {token}");
    let (good, unknown) = (bearer(&running.good.token), bearer(&running.unknown.token));
    for kind in KINDS {
        let start = async |authority: &Path| {
            let change = |text: String| secured(kind, &text, &http.to_string(), authority);
            Proxy::start_with(kind, [http, grpc, upstream.addr], change).await
        };
        let Some(mut proxy) = start(&running.authority()).await else { continue };
        proxy.answers(&[("Authorization", &good)], |answer| answer.code == 200).await;
        let answer = ask(proxy.addr, "/", &[("Authorization", &unknown)], "").await.expect("it answers");
        assert!(answer.code != 200 && Seen::of(&answer).is_none(), "{kind:?}: {answer:?}");
        drop(proxy);

        let mut proxy = start(stranger.path()).await.expect("it was there before");
        for _ in 0..5 {
            let answer = proxy.answers(&[("Authorization", &good)], |_| true).await;
            assert!(answer.code >= 400 && Seen::of(&answer).is_none(), "{kind:?} trusts a stranger: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_sidecar_of_istio_lets_in_who_may_and_trusts_nobody_but_the_authority_that_it_was_told() {
    let upstream = Upstream::start().await;
    let running = Running::start_over_tls().await;
    let good = format!("Bearer {}", running.good.token);
    let stranger = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).expect("a certificate").cert.pem();
    let authority = fs::read_to_string(running.authority()).expect("it is there");
    // The right one for another name as well.
    for (host, authorities, code) in
        [(HOST, &authority, 200), (HOST, &stranger, 503), ("other.example.com", &authority, 503)]
    {
        let way = over_tls(host, authorities);
        let mesh =
            Mesh::start_with(running.place(), Workload::Sidecar, [running.verifier.http, upstream.addr], &way).await;
        let Some(mut proxy) = mesh.proxy().await else { return };
        for _ in 0..3 {
            let answer = proxy.answers(&[("Authorization", &good)], |_| true).await;
            assert_eq!((answer.code, Seen::of(&answer).is_some()), (code, code == 200), "{host}: {answer:?}");
        }
    }
}
