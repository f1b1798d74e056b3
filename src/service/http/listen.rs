//! Where a server listens, and whether it may speak plain text there.
//!
//! It must not know what is served.

use std::{fmt, net::SocketAddr, str::FromStr};

/// Where to listen: `127.0.0.1:8080`, `[::1]:8080`, or `:8080` for every address of the machine. Port 0 takes a free
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// Every address, IPv6 and IPv4.
    Any {
        /// The port, 0 for a free one.
        port: u16,
    },
    /// Just this address.
    One(SocketAddr),
}

/// Text that is not an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080, or only :8080 for every address")]
pub struct InvalidListenAddr;

impl ListenAddr {
    /// Whether only programs of this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        matches!(self, Self::One(addr) if addr.ip().to_canonical().is_loopback())
    }
}

impl FromStr for ListenAddr {
    type Err = InvalidListenAddr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix(':') {
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().map(|port| Self::Any { port }).map_err(|_| InvalidListenAddr)
            }
            _ => text.parse().map(Self::One).map_err(|_| InvalidListenAddr),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any { port } => write!(f, ":{port}"),
            Self::One(addr) => addr.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_are_read_as_people_write_them() {
        for (text, read) in [
            (":8080", Some(ListenAddr::Any { port: 8080 })),
            (":0", Some(ListenAddr::Any { port: 0 })),
            ("127.0.0.1:0", Some(ListenAddr::One(SocketAddr::from(([127, 0, 0, 1], 0))))),
            ("[::1]:9", Some(ListenAddr::One("[::1]:9".parse().unwrap()))),
            ("8080", None),
            ("localhost:8080", None),
            ("127.0.0.1", None),
            (":70000", None),
            (":+80", None),
            (":", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), read, "{text}");
            if let Some(addr) = read {
                assert_eq!(addr.to_string(), text);
            }
        }
    }

    #[test]
    fn only_loopback_is_loopback() {
        for (text, loopback) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            (":1", false),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().is_loopback(), loopback, "{text}");
        }
    }
}
