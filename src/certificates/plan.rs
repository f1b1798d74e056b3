//! What to do about a certificate now. Pure: it takes the present, and knows neither keys nor Secrets.

use std::fmt;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::wanted::Names;
use crate::service::tls::Validity;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// How long a certificate is good for. It is renewed when a third of that is left.
pub const CERTIFICATE_LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);

/// How long an authority is good for, which is how long somebody who copied it once can go on with that. It is followed by another when a
/// third of that is left.
pub const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

/// How far a client's clock may be behind.
pub const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// When the authority begins and ends; `None` if there is none that can sign.
    pub authority: Option<Validity>,
    /// When the certificate begins and ends; `None` if there is none that can be served with and that this authority vouches for.
    pub certificate: Option<Validity>,
    /// The names that it was made for.
    pub names: Option<Names>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing before this time.
    Keep(Timestamp),
    /// A new certificate by the same authority.
    Certificate(Why),
    /// A new authority, for which the old one vouches if it still can, and a certificate by it.
    Authority(Why),
}

/// Why something is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is none that is of use.
    Missing,
    /// Two thirds of its time are over.
    Due,
    /// It is for other names.
    OtherNames,
    /// Its time has not begun: a clock was, or is, wrong.
    TooEarly,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there was none of use",
            Self::Due => "two thirds of its time were over",
            Self::OtherNames => "it was for other names",
            Self::TooEarly => "its time had not begun",
        })
    }
}

/// What to do now about what there is.
pub fn plan(held: &Held, wanted: &Names, now: Timestamp) -> Plan {
    let Some(authority) = held.authority else { return Plan::Authority(Why::Missing) };
    if let Some(why) = over(authority, now) {
        return Plan::Authority(why);
    }
    let Some(certificate) = held.certificate else { return Plan::Certificate(Why::Missing) };
    if held.names.as_ref() != Some(wanted) {
        return Plan::Certificate(Why::OtherNames);
    }
    if let Some(why) = over(certificate, now) {
        return Plan::Certificate(why);
    }
    Plan::Keep(due(authority).min(due(certificate)))
}

/// When something new made now begins and ends. Nothing outlives `authority`.
pub fn validity(lifetime: SignedDuration, authority: Option<Validity>, now: Timestamp) -> Validity {
    // X.509 has no fractions of a second.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let (from, until) = (minus(now, BACKDATED), plus(now, lifetime));
    match authority {
        Some(authority) => Validity { from: from.max(authority.from), until: until.min(authority.until) },
        None => Validity { from, until },
    }
}

/// Why it has to be replaced, if it has to.
fn over(validity: Validity, now: Timestamp) -> Option<Why> {
    if now < validity.from {
        Some(Why::TooEarly)
    } else if now >= due(validity) {
        Some(Why::Due)
    } else {
        None
    }
}

/// When two thirds of its time are over.
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

/// So many days.
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

    fn names(text: &str) -> Names {
        text.parse().unwrap()
    }

    /// What there is once the plan has been carried out.
    fn carried_out(held: &Held, plan: Plan, wanted: &Names, now: Timestamp) -> Held {
        let authority = match plan {
            Plan::Keep(_) => return held.clone(),
            Plan::Certificate(_) => held.authority,
            Plan::Authority(_) => Some(validity(AUTHORITY_LIFETIME, None, now)),
        };
        let certificate = validity(CERTIFICATE_LIFETIME, authority, now);
        Held { authority, certificate: Some(certificate), names: Some(wanted.clone()) }
    }

    #[test]
    fn what_is_there_decides() {
        let good = Validity { from: at(0), until: at(900) };
        let old = Validity { from: at(-900), until: at(0) };
        let early = Validity { from: at(500), until: at(900) };
        let held = |authority: Option<Validity>, certificate: Option<Validity>| Held {
            authority,
            certificate,
            names: Some(names("a")),
        };
        for (case, now, expected) in [
            (Held::default(), at(0), Plan::Authority(Why::Missing)),
            (held(None, Some(good)), at(0), Plan::Authority(Why::Missing)),
            (held(Some(good), None), at(0), Plan::Certificate(Why::Missing)),
            (held(Some(good), Some(good)), at(0), Plan::Keep(at(600))),
            (held(Some(good), Some(good)), at(599), Plan::Keep(at(600))),
            (held(Some(good), Some(good)), at(600), Plan::Authority(Why::Due)),
            (held(Some(good), Some(old)), at(1), Plan::Certificate(Why::Due)),
            (held(Some(old), Some(good)), at(1), Plan::Authority(Why::Due)),
            (held(Some(good), Some(early)), at(1), Plan::Certificate(Why::TooEarly)),
            (held(Some(early), Some(good)), at(1), Plan::Authority(Why::TooEarly)),
            (
                Held { names: Some(names("b")), ..held(Some(good), Some(good)) },
                at(1),
                Plan::Certificate(Why::OtherNames),
            ),
            (Held { names: None, ..held(Some(good), Some(good)) }, at(1), Plan::Certificate(Why::OtherNames)),
        ] {
            assert_eq!(plan(&case, &names("a"), now), expected, "{case:?} at {now}");
        }
    }

    proptest! {
        /// Whoever looks at least every four weeks never finds a certificate that has ended, or that outlives its authority.
        #[test]
        fn a_certificate_never_ends_on_somebody_who_looks_now_and_then(
            gaps in proptest::collection::vec(1i64..28 * 86_400, 1..400),
        ) {
            let wanted = names("a");
            let (mut held, mut now) = (Held::default(), 0);
            for gap in gaps {
                held = carried_out(&held, plan(&held, &wanted, at(now)), &wanted, at(now));
                let (authority, certificate) = (held.authority.unwrap(), held.certificate.unwrap());
                prop_assert!(certificate.from >= authority.from && certificate.until <= authority.until);
                now += gap;
                prop_assert!(certificate.until > at(now), "it ended before somebody looked again");
            }
        }

        /// Nothing is made a second time before its time, and a plan names a time that lies ahead.
        #[test]
        fn what_has_just_been_made_is_kept_until_the_time_that_the_plan_names(
            start in 0i64..100 * 365 * 86_400, part in 0.0f64..1.0,
        ) {
            let wanted = names("a");
            let held = carried_out(&Held::default(), Plan::Authority(Why::Missing), &wanted, at(start));
            let Plan::Keep(until) = plan(&held, &wanted, at(start)) else { panic!("it is kept") };
            let ahead = until.as_second() - START - start;
            prop_assert!(ahead > 0);
            let between = start + (ahead as f64 * part) as i64;
            prop_assert_eq!(plan(&held, &wanted, at(between)), Plan::Keep(until));
            prop_assert_eq!(plan(&held, &wanted, until), Plan::Certificate(Why::Due));
        }

        /// No times make it panic, and none that are in the past are kept.
        #[test]
        fn whatever_the_times_are_nothing_is_kept_that_has_ended(
            times in proptest::array::uniform4(-377_705_000_000i64..253_402_000_000), now in -377_705_000_000i64..253_402_000_000,
        ) {
            let time = |seconds| Timestamp::from_second(seconds).unwrap();
            let of = |from: i64, until: i64| Some(Validity { from: time(from), until: time(until) });
            let held = Held { authority: of(times[0], times[1]), certificate: of(times[2], times[3]), names: Some(names("a")) };
            let now = time(now);
            let _ = validity(AUTHORITY_LIFETIME, held.authority, now);
            if let Plan::Keep(until) = plan(&held, &names("a"), now) {
                prop_assert!(until > now && held.authority.unwrap().until > now && held.certificate.unwrap().until > now);
            }
        }
    }
}
