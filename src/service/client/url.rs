//! The parts of a URL of a server or a proxy, without its user and password, which must not appear in any message.

use std::fmt;

use hyper::{Uri, http::uri::Scheme};
use percent_encoding::percent_decode_str;

/// The user and the password of a URL.
#[derive(Clone, PartialEq, Eq)]
pub struct UserInfo {
    /// The user.
    pub user: String,
    /// The password, which may be empty.
    pub password: String,
}

impl fmt::Debug for UserInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserInfo(…)")
    }
}

/// A URL with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The scheme in lower case.
    pub scheme: String,
    /// The user and the password.
    pub user: Option<UserInfo>,
    /// The host and the port as written.
    pub authority: String,
    /// The path, which may be empty.
    pub path: String,
}

impl Url {
    /// Parses `scheme://[user[:password]@]host[:port][/path]`. The query and the fragment are dropped. `None` if the text has
    /// another form.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.split(['?', '#']).next()?;
        let (scheme, rest) = text.split_once("://")?;
        let mut letters = scheme.bytes();
        let is_scheme = letters.next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && letters.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user_info(user)?), authority),
            None => (None, authority),
        };
        if !is_scheme || !is_authority(authority) {
            return None;
        }
        Some(Self { scheme: scheme.to_ascii_lowercase(), user, authority: authority.to_owned(), path: path.to_owned() })
    }

    /// The host without the brackets of an IPv6 address, and the port.
    pub fn host_and_port(&self) -> (&str, Option<u16>) {
        let (host, port) = split_port(&self.authority);
        (host.trim_start_matches('[').trim_end_matches(']'), port.and_then(|port| port.parse().ok()))
    }

    /// The URL without user and password, with the port if it is not given.
    pub fn uri(&self, default_port: Option<u16>) -> Option<Uri> {
        let (host, port) = split_port(&self.authority);
        let authority = match (port, default_port) {
            (Some(port), _) => format!("{host}:{port}"),
            (None, Some(port)) => format!("{host}:{port}"),
            (None, None) => host.to_owned(),
        };
        let path = if self.path.is_empty() { "/" } else { &self.path };
        let scheme: Scheme = self.scheme.parse().ok()?;
        Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok()
    }
}

/// Splits the port off; an empty one counts as none.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port).filter(|port| !port.is_empty())),
        _ => (authority, None),
    }
}

fn is_authority(authority: &str) -> bool {
    let (host, port) = split_port(authority);
    let is_port = port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    let is_host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty() && !host.contains([':', '[', ']', '\\', ' ', '"', '<', '>', '^', '`', '{', '|', '}', '%'])
        }
    };
    is_port && is_host
}

fn user_info(text: &str) -> Option<UserInfo> {
    let decode = |text| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    Some(UserInfo { user: decode(user)?, password: decode(password)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_into_their_parts() {
        for (text, parts) in [
            ("https://host", Some(("https", "host", None, ""))),
            ("HTTPS://Host:6443/a/b?c#d", Some(("https", "Host", Some(6443), "/a/b"))),
            ("https://[::1]:6443/", Some(("https", "::1", Some(6443), "/"))),
            ("http://u:p%40s@host:3128", Some(("http", "host", Some(3128), ""))),
            ("https://host:", Some(("https", "host", None, ""))),
            ("host:6443", None),
            ("https://", None),
            ("https:///path", None),
            ("https://host:99999", None),
            ("https://host:port", None),
            ("https://[::1", None),
            ("https://a b", None),
            ("://host", None),
        ] {
            let url = Url::parse(text);
            let found = url.as_ref().map(|url| {
                let (host, port) = url.host_and_port();
                (&*url.scheme, host, port, &*url.path)
            });
            assert_eq!(found, parts, "{text}");
        }
        let url = Url::parse("http://u:p%40s@host").unwrap();
        assert_eq!(url.user.clone().map(|info| (info.user, info.password)), Some(("u".into(), "p@s".into())));
        assert_eq!(url.uri(Some(80)).unwrap().to_string(), "http://host:80/");
        assert!(!format!("{url:?}").contains("p@s"));
    }
}
