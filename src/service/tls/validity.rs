//! The validity of a certificate (RFC 5280, section 4.1).
//!
//! rustls parses the certificate, but its API lacks these two fields, which do not need a full parser such as
//! `x509-parser` or `x509-cert`.

use k8s_openapi::jiff::{Timestamp, civil::DateTime, tz::TimeZone};

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, the version, which old certificates leave out.
const VERSION: u8 = 0xa0;

/// When a certificate begins and expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not valid before.
    pub from: Timestamp,
    /// Not valid after.
    pub until: Timestamp,
}

/// Reads the validity of a certificate in DER; `None` if it cannot be parsed.
pub fn read(certificate: &[u8]) -> Option<Validity> {
    let mut certificate = Der(certificate).take(SEQUENCE)?;
    let mut body = certificate.take(SEQUENCE)?;
    if body.0.first() == Some(&VERSION) {
        body.take(VERSION)?;
    }
    let _serial = body.take(INTEGER)?;
    let _algorithm = body.take(SEQUENCE)?;
    let _issuer = body.take(SEQUENCE)?;
    let mut validity = body.take(SEQUENCE)?;
    Some(Validity { from: validity.time()?, until: validity.time()? })
}

/// A sequence of DER elements.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Takes the content of the next element, if it has this tag.
    fn take(&mut self, tag: u8) -> Option<Self> {
        let (&[found, length], rest) = self.0.split_first_chunk::<2>()?;
        if found != tag {
            return None;
        }
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            // The long form, in as many bytes as the low bits say.
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Self(content))
    }

    /// Takes the next element as a time: `YYMMDDHHMMSSZ` from 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
    fn time(&mut self) -> Option<Timestamp> {
        let tag = *self.0.first()?;
        let content = self.take(tag)?.0;
        let text = str::from_utf8(content).ok()?.strip_suffix('Z')?;
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (year, rest) = match (tag, text.len()) {
            (UTC_TIME, 12) => {
                let year: i16 = text[..2].parse().ok()?;
                (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
            }
            (GENERALIZED_TIME, 14) => (text[..4].parse().ok()?, &text[4..]),
            _ => return None,
        };
        let part = |at: usize| rest[at..at + 2].parse::<i8>().ok();
        let time = DateTime::new(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, 0).ok()?;
        time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_time_formats_are_read() {
        for (from, until) in [((2001, 2, 3), (2049, 12, 31)), ((1999, 1, 1), (2099, 12, 31))] {
            let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
            params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
            let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            let time = |(y, m, d): (i32, u8, u8)| format!("{y}-{m:02}-{d:02}T00:00:00Z").parse().unwrap();
            let read = read(certificate.der()).unwrap();
            assert_eq!(read, Validity { from: time(from), until: time(until) });
            for length in 0..certificate.der().len() / 2 {
                let _does_not_panic = super::read(&certificate.der()[..length]);
            }
        }
        assert_eq!(read(b""), None);
        assert_eq!(read(b"\x30\x84\xff\xff\xff\xff"), None);
    }
}
