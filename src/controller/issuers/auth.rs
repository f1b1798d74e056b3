//! The credential for an issuer: a Secret that names the host it is for, or the Secret of a PAT that the issuer itself issues.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client};
use zeroize::Zeroize;

use super::{Issuer, IssuerKey};
use crate::{
    api::{
        Credential, CredentialState, ISSUER_AUTH_TYPE, IssuerSystem, ObjectName, PersonalAccessToken, TokenIssuerSpec,
    },
    issuer::{IssuerCredential, PlainToken},
    planner::observed::PAT_UID,
};

/// The credentials of an issuer.
pub struct Credentials {
    /// Those that can be tried, the preferred one first.
    pub usable: Vec<IssuerCredential>,
    /// Why others cannot be used, and what to do.
    pub problems: Vec<String>,
}

/// Reads the credentials of an issuer, the preferred one first: the token of `tokenRef`, and then that of `fallback`, or that of
/// `secretRef`.
///
/// # Errors
/// No credential can be used; the text says what to do.
pub async fn credentials(
    client: &Client,
    namespace: &str,
    spec: &TokenIssuerSpec,
    system: IssuerSystem,
    host: &str,
    issuer: &Issuer,
) -> Result<Credentials, String> {
    let Some(auth) = &spec.auth else { return Err("spec.auth: set the credential for the issuer".into()) };
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    if let Some(token) = &auth.token_ref {
        match of_token(client, namespace, token, system, issuer).await {
            Ok(credential) => found.push(credential),
            Err(problem) => problems.push(problem),
        }
    }
    for secret in auth.secret_ref.iter().chain(&auth.fallback) {
        match of_secret(client, namespace, secret, system, host).await {
            Ok(credential) => found.push(credential),
            Err(problem) => problems.push(problem),
        }
    }
    if found.is_empty() { Err(problems.join("; ")) } else { Ok(Credentials { usable: found, problems }) }
}

/// Reads a Secret of type [`ISSUER_AUTH_TYPE`].
async fn of_secret(
    client: &Client,
    namespace: &str,
    reference: &ObjectName,
    system: IssuerSystem,
    host: &str,
) -> Result<IssuerCredential, String> {
    let name = &reference.name;
    let secret = read(client, namespace, name).await?;
    if secret.type_.as_deref() != Some(ISSUER_AUTH_TYPE) {
        return Err(format!("Secret {namespace}/{name} must have type {ISSUER_AUTH_TYPE}"));
    }
    let mut data = Values::of(secret);
    let for_host =
        data.text("host").ok_or_else(|| format!("Secret {namespace}/{name} needs the key host: {host:?}"))?;
    if for_host != host {
        return Err(format!("Secret {namespace}/{name} is for the host {for_host:?}, not {host:?}"));
    }
    let missing = |keys: &str| format!("Secret {namespace}/{name} needs {keys}, for {}", system.as_str());
    match system {
        IssuerSystem::SailPoint => {
            let (id, secret) = (data.text("clientID"), data.text("clientSecret"));
            let (Some(id), Some(secret)) = (id, secret) else {
                return Err(missing("the keys clientID and clientSecret"));
            };
            Ok(IssuerCredential::Client { id, secret: PlainToken::new(secret) })
        }
        IssuerSystem::Gitea => {
            let (user, password) = (data.text("username"), data.text("password"));
            let (Some(user), Some(password)) = (user, password) else {
                return Err(missing("the keys username and password"));
            };
            Ok(IssuerCredential::Basic { user, password: PlainToken::new(password) })
        }
        _ => {
            let token = data.text("token").ok_or_else(|| missing("the key token"))?;
            Ok(IssuerCredential::Token(PlainToken::new(token)))
        }
    }
}

/// Reads the Secret of a PAT of this very issuer: a token of another one must not be sent to it.
async fn of_token(
    client: &Client,
    namespace: &str,
    reference: &ObjectName,
    system: IssuerSystem,
    issuer: &Issuer,
) -> Result<IssuerCredential, String> {
    let title = format!("PersonalAccessToken {namespace}/{}", reference.name);
    let pats: Api<PersonalAccessToken> = Api::namespaced(client.clone(), namespace);
    let pat = pats.get_opt(&reference.name).await.map_err(|error| crate::service::explain_api_error(&error))?;
    let pat = pat.ok_or_else(|| format!("{title} does not exist"))?;
    let named = pat.spec.issuer_ref.as_deref().map(|named| IssuerKey::named(namespace, named));
    if named.as_ref() != Some(&issuer.key) {
        return Err(format!("{title} must name {} in spec.issuerRef", issuer.key.title()));
    }
    let status = pat.status.clone().unwrap_or_default();
    let is_active = |one: &&Credential| {
        let is_of_issuer = one.remote.as_ref().is_some_and(|remote| remote.issuer_uid == issuer.uid);
        one.state == CredentialState::Active && is_of_issuer
    };
    let active = status.remote_credentials.iter().find(is_active);
    let (Some(name), Some(active)) = (&status.secret_name, active) else {
        return Err(format!("{title} has no token yet"));
    };
    let secret = read(client, namespace, name).await?;
    let owner = secret.metadata.annotations.as_ref().and_then(|all| all.get(PAT_UID));
    if owner != pat.metadata.uid.as_ref() {
        return Err(format!("Secret {namespace}/{name} does not belong to {title}"));
    }
    let key = pat.spec.secret.as_ref().and_then(|secret| secret.key.as_deref()).unwrap_or("token");
    let token = Values::of(secret).text(key).map(PlainToken::new);
    let token = token.filter(|token| active.sha256 == token.hash());
    let token = token.ok_or_else(|| format!("Secret {namespace}/{name} does not hold the token of {title}"))?;
    match (system, active.remote.as_ref().and_then(|remote| remote.id.clone())) {
        (IssuerSystem::SailPoint, Some(id)) => Ok(IssuerCredential::Client { id, secret: token }),
        (IssuerSystem::Gitea, _) => Err("tokenRef is not supported for Gitea: use secretRef".into()),
        _ => Ok(IssuerCredential::Token(token)),
    }
}

async fn read(client: &Client, namespace: &str, name: &str) -> Result<Secret, String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = secrets.get_opt(name).await.map_err(|error| crate::service::explain_api_error(&error))?;
    secret.ok_or_else(|| format!("Secret {namespace}/{name} does not exist"))
}

/// The values of a Secret, zeroized when they are dropped.
struct Values(std::collections::BTreeMap<String, ByteString>);

impl Values {
    fn of(secret: Secret) -> Self {
        Self(secret.data.unwrap_or_default())
    }

    /// Takes the text of a key, without white space around it.
    fn text(&mut self, key: &str) -> Option<String> {
        let mut value = self.0.remove(key)?;
        let text = str::from_utf8(&value.0).ok().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        value.0.zeroize();
        text
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        self.0.values_mut().for_each(|value| value.0.zeroize());
    }
}
