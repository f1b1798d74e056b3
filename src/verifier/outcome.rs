//! What a proxy is told that asks on behalf of a client, before it is written as its protocol has it.
//!
//! For forward auth and both of Envoy's protocols, so that all of them refuse the same things. It must not know how an
//! answer is sent.

use super::{
    Checked, Protocol, Refusal, Verifier,
    challenge::Challenge,
    demand::Requirements,
    identity::{self, Identity, Unprintable},
    reason::Reason,
};
use crate::{auth::decision::Unavailable, index::CredentialRef, service::authorization::Authorization};

/// The answer.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is nearly always the large one")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Let it pass, with these headers set.
    Allow(Identity),
    /// Its token is not accepted.
    Challenge(Challenge),
    /// It may not pass, whatever its token: it carries a header that would pass for one of ours.
    Alias,
    /// It may not pass: its token's owner cannot be told.
    Unprintable,
    /// Nobody can tell at the moment.
    Unavailable(Unavailable),
}

/// Decides on a client's request by all of its headers.
pub fn judge<'a>(
    verifier: &Verifier,
    protocol: Protocol,
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    needed: &Requirements<'_>,
) -> Outcome {
    let mut alias = false;
    let mut headers = headers.into_iter().inspect(|(name, _)| alias |= identity::is_alias(name));
    let authorization = Authorization::read(&mut headers);
    // It may have stopped before the last of them.
    headers.for_each(drop);
    if alias {
        return Outcome::Alias;
    }
    let token = match authorization.token() {
        Ok(token) => token,
        Err(reason) => return Outcome::Challenge(reason.into()),
    };
    let admit = |record: &CredentialRef| Identity::of(record, verifier.owner_of(record).as_deref());
    match needed.ask(|demand| verifier.check_for(protocol, token, demand, admit)) {
        Checked::Allow(_, identity) => Outcome::Allow(identity),
        Checked::Refused(_, Unprintable) => Outcome::Unprintable,
        Checked::Deny(denial) => Outcome::Challenge(Challenge::to(&denial, || needed.scope_text())),
        Checked::Unavailable(reason) => Outcome::Unavailable(reason),
    }
}

impl Refusal for Unprintable {
    fn reason(&self) -> Reason {
        Reason::Unprintable
    }
}

impl Outcome {
    /// What a person reads in the body of a refusal, one line.
    pub fn words(&self) -> &'static str {
        match self {
            Self::Allow(_) => "",
            Self::Challenge(challenge) => challenge.words(),
            Self::Alias => "a header of this request could be mistaken for one that tells who you are\n",
            Self::Unprintable => "the owner of this token cannot be named in a header\n",
            Self::Unavailable(_) => "tokens cannot be verified at the moment: try again\n",
        }
    }
}
