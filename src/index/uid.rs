//! The uid of a PersonalAccessToken, small enough to be a key.

use std::{fmt, str::FromStr};

use uuid::{Uuid, fmt::Simple};

// `uuid::Uuid` has an alignment of 1, so it leaves no padding in structs that contain it, unlike `u128`.
/// The uid of a PAT, written as 32 hex digits: the `client_id` of every protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatUid(Uuid);

/// Text that is not a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a UUID has 32 hexadecimal digits, with or without dashes")]
pub struct InvalidUid;

impl PatUid {
    /// Returns a 64-bit hash. Consecutive uids differ in every bit, whatever the version of the UUID.
    pub fn mixed(self) -> u64 {
        // The finalizer of SplitMix64 (https://prng.di.unimi.it/splitmix64.c).
        let (high, low) = self.0.as_u64_pair();
        let mut bits = high ^ low;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Returns the 32 hexadecimal digits without an allocation.
    pub fn digits(self) -> [u8; 32] {
        let mut digits = [0; 32];
        self.0.simple().encode_lower(&mut digits);
        digits
    }

    /// Returns the uid as Kubernetes writes it, with dashes.
    pub fn hyphenated(self) -> String {
        self.0.hyphenated().to_string()
    }
}

impl From<u128> for PatUid {
    fn from(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }
}

impl FromStr for PatUid {
    type Err = InvalidUid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Dashes may be anywhere. `Uuid::parse_str` would also accept braces and `urn:uuid:`.
        text.replace('-', "").parse::<Simple>().map(|uid| Self(uid.into())).map_err(|_| InvalidUid)
    }
}

impl fmt::Display for PatUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.as_simple(), f)
    }
}

impl fmt::Debug for PatUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_is_parsed_with_or_without_dashes_and_displayed_without() {
        let uid: PatUid = "0e02b2c3-58cc-4372-a567-0e02b2c3d479".parse().unwrap();
        assert_eq!(uid.to_string(), "0e02b2c358cc4372a5670e02b2c3d479");
        assert_eq!(uid.to_string().parse(), Ok(uid));
        assert_eq!("0e02b2c358cc-4372a5670e02-b2c3d479".parse(), Ok(uid), "dashes are ignored");
        assert_eq!(uid.to_string().as_bytes(), uid.digits());
        assert_eq!(uid.hyphenated(), "0e02b2c3-58cc-4372-a567-0e02b2c3d479");
        assert_eq!((size_of::<PatUid>(), align_of::<PatUid>()), (16, 1));
        for text in [
            "",
            "0e02b2c358cc4372a5670e02b2c3d47",
            "0e02b2c358cc4372a5670e02b2c3d4790",
            "+e02b2c358cc4372a5670e02b2c3d479",
            "{0e02b2c3-58cc-4372-a567-0e02b2c3d479}",
            "urn:uuid:0e02b2c3-58cc-4372-a567-0e02b2c3d479",
        ] {
            assert_eq!(text.parse::<PatUid>(), Err(InvalidUid), "{text}");
        }
    }
}
