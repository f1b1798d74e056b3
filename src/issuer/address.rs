//! Which addresses may be connected to, checked after the name is resolved: a name that resolves to another address later (DNS rebinding)
//! cannot pass.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{self, Poll},
    vec,
};

use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use tower::Service;

/// The addresses that an issuer may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Whether loopback, link-local, private and other addresses that are not on the public internet are refused.
    pub public_only: bool,
    /// Networks that are allowed in spite of `public_only`.
    pub allowed: Vec<IpNet>,
    /// Networks that are always refused, such as those of Pods and Services.
    pub denied: Vec<IpNet>,
}

impl AddressPolicy {
    /// Returns a policy that allows public addresses only.
    pub fn public_only() -> Self {
        Self { public_only: true, ..Self::default() }
    }

    /// Whether this address may be connected to.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = embedded_ipv4(address);
        let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !is_in(&self.denied) && (!self.public_only || is_in(&self.allowed) || is_public(address))
    }
}

/// The IPv4 address that a gateway makes of an IPv6 address: mapped (RFC 4291), NAT64 (RFC 6052) and 6to4 (RFC 3056).
fn embedded_ipv4(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address.to_canonical() else { return address.to_canonical() };
    let [a, b, c, d, e, f, g, h] = six.segments();
    let from = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match [a, b, c, d, e, f] {
        [0x64, 0xff9b, 0, 0, 0, 0] => from(g, h),
        [0x2002, ..] => from(b, c),
        _ => IpAddr::V6(six),
    }
}

/// Whether an address is on the public internet: it is in none of the special-purpose registries of IANA (RFC 6890).
// `IpAddr::is_global` is not stable.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => is_public_ipv4(four),
        IpAddr::V6(six) => is_public_ipv6(six),
    }
}

fn is_public_ipv4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = a == 0
        // Shared by carriers, and by some clusters for Pods (RFC 6598).
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        // Benchmarks (RFC 2544).
        || (a == 198 && b & 0xfe == 18)
        || a >= 240;
    !(is_special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast())
}

fn is_public_ipv6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Global unicast addresses are 2000::/3 (RFC 4291). Of these, 2001::/23 is for protocols, and 2001:db8::/32 and 3fff::/20 for documentation.
    a & 0xe000 == 0x2000 && !(a == 0x2001 && (b < 0x200 || b == 0xdb8)) && !(a == 0x3fff && b < 0x1000)
}

/// The address of the issuer is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address is not allowed for this issuer")]
pub struct AddressRefused;

/// Resolves names to those of their addresses that are allowed.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    pub(super) policy: AddressPolicy,
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let policy = self.policy.clone();
        Box::pin(async move {
            // The connector sets the port.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<_> = found.filter(|address| policy.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, AddressRefused));
            }
            Ok(allowed.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for (address, public) in [
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("172.32.0.1", true),
            ("192.0.0.8", false),
            ("192.0.2.1", false),
            ("192.168.0.1", false),
            ("198.19.0.1", false),
            ("203.0.114.1", true),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("8.8.8.8", true),
            ("::", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::10.0.0.1", false),
            ("64:ff9b::8.8.8.8", true),
            ("2002:a00:1::1", false),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("2606:4700::1111", true),
            ("3fff:fff::1", false),
            ("fc00::1", false),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ] {
            let parsed: IpAddr = address.parse().unwrap();
            assert_eq!(AddressPolicy::public_only().allows(parsed), public, "{address}");
            assert!(AddressPolicy::default().allows(parsed), "{address}");
        }
    }

    #[test]
    fn denied_networks_win_over_allowed_ones() {
        let policy = AddressPolicy {
            public_only: true,
            allowed: vec!["10.0.0.0/8".parse().unwrap()],
            denied: vec!["10.96.0.0/12".parse().unwrap(), "8.8.0.0/16".parse().unwrap()],
        };
        for (address, allowed) in
            [("10.0.0.1", true), ("::ffff:10.0.0.1", true), ("10.96.0.1", false), ("8.8.8.8", false), ("1.1.1.1", true)]
        {
            assert_eq!(policy.allows(address.parse().unwrap()), allowed, "{address}");
        }
    }
}
