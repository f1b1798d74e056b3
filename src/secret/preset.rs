//! The presets: the token in the format of the program that reads it.
//!
//! A value that a format cannot hold is refused when the spec is read.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    buffer::{Buffer, TooLarge},
    hash::Fingerprint,
    placeholder::{TemplateFilter, json},
};
use crate::api::{InvalidField, Preset, SecretTemplate};

const HOST: &str = "spec.secret.template.host";
const USERNAME: &str = "spec.secret.template.username";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PresetFormat {
    BasicAuth { username: String },
    DockerConfigJson { host: String, username: String },
    Netrc { host: String, username: String },
    Npmrc { registry: String },
    GitCredentials { host: String, username: String },
}

#[derive(Serialize)]
struct DockerConfig<'a> {
    auths: BTreeMap<&'a str, DockerAuth<'a>>,
}

#[derive(Serialize)]
struct DockerAuth<'a> {
    username: &'a str,
    password: &'a str,
    auth: &'a str,
}

impl PresetFormat {
    pub(super) fn read(preset: Preset, template: &SecretTemplate, owner_text: &str) -> Result<Self, InvalidField> {
        Ok(match preset {
            Preset::BasicAuth => Self::BasicAuth { username: username(template, owner_text)? },
            Preset::DockerConfigJson => {
                Self::DockerConfigJson { host: host(template)?, username: username(template, owner_text)? }
            }
            Preset::Netrc => Self::Netrc {
                host: netrc_host(host(template)?)?,
                username: netrc_username(username(template, owner_text)?)?,
            },
            Preset::Npmrc => Self::Npmrc { registry: npm_registry(&host(template)?) },
            Preset::GitCredentials => {
                Self::GitCredentials { host: host(template)?, username: username(template, owner_text)? }
            }
        })
    }

    pub(super) fn keys(&self) -> &'static [&'static str] {
        match self {
            Self::BasicAuth { .. } => &["password", "username"],
            Self::DockerConfigJson { .. } => &[".dockerconfigjson"],
            Self::Netrc { .. } => &[".netrc"],
            Self::Npmrc { .. } => &[".npmrc"],
            Self::GitCredentials { .. } => &[".git-credentials"],
        }
    }

    /// The value of each of [`PresetFormat::keys`], in their order.
    pub(super) fn render(&self, token: &str, limit: usize) -> Result<Vec<Buffer>, TooLarge> {
        let mut output = Buffer::new(limit);
        match self {
            Self::BasicAuth { username } => return Ok(vec![Buffer::of(token, limit)?, Buffer::of(username, limit)?]),
            Self::DockerConfigJson { host, username } => {
                let mut pair = Buffer::of(username, limit)?;
                pair.push(":")?;
                pair.push(token)?;
                let auth = TemplateFilter::B64encode.apply(pair.as_str(), limit)?;
                let auth = DockerAuth { username, password: token, auth: auth.as_str() };
                json(&DockerConfig { auths: BTreeMap::from([(host.as_str(), auth)]) }, &mut output)?;
            }
            Self::Netrc { host, username } => {
                for part in ["machine ", host, " login ", username, " password ", token, "\n"] {
                    output.push(part)?;
                }
            }
            Self::Npmrc { registry } => {
                for part in ["//", registry, ":_authToken=", token, "\n"] {
                    output.push(part)?;
                }
            }
            Self::GitCredentials { host, username } => {
                output.push("https://")?;
                output.push(TemplateFilter::Urlencode.apply(username, limit)?.as_str())?;
                output.push(":")?;
                output.push(TemplateFilter::Urlencode.apply(token, limit)?.as_str())?;
                for part in ["@", host, "\n"] {
                    output.push(part)?;
                }
            }
        }
        Ok(vec![output])
    }

    /// Adds everything that determines the output, except the token.
    pub(super) fn fingerprint(&self, hash: &mut Fingerprint) {
        match self {
            Self::BasicAuth { username } => hash.text("BasicAuth").text(username),
            Self::DockerConfigJson { host, username } => hash.text("DockerConfigJson").text(host).text(username),
            Self::Netrc { host, username } => hash.text("Netrc").text(host).text(username),
            Self::Npmrc { registry } => hash.text("Npmrc").text(registry),
            Self::GitCredentials { host, username } => hash.text("GitCredentials").text(host).text(username),
        };
    }
}

/// Returns the user name for the token: the one in the spec, or the owner, without the `va:` of a virtual account.
///
/// All presets with a user name end up in HTTP Basic authentication, where the first colon ends the user name (RFC 7617, section 2):
/// with `va:ci/deploy` the server would see the user `va` and the password `ci/deploy:kpat_…`.
fn username(template: &SecretTemplate, owner_text: &str) -> Result<String, InvalidField> {
    let right = "must be 1 to 256 visible ASCII characters, without spaces and without ':', which separates user name and password in HTTP Basic authentication";
    let (username, message) = match &template.username {
        Some(username) => (username.as_str(), right.to_owned()),
        None => {
            let message =
                format!("the default, the owner's name, cannot be used: the user name {right}; set another user name");
            (owner_text.strip_prefix("va:").unwrap_or(owner_text), message)
        }
    };
    let valid = !username.is_empty() && username.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if valid { Ok(username.to_owned()) } else { Err(InvalidField::new(USERNAME, message)) }
}

/// Rejects quotation marks and escapes, which readers of `.netrc` interpret differently, and `#`, which starts a comment for some.
fn netrc_username(username: String) -> Result<String, InvalidField> {
    if username.contains(['"', '\'', '\\', '#']) {
        let message =
            "a .netrc cannot hold a user name with a quotation mark, a backslash or '#': set another user name";
        return Err(InvalidField::new(USERNAME, message));
    }
    Ok(username)
}

/// Returns the host name, with an optional port and path.
fn host(template: &SecretTemplate) -> Result<String, InvalidField> {
    let Some(host) = &template.host else {
        let message =
            "this preset needs template.host: the host name that the token is for, such as registry.example.com";
        return Err(InvalidField::new(HOST, message));
    };
    let (authority, path) = host.split_once('/').unwrap_or((host, ""));
    let (name, port) = authority.split_once(':').unwrap_or((authority, "1"));
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let valid = edge(name.as_bytes().first())
        && edge(name.as_bytes().last())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0)
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte));
    if !valid {
        let message = "must be a host name without https://, with an optional port from 1 to 65535 and an optional path, such as registry.example.com:5000";
        return Err(InvalidField::new(HOST, message));
    }
    Ok(host.clone())
}

/// Rejects ports, because `.netrc` has none: the token would be offered to every service on that host.
fn netrc_host(host: String) -> Result<String, InvalidField> {
    if host.contains([':', '/']) {
        let message = "a .netrc supports neither ports nor paths: set the host name alone, which applies to every port of that host";
        return Err(InvalidField::new(HOST, message));
    }
    Ok(host)
}

/// Returns the registry as npm looks it up: the host in lower case, and a slash after the path. npm needs the slash in its `registry`
/// setting too; otherwise it looks for the token one level higher.
fn npm_registry(host: &str) -> String {
    let (authority, path) = host.split_at(host.find('/').unwrap_or(host.len()));
    format!("{}{}/", authority.to_ascii_lowercase(), path.trim_end_matches('/'))
}
