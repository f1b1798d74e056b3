use kube::core::Status;

use super::*;

#[tokio::test]
async fn retry_after_is_kept() {
    let answer = |code: u16, content: &str, body: &str| {
        let response = Response::builder().status(code).header("Retry-After", "7").header("Content-Type", content);
        explain_response(response.body(Body::from(body.to_owned())).expect("a response"), "")
    };
    let read = async |response: Response<Body>| {
        let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.expect("a body");
        String::from_utf8(bytes.to_vec()).expect("text")
    };
    let busy = answer(429, "text/plain; charset=utf-8", "Too many requests, please try again later.");
    assert_eq!(busy.status(), 429);
    let status: Status = serde_json::from_str(&read(busy).await).expect("a Status");
    assert_eq!(status.details.expect("details").retry_after_seconds, 7);
    assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
    assert_eq!(read(answer(429, "application/json", "{}")).await, "{}");
    assert_eq!(read(answer(200, "text/plain", "fine")).await, "fine");
}

#[tokio::test]
async fn an_unreachable_api_server_is_explained() {
    install_crypto();
    let config = Config::new("http://127.0.0.1:1".parse().unwrap());
    let Cluster { client, url, namespace, .. } = client(config).unwrap();
    assert_eq!((&*url, &*namespace), ("http://127.0.0.1:1", "default"));
    let line = explain_api_error(&client.apiserver_version().await.unwrap_err());
    assert!(line.starts_with("no API server listens at this address: Connection refused"), "{line}");
}

#[tokio::test]
async fn a_refusal_names_the_context_and_the_server() {
    let response = Response::builder().status(401).body(Body::from("no JSON")).expect("a response");
    let response = explain_response(response, "context \"main\", server https://api.example");
    let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.expect("a body");
    let status: Status = serde_json::from_slice(&bytes).expect("a Status");
    let line = explain_api_error(&kube::Error::Api(status.boxed()));
    assert!(line.contains("(401 Unauthorized: context \"main\", server https://api.example)"), "{line}");
}

#[test]
fn files_are_chosen_as_by_kubectl() {
    let home = Path::new("/home/ann");
    let find = |flag: &str, variable: &str, home| Files::find(Some(Path::new(flag)), Some(variable.as_ref()), home);
    assert_eq!(find("flag", "a:b", Some(home)), Files::Flag("flag".into()));
    assert_eq!(find("", ":a::b:", Some(home)), Files::Variable(vec!["a".into(), "b".into()]));
    assert_eq!(find("", "", Some(home)), Files::Home(Some("/home/ann/.kube/config".into())));
    assert_eq!(Files::find(None, None, None), Files::Home(None));
}

/// Kubeconfigs with wrong values, for which there must be a connection or an error without secrets.
mod mangled {
    use std::sync::LazyLock;

    use proptest::{collection::vec, prelude::*, sample::Index};
    use rcgen::{CertificateParams, KeyPair};
    use serde_json::Value;

    use super::*;
    use crate::service::client::kubeconfig::Kubeconfig;

    static BASE: LazyLock<Value> = LazyLock::new(base);

    fn base() -> Value {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let (certificate, key) = (STANDARD.encode(certificate), STANDARD.encode(key.serialize_pem()));
        let exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "command": "s3cret", "args": ["s3cret"], "interactiveMode": "Never",
            "env": [{"name": "A", "value": "s3cret"}], "installHint": "install it", "provideClusterInfo": true,
        });
        let users = ["certificate", "token", "password", "exec", "provider"];
        let contexts =
            users.map(|user| json!({"name": user, "context": {"cluster": "main", "user": user, "namespace": "shop"}}));
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "certificate",
            "contexts": contexts,
            "clusters": [{"name": "main", "cluster": {
                "server": "https://user:s3cret@127.0.0.1:6443/path", "proxy-url": "socks5://user:s3cret@localhost:1080",
                "certificate-authority-data": certificate, "tls-server-name": "localhost", "disable-compression": true,
                "extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"a": 1}}],
            }}],
            "users": [
                {"name": "certificate", "user": {"client-certificate-data": certificate, "client-key-data": key}},
                {"name": "token", "user": {
                    "token": "s3cret", "as": "ann", "as-uid": "7", "as-groups": ["a"], "as-user-extra": {"x": ["y"]},
                }},
                {"name": "password", "user": {"username": "ann", "password": "s3cret"}},
                {"name": "exec", "user": {"exec": exec}},
                {"name": "provider", "user": {"auth-provider": {"name": "oidc", "config": {"id-token": "s3cret"}}}},
            ],
        })
    }

    /// Values that fit almost nowhere.
    fn values() -> Vec<Value> {
        let texts = [
            "",
            " ",
            "\n",
            "s3cret\n",
            "s3cret\u{0}",
            "é",
            "..",
            "/",
            "https://",
            "https://[::1",
            "http://s3cret@:1",
            "::",
            "a b",
            "%zz",
            "socks5://user:s3cret@",
            "ftp://user:s3cret@host",
            "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==",
            "s3cret====",
            "none",
            "certificate",
        ];
        let others = [
            json!(null),
            json!(true),
            json!(0),
            json!(-1.5e300),
            json!([]),
            json!({}),
            json!([null]),
            json!({"": null}),
        ];
        texts.into_iter().map(Value::from).chain(others).chain([Value::from("s3cret".repeat(5_000))]).collect()
    }

    /// The JSON pointers of all values.
    fn pointers(value: &Value, at: String, all: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| pointers(value, format!("{at}/{key}"), all)),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(key, value)| pointers(value, format!("{at}/{key}"), all))
            }
            _ => {}
        }
        all.push(at);
    }

    fn mangle(changes: &[(Index, Index)], bytes: &[(Index, u8)]) -> Vec<u8> {
        let (mut config, values) = (BASE.clone(), values());
        for (pointer, value) in changes {
            let mut all = Vec::new();
            pointers(&config, String::new(), &mut all);
            // Names are no secrets.
            let names = ["/name", "/context/cluster", "/context/user", "/current-context"];
            all.retain(|at| !names.iter().any(|name| at.ends_with(name)));
            let at: &String = pointer.get(&all);
            *config.pointer_mut(at).expect("it exists") = value.get(&values).clone();
        }
        let mut text = config.to_string().into_bytes();
        for (at, byte) in bytes {
            let at = at.index(text.len());
            text[at] = *byte;
        }
        text
    }

    fn open(text: &[u8], context: &str) -> Result<(), String> {
        let kubeconfig = Kubeconfig::parse(text).map_err(|error| error.to_string())?;
        let flags = ConfigOverrides { context: Some(context.to_owned()), ..ConfigOverrides::default() };
        let found = resolve(kubeconfig, &flags, &ProxyVariables::default()).map_err(|error| error.to_string())?;
        let Some(Connection { config, proxy, .. }) = found else { return Ok(()) };
        let setup = Setup { proxy, print_requests: true, ..Setup::default() };
        build(config, setup).map(drop).map_err(|error| error.to_string())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

        #[test]
        fn never_panic_and_never_leak(
            changes in vec(any::<(Index, Index)>(), 0..4),
            bytes in vec(any::<(Index, u8)>(), 0..3),
            context in prop::sample::select(vec!["", "certificate", "token", "password", "exec", "provider"]),
        ) {
            install_crypto();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _guard = runtime.enter();
            if let Err(error) = open(&mangle(&changes, &bytes), context) {
                prop_assert!(!error.contains("s3cret") && !error.contains('\n') && error.len() < 1_000, "{}", error);
            }
        }
    }

    #[test]
    fn the_kubeconfig_is_valid_before() {
        install_crypto();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _guard = runtime.enter();
        for context in ["certificate", "token", "password", "exec", "provider"] {
            assert_eq!(open(&mangle(&[], &[]), context), Ok(()), "{context}");
        }
    }
}
