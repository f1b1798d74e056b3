//! The table of kubeconfigs. `differs` says why `kubectl pat` deliberately does something else than kubectl.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Fixture, servers::USER};

/// The folder, the environment and the flags of one run.
pub struct Case {
    pub name: &'static str,
    /// Files in the folder of the case; `{dir}` stands for its path.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// Variables besides `KUBECONFIG={dir}/config` and `HOME={dir}/home`; without a value they are not set.
    pub env: Vec<(&'static str, Option<String>)>,
    pub flags: Vec<String>,
    /// Why the result is not that of kubectl.
    pub differs: Option<&'static str>,
}

impl Case {
    fn file(&mut self, name: &'static str, content: impl Into<Vec<u8>>) -> &mut Self {
        self.files.push((name, content.into()));
        self
    }

    fn env(&mut self, name: &'static str, value: impl Into<String>) -> &mut Self {
        self.env.push((name, Some(value.into())));
        self
    }

    fn without(&mut self, name: &'static str) -> &mut Self {
        self.env.push((name, None));
        self
    }

    fn flag(&mut self, flag: impl Into<String>) -> &mut Self {
        self.flags.push(flag.into());
        self
    }

    fn differs(&mut self, reason: &'static str) -> &mut Self {
        self.differs = Some(reason);
        self
    }
}

struct Table<'f> {
    fixture: &'f Fixture,
    cases: Vec<Case>,
}

impl Table<'_> {
    /// A case without files.
    fn bare(&mut self, name: &'static str) -> &mut Case {
        self.cases.push(Case { name, files: vec![], env: vec![], flags: vec![], differs: None });
        self.cases.last_mut().expect("a case")
    }

    /// A kubeconfig with this content.
    fn text(&mut self, name: &'static str, content: impl Into<Vec<u8>>) -> &mut Case {
        self.bare(name).file("config", content)
    }

    /// The usual kubeconfig.
    fn plain(&mut self, name: &'static str) -> &mut Case {
        self.edit(name, |_| {})
    }

    /// The usual kubeconfig with a change.
    fn edit(&mut self, name: &'static str, change: impl FnOnce(&mut Value)) -> &mut Case {
        let mut config = self.fixture.config();
        change(&mut config);
        self.text(name, config.to_string())
    }

    /// The usual kubeconfig in YAML, with a change of its text.
    fn yaml(&mut self, name: &'static str, change: impl FnOnce(String) -> String) -> &mut Case {
        let yaml = serde_yaml::to_string(&self.fixture.config()).expect("YAML");
        self.text(name, change(yaml))
    }

    fn cluster(&mut self, name: &'static str, fields: Value) -> &mut Case {
        self.edit(name, |config| merge(&mut config["clusters"][0]["cluster"], fields))
    }

    /// The usual kubeconfig with another user.
    fn user(&mut self, name: &'static str, user: Value) -> &mut Case {
        self.edit(name, |config| config["users"][0]["user"] = user)
    }

    /// A user of a credential plugin in the folder of the case, which counts its calls.
    fn exec(&mut self, name: &'static str, exec: Value, script: &str) -> &mut Case {
        let mut all = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "command": "{dir}/plugin", "interactiveMode": "Never",
        });
        merge(&mut all, exec);
        let script = format!("#!/bin/sh\nprintf x >> {{dir}}/calls\n{script}\n");
        self.user(name, json!({"exec": all})).file("plugin", script)
    }
}

/// Sets fields; null removes one.
fn merge(target: &mut Value, fields: Value) {
    for (key, value) in fields.as_object().expect("fields") {
        if value.is_null() {
            target.as_object_mut().expect("a map").remove(key);
        } else {
            target[key] = value.clone();
        }
    }
}

pub fn all(fixture: &Fixture) -> Vec<Case> {
    let mut table = Table { fixture, cases: Vec::new() };
    files(&mut table);
    encodings(&mut table);
    structure(&mut table);
    unused_entries(&mut table);
    context_flags(&mut table);
    cluster_flags(&mut table);
    user_flags(&mut table);
    servers(&mut table);
    authorities(&mut table);
    certificates(&mut table);
    tokens(&mut table);
    passwords_and_providers(&mut table);
    impersonation(&mut table);
    plugins(&mut table);
    plugin_errors(&mut table);
    proxies(&mut table);
    proxy_variables(&mut table);
    table.cases
}

fn files(table: &mut Table<'_>) {
    let base = table.fixture.config();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut config = base.clone();
        change(&mut config);
        config.to_string()
    };
    let only = |key: &str| json!({key: base[key]}).to_string();
    table.plain("a plain kubeconfig");
    table.plain("missing files in a list").env("KUBECONFIG", "{dir}/none:{dir}/config:{dir}/no/such");
    table.plain("empty names in a list").env("KUBECONFIG", "::{dir}/config:");
    table.plain("a file twice in a list").env("KUBECONFIG", "{dir}/config:{dir}/config");
    table.bare("only missing files").env("KUBECONFIG", "{dir}/none:{dir}/nothing");
    table.plain("a folder as kubeconfig").env("KUBECONFIG", "{dir}");
    table.plain("a folder in a list").env("KUBECONFIG", "{dir}:{dir}/config");
    table.plain("a broken file in a list").file("broken", "{").env("KUBECONFIG", "{dir}/config:{dir}/broken");
    table
        .plain("the first current context counts")
        .file("first", json!({"current-context": "other"}).to_string())
        .env("KUBECONFIG", "{dir}/first:{dir}/config");
    table
        .plain("an empty current context does not count")
        .file("first", json!({"current-context": ""}).to_string())
        .env("KUBECONFIG", "{dir}/first:{dir}/config");
    table
        .bare("entries in three files")
        .file("contexts", json!({"contexts": base["contexts"], "current-context": "main"}).to_string())
        .file("clusters", only("clusters"))
        .file("users", only("users"))
        .env("KUBECONFIG", "{dir}/users:{dir}/clusters:{dir}/contexts");
    table
        .plain("the first user of a name counts as a whole")
        .file("first", json!({"users": [{"name": "carol", "user": {"token": table_token(&base)}}]}).to_string())
        .env("KUBECONFIG", "{dir}/first:{dir}/config");
    table.plain("--kubeconfig").flag("--kubeconfig={dir}/config").env("KUBECONFIG", "{dir}/none");
    table.plain("--kubeconfig, missing").flag("--kubeconfig={dir}/none");
    table.plain("--kubeconfig, empty").flag("--kubeconfig=");
    table.bare("the home folder").file("home/.kube/config", base.to_string()).without("KUBECONFIG");
    table.bare("an empty KUBECONFIG").file("home/.kube/config", base.to_string()).env("KUBECONFIG", "");
    table
        .bare("the home folder in a pod")
        .file("home/.kube/config", base.to_string())
        .without("KUBECONFIG")
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", "1");
    table
        .bare("a pod without kubeconfig and ServiceAccount")
        .without("KUBECONFIG")
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", "1");
    table.bare("nothing").without("KUBECONFIG");
    let relative = |config: &mut Value| {
        merge(
            &mut config["clusters"][0]["cluster"],
            json!({"certificate-authority-data": null, "certificate-authority": "pki/ca"}),
        );
        config["users"][0]["user"] = json!({"client-certificate": "./pki/cert", "client-key": "../other/pki/key"});
    };
    let (authority, carol) = (table.fixture.authority.clone(), &table.fixture.carol);
    let (certificate, key) = (carol.certificate.clone(), carol.key.clone());
    table
        .bare("paths relative to their file")
        .file("other/config", with(&relative))
        .file("other/pki/ca", authority)
        .file("other/pki/cert", certificate)
        .file("other/pki/key", key)
        .env("KUBECONFIG", "other/config");
}

fn table_token(base: &Value) -> &Value {
    &base["users"][1]["user"]["token"]
}

fn encodings(table: &mut Table<'_>) {
    let base = table.fixture.config();
    let (json, yaml) = (base.to_string(), serde_yaml::to_string(&base).expect("YAML"));
    let utf16 = |mark: &[u8], bytes: fn(u16) -> [u8; 2]| {
        [mark.to_vec(), json.encode_utf16().flat_map(bytes).collect()].concat()
    };
    table.text("YAML", yaml.clone());
    table.text("a byte order mark", [b"\xef\xbb\xbf", yaml.as_bytes()].concat());
    table.text("UTF-16, little endian", utf16(b"\xff\xfe", u16::to_le_bytes));
    table.text("UTF-16, big endian", utf16(b"\xfe\xff", u16::to_be_bytes));
    table.text("not UTF-8", [yaml.as_bytes(), b"# \xff\n"].concat());
    table.text("line ends of Windows", yaml.replace('\n', "\r\n"));
    table.text("tabs", yaml.replace("  ", "\t"));
    table.text("an empty file", "");
    table.text("a comment only", "# nothing\n");
    table.text("no map", "- s3cret\n");
    table.text("half a file", "users: [{user: {token: s3cret}}");
    table.text("an unknown alias", yaml.replace("current-context: main", "current-context: *s3cret"));
    table.text("the first of two documents", format!("{yaml}---\ncurrent-context: other\n"));
    table.text("a broken second document", format!("{yaml}---\n{{\n"));
    table.text("a key twice", format!("current-context: none\n{yaml}"));
    table
        .text(
            "an anchor",
            yaml.replace("namespace: alpha", "namespace: &n alpha").replace("namespace: beta", "namespace: *n"),
        )
        .flag("--context=other");
    let merged = yaml.replace("contexts:", "x-common: &common\n  user: robot\n  namespace: gamma\ncontexts:");
    table
        .text("a merge key", merged.replace("user: carol\n", "<<: *common\n"))
        .differs("a field beside a merge key wins: to kubectl, the later of both");
}

fn structure(table: &mut Table<'_>) {
    table.edit("no apiVersion and kind", |config| merge(config, json!({"apiVersion": null, "kind": null})));
    table.edit("another apiVersion", |config| config["apiVersion"] = "v2".into());
    table.edit("another kind", |config| config["kind"] = "Secret".into());
    table.edit("unknown fields", |config| {
        config["x"] = json!({"y": [1]});
        config["preferences"] = json!({"colors": true});
        config["contexts"][0]["x"] = json!(1);
        config["users"][0]["user"]["x"] = json!([]);
    });
    table.edit("null lists", |config| config["extensions"] = Value::Null);
    table.yaml("keys in other case", |yaml| yaml.replace("current-context:", "Current-Context:"));
    table.edit("no current context", |config| merge(config, json!({"current-context": null})));
    table.edit("an unknown current context", |config| config["current-context"] = "none".into());
    table.edit("an empty name", |config| {
        config["current-context"] = "".into();
        config["contexts"][0]["name"] = "".into();
    });
    table.edit("a context of an unknown cluster", |config| config["contexts"][0]["context"]["cluster"] = "none".into());
    table.edit("a context of an unknown user", |config| config["contexts"][0]["context"]["user"] = "none".into());
    table.edit("a context without user", |config| merge(&mut config["contexts"][0]["context"], json!({"user": null})));
    table.edit("a context without namespace", |config| {
        merge(&mut config["contexts"][0]["context"], json!({"namespace": null}))
    });
    table.edit("an empty namespace", |config| config["contexts"][0]["context"]["namespace"] = "".into());
    table.edit("a number as namespace", |config| config["contexts"][0]["context"]["namespace"] = 123.into());
    table.edit("a path as namespace", |config| config["contexts"][0]["context"]["namespace"] = "a/../b".into());
    table.edit("a number as token", |config| config["users"][0]["user"] = json!({"token": 12345}));
    table.edit("a text as user", |config| config["users"][0]["user"] = "s3cret".into());
    table.edit("a map as users", |config| config["users"] = json!({"carol": {"token": "s3cret"}}));
    table.edit("text as flag", |config| config["clusters"][1]["cluster"]["insecure-skip-tls-verify"] = "true".into());
    table.yaml("a flag of YAML 1.1", |yaml| {
        yaml.replace("namespace: alpha", "namespace: alpha\n    x: yes")
            .replace("- name: second\n  cluster:\n", "- name: second\n  cluster:\n    insecure-skip-tls-verify: no\n")
    });
}

fn unused_entries(table: &mut Table<'_>) {
    let mut add = |name, list: &'static str, entry: Value| {
        table.edit(name, |config| config[list].as_array_mut().expect("a list").push(entry));
    };
    add("an unused context without cluster", "contexts", json!({"name": "x", "context": {}}));
    add("an unused context that is null", "contexts", json!({"name": "x", "context": null}));
    add("an unused context that is null as a whole", "contexts", Value::Null);
    add("an unused cluster without server", "clusters", json!({"name": "x", "cluster": {}}));
    add(
        "an unused cluster with a missing file",
        "clusters",
        json!({"name": "x", "cluster": {"certificate-authority": "none"}}),
    );
    add(
        "an unused cluster with a wrong URL",
        "clusters",
        json!({"name": "x", "cluster": {"server": "::", "proxy-url": "::"}}),
    );
    add(
        "an unused cluster with a wrong authority",
        "clusters",
        json!({"name": "x", "cluster": {"certificate-authority-data": "eA=="}}),
    );
    add(
        "an unused cluster without base64",
        "clusters",
        json!({"name": "x", "cluster": {"certificate-authority-data": "s3cret!"}}),
    );
    add("an unused user that is null", "users", json!({"name": "x", "user": null}));
    add("an unused user with a missing file", "users", json!({"name": "x", "user": {"tokenFile": "none"}}));
    add("an unused user with a wrong plugin", "users", json!({"name": "x", "user": {"exec": {}}}));
    add("an unused user with a wrong mode", "users", json!({"name": "x", "user": {"exec": {"interactiveMode": "?"}}}));
    add("an unused user with a number", "users", json!({"name": "x", "user": {"token": 1}}));
    add("a name twice", "users", json!({"name": "carol", "user": {}}));
}

fn context_flags(table: &mut Table<'_>) {
    table.plain("--context").flag("--context=other");
    table.plain("--context, empty").flag("--context=");
    table.plain("--context, unknown").flag("--context=none");
    table.plain("--cluster").flag("--cluster=second");
    table.plain("--cluster, unknown").flag("--cluster=none");
    table.plain("--user").flag("--user=robot");
    table.plain("--user, unknown").flag("--user=none");
    table.plain("--namespace").flag("--namespace=gamma");
    table.plain("--namespace, empty").flag("--namespace=");
    table
        .plain("--namespace, -n")
        .flag("-n")
        .flag("gamma")
        .flag("--context")
        .flag("other")
        .flag("--user")
        .flag("carol");
    table
        .edit("--context for a broken current one", |config| config["current-context"] = "none".into())
        .flag("--context=main");
    table.plain("--request-timeout").flag("--request-timeout=20s");
    table.plain("--request-timeout in seconds").flag("--request-timeout=20");
    table.plain("--request-timeout, none").flag("--request-timeout=0");
    table.plain("--request-timeout, in minutes and seconds").flag("--request-timeout=1m30s");
    table.plain("--request-timeout, wrong").flag("--request-timeout=soon");
}

fn cluster_flags(table: &mut Table<'_>) {
    let second = format!("--server=https://{}", table.fixture.forward.addr);
    let authority = table.fixture.authority.clone();
    let foreign = table.fixture.own_authority.pem.clone();
    table.plain("--server").flag(&*second);
    table.plain("--server, empty").flag("--server=");
    table.plain("--server, wrong").flag("--server=https://");
    table.plain("--server without scheme").flag(second.replace("https://", ""));
    table
        .cluster("--server drops the name of the certificate", json!({"tls-server-name": "wrong.example"}))
        .flag(&*second);
    table
        .edit("--server for an unknown cluster", |config| config["contexts"][0]["context"]["cluster"] = "none".into())
        .flag(&*second)
        .flag("--insecure-skip-tls-verify");
    table.bare("--server without kubeconfig").flag(&*second).flag("--insecure-skip-tls-verify");
    table.plain("--insecure-skip-tls-verify").flag("--insecure-skip-tls-verify");
    table
        .cluster(
            "--insecure-skip-tls-verify for another authority",
            json!({"certificate-authority-data": STANDARD.encode(&foreign)}),
        )
        .flag("--insecure-skip-tls-verify");
    table
        .cluster("--certificate-authority", json!({"certificate-authority-data": STANDARD.encode(&foreign)}))
        .file("ca", authority)
        .flag("--certificate-authority=ca");
    table.plain("--certificate-authority, another").file("ca", foreign).flag("--certificate-authority=ca");
    table.plain("--certificate-authority, missing").flag("--certificate-authority=ca");
    table.plain("--tls-server-name").flag("--tls-server-name=localhost");
    table.plain("--tls-server-name, wrong").flag("--tls-server-name=wrong.example");
    table.plain("--tls-server-name, no name").flag("--tls-server-name=a b");
}

fn user_flags(table: &mut Table<'_>) {
    let (carol, admin) = (&table.fixture.carol, &table.fixture.admin);
    let (certificate, key) = (carol.certificate.clone(), carol.key.clone());
    let other_key = admin.key.clone();
    let robot = |config: &mut Value| config["contexts"][0]["context"]["user"] = "admin".into();
    table
        .edit("--client-certificate and --client-key", robot)
        .file("cert", certificate.clone())
        .file("key", key)
        .flag("--client-certificate=cert")
        .flag("--client-key=key");
    table
        .edit("--client-key of another certificate", robot)
        .file("cert", certificate.clone())
        .file("key", other_key)
        .flag("--client-certificate=cert")
        .flag("--client-key=key");
    table
        .user("--client-certificate without key", json!({}))
        .file("cert", certificate)
        .flag("--client-certificate=cert");
    table.plain("--as").flag("--user=admin").flag("--as=dave");
    table.plain("--as without the right to").flag("--as=dave");
    table.plain("--as and --as-group").flag("--user=admin").flag("--as=dave").flag("--as-group=a").flag("--as-group=b");
    table.plain("--as-group without --as").flag("--user=admin").flag("--as-group=a");
    table.plain("--as and --as-uid").flag("--user=admin").flag("--as=dave").flag("--as-uid=7");
    table.plain("--as-uid without --as").flag("--user=admin").flag("--as-uid=7");
    table.plain("--as, empty").flag("--as=");
    table.plain("--as with a line break").flag("--user=admin").flag("--as=a\nb");
    table.plain("--token").flag("--token=s3cret").flag("--context=other");
    let token = table.fixture.token.clone();
    table
        .plain("--token that is right")
        .flag(format!("--token={token}"))
        .differs("other programs can read command lines");
}

fn servers(table: &mut Table<'_>) {
    let api = table.fixture.api.clone();
    let port = api.rsplit(':').next().expect("a port").to_owned();
    let mut server = |name, server: &str| {
        table.cluster(name, json!({"server": server}));
    };
    server("a slash after the server", &format!("https://{api}/"));
    server("a scheme in capital letters", &format!("HTTPS://{api}"));
    server("a host name", &format!("https://localhost:{port}"));
    server("a server without scheme", &api);
    server("a host name without scheme", &format!("localhost:{port}"));
    server("plain HTTP", &format!("http://{api}"));
    server("a query in the server", &format!("https://{api}?a=b"));
    server("a fragment in the server", &format!("https://{api}#a"));
    server("a path of the server", &format!("https://{api}/proxy/x"));
    server("a query after a path of the server", &format!("https://{api}/?a=b#c"));
    server("a port without number", "https://127.0.0.1:port");
    server("a port that is too high", "https://127.0.0.1:99999");
    server("a closed port", "https://127.0.0.1:1");
    server("another scheme", &format!("ftp://{api}"));
    server("an unknown host", "https://api.invalid:6443");
    server("a blank before the server", &format!(" https://{api}"));
    server("a blank after the server", &format!("https://{api} "));
    server("a line break after the server", &format!("https://{api}\n"));
    server("an empty server", "");
    server("no host", "https://");
    server("a name in brackets", "https://[localhost]:6443");
    table.edit("a password in the server", |config| {
        config["clusters"][0]["cluster"]["server"] = format!("https://user:s3cret@{api}").into();
        config["users"][0]["user"] = json!({});
    });
}

fn authorities(table: &mut Table<'_>) {
    let fixture = table.fixture;
    let authority = fixture.authority.clone();
    let encoded = STANDARD.encode(&authority);
    let folded: Vec<_> = encoded.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let none = json!({"certificate-authority-data": null});
    let data = |pem: &str| json!({"certificate-authority-data": STANDARD.encode(pem)});
    let broken = "-----BEGIN CERTIFICATE-----\nc3VyZWx5IG5vdA==\n-----END CERTIFICATE-----\n";
    table.cluster("no authority", none.clone());
    table
        .cluster("an authority of the machine", none.clone())
        .file("ca", authority.clone())
        .env("SSL_CERT_FILE", "{dir}/ca");
    table
        .cluster("an empty authority", json!({"certificate-authority-data": "", "certificate-authority": ""}))
        .file("ca", authority.clone())
        .env("SSL_CERT_FILE", "{dir}/ca");
    table.cluster("base64 in lines", json!({"certificate-authority-data": folded.join("\n")}));
    table.cluster("base64 in lines of Windows", json!({"certificate-authority-data": folded.join("\r\n")}));
    table.cluster("base64 with blanks", json!({"certificate-authority-data": folded.join(" ")}));
    table.cluster("base64 without padding", json!({"certificate-authority-data": encoded.trim_end_matches('=')}));
    table.cluster("no base64", json!({"certificate-authority-data": "s3cret!"}));
    table
        .cluster("an authority as file", json!({"certificate-authority-data": null, "certificate-authority": "ca"}))
        .file("ca", authority.clone());
    table.cluster(
        "an authority as missing file",
        json!({"certificate-authority-data": null, "certificate-authority": "ca"}),
    );
    table
        .cluster(
            "an authority as empty file",
            json!({"certificate-authority-data": null, "certificate-authority": "ca"}),
        )
        .file("ca", "");
    table
        .cluster("an authority as file and as data", json!({"certificate-authority": "ca"}))
        .file("ca", authority.clone());
    table.cluster("an authority that is not PEM", data("nonsense"));
    table.cluster("an authority of another type", data(&authority.replace("CERTIFICATE", "PUBLIC KEY")));
    table.cluster("an authority with text around it", data(&format!("# kube-ca\n{authority}\nend")));
    table.cluster("an authority beside a broken one", data(&format!("{broken}{authority}")));
    table.cluster("an authority before a broken one", data(&format!("{authority}{broken}")));
    table.cluster("a broken authority", data(broken));
    table.cluster("another authority", data(&fixture.own_authority.pem));
    table.cluster("several authorities", data(&format!("{}{authority}", fixture.own_leaf.pem)));
    table.cluster("insecure", json!({"certificate-authority-data": null, "insecure-skip-tls-verify": true}));
    table.cluster("insecure with an authority", json!({"insecure-skip-tls-verify": true}));
    table.cluster("an empty name of the certificate", json!({"tls-server-name": ""}));
    table.cluster("another name of the certificate", json!({"tls-server-name": "localhost"}));
    table.cluster("a wrong name of the certificate", json!({"tls-server-name": "wrong.example"}));
    table.cluster("an impossible name of the certificate", json!({"tls-server-name": "a b"}));
    table.cluster("no compression", json!({"disable-compression": true}));
    for (name, server, certificate) in [
        ("an authority as the server's certificate", &fixture.self_signed, &fixture.own_authority),
        ("a leaf as its own authority", &fixture.self_signed_leaf, &fixture.own_leaf),
    ] {
        table.edit(name, |config| {
            let fields = json!({"server": format!("https://{}", server.addr), "certificate-authority-data": STANDARD.encode(&certificate.pem)});
            merge(&mut config["clusters"][0]["cluster"], fields);
            config["contexts"][0]["context"]["user"] = "robot".into();
        });
    }
    table.edit("a leaf for another name", |config| {
        let fields = json!({
            "server": format!("https://{}", fixture.self_signed_leaf.addr),
            "certificate-authority-data": STANDARD.encode(&fixture.own_leaf.pem),
            "tls-server-name": "wrong.example",
        });
        merge(&mut config["clusters"][0]["cluster"], fields);
    });
}

fn certificates(table: &mut Table<'_>) {
    let (carol, admin) = (&table.fixture.carol, &table.fixture.admin);
    let (cert, key, other) = (carol.certificate.clone(), carol.key.clone(), admin.key.clone());
    let encode = |pem: &str| STANDARD.encode(pem);
    let files = json!({"client-certificate": "cert", "client-key": "key"});
    table.user("a client certificate as files", files.clone()).file("cert", cert.clone()).file("key", key.clone());
    table.user("a client certificate as missing file", files.clone()).file("key", key.clone());
    table.user("a client key as missing file", files.clone()).file("cert", cert.clone());
    table.user("a client certificate without key", json!({"client-certificate-data": encode(&cert)}));
    table.user("a client key without certificate", json!({"client-key-data": encode(&key)}));
    table
        .user(
            "a client certificate as data, its key as file",
            json!({"client-certificate-data": encode(&cert), "client-key": "key"}),
        )
        .file("key", key.clone());
    table
        .user(
            "a client certificate as file and as data",
            json!({"client-certificate-data": encode(&cert), "client-certificate": "cert", "client-key-data": encode(&key)}),
        )
        .file("cert", cert.clone());
    table
        .user(
            "a client key as file and as data",
            json!({"client-certificate-data": encode(&cert), "client-key": "key", "client-key-data": encode(&key)}),
        )
        .file("key", key.clone());
    table.user(
        "the key of another certificate",
        json!({"client-certificate-data": encode(&cert), "client-key-data": encode(&other)}),
    );
    table.user(
        "a certificate that is not PEM",
        json!({"client-certificate-data": encode("s3cret"), "client-key-data": encode(&key)}),
    );
    table.user(
        "a key that is not PEM",
        json!({"client-certificate-data": encode(&cert), "client-key-data": encode("s3cret")}),
    );
    let both = format!("{cert}{key}");
    table.user(
        "certificate and key in one text",
        json!({"client-certificate-data": encode(&both), "client-key-data": encode(&both)}),
    );
    let text = format!("Bag Attributes\n{key}");
    table.user(
        "a key with text before it",
        json!({"client-certificate-data": encode(&cert), "client-key-data": encode(&text)}),
    );
    table.user(
        "empty fields beside a client certificate",
        json!({
            "client-certificate-data": encode(&cert), "client-key-data": encode(&key), "client-certificate": "", "client-key": "",
            "token": "", "tokenFile": "", "username": "", "password": "", "as": "", "as-uid": "", "as-groups": [], "as-user-extra": {},
            "exec": null, "auth-provider": null,
        }),
    );
}

fn tokens(table: &mut Table<'_>) {
    let token = table.fixture.token.clone();
    let (cert, key) = (STANDARD.encode(&table.fixture.carol.certificate), STANDARD.encode(&table.fixture.carol.key));
    table.user("a token", json!({"token": token}));
    table.user("a wrong token", json!({"token": "s3cret"}));
    table
        .user("a token with a line break after it", json!({"token": format!("{token}\n")}))
        .differs("a header cannot have a line break, and the token is right without it");
    table.user("a token with a line break in it", json!({"token": "s3cret\ns3cret"}));
    table.user("a token with a null byte", json!({"token": "s3cret\u{0}"}));
    table.user("a token that is not ASCII", json!({"token": "s3crét"}));
    table
        .user("blanks around a token", json!({"token": format!(" {token} ")}))
        .differs("white space around a token is not part of it");
    table.user("a token as file", json!({"tokenFile": "token"})).file("token", token.clone());
    table.user("a token as file with a line break", json!({"tokenFile": "token"})).file("token", format!("{token}\n"));
    table
        .user("a token as file with line ends of Windows", json!({"tokenFile": "token"}))
        .file("token", format!("\r\n{token}\r\n"));
    table.user("a token as missing file", json!({"tokenFile": "token"}));
    table.user("a token as empty file", json!({"tokenFile": "token"})).file("token", "");
    table.user("a token as blank file", json!({"tokenFile": "token"})).file("token", "\n");
    table.user("a token as file with two lines", json!({"tokenFile": "token"})).file("token", "s3cret\ns3cret\n");
    table.user("a token as binary file", json!({"tokenFile": "token"})).file("token", b"s3cret\xff\x00".to_vec());
    table.user("a token as folder", json!({"tokenFile": "."}));
    table.user("an empty tokenFile", json!({"token": token, "tokenFile": ""}));
    table
        .user("a wrong token beside a file", json!({"token": "s3cret", "tokenFile": "token"}))
        .file("token", token.clone());
    table.user("a token beside a missing file", json!({"token": token, "tokenFile": "token"}));
    table.user(
        "a token beside a client certificate",
        json!({"token": token, "client-certificate-data": cert, "client-key-data": key}),
    );
    table.user("no credentials", json!({}));
}

fn passwords_and_providers(table: &mut Table<'_>) {
    let token = table.fixture.token.clone();
    let provider = |name: &str, config: Value| json!({"auth-provider": {"name": name, "config": config}});
    table.user("a password", json!({"username": "carol", "password": "s3cret"}));
    table.user("a password without user", json!({"password": "s3cret"}));
    table.user("a password beside a token", json!({"username": "carol", "password": "s3cret", "token": token}));
    table
        .user(
            "a password beside a token file",
            json!({"username": "carol", "password": "s3cret", "tokenFile": "token"}),
        )
        .file("token", token.clone());
    table.user("a password with control characters", json!({"username": "carol\n", "password": "s3cret\u{0}"}));
    let oidc = json!({"idp-issuer-url": "https://issuer.invalid", "client-id": "kubernetes", "id-token": token});
    table.user("the provider oidc", provider("oidc", oidc));
    table.user(
        "the provider oidc without token",
        provider("oidc", json!({"idp-issuer-url": "https://issuer.invalid", "client-id": "k"})),
    );
    table.user("the provider oidc without configuration", json!({"auth-provider": {"name": "oidc"}}));
    table.user(
        "the provider gcp",
        provider("gcp", json!({"access-token": "s3cret", "cmd-path": "/bin/echo", "cmd-args": "s3cret"})),
    );
    table.user("the provider azure", provider("azure", json!({"access-token": "s3cret"})));
    table.user("an unknown provider", provider("s3cret", json!({})));
    table.user("a number in a provider", provider("oidc", json!({"id-token": 12345})));
    table.user("a token beside a provider", json!({"token": token, "auth-provider": {"name": "oidc", "config": {"idp-issuer-url": "https://i.invalid", "client-id": "k"}}}));
}

fn impersonation(table: &mut Table<'_>) {
    let mut admin = |name, fields: Value| {
        table.edit(name, |config| {
            config["contexts"][0]["context"]["user"] = "admin".into();
            merge(&mut config["users"][2]["user"], fields);
        });
    };
    admin("as", json!({"as": "dave"}));
    admin(
        "as with all parts",
        json!({"as": "dave", "as-uid": "7", "as-groups": ["a", "b"], "as-user-extra": {"x/y%": ["1", "2"]}}),
    );
    admin("as-groups without as", json!({"as-groups": ["a"]}));
    admin("as-uid without as", json!({"as-uid": "7"}));
    admin("as-user-extra without as", json!({"as-user-extra": {"x": ["1"]}}));
    admin("as with a line break", json!({"as": "a\nb"}));
    admin("as that is not ASCII", json!({"as": "zoë"}));
    admin("as a ServiceAccount", json!({"as": "system:serviceaccount:a:b"}));
}

/// An `ExecCredential` with this status, for a shell's `echo`.
fn credential(status: &Value) -> String {
    let credential =
        json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status});
    format!("echo '{credential}'")
}

/// A plugin that reads all of stdin, and whose token is always expired.
pub fn greedy_plugin(fixture: &Fixture) -> Case {
    let mut table = Table { fixture, cases: Vec::new() };
    let expired = json!({"token": fixture.token, "expirationTimestamp": "2020-01-01T00:00:00Z"});
    table.exec("", json!({"interactiveMode": "IfAvailable"}), &format!("cat > /dev/null\n{}", credential(&expired)));
    table.cases.remove(0)
}

fn plugins(table: &mut Table<'_>) {
    let fixture = table.fixture;
    let token = &fixture.token;
    let carol = json!({"clientCertificateData": fixture.carol.certificate, "clientKeyData": fixture.carol.key});
    let prints = credential(&json!({"token": token}));
    // In a shell's `echo`, \n of JSON would become a line break.
    let prints_certificate = credential(&carol).replacen("echo", "printf '%s'", 1);
    let expired = json!({"token": token, "expirationTimestamp": "2020-01-01T00:00:00Z"});
    let mut both = carol.clone();
    both["token"] = json!(token);
    let beta = json!({"apiVersion": "client.authentication.k8s.io/v1beta1", "interactiveMode": null});
    table.exec("a plugin", json!({}), &prints);
    table.exec("a plugin of v1beta1", beta, &prints.replace("/v1\"", "/v1beta1\""));
    table.exec("a plugin that may be interactive", json!({"interactiveMode": "IfAvailable"}), &prints);
    table.exec("a plugin with a certificate", json!({}), &prints_certificate);
    table.exec(
        "a plugin with a certificate and a token",
        json!({}),
        &credential(&both).replacen("echo", "printf '%s'", 1),
    );
    table.exec("a plugin whose token is expired", json!({}), &credential(&expired));
    table.exec(
        "a plugin with YAML",
        json!({}),
        &format!(
            "cat <<E\napiVersion: client.authentication.k8s.io/v1\nkind: ExecCredential\nstatus:\n  token: {token}\nE"
        ),
    );
    table.exec(
        "a plugin with arguments and variables",
        json!({"args": ["a b", "--c"], "env": [{"name": "V", "value": "v w"}]}),
        &format!("[ \"$1/$2/$V\" = 'a b/--c/v w' ] && {prints}"),
    );
    table.exec("a plugin in the folder of the kubeconfig", json!({"command": "./plugin"}), &prints);
    table.exec("a plugin in PATH", json!({"command": "plugin"}), &prints).env("PATH", "{dir}:/usr/bin:/bin");
    table.exec("a plugin in the current folder only", json!({"command": "plugin"}), &prints);
    table.exec(
        "a plugin that gets the cluster",
        json!({"provideClusterInfo": true}),
        &format!("case \"$KUBERNETES_EXEC_INFO\" in *'\"certificate-authority-data\":'*) {prints};; *) exit 1;; esac"),
    );
    table.exec("a plugin that does not get the cluster", json!({}),
        &format!("case \"$KUBERNETES_EXEC_INFO\" in *cluster*) exit 1;; *'\"interactive\":false'*) {prints};; *) exit 1;; esac"));
    table.exec(
        "a plugin without stdin",
        json!({"interactiveMode": "IfAvailable"}),
        &format!("[ -z \"$(cat)\" ] && {prints}"),
    );
    table.exec("a plugin that writes to stderr", json!({}), &format!("echo 'https://login.example' >&2; {prints}"));
    table.edit("a plugin beside a token", |config| {
        config["users"][0]["user"] = json!({"token": token, "exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "false", "interactiveMode": "Never",
        }});
    });
    table.edit("a plugin beside a client certificate", |config| {
        config["users"][0]["user"]["exec"] = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "command": "false", "interactiveMode": "Never",
        });
    });
}

fn plugin_errors(table: &mut Table<'_>) {
    let prints = credential(&json!({"token": "s3cret"}));
    let secret = json!({"args": ["s3cret"], "env": [{"name": "TOKEN", "value": "s3cret"}]});
    let mut with = |name, mut exec: Value, script: &str| {
        merge(&mut exec, secret.clone());
        table.exec(name, exec, script);
    };
    with("a plugin with a wrong token", json!({}), &prints);
    with("a plugin without mode", json!({"interactiveMode": null}), &prints);
    with("a plugin with a wrong mode", json!({"interactiveMode": "Sometimes"}), &prints);
    with("a plugin that needs a terminal", json!({"interactiveMode": "Always"}), &prints);
    with("a plugin without version", json!({"apiVersion": null}), &prints);
    with(
        "a plugin of v1alpha1",
        json!({"apiVersion": "client.authentication.k8s.io/v1alpha1", "interactiveMode": null}),
        &prints,
    );
    with("a plugin without command", json!({"command": ""}), &prints);
    with(
        "a plugin that is not installed",
        json!({"command": "no-such-plugin", "installHint": "run\n\u{1b}[1mbrew install it"}),
        &prints,
    );
    with("a plugin that is a folder", json!({"command": "{dir}/"}), &prints);
    with("a plugin that fails", json!({}), &format!("{prints}; exit 3"));
    with("a plugin that is killed", json!({}), &format!("{prints}; kill -9 $$"));
    with("a plugin that prints nothing", json!({}), "");
    with("a plugin that prints a token only", json!({}), "echo s3cret");
    with("a plugin that prints half an answer", json!({}), &format!("{prints} | head -c 120"));
    with("a plugin that prints another version", json!({}), &prints.replace("/v1\"", "/v1beta1\""));
    with("a plugin that prints another kind", json!({}), &prints.replace("ExecCredential", "Secret"));
    with("a plugin that prints no status", json!({}), &prints.replace("status", "spec"));
    with("a plugin that prints an empty status", json!({}), &credential(&json!({})));
    with("a plugin that prints a number", json!({}), &credential(&json!({"token": 12345})));
    with(
        "a plugin that prints a certificate only",
        json!({}),
        &credential(&json!({"clientCertificateData": "s3cret"})),
    );
    with(
        "a plugin that prints no certificate",
        json!({}),
        &credential(&json!({"clientCertificateData": "s3cret", "clientKeyData": "s3cret"})),
    );
    with(
        "a plugin that prints a wrong time",
        json!({}),
        &credential(&json!({"token": "s3cret", "expirationTimestamp": "soon"})),
    );
    with("a plugin that prints two lines as token", json!({}), &credential(&json!({"token": "s3cret\\ns3cret"})));
    table.exec("a plugin with a nameless variable", json!({"env": [{"value": "s3cret"}]}), &prints);
    table.exec("a plugin beside a provider", json!({}), &prints);
    let config = table.cases.last_mut().expect("a case");
    let text = String::from_utf8(config.files[0].1.clone()).expect("text");
    config.files[0].1 = text.replacen("\"exec\":", "\"auth-provider\":{\"name\":\"oidc\"},\"exec\":", 1).into_bytes();
}

fn proxies(table: &mut Table<'_>) {
    let fixture = table.fixture;
    let (user, password) = (USER.0, USER.1.replace('@', "%40"));
    let bundle = STANDARD.encode(format!("{}{}", fixture.authority, fixture.own_authority.pem));
    let mut proxy = |name, url: String| {
        table.cluster(name, json!({"proxy-url": url, "certificate-authority-data": bundle}));
    };
    proxy("an HTTP proxy", format!("http://{}", fixture.http.addr));
    proxy("an HTTP proxy with a path", format!("http://{}/x?y", fixture.http.addr));
    proxy("an HTTP proxy in capital letters", format!("HTTP://{}", fixture.http.addr));
    proxy("an HTTP proxy with a password", format!("http://{user}:{password}@{}", fixture.http_auth.addr));
    proxy("an HTTP proxy with a wrong password", format!("http://{user}:s3cret@{}", fixture.http_auth.addr));
    proxy("an HTTP proxy without the password", format!("http://{}", fixture.http_auth.addr));
    proxy("an HTTPS proxy", format!("https://{}", fixture.https.addr));
    proxy("an HTTPS proxy without TLS", format!("https://{}", fixture.http.addr));
    proxy("a SOCKS5 proxy", format!("socks5://{}", fixture.socks.addr));
    proxy("a SOCKS5 proxy with a password", format!("socks5://{user}:{password}@{}", fixture.socks_auth.addr));
    proxy("a SOCKS5 proxy with a wrong password", format!("socks5://{user}:s3cret@{}", fixture.socks_auth.addr));
    proxy("a SOCKS5 proxy that resolves names", format!("socks5h://{}", fixture.socks.addr));
    proxy("an HTTP proxy that speaks SOCKS5", format!("http://user:s3cret@{}", fixture.socks.addr));
    proxy("a proxy without scheme", fixture.http.addr.to_string());
    proxy("a proxy of another scheme", format!("ftp://user:s3cret@{}", fixture.http.addr));
    proxy("a proxy without host", "http://user:s3cret@".into());
    proxy("a proxy on a closed port", "http://user:s3cret@127.0.0.1:1".into());
    proxy("a proxy that is unknown", "http://user:s3cret@proxy.invalid:3128".into());
    proxy("an empty proxy", String::new());
    table
        .cluster("NO_PROXY does not count for proxy-url", json!({"proxy-url": "http://127.0.0.1:1"}))
        .env("NO_PROXY", "*");
    table
        .cluster("proxy-url wins over HTTPS_PROXY", json!({"proxy-url": format!("http://{}", fixture.http.addr)}))
        .env("HTTPS_PROXY", "http://127.0.0.1:1");
    table.cluster(
        "an HTTPS proxy with another authority",
        json!({"proxy-url": format!("https://{}", fixture.https.addr)}),
    );
}

fn proxy_variables(table: &mut Table<'_>) {
    let fixture = table.fixture;
    let (user, password) = (USER.0, USER.1.replace('@', "%40"));
    let http = format!("http://{}", fixture.http.addr);
    // Only the proxies know this name; it is not that of the certificate.
    let named = json!({"server": "https://api.proxied.invalid:6443", "tls-server-name": "localhost"});
    let mut case = |name, variables: &[(&'static str, &str)]| {
        let case = table.cluster(name, named.clone());
        for (variable, value) in variables {
            case.env(variable, *value);
        }
    };
    let (plain, socks) = (fixture.http.addr.to_string(), format!("socks5://{}", fixture.socks.addr));
    let (with_password, closed) =
        (format!("http://{user}:{password}@{}", fixture.http_auth.addr), "http://127.0.0.1:1");
    case("no proxy for a name", &[]);
    case("HTTPS_PROXY", &[("HTTPS_PROXY", &http)]);
    case("https_proxy", &[("https_proxy", &http)]);
    case("HTTPS_PROXY and https_proxy", &[("HTTPS_PROXY", &http), ("https_proxy", closed)]);
    case("an empty HTTPS_PROXY", &[("HTTPS_PROXY", ""), ("https_proxy", &http)]);
    case("HTTPS_PROXY without scheme", &[("HTTPS_PROXY", &plain)]);
    case("HTTPS_PROXY with a password", &[("HTTPS_PROXY", &with_password)]);
    case("HTTPS_PROXY with a wrong password", &[("HTTPS_PROXY", &with_password.replace(&password, "s3cret"))]);
    case("HTTPS_PROXY with SOCKS5", &[("HTTPS_PROXY", &socks)]);
    case("HTTPS_PROXY with SOCKS5 and names", &[("HTTPS_PROXY", &socks.replace("socks5", "socks5h"))]);
    case("HTTPS_PROXY that is wrong", &[("HTTPS_PROXY", "http://user:s3cret@host:port")]);
    case("HTTP_PROXY", &[("HTTP_PROXY", &http)]);
    case("ALL_PROXY", &[("ALL_PROXY", &http)]);
    case("NO_PROXY with another name", &[("HTTPS_PROXY", &http), ("NO_PROXY", "other.invalid, .api.proxied.invalid")]);
    case("NO_PROXY with the name", &[("HTTPS_PROXY", &http), ("NO_PROXY", "a, api.proxied.invalid")]);
    case("NO_PROXY with the domain", &[("HTTPS_PROXY", &http), ("NO_PROXY", "proxied.invalid")]);
    case("NO_PROXY with a dot", &[("HTTPS_PROXY", &http), ("NO_PROXY", ".proxied.invalid")]);
    case("NO_PROXY with a star and a dot", &[("HTTPS_PROXY", &http), ("NO_PROXY", "*.proxied.invalid")]);
    case("NO_PROXY with the port", &[("HTTPS_PROXY", &http), ("NO_PROXY", "api.proxied.invalid:6443")]);
    case("NO_PROXY with another port", &[("HTTPS_PROXY", &http), ("NO_PROXY", "api.proxied.invalid:443")]);
    case("NO_PROXY with a star", &[("HTTPS_PROXY", &http), ("NO_PROXY", "*")]);
    case("no_proxy", &[("HTTPS_PROXY", &http), ("no_proxy", "API.proxied.invalid")]);
    case("NO_PROXY with the proxy's address", &[("HTTPS_PROXY", &http), ("NO_PROXY", "127.0.0.1")]);
    table.plain("HTTPS_PROXY does not count for loopback").env("HTTPS_PROXY", "http://127.0.0.1:1");
    table.plain("HTTPS_PROXY that is wrong, for loopback").env("HTTPS_PROXY", "http://user:s3cret@host:port");
    table
        .cluster(
            "an empty proxy-url, and HTTPS_PROXY",
            json!({"proxy-url": "", "server": "https://api.proxied.invalid:6443", "tls-server-name": "localhost"}),
        )
        .env("HTTPS_PROXY", http);
}
