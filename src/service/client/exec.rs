//! Credential plugins: programs that print credentials
//! (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins>).
//!
//! What a plugin gets and may print is as in client-go's `plugin/pkg/client/auth/exec`. Errors name the program and its exit code. They
//! never quote its arguments, its environment or its output, which may contain credentials.

use std::{
    io::{self, IsTerminal},
    process::{Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::kubeconfig::{Cluster, Exec, read_or};

/// The versions of `ExecCredential` that a plugin may use.
const API_VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];

/// A credential plugin of a user.
pub struct ExecPlugin {
    exec: Exec,
    /// The cluster, if the plugin gets it.
    cluster: Option<Value>,
}

/// A client certificate and its key, both in PEM.
#[derive(PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// What a plugin printed: a token, a client certificate, or both.
pub struct ExecCredential {
    /// The bearer token; empty if there is none.
    pub token: String,
    /// The client certificate.
    pub certificate: Option<ClientCertificate>,
    /// When the credentials expire.
    pub expires: Option<Timestamp>,
}

impl ExecPlugin {
    /// A plugin for the cluster.
    ///
    /// # Errors
    /// The plugin's API version is not supported.
    pub fn new(exec: Exec, cluster: &Cluster) -> Result<Self, String> {
        if !API_VERSIONS.contains(&&*exec.api_version) {
            return Err(format!("exec.apiVersion: must be {} or {}", API_VERSIONS[0], API_VERSIONS[1]));
        }
        let cluster = if exec.provide_cluster_info { Some(cluster_info(cluster)?) } else { None };
        Ok(Self { exec, cluster })
    }

    /// Runs the plugin, and waits for its end. Its stderr is that of this process. It gets stdin only if it is a terminal and the plugin
    /// may be interactive.
    ///
    /// # Errors
    /// The plugin fails, or it prints no credentials.
    pub fn run(&self) -> Result<ExecCredential, String> {
        let interactive = match &*self.exec.interactive_mode {
            "Never" => false,
            "Always" if !io::stdin().is_terminal() => {
                return Err(self.explain("has interactiveMode Always, but stdin is not a terminal"));
            }
            _ => io::stdin().is_terminal(),
        };
        let mut spec = json!({ "interactive": interactive });
        if let Some(cluster) = &self.cluster {
            spec["cluster"] = cluster.clone();
        }
        let request = json!({ "kind": "ExecCredential", "apiVersion": self.exec.api_version, "spec": spec });
        let output = Command::new(&self.exec.command)
            .args(&self.exec.args)
            .envs(self.exec.env.iter().map(|(name, value)| (name, value)))
            .env("KUBERNETES_EXEC_INFO", request.to_string())
            .stdin(if interactive { Stdio::inherit() } else { Stdio::null() })
            .stderr(Stdio::inherit())
            .output();
        let output = output.map_err(|error| self.explain_start(&error))?;
        if !output.status.success() {
            return Err(match output.status.code() {
                Some(code) => self.explain(&format!("failed with exit code {code}")),
                None => self.explain("was killed by a signal"),
            });
        }
        read(&output.stdout, &self.exec.api_version).map_err(|reason| self.explain(reason))
    }

    fn explain_start(&self, error: &io::Error) -> String {
        if error.kind() != io::ErrorKind::NotFound {
            return self.explain(&format!("cannot be run: {error}"));
        }
        let hint: Vec<_> = self.exec.install_hint.split_whitespace().collect();
        let hint: String = hint.join(" ").chars().filter(|letter| !letter.is_control()).collect();
        match &*hint {
            "" => self.explain("is not installed; install it, or fix exec.command of the user in the kubeconfig"),
            hint => self.explain(&format!("is not installed: {hint}")),
        }
    }

    fn explain(&self, reason: &str) -> String {
        format!("the exec plugin {} {reason}", self.exec.command)
    }
}

/// The cluster in the words of `ExecCredential`.
fn cluster_info(cluster: &Cluster) -> Result<Value, String> {
    let authority = match (&*cluster.certificate_authority_data, &*cluster.certificate_authority) {
        ([], "") => Vec::new(),
        (data, file) => read_or(data, file)?,
    };
    let mut info = json!({ "server": cluster.server });
    let mut add = |key: &str, value: Value, is_set: bool| {
        if is_set {
            info[key] = value;
        }
    };
    add("tls-server-name", cluster.tls_server_name.as_str().into(), !cluster.tls_server_name.is_empty());
    add("insecure-skip-tls-verify", true.into(), cluster.insecure_skip_tls_verify);
    add("certificate-authority-data", STANDARD.encode(&authority).into(), !authority.is_empty());
    add("proxy-url", cluster.proxy_url.as_str().into(), !cluster.proxy_url.is_empty());
    add("disable-compression", true.into(), cluster.disable_compression);
    add("config", cluster.exec_config.clone().unwrap_or_default(), cluster.exec_config.is_some());
    Ok(info)
}

/// Reads the output of a plugin: an `ExecCredential` in JSON or YAML.
fn read(output: &[u8], api_version: &str) -> Result<ExecCredential, &'static str> {
    const NOT_CREDENTIAL: &str = "did not print an ExecCredential";
    let found: Value = serde_yaml::from_slice(output).map_err(|_| NOT_CREDENTIAL)?;
    if found["kind"] != "ExecCredential" {
        return Err(NOT_CREDENTIAL);
    }
    if found["apiVersion"] != api_version {
        return Err("printed an ExecCredential of another apiVersion than exec.apiVersion of the kubeconfig");
    }
    let status = found["status"].as_object().ok_or("printed an ExecCredential without a status")?;
    let text = |key| match status.get(key) {
        None | Some(Value::Null) => Ok(""),
        Some(value) => value.as_str().ok_or(NOT_CREDENTIAL),
    };
    let expires = match text("expirationTimestamp")? {
        "" => None,
        time => Some(time.parse().map_err(|_| "printed an expirationTimestamp that is not an RFC 3339 time")?),
    };
    let (certificate, key) = (text("clientCertificateData")?, text("clientKeyData")?);
    let token = text("token")?.trim().to_owned();
    let certificate = match (certificate, key) {
        ("", "") if token.is_empty() => return Err("printed neither a token nor a client certificate"),
        ("", "") => None,
        ("", _) | (_, "") => return Err("printed only one of clientCertificateData and clientKeyData"),
        (certificate, key) => Some(ClientCertificate { certificate: certificate.to_owned(), key: key.to_owned() }),
    };
    Ok(ExecCredential { token, certificate, expires })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_read_as_in_client_go() {
        const V1: &str = "client.authentication.k8s.io/v1";
        let status = |status: Value| json!({"kind": "ExecCredential", "apiVersion": V1, "status": status}).to_string();
        let read = |output: &str| read(output.as_bytes(), V1);
        let token =
            read(&status(json!({"token": "s3cret\n", "expirationTimestamp": "2030-01-02T03:04:05Z"}))).ok().unwrap();
        assert_eq!((&*token.token, token.certificate.is_some()), ("s3cret", false));
        assert_eq!(token.expires.unwrap().to_string(), "2030-01-02T03:04:05Z");
        let yaml = format!("kind: ExecCredential\napiVersion: {V1}\nstatus:\n  token: s3cret\n  clientKeyData: null\n");
        assert_eq!(read(&yaml).ok().unwrap().token, "s3cret");
        let pair = status(json!({"clientCertificateData": "c", "clientKeyData": "k"}));
        let found = read(&pair).ok().unwrap().certificate.expect("a certificate");
        assert_eq!((&*found.certificate, &*found.key), ("c", "k"));
        for (output, reason) in [
            (String::new(), "did not print an ExecCredential"),
            ("s3cret".into(), "did not print an ExecCredential"),
            ("{\"kind\": \"ExecCredential\", s3cret".into(), "did not print an ExecCredential"),
            (yaml.replace("ExecCredential", "Secret"), "did not print an ExecCredential"),
            (yaml.replace("/v1", "/v1beta1"), "another apiVersion"),
            (json!({"kind": "ExecCredential", "apiVersion": V1}).to_string(), "without a status"),
            (status(json!({})), "neither a token nor"),
            (status(json!({"token": 12345})), "did not print an ExecCredential"),
            (status(json!({"clientKeyData": "s3cret"})), "only one of"),
            (status(json!({"token": "s3cret", "expirationTimestamp": "soon"})), "RFC 3339"),
        ] {
            let found = read(&output).err().expect(&output);
            assert!(found.contains(reason) && !found.contains("s3cret"), "{output}: {found}");
        }
    }
}
