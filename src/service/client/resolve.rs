//! Chooses the cluster, the user and the namespace of a command, and checks them, as kubectl does. The result is all that kube's client
//! needs, in a form that it cannot misread.
//!
//! The rules are those of client-go's `tools/clientcmd` (client_config.go, validation.go) and `rest`.

use std::path::PathBuf;

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::Uri;
use kube::Config;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{
    credentials::{Authorization, TokenFile, basic_header, bearer_header},
    exec::ExecPlugin,
    kubeconfig::{Cluster, Context, Kubeconfig, KubeconfigError, User, read_or},
    proxy::{Proxy, ProxyVariables},
    url::{Url, UserInfo},
};
use crate::service::clock::uptime;

type Result<T> = std::result::Result<T, KubeconfigError>;

/// What kubectl's connection flags say. Empty texts count as not set.
#[derive(Clone, Debug, Default)]
pub struct ConfigOverrides {
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`.
    pub context: Option<String>,
    /// `--cluster`.
    pub cluster: Option<String>,
    /// `--user`.
    pub user: Option<String>,
    /// `--server`.
    pub server: Option<String>,
    /// `--tls-server-name`.
    pub tls_server_name: Option<String>,
    /// `--certificate-authority`.
    pub certificate_authority: Option<String>,
    /// `--insecure-skip-tls-verify`.
    pub insecure_skip_tls_verify: bool,
    /// `--client-certificate`.
    pub client_certificate: Option<String>,
    /// `--client-key`.
    pub client_key: Option<String>,
    /// `--as`.
    pub impersonate: Option<String>,
    /// `--as-uid`.
    pub impersonate_uid: Option<String>,
    /// `--as-group`.
    pub impersonate_groups: Vec<String>,
    /// Whether each request is printed on stderr, as with `--v=6`.
    pub print_requests: bool,
}

/// A server and how to reach it.
pub struct Connection {
    /// The server, its certificate authorities, the client certificate and impersonation. It has no bearer token, no password, no
    /// credential plugin and no proxy.
    pub config: Config,
    /// The credentials in the `Authorization` header.
    pub authorization: Authorization,
    /// The proxy to the server.
    pub proxy: Option<Proxy>,
    /// The name of the context.
    pub context: Option<String>,
    /// The namespace of the context, if it has one.
    pub namespace: Option<String>,
}

/// Chooses a connection. `None` if neither the kubeconfig nor the flags name a server.
///
/// # Errors
/// The chosen context, cluster or user is missing or invalid. Others are not checked.
pub fn resolve(
    kubeconfig: Kubeconfig,
    flags: &ConfigOverrides,
    proxies: &ProxyVariables,
) -> Result<Option<Connection>> {
    let mut kubeconfig = kubeconfig;
    let context_name = set(&flags.context).unwrap_or(&kubeconfig.current_context).to_owned();
    let context = match kubeconfig.contexts.remove(&context_name) {
        Some(context) => context,
        None if context_name.is_empty() => Context::default(),
        None => return Err(missing("context", &context_name, "see `kubectl config get-contexts`")),
    };
    let (mut user, user_name) = match set(&flags.user) {
        Some(name) => (kubeconfig.users.remove(name).ok_or_else(|| missing("user", name, CHECK))?, name),
        // As in client-go, a context may name a user that does not exist.
        None => (kubeconfig.users.remove(&context.user).unwrap_or_default(), &*context.user),
    };
    let (mut cluster, cluster_name) = match set(&flags.cluster) {
        Some(name) => (kubeconfig.clusters.remove(name), name),
        None if context.cluster.is_empty() => (Some(Cluster::default()), ""),
        None => (kubeconfig.clusters.remove(&context.cluster), &*context.cluster),
    };
    if cluster.is_none() && set(&flags.cluster).is_none() && set(&flags.server).is_some() {
        cluster = Some(Cluster::default());
    }
    let mut cluster = cluster.ok_or_else(|| missing("cluster", cluster_name, CHECK))?;
    override_cluster(&mut cluster, flags);
    override_user(&mut user, flags);
    check_user(&user).map_err(|reason| KubeconfigError::new(format!("user {user_name:?}: {reason}")))?;
    if cluster.server.is_empty() {
        return match cluster_name {
            "" => Ok(None),
            name => Err(KubeconfigError::new(format!("cluster {name:?}: it has no server"))),
        };
    }
    let of_cluster = |reason| KubeconfigError::new(format!("cluster {cluster_name:?}: {reason}"));
    let (server, user_info) = server_url(&cluster.server).map_err(of_cluster)?;
    let proxy = match &*cluster.proxy_url {
        "" => proxies.proxy_for(&server)?,
        url => Some(Proxy::from_kubeconfig(url).map_err(of_cluster)?),
    };
    let uri: Uri = server.uri(None).ok_or_else(|| of_cluster(KubeconfigError::new("server: must be a URL")))?;
    let mut config = Config::new(uri);
    impersonate(&mut config, &user);
    let namespace = Some(context.namespace).filter(|namespace| !namespace.is_empty());
    if let Some(namespace) = &namespace {
        check_namespace(namespace)
            .map_err(|reason| KubeconfigError::new(format!("context {context_name:?}: namespace: {reason}")))?;
        config.default_namespace.clone_from(namespace);
    }
    let mut authorization = Authorization::None;
    // kubectl sends no credentials without TLS.
    if server.scheme == "https" {
        set_trust(&mut config, &cluster).map_err(of_cluster)?;
        authorization = authenticate(&mut config, &cluster, user, user_info)
            .map_err(|reason| KubeconfigError::new(format!("user {user_name:?}: {reason}")))?;
    }
    let context = Some(context_name).filter(|name| !name.is_empty());
    Ok(Some(Connection { config, authorization, proxy, context, namespace }))
}

/// What to do about a missing entry.
const CHECK: &str = "see `kubectl config view`";

fn missing(what: &str, name: &str, hint: &str) -> KubeconfigError {
    KubeconfigError::new(format!("{what} {name:?} does not exist; {hint}"))
}

fn set(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// Applies the flags about the cluster, as client-go's `getCluster`.
fn override_cluster(cluster: &mut Cluster, flags: &ConfigOverrides) {
    if let Some(server) = set(&flags.server) {
        server.clone_into(&mut cluster.server);
    }
    let authority = set(&flags.certificate_authority);
    if flags.insecure_skip_tls_verify || authority.is_some() {
        cluster.insecure_skip_tls_verify = flags.insecure_skip_tls_verify;
        authority.unwrap_or_default().clone_into(&mut cluster.certificate_authority);
        cluster.certificate_authority_data.clear();
    }
    let name = set(&flags.tls_server_name);
    // The name in the kubeconfig belongs to its server.
    if name.is_some() || set(&flags.server).is_some() {
        name.unwrap_or_default().clone_into(&mut cluster.tls_server_name);
    }
}

/// Applies the flags about the user, as client-go's `getAuthInfo`.
fn override_user(user: &mut User, flags: &ConfigOverrides) {
    if let Some(path) = set(&flags.client_certificate) {
        path.clone_into(&mut user.client_certificate);
        user.client_certificate_data.clear();
    }
    if let Some(path) = set(&flags.client_key) {
        path.clone_into(&mut user.client_key);
        user.client_key_data.clear();
    }
    if let Some(name) = set(&flags.impersonate) {
        name.clone_into(&mut user.impersonate);
    }
    if let Some(uid) = set(&flags.impersonate_uid) {
        uid.clone_into(&mut user.impersonate_uid);
    }
    if !flags.impersonate_groups.is_empty() {
        user.impersonate_groups.clone_from(&flags.impersonate_groups);
    }
}

/// Checks a user, as client-go's `validateAuthInfo`.
fn check_user(user: &User) -> std::result::Result<(), &'static str> {
    let has_basic = !user.username.is_empty() || !user.password.is_empty();
    if has_basic && !user.token.is_empty() {
        return Err("it has a token and a password; only one is allowed");
    }
    if has_certificate(user) {
        if !user.client_certificate.is_empty() && !user.client_certificate_data.is_empty() {
            return Err("it has client-certificate and client-certificate-data; only one is allowed");
        }
        if !user.client_key.is_empty() && !user.client_key_data.is_empty() {
            return Err("it has client-key and client-key-data; only one is allowed");
        }
        if user.client_key.is_empty() && user.client_key_data.is_empty() {
            return Err("it has a client certificate, but no client-key or client-key-data");
        }
    }
    if let Some(exec) = &user.exec {
        let modes = ["Never", "IfAvailable", "Always"];
        let checks = [
            (user.auth_provider.is_some(), "it has exec and auth-provider; only one is allowed"),
            (exec.command.is_empty(), "exec.command: must be set"),
            (exec.api_version.is_empty(), "exec.apiVersion: must be set"),
            (exec.env.iter().any(|(name, _)| name.is_empty()), "exec.env: each variable must have a name"),
            (!modes.contains(&&*exec.interactive_mode), "exec.interactiveMode: must be Never, IfAvailable or Always"),
        ];
        if let Some((_, reason)) = checks.into_iter().find(|(is_wrong, _)| *is_wrong) {
            return Err(reason);
        }
    }
    let has_more =
        !user.impersonate_uid.is_empty() || !user.impersonate_groups.is_empty() || !user.impersonate_extra.is_empty();
    if has_more && user.impersonate.is_empty() {
        return Err("a UID, groups or extra fields are impersonated without a user; add --as or the field `as`");
    }
    Ok(())
}

fn has_certificate(user: &User) -> bool {
    !user.client_certificate.is_empty() || !user.client_certificate_data.is_empty()
}

/// Names with these characters would lead to another path on the API server.
fn check_namespace(namespace: &str) -> std::result::Result<(), &'static str> {
    if matches!(namespace, "." | "..") || namespace.contains(['/', '%', '?', '#']) {
        return Err("must be the name of a namespace");
    }
    Ok(())
}

/// Reads a server as client-go does: without a scheme it is plain HTTP. Also returns the user and the password in it.
fn server_url(text: &str) -> Result<(Url, Option<UserInfo>)> {
    let url = Url::parse(text).or_else(|| {
        let url = Url::parse(&format!("http://{text}"))?;
        matches!(&*url.path, "" | "/").then_some(url)
    });
    let Some(mut url) = url.filter(|url| matches!(&*url.scheme, "http" | "https")) else {
        return Err(KubeconfigError::new("server: must be a URL such as https://HOST:PORT"));
    };
    let user = url.user.take();
    Ok((url, user))
}

fn impersonate(config: &mut Config, user: &User) {
    if user.impersonate.is_empty() {
        return;
    }
    config.auth_info.impersonate = Some(user.impersonate.clone());
    config.auth_info.impersonate_uid = Some(user.impersonate_uid.clone()).filter(|uid| !uid.is_empty());
    config.auth_info.impersonate_groups = Some(user.impersonate_groups.clone());
    config.auth_info.impersonate_user_extra = Some(user.impersonate_extra.clone().into_iter().collect());
}

/// Impersonates the user of the flags.
///
/// # Errors
/// There are groups, but no user.
pub fn impersonate_by_flags(config: &mut Config, flags: &ConfigOverrides) -> Result<()> {
    let mut user = User::default();
    override_user(&mut user, flags);
    check_user(&user).map_err(KubeconfigError::new)?;
    impersonate(config, &user);
    Ok(())
}

fn set_trust(config: &mut Config, cluster: &Cluster) -> Result<()> {
    let (file, data) = (&cluster.certificate_authority, &cluster.certificate_authority_data);
    let has_authority = !file.is_empty() || !data.is_empty();
    if !file.is_empty() && !data.is_empty() {
        return Err(KubeconfigError::new(
            "it has certificate-authority and certificate-authority-data; only one is allowed",
        ));
    }
    if has_authority && cluster.insecure_skip_tls_verify {
        return Err(KubeconfigError::new(
            "it has a certificate authority and insecure-skip-tls-verify; only one is allowed",
        ));
    }
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify;
    config.tls_server_name = Some(cluster.tls_server_name.clone()).filter(|name| !name.is_empty());
    if has_authority {
        let field = if file.is_empty() { "certificate-authority-data" } else { "certificate-authority" };
        let pem = read_or(data, file).map_err(|reason| KubeconfigError::new(format!("{field}: {reason}")))?;
        let roots = certificates(&pem);
        if roots.is_empty() {
            return Err(KubeconfigError::new(format!("{field}: must contain certificates in PEM format")));
        }
        config.root_cert = Some(roots);
    }
    Ok(())
}

/// The usable certificates in the text; as in Go, the others are ignored.
fn certificates(pem: &[u8]) -> Vec<Vec<u8>> {
    let found = CertificateDer::pem_slice_iter(pem).map_while(std::result::Result::ok);
    let usable = found.filter(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
    usable.map(|certificate| certificate.to_vec()).collect()
}

/// Sets the client certificate, and returns the other credentials. A credential plugin counts only without others.
fn authenticate(
    config: &mut Config,
    cluster: &Cluster,
    user: User,
    in_url: Option<UserInfo>,
) -> std::result::Result<Authorization, String> {
    let certified = has_certificate(&user);
    if certified {
        let certificate = read_or(&user.client_certificate_data, &user.client_certificate)?;
        let key = read_or(&user.client_key_data, &user.client_key)?;
        set_client_certificate(config, &certificate, &key);
    }
    if !user.token_file.is_empty() {
        if !user.username.is_empty() {
            return Err("it has a token and a password; only one is allowed".into());
        }
        return TokenFile::open(user.token_file.into(), bearer_header(&user.token)?, uptime()).map(Authorization::File);
    }
    if let Some(header) = bearer_header(&user.token)? {
        return Ok(Authorization::Fixed(header));
    }
    if !user.username.is_empty() {
        return Ok(Authorization::Fixed(basic_header(&user.username, &user.password)?));
    }
    match (user.exec, user.auth_provider) {
        (Some(exec), _) if !certified => Ok(Authorization::Exec(ExecPlugin::new(exec, cluster)?)),
        (_, Some(provider)) if provider.name == "oidc" => {
            let token = provider.config.get("id-token").map(String::as_str).unwrap_or_default();
            let header = bearer_header(token)?;
            Ok(Authorization::Fixed(
                header.ok_or("auth-provider: it has no id-token; log in with kubectl, or use exec")?,
            ))
        }
        (_, Some(_)) => {
            Err("auth-provider: only oidc exists; use the credential plugin (exec) of your cloud instead".into())
        }
        _ => Ok(match in_url {
            Some(UserInfo { user, password }) => Authorization::Fixed(basic_header(&user, &password)?),
            None => Authorization::None,
        }),
    }
}

/// Sets the client certificate and its key, both in PEM.
pub fn set_client_certificate(config: &mut Config, certificate: &[u8], key: &[u8]) {
    config.auth_info.client_certificate_data = Some(STANDARD.encode(certificate));
    config.auth_info.client_key_data = Some(STANDARD.encode(key).into());
}
