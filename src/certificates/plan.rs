//! Decides when a certificate or its authority is renewed. Pure: `now` is an argument.

use std::fmt;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::request::ServerNames;
use crate::service::tls::Validity;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The lifetime of a certificate. It is renewed when a third of it is left.
pub const CERTIFICATE_LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);

/// The lifetime of an authority, and of the copies that clients keep. It is replaced when a third of it is left.
pub const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

/// The tolerated lag of a client's clock.
pub const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// The stored certificate and authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateState {
    /// The validity of the authority; `None` if none can sign.
    pub authority: Option<Validity>,
    /// The validity of the certificate; `None` if none is usable and signed by this authority.
    pub certificate: Option<Validity>,
    /// The names that it was issued for.
    pub names: Option<ServerNames>,
}

/// What to do about the stored certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalPlan {
    /// Keep it until this time.
    Keep(Timestamp),
    /// Issue a new certificate by the same authority.
    Certificate(RenewalReason),
    /// Make a new authority, cross-signed by the old one if possible, and issue a certificate by it.
    CertificateAuthority(RenewalReason),
}

/// Why a certificate or an authority is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalReason {
    /// None is usable.
    Missing,
    /// Two thirds of its lifetime are over.
    Due,
    /// The requested names changed.
    OtherNames,
    /// It is not valid yet: a clock was or is wrong.
    TooEarly,
}

impl fmt::Display for RenewalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no usable one was stored",
            Self::Due => "two thirds of its lifetime were over",
            Self::OtherNames => "the requested names changed",
            Self::TooEarly => "it was not valid yet",
        })
    }
}

/// Decides what to do now.
pub fn plan(state: &CertificateState, requested: &ServerNames, now: Timestamp) -> RenewalPlan {
    let Some(authority) = state.authority else { return RenewalPlan::CertificateAuthority(RenewalReason::Missing) };
    if let Some(why) = renewal_reason(authority, now) {
        return RenewalPlan::CertificateAuthority(why);
    }
    let Some(certificate) = state.certificate else { return RenewalPlan::Certificate(RenewalReason::Missing) };
    if state.names.as_ref() != Some(requested) {
        return RenewalPlan::Certificate(RenewalReason::OtherNames);
    }
    if let Some(why) = renewal_reason(certificate, now) {
        return RenewalPlan::Certificate(why);
    }
    RenewalPlan::Keep(due(authority).min(due(certificate)))
}

/// Returns the validity of a certificate that is issued now. It does not outlive `authority`.
pub fn validity_from(lifetime: SignedDuration, authority: Option<Validity>, now: Timestamp) -> Validity {
    // X.509 has no fractions of a second.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let (from, until) = (minus(now, BACKDATED), plus(now, lifetime));
    match authority {
        Some(authority) => Validity { from: from.max(authority.from), until: until.min(authority.until) },
        None => Validity { from, until },
    }
}

/// Returns why a certificate must be replaced, if it must.
fn renewal_reason(validity: Validity, now: Timestamp) -> Option<RenewalReason> {
    if now < validity.from {
        Some(RenewalReason::TooEarly)
    } else if now >= due(validity) {
        Some(RenewalReason::Due)
    } else {
        None
    }
}

/// Returns when two thirds of the lifetime are over.
fn due(validity: Validity) -> Timestamp {
    let lifetime = validity.until.duration_since(validity.from);
    minus(validity.until, SignedDuration::from_secs(lifetime.as_secs() / 3))
}

fn plus(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn minus(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// Returns the duration of this many days.
pub const fn days(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count * DAY.as_secs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(START + seconds).unwrap()
    }

    fn names(text: &str) -> ServerNames {
        text.parse().unwrap()
    }

    /// The state after the plan was carried out.
    fn carried_out(
        state: &CertificateState,
        plan: RenewalPlan,
        requested: &ServerNames,
        now: Timestamp,
    ) -> CertificateState {
        let authority = match plan {
            RenewalPlan::Keep(_) => return state.clone(),
            RenewalPlan::Certificate(_) => state.authority,
            RenewalPlan::CertificateAuthority(_) => Some(validity_from(AUTHORITY_LIFETIME, None, now)),
        };
        let certificate = validity_from(CERTIFICATE_LIFETIME, authority, now);
        CertificateState { authority, certificate: Some(certificate), names: Some(requested.clone()) }
    }

    #[test]
    fn the_stored_state_decides() {
        let good = Validity { from: at(0), until: at(900) };
        let old = Validity { from: at(-900), until: at(0) };
        let early = Validity { from: at(500), until: at(900) };
        let state = |authority: Option<Validity>, certificate: Option<Validity>| CertificateState {
            authority,
            certificate,
            names: Some(names("a")),
        };
        for (case, now, expected) in [
            (CertificateState::default(), at(0), RenewalPlan::CertificateAuthority(RenewalReason::Missing)),
            (state(None, Some(good)), at(0), RenewalPlan::CertificateAuthority(RenewalReason::Missing)),
            (state(Some(good), None), at(0), RenewalPlan::Certificate(RenewalReason::Missing)),
            (state(Some(good), Some(good)), at(0), RenewalPlan::Keep(at(600))),
            (state(Some(good), Some(good)), at(599), RenewalPlan::Keep(at(600))),
            (state(Some(good), Some(good)), at(600), RenewalPlan::CertificateAuthority(RenewalReason::Due)),
            (state(Some(good), Some(old)), at(1), RenewalPlan::Certificate(RenewalReason::Due)),
            (state(Some(old), Some(good)), at(1), RenewalPlan::CertificateAuthority(RenewalReason::Due)),
            (state(Some(good), Some(early)), at(1), RenewalPlan::Certificate(RenewalReason::TooEarly)),
            (state(Some(early), Some(good)), at(1), RenewalPlan::CertificateAuthority(RenewalReason::TooEarly)),
            (
                CertificateState { names: Some(names("b")), ..state(Some(good), Some(good)) },
                at(1),
                RenewalPlan::Certificate(RenewalReason::OtherNames),
            ),
            (
                CertificateState { names: None, ..state(Some(good), Some(good)) },
                at(1),
                RenewalPlan::Certificate(RenewalReason::OtherNames),
            ),
        ] {
            assert_eq!(plan(&case, &names("a"), now), expected, "{case:?} at {now}");
        }
    }

    proptest! {
        /// With a check every four weeks, no certificate expires or outlives its authority.
        #[test]
        fn a_monthly_check_never_finds_an_expired_certificate(
            gaps in proptest::collection::vec(1i64..28 * 86_400, 1..400),
        ) {
            let requested = names("a");
            let (mut state, mut now) = (CertificateState::default(), 0);
            for gap in gaps {
                state = carried_out(&state, plan(&state, &requested, at(now)), &requested, at(now));
                let (authority, certificate) = (state.authority.unwrap(), state.certificate.unwrap());
                prop_assert!(certificate.from >= authority.from && certificate.until <= authority.until);
                now += gap;
                prop_assert!(certificate.until > at(now), "it expired before the next check");
            }
        }

        /// Nothing is renewed early, and a plan names a time in the future.
        #[test]
        fn a_new_certificate_is_kept_until_the_planned_time(
            start in 0i64..100 * 365 * 86_400, part in 0.0f64..1.0,
        ) {
            let requested = names("a");
            let state = carried_out(&CertificateState::default(), RenewalPlan::CertificateAuthority(RenewalReason::Missing), &requested, at(start));
            let RenewalPlan::Keep(until) = plan(&state, &requested, at(start)) else { panic!("it is kept") };
            let ahead = until.as_second() - START - start;
            prop_assert!(ahead > 0);
            let between = start + (ahead as f64 * part) as i64;
            prop_assert_eq!(plan(&state, &requested, at(between)), RenewalPlan::Keep(until));
            prop_assert_eq!(plan(&state, &requested, until), RenewalPlan::Certificate(RenewalReason::Due));
        }

        /// No times make the plan panic, and nothing expired is kept.
        #[test]
        fn nothing_expired_is_kept(
            times in proptest::array::uniform4(-377_705_000_000i64..253_402_000_000), now in -377_705_000_000i64..253_402_000_000,
        ) {
            let time = |seconds| Timestamp::from_second(seconds).unwrap();
            let of = |from: i64, until: i64| Some(Validity { from: time(from), until: time(until) });
            let state = CertificateState { authority: of(times[0], times[1]), certificate: of(times[2], times[3]), names: Some(names("a")) };
            let now = time(now);
            let _ = validity_from(AUTHORITY_LIFETIME, state.authority, now);
            if let RenewalPlan::Keep(until) = plan(&state, &names("a"), now) {
                prop_assert!(until > now && state.authority.unwrap().until > now && state.certificate.unwrap().until > now);
            }
        }
    }
}
