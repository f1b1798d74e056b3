//! A change of `spec.secret.name` that cannot be carried out yet: the token stays in its former Secret and is rotated there.

use super::{
    blocked::{self, Blocked},
    inputs::Inputs,
    lifecycle,
    observed::SecretView,
    ownership::SecretOwnership,
};
use crate::api::{Credential, Reason};

/// A rename that waits.
pub(super) struct PostponedRename<'a> {
    /// The Secret in which the token stays.
    pub former: &'a SecretView,
    /// Why the Secret with the new name cannot be written.
    pub blocked: Blocked,
}

/// Finds whether the active token has to stay in a former Secret; `None` if it is in its place, or can be copied there.
pub(super) fn find<'a>(
    inputs: &Inputs<'a>,
    ownership: &SecretOwnership<'a>,
    live: &[Credential],
    active: Option<&Credential>,
) -> Option<PostponedRename<'a>> {
    let active = active.filter(|_| !inputs.intent.once)?;
    if ownership.ours().is_some_and(|secret| inputs.key_of(secret, active).is_some()) {
        return None;
    }
    let (former, _) = inputs.former_with(active).filter(|(former, _)| !former.deleting)?;
    let mut blocked = match ownership {
        SecretOwnership::Conflict(message) => Blocked {
            reason: Reason::SecretConflict,
            message: message.clone(),
            until: Some(lifecycle::conflict_retry(inputs.uid(), inputs.now)),
        },
        SecretOwnership::Ours(secret) if secret.immutable => Blocked {
            reason: Reason::SecretImmutable,
            message: blocked::immutable_message(secret, "the token cannot be written to it"),
            until: Some(lifecycle::conflict_retry(inputs.uid(), inputs.now)),
        },
        _ => {
            // A token that is being issued is written to the former Secret before the rename is tried again.
            let is_issuing = inputs.observed.held.is_some_and(|held| lifecycle::is_pending(live, &held));
            blocked::of_refusal(inputs.refusal().filter(|refusal| is_issuing || inputs.now < refusal.retry_at)?)
        }
    };
    blocked.message = format!(
        "{}; until then the token stays in Secret {:?} and is rotated there, and the controller tries again",
        blocked.message, former.name
    );
    Some(PostponedRename { former, blocked })
}
