//! Callers and their permissions: whose tokens they may read or manage.
//!
//! Permissions come from the scopes of the caller's token, in both spellings that the products use:
//! `sp:my-personal-access-tokens:read` and `idn:my-personal-access-tokens:read`. `manage` includes `read`, and `all` includes `my` and
//! `managed`.
//!
//! A caller gives a token nothing that the caller's own PAT does not have: no scope, no permission, no audience and no later end.

use super::{error::RestError, model::TokenItem};
use crate::{
    api::{Expiry, Owner, ParentToken, Permission, Time},
    index::PatUid,
    token::TokenId,
};

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct RestCaller {
    /// The owner of the token.
    pub owner: Owner,
    /// The PAT that the credential belongs to.
    pub id: PatUid,
    /// The name of that object.
    pub pat_name: String,
    /// The display name of that PAT.
    pub token_name: String,
    /// The credential.
    pub credential: TokenId,
    /// The caller's scopes: those of the PAT, narrowed to those of an access token if one was sent.
    pub scopes: Vec<String>,
    /// The audiences of the PAT. A caller cannot create tokens for other audiences.
    pub audiences: Vec<String>,
    /// The permissions that the scopes grant in this API.
    pub permissions: Permissions,
    /// `spec.permissions` of the PAT: permissions on resources of other products.
    pub resource_permissions: Vec<Permission>,
    /// When the PAT ends, across all rotations; `None` for never.
    pub ends_at: Option<Time>,
}

impl RestCaller {
    /// Rejects scopes that the caller lacks.
    pub fn check_scopes(&self, scopes: &[String]) -> Result<(), RestError> {
        match scopes.iter().find(|scope| !includes_scope(&self.scopes, scope)) {
            None => Ok(()),
            Some(lacking) => Err(RestError::Forbidden(format!("your token lacks the scope {lacking}"))),
        }
    }

    /// Rejects permissions that the caller lacks.
    pub fn check_resource_permissions(&self, permissions: &[Permission]) -> Result<(), RestError> {
        match permissions.iter().find(|one| !self.resource_permissions.contains(one)) {
            None => Ok(()),
            Some(Permission { resource_fqn, role_id, .. }) => {
                Err(RestError::Forbidden(format!("your token lacks the permission {role_id} on {resource_fqn}")))
            }
        }
    }

    /// Rejects a token with scopes, permissions or audiences that the caller lacks.
    pub fn check_rights(&self, item: &TokenItem) -> Result<(), RestError> {
        self.check_scopes(&item.scopes)?;
        self.check_resource_permissions(&item.permissions)?;
        if item.id == self.id || audiences_within(&item.audiences, &self.audiences) {
            return Ok(());
        }
        Err(RestError::Forbidden("your token lacks an audience of this token".into()))
    }

    /// Rejects a token with rights that the caller lacks, or that ends later than the caller's PAT.
    pub fn check_issued(&self, item: &TokenItem) -> Result<(), RestError> {
        self.check_rights(item)?;
        if self.end_before(item.expires_at()).is_some() {
            return Err(RestError::Forbidden("your token ends earlier since the request began".into()));
        }
        Ok(())
    }

    /// Returns the end of the caller's PAT if it is before this end, which is `None` for never.
    pub fn end_before(&self, end: Option<Time>) -> Option<Time> {
        self.ends_at.filter(|own| end.is_none_or(|end| end > *own))
    }

    /// Limits the expiry of a token that is issued at `now` to the end of the caller's PAT. Returns this end if it was later.
    pub fn limit_expiry(&self, expiry: &mut Expiry, now: Time) -> Option<Time> {
        let own = self.ends_at?;
        // Counted from now: the first issue, from which the resource counts, is a little later.
        let after = expiry.after.as_ref().and_then(|after| after.parse().ok()).map(|after| now.plus(after));
        let wanted = expiry.at.or(after);
        *expiry = Expiry { at: Some(wanted.map_or(own, |wanted| wanted.min(own))), ..Expiry::default() };
        self.end_before(wanted)
    }

    /// Returns the caller's PAT as the parent of another one.
    pub fn as_parent(&self) -> ParentToken {
        ParentToken { name: self.pat_name.clone(), uid: self.id.hyphenated() }
    }

    /// Rejects a caller that has none of these permissions. The error names the scopes that would suffice.
    pub fn require_one_of(&self, permissions: &[(TokenSet, Verb)]) -> Result<(), RestError> {
        if permissions.iter().any(|(set, verb)| self.permissions.allow(*set, *verb)) {
            return Ok(());
        }
        let scopes: Vec<String> = permissions.iter().map(|(set, verb)| scope(*set, *verb)).collect();
        Err(missing_scope(&scopes.join(" or ")))
    }
}

/// The error for a caller without this scope.
pub fn missing_scope(scope: &str) -> RestError {
    RestError::Forbidden(format!("this request requires a token with the scope {scope}"))
}

/// The tokens that a permission applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenSet {
    /// The caller's own tokens.
    My,
    /// Every owner's tokens that are marked as managed.
    Managed,
    /// Every owner's tokens.
    All,
}

/// What a permission allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// List and show.
    Read,
    /// Create, change and delete, and also list and show.
    Manage,
}

/// The permissions of a caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    my: Option<Verb>,
    managed: Option<Verb>,
    all: Option<Verb>,
}

/// The two spellings of a scope's prefix.
const PREFIXES: [&str; 2] = ["sp:", "idn:"];

/// The resource in a scope's name.
const RESOURCE: &str = "-personal-access-tokens:";

impl Permissions {
    /// Returns the permissions that these scopes grant. Other scopes grant nothing in this API.
    pub fn of<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Self {
        scopes.into_iter().filter_map(parse).fold(Self::default(), Self::with)
    }

    /// Adds a permission.
    #[must_use]
    pub fn with(mut self, (set, verb): (TokenSet, Verb)) -> Self {
        let granted = match set {
            TokenSet::My => &mut self.my,
            TokenSet::Managed => &mut self.managed,
            TokenSet::All => &mut self.all,
        };
        *granted = (*granted).max(Some(verb));
        self
    }

    /// Whether this permission is granted. `all` includes the other sets.
    pub fn allow(self, set: TokenSet, verb: Verb) -> bool {
        let granted = match set {
            TokenSet::My => self.my.max(self.all),
            TokenSet::Managed => self.managed.max(self.all),
            TokenSet::All => self.all,
        };
        granted.is_some_and(|granted| granted >= verb)
    }
}

/// Whether these scopes include another: literally, or as a part of a permission in this API.
pub fn includes_scope<S: AsRef<str>>(scopes: impl IntoIterator<Item = S> + Clone, wanted: &str) -> bool {
    if scopes.clone().into_iter().any(|scope| scope.as_ref() == wanted) {
        return true;
    }
    // Other services may know only one of the two spellings, so one does not include the other.
    let Some((prefix, (set, verb))) = parse_with_prefix(wanted) else { return false };
    let same_spelling = scopes.into_iter().filter_map(|scope| parse_with_prefix(scope.as_ref()));
    let granted = same_spelling.filter(|(of, _)| *of == prefix).map(|(_, permission)| permission);
    granted.fold(Permissions::default(), Permissions::with).allow(set, verb)
}

fn parse(scope: &str) -> Option<(TokenSet, Verb)> {
    parse_with_prefix(scope).map(|(_, permission)| permission)
}

fn parse_with_prefix(scope: &str) -> Option<(&'static str, (TokenSet, Verb))> {
    let (prefix, rest) = PREFIXES.into_iter().find_map(|prefix| Some((prefix, scope.strip_prefix(prefix)?)))?;
    let (set, verb) = rest.split_once(RESOURCE)?;
    let set = match set {
        "my" => TokenSet::My,
        "managed" => TokenSet::Managed,
        "all" => TokenSet::All,
        _ => return None,
    };
    let verb = match verb {
        "read" => Verb::Read,
        "manage" => Verb::Manage,
        _ => return None,
    };
    Some((prefix, (set, verb)))
}

/// Whether a caller with audiences `these` gains nothing from a token with `those`. A token without audiences is for verifiers that
/// require none, so it is neither more nor less than one with audiences.
fn audiences_within(those: &[String], these: &[String]) -> bool {
    those.is_empty() == these.is_empty() && those.iter().all(|one| these.contains(one))
}

/// Whether this API or the verifier honours a scope. Tokens for another product must not inherit it.
pub fn is_own_scope(scope: &str) -> bool {
    const INTROSPECT: &str = "introspect";
    scope == INTROSPECT || PREFIXES.iter().any(|prefix| scope.starts_with(prefix) && scope.contains(RESOURCE))
}

/// Returns the scope that grants a permission.
pub fn scope(set: TokenSet, verb: Verb) -> String {
    let set = match set {
        TokenSet::My => "my",
        TokenSet::Managed => "managed",
        TokenSet::All => "all",
    };
    let verb = match verb {
        Verb::Read => "read",
        Verb::Manage => "manage",
    };
    format!("{}{set}{RESOURCE}{verb}", PREFIXES[0])
}

/// The permissions of which one is required for the caller's own tokens, where a request names no owner. The error names both.
pub fn on_own_tokens(verb: Verb) -> [(TokenSet, Verb); 2] {
    [(TokenSet::My, verb), (TokenSet::All, verb)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(scopes: &[&str], ends_at: Option<&str>) -> RestCaller {
        RestCaller {
            owner: Owner { kind: crate::api::OwnerKind::User, name: "ada".into() },
            id: 7.into(),
            pat_name: "laptop".into(),
            token_name: "Laptop".into(),
            credential: "000000000001".parse().unwrap(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            audiences: Vec::new(),
            permissions: Permissions::of(scopes.iter().copied()),
            resource_permissions: Vec::new(),
            ends_at: ends_at.map(|end| end.parse().unwrap()),
        }
    }

    #[test]
    fn manage_includes_read_and_all_includes_the_other_sets() {
        for prefix in PREFIXES {
            let scope = format!("{prefix}all-personal-access-tokens:manage");
            let granted = Permissions::of(["other", &scope]);
            for set in [TokenSet::My, TokenSet::Managed, TokenSet::All] {
                assert!(granted.allow(set, Verb::Read) && granted.allow(set, Verb::Manage), "{prefix} {set:?}");
            }
            let granted = Permissions::of([&*format!("{prefix}managed-personal-access-tokens:manage")]);
            assert!(!granted.allow(TokenSet::My, Verb::Read) && !granted.allow(TokenSet::All, Verb::Read));
        }
        let granted = Permissions::of(["sp:my-personal-access-tokens:read", "idn:managed-personal-access-tokens:read"]);
        assert!(granted.allow(TokenSet::My, Verb::Read) && granted.allow(TokenSet::Managed, Verb::Read));
        assert!(!granted.allow(TokenSet::My, Verb::Manage));
    }

    #[test]
    fn misspelt_scopes_grant_nothing() {
        for scope in [
            "my-personal-access-tokens:read",
            "sp:my-personal-access-tokens",
            "sp:my-personal-access-tokens:write",
            "SP:my-personal-access-tokens:read",
            "sp:mine-personal-access-tokens:read",
            "sp:my-personal-access-tokens:read:x",
        ] {
            assert_eq!(Permissions::of([scope]), Permissions::default(), "{scope}");
        }
    }

    #[test]
    fn scope_can_be_handed_out_by_a_scope_that_includes_it() {
        const MY: &str = "my-personal-access-tokens";
        for (own, wanted, included) in [
            ("repo:read".to_owned(), "repo:read".to_owned(), true),
            ("repo:manage".to_owned(), "repo:read".to_owned(), false),
            (format!("sp:{MY}:manage"), format!("sp:{MY}:read"), true),
            (format!("idn:{MY}:manage"), format!("idn:{MY}:read"), true),
            (format!("sp:{MY}:manage"), format!("idn:{MY}:read"), false),
            (format!("sp:{MY}:read"), format!("sp:{MY}:manage"), false),
            ("sp:all-personal-access-tokens:read".to_owned(), format!("sp:{MY}:read"), true),
            ("sp:all-personal-access-tokens:read".to_owned(), format!("sp:{MY}:manage"), false),
            (
                "sp:all-personal-access-tokens:manage".to_owned(),
                "sp:managed-personal-access-tokens:read".to_owned(),
                true,
            ),
            (format!("sp:{MY}:manage"), "sp:all-personal-access-tokens:read".to_owned(), false),
            ("sp:managed-personal-access-tokens:manage".to_owned(), format!("sp:{MY}:read"), false),
            (format!("sp:{MY}:manage"), format!("sp:{MY}:read:x"), false),
            (format!("sp:{MY}:manage"), "introspect".to_owned(), false),
        ] {
            let checked = caller(&[&own], None).check_scopes(std::slice::from_ref(&wanted));
            assert_eq!(checked.is_ok(), included, "{own} {wanted}");
        }
    }

    #[test]
    fn expiry_is_limited_to_the_end_of_the_callers_pat() {
        const NOW: &str = "2026-06-01T12:00:00Z";
        let at = |text: &str| Expiry { at: Some(text.parse().unwrap()), ..Expiry::default() };
        let after = |text: &str| Expiry { after: Some(text.into()), ..Expiry::default() };
        let never = || Expiry { never: Some(true), ..Expiry::default() };
        let end = "2026-06-01T13:00:00Z";
        for (wanted, limited, result) in [
            (at("2026-06-01T12:59:59Z"), false, at("2026-06-01T12:59:59Z")),
            (at(end), false, at(end)),
            (at("2026-06-01T13:00:00.000001Z"), true, at(end)),
            (after("1h"), false, at(end)),
            (after("2h"), true, at(end)),
            (never(), true, at(end)),
            (Expiry::default(), true, at(end)),
        ] {
            let mut expiry = wanted.clone();
            let limited_to = caller(&[], Some(end)).limit_expiry(&mut expiry, NOW.parse().unwrap());
            assert_eq!(limited_to, limited.then(|| end.parse().unwrap()), "{wanted:?}");
            assert_eq!(expiry, result, "{wanted:?}");
            let mut expiry = wanted.clone();
            assert_eq!(caller(&[], None).limit_expiry(&mut expiry, NOW.parse().unwrap()), None);
            assert_eq!(expiry, wanted, "a token that never ends limits nothing");
        }
    }

    #[test]
    fn no_audience_is_gained_and_none_at_all_is_an_audience_of_its_own() {
        for (those, these, within) in [
            (&[][..], &[][..], true),
            (&["a"], &["a", "b"], true),
            (&["a", "b"], &["a"], false),
            (&["a"], &[], false),
            (&[], &["a"], false),
        ] {
            let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
            assert_eq!(audiences_within(&owned(those), &owned(these)), within, "{those:?} {these:?}");
        }
    }

    #[test]
    fn scope_of_a_permission_grants_it() {
        for set in [TokenSet::My, TokenSet::Managed, TokenSet::All] {
            for verb in [Verb::Read, Verb::Manage] {
                assert!(Permissions::of([&*scope(set, verb)]).allow(set, verb));
            }
        }
    }
}
