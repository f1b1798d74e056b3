//! Builds the writes to the Secret: with a new token, with the active one, or without any. No plain token is here: a write says
//! where its executor finds the token.

use super::{
    damage, lifecycle,
    observed::{HeldCredential, Ledger, SecretView, hash},
    situation::Situation,
    step::{SecretContent, SecretVersion, SecretWrite, TokenFacts, TokenSource},
};
use crate::{
    api::{Credential, CredentialState},
    secret::{Digest, Layout, OPAQUE, cleared_data},
};

/// Writes the published token. The annotations record the situation after the write.
pub(super) fn with_new_token(s: &Situation<'_>, held: &HeldCredential) -> Option<Box<SecretWrite>> {
    let layout = layout(s)?;
    let mut after = s.live.clone();
    lifecycle::retire_active(s, &mut after);
    if let Some(arriving) = after.iter_mut().find(|credential| credential.id == held.id) {
        arriving.state = CredentialState::Active;
    }
    after.retain(|credential| credential.state != CredentialState::Pending);
    let (previous_id, previous) = previous(s, &after).unzip();
    let facts = TokenFacts {
        id: held.id.as_str().to_owned(),
        previous_id,
        issued_at: held.issued_at,
        expires_at: s.intent.terms.end(),
        remote_id: s.observed.created.map(|created| created.id.clone()),
    };
    let token = TokenSource::Held { sha256: held.hash? };
    Some(write(s, SecretContent::Token { token, previous, facts, layout }, &after))
}

/// Writes a token that is minted for a dry run and thrown away.
pub(super) fn with_throwaway_token(s: &Situation<'_>) -> Option<Box<SecretWrite>> {
    let layout = layout(s)?;
    let facts = TokenFacts {
        id: "000000000000".to_owned(),
        previous_id: None,
        issued_at: s.now,
        expires_at: s.intent.terms.end(),
        remote_id: None,
    };
    let content = SecretContent::Token { token: TokenSource::Throwaway, previous: None, facts, layout };
    Some(write(s, content, &s.live))
}

/// Writes the active token, rendered again from its present place: this Secret or a former one.
pub(super) fn with_active_token(s: &Situation<'_>, active: &Credential) -> Option<Box<SecretWrite>> {
    let layout = layout(s)?;
    let token = find_token(s, active)?;
    let (_, previous) = previous(s, &s.live).unzip();
    let facts = facts_of_active(s, active);
    Some(write(s, SecretContent::Token { token, previous, facts, layout }, &s.live))
}

/// Writes only labels, annotations and the owner.
pub(super) fn with_metadata_only(
    s: &Situation<'_>,
    data_hash: Digest,
    render_hash: Digest,
) -> Option<Box<SecretWrite>> {
    let layout = Some(layout(s)?);
    Some(write(s, SecretContent::MetadataOnly { data_hash, render_hash, layout }, &s.live))
}

/// Changes only the resourceVersion, so that no write that was decided earlier can take effect.
pub(super) fn bumped(s: &Situation<'_>) -> Box<SecretWrite> {
    let content = match s.ownership.ours() {
        Some(secret) => {
            let record = secret.record.as_ref();
            SecretContent::MetadataOnly {
                data_hash: record.map_or_else(|| secret.data_hash(), |record| record.data_hash),
                render_hash: record.map(|record| record.render_hash).unwrap_or_default(),
                layout: None,
            }
        }
        None => SecretContent::Cleared {
            type_: s.intent.layout.as_ref().map_or(OPAQUE, |layout| layout.type_.as_str()).to_owned(),
        },
    };
    write(s, content, &s.base.credentials)
}

/// Removes the token; `None` if the Secret is not ours or holds no token.
pub(super) fn cleared(s: &Situation<'_>) -> Option<Box<SecretWrite>> {
    let secret = s.ownership.ours()?;
    let ledger_is_empty = secret
        .record
        .as_ref()
        .is_none_or(|record| record.ledger.live.iter().all(|old| old.expires_at.is_some_and(|end| end <= s.now)));
    if is_clear(secret) && ledger_is_empty {
        return None;
    }
    let write = write(s, SecretContent::Cleared { type_: secret.type_.to_string() }, &[]);
    // Only a Secret that was cleared before is damaged; the first time it holds the token that has ended.
    let was_cleared = secret.record.as_ref().is_some_and(|record| record.render_hash == Digest::default());
    Some(Box::new(SecretWrite { repairs: was_cleared.then(|| damage::of_cleared(s)), ..*write }))
}

/// Whether the Secret holds only what its type requires.
pub(super) fn is_clear(secret: &SecretView) -> bool {
    let wanted = cleared_data(&secret.type_);
    secret.data.len() == wanted.iter().count()
        && wanted.iter().all(|(key, value)| secret.data.get(key) == Some(&hash(value)))
}

/// Returns the facts of the active token that templates may show.
pub(super) fn facts_of_active(s: &Situation<'_>, active: &Credential) -> TokenFacts {
    TokenFacts {
        id: active.id.as_str().to_owned(),
        previous_id: previous(s, &s.live).map(|(id, _)| id),
        issued_at: active.issued_at,
        expires_at: s.intent.terms.end(),
        remote_id: active.remote.as_ref().and_then(|remote| remote.id.clone()),
    }
}

fn layout(s: &Situation<'_>) -> Option<Layout> {
    s.intent.layout.as_ref().ok().cloned()
}

/// Returns the ID and the place of the newest replaced token that is still valid, if the spec wants it in the Secret and a
/// Secret holds it.
fn previous(s: &Situation<'_>, live: &[Credential]) -> Option<(String, TokenSource)> {
    s.intent.layout.as_ref().ok().filter(|layout| layout.wants_previous())?;
    let newest = live
        .iter()
        .filter(|credential| credential.state == CredentialState::Grace)
        .max_by_key(|credential| credential.revision)?;
    Some((newest.id.to_string(), find_token(s, newest)?))
}

/// Returns where the plain token of a credential is.
fn find_token(s: &Situation<'_>, credential: &Credential) -> Option<TokenSource> {
    let here = s.ownership.ours().and_then(|secret| Some((secret, s.key_of(secret, credential)?)));
    let (secret, key) = here.or_else(|| s.former_with(credential))?;
    let target = SecretVersion::of(secret);
    Some(TokenSource::Secret { target, key: key.to_owned(), sha256: credential.sha256.clone() })
}

fn write(s: &Situation<'_>, content: SecretContent, live: &[Credential]) -> Box<SecretWrite> {
    let present = s.ownership.ours();
    let keys = |secret: &SecretView| secret.data.iter().map(|(key, _)| key.to_owned()).collect();
    let ledger = Ledger {
        revision: s.base.revision.unwrap_or_default(),
        first_issued_at: s.base.first_issued_at,
        default_expires_at: s.base.default_expires_at,
        live: live.iter().filter(|credential| credential.state != CredentialState::Pending).cloned().collect(),
    };
    Box::new(SecretWrite {
        name: s.secret_name.to_owned(),
        base: present.map(SecretVersion::of),
        content,
        ledger,
        existing_keys: present.map(keys).unwrap_or_default(),
        previously_owned: present
            .and_then(|secret| secret.record.as_ref())
            .map(|record| record.owned.clone())
            .unwrap_or_default(),
        set_owner: present.is_none_or(|secret| !secret.is_controlled_by(s.uid())),
        repairs: None,
    })
}
