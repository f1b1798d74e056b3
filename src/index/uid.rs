//! The uid of a PAT, small enough to be a key. It must not know what a PAT is.

use std::{fmt, str::FromStr};

// Bytes rather than a number: that would want to be aligned, and leave gaps in what holds it.
/// The uid of a PAT; a UUID, shown as 32 hex digits: the `client_id` of every protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatUid([u8; 16]);

/// Text that is not a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a UUID has 32 hexadecimal digits, with or without dashes")]
pub struct InvalidUid;

impl PatUid {
    /// 64 of its bits, well mixed whatever version of UUID it is: nearby uids differ in every bit.
    pub fn mixed(self) -> u64 {
        // The finalizer of SplitMix64 (https://prng.di.unimi.it/splitmix64.c).
        let number = u128::from_be_bytes(self.0);
        let mut bits = (number as u64) ^ ((number >> 64) as u64);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Its 32 hexadecimal digits, without an allocation.
    pub fn digits(self) -> [u8; 32] {
        let digit = |place: usize| b"0123456789abcdef"[usize::from(self.0[place / 2] >> (4 * (1 - place % 2)) & 0xf)];
        std::array::from_fn(digit)
    }

    /// As Kubernetes writes it, with dashes.
    pub fn hyphenated(self) -> String {
        let digits = self.to_string();
        [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
    }
}

impl From<u128> for PatUid {
    fn from(bits: u128) -> Self {
        Self(bits.to_be_bytes())
    }
}

impl FromStr for PatUid {
    type Err = InvalidUid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut bits, mut digits) = (0_u128, 0);
        for character in text.chars().filter(|character| *character != '-') {
            bits = bits << 4 | u128::from(character.to_digit(16).ok_or(InvalidUid)?);
            digits += 1;
            if digits > 32 {
                return Err(InvalidUid);
            }
        }
        if digits == 32 { Ok(bits.into()) } else { Err(InvalidUid) }
    }
}

impl fmt::Display for PatUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
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
    fn a_uid_is_read_with_and_without_dashes_and_shown_without() {
        let uid: PatUid = "0e02b2c3-58cc-4372-a567-0e02b2c3d479".parse().unwrap();
        assert_eq!(uid.to_string(), "0e02b2c358cc4372a5670e02b2c3d479");
        assert_eq!(uid.to_string().parse(), Ok(uid));
        assert_eq!(uid.to_string().as_bytes(), uid.digits());
        assert_eq!(uid.hyphenated(), "0e02b2c3-58cc-4372-a567-0e02b2c3d479");
        for text in [
            "",
            "0e02b2c358cc4372a5670e02b2c3d47",
            "0e02b2c358cc4372a5670e02b2c3d4790",
            "+e02b2c358cc4372a5670e02b2c3d479",
        ] {
            assert_eq!(text.parse::<PatUid>(), Err(InvalidUid), "{text}");
        }
    }
}
