//! Tests the proxies with a verifier over TLS. Its certificate is the operator's own, and each example is changed as the table in
//! docs/verifier.md says.

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

/// The example with the changes of the table: https, the CA, and the expected server name.
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
    assert_eq!(example.matches(&plain).count(), 1, "the example for {kind:?} must contain {plain:?} once");
    example.replace(&plain, &secure)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_proxy_trusts_only_the_configured_ca_of_the_verifier() {
    let upstream = Upstream::start().await;
    let running = Running::start_over_tls().await;
    let (http, grpc) = (running.verifier.http, running.verifier.grpc);
    let stranger = tempfile::NamedTempFile::with_prefix("pat-proxy-tls-").expect("a file");
    let other = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).expect("a certificate");
    fs::write(stranger.path(), other.cert.pem()).expect("the file is written");
    let bearer = |token: &str| format!("Bearer {token}");
    let (good, unknown) = (bearer(&running.good.token), bearer(&running.unknown.token));
    for kind in KINDS {
        let start = async |authority: &Path| {
            let change = |text: String| secured(kind, &text, &http.to_string(), authority);
            Proxy::start_with(kind, [http, grpc, upstream.addr], change).await
        };
        let Some(mut proxy) = start(&running.authority()).await else { continue };
        proxy.answers(&[("Authorization", &good)], |answer| answer.code == 200).await;
        let answer = ask(proxy.addr, "/", &[("Authorization", &unknown)], "").await.expect("the proxy answers");
        assert!(answer.code != 200 && Seen::of(&answer).is_none(), "{kind:?}: {answer:?}");
        drop(proxy);

        let mut proxy = start(stranger.path()).await.expect("the proxy is available");
        for _ in 0..5 {
            let answer = proxy.answers(&[("Authorization", &good)], |_| true).await;
            assert!(answer.code >= 400 && Seen::of(&answer).is_none(), "{kind:?} trusts another CA: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn istio_sidecar_trusts_only_the_configured_ca_of_the_verifier() {
    let upstream = Upstream::start().await;
    let running = Running::start_over_tls().await;
    let good = format!("Bearer {}", running.good.token);
    let stranger = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).expect("a certificate").cert.pem();
    let authority = fs::read_to_string(running.authority()).expect("the file exists");
    // The last case has the right CA, but another server name.
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
