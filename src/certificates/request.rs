//! Requested certificates: the Secret that holds one, and the names that it is for.

use std::{fmt, net::IpAddr, str::FromStr};

use rustls::pki_types::{DnsName, ServerName};

/// The suffix of the ConfigMap's name after that of the Secret.
const SUFFIX: &str = "-ca";

/// The largest number of names in one certificate.
const MAX_NAMES: usize = 64;

/// A certificate to issue and to renew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    secret: String,
    names: ServerNames,
}

/// The names of a server, each once and in the given order: host names, wildcards such as `*.example.com`, or IP addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerNames(Vec<String>);

impl CertificateRequest {
    /// The Secret that holds the certificate.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The ConfigMap that holds the trust bundle for clients.
    pub fn config_map(&self) -> String {
        format!("{}{SUFFIX}", self.secret)
    }

    /// The names that the certificate is for.
    pub fn names(&self) -> &ServerNames {
        &self.names
    }
}

impl FromStr for CertificateRequest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (secret, names) =
            text.split_once(':').ok_or("write <Secret>:<name>,<name>…, such as tls:tokens.example.com")?;
        let is_edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_label = |label: &[u8]| {
            label.first().is_some_and(is_edge)
                && label.last().is_some_and(is_edge)
                && label.iter().all(|byte| is_edge(byte) || *byte == b'-')
        };
        let most = 253 - SUFFIX.len();
        if secret.len() > most || !secret.as_bytes().split(|byte| *byte == b'.').all(is_label) {
            return Err(format!(
                "{secret:?} is not a valid Secret name: write up to {most} lower case letters, digits, and inner hyphens and dots"
            ));
        }
        Ok(Self { secret: secret.to_owned(), names: names.parse()? })
    }
}

impl ServerNames {
    /// Returns the names.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// The names as a client would verify them: a host below each wildcard.
    pub fn server_names(&self) -> impl Iterator<Item = ServerName<'static>> + '_ {
        self.0.iter().filter_map(|name| ServerName::try_from(host(name)).ok())
    }
}

impl FromStr for ServerNames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut names: Vec<String> = Vec::new();
        for name in text.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()) {
            let is_name = name.parse::<IpAddr>().is_ok()
                || (DnsName::try_from(host(&name)).is_ok() && !name.ends_with('.') && name != "*");
            if !is_name {
                return Err(format!(
                    "{name:?} is not a valid server name: write a host name, *. and a host name, or an IP address"
                ));
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        match names.len() {
            0 => Err("a certificate needs a name: write at least one host name after the colon".to_owned()),
            1..=MAX_NAMES => Ok(Self(names)),
            count => Err(format!("{count} names are too many for one certificate: at most {MAX_NAMES}")),
        }
    }
}

impl fmt::Display for ServerNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Returns a host that this name covers.
fn host(name: &str) -> String {
    name.strip_prefix("*.").map_or_else(|| name.to_owned(), |domain| format!("any.{domain}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_keep_their_order() {
        let wanted: CertificateRequest =
            "tls.a:B.example.com, *.a.example.com,10.0.0.1,fd00::1,b.example.com,".parse().unwrap();
        assert_eq!((wanted.secret(), &*wanted.config_map()), ("tls.a", "tls.a-ca"));
        assert_eq!(wanted.names().to_string(), "b.example.com,*.a.example.com,10.0.0.1,fd00::1");
        let hosts: Vec<_> = wanted.names().server_names().map(|name| name.to_str().into_owned()).collect();
        assert_eq!(hosts, ["b.example.com", "any.a.example.com", "10.0.0.1", "fd00::1"]);
        assert_eq!(wanted.names().to_string().parse::<ServerNames>().unwrap(), *wanted.names());
    }

    #[test]
    fn invalid_requests_are_refused_with_a_hint() {
        let long = format!("{}:a", "a".repeat(251));
        let many = format!("a:{}", (0..65).map(|n| format!("h{n},")).collect::<String>());
        for (text, part) in [
            ("tls", "write <Secret>:<name>"),
            ("Tls:a", "is not a valid Secret name"),
            ("a..b:a", "is not a valid Secret name"),
            (":a", "is not a valid Secret name"),
            (&*long, "up to 250 lower case letters"),
            ("tls:", "at least one host name"),
            ("tls:,", "at least one host name"),
            ("tls:a b", "is not a valid server name"),
            ("tls:*", "is not a valid server name"),
            ("tls:a.*.b", "is not a valid server name"),
            ("tls:https://a", "is not a valid server name"),
            (&*many, "65 names are too many"),
        ] {
            let error = text.parse::<CertificateRequest>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
