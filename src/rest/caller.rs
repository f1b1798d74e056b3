//! Callers and their permissions: whose tokens they may read or manage.
//!
//! Permissions come from the scopes of the caller's token, in both spellings that the products use:
//! `sp:my-personal-access-tokens:read` and `idn:my-personal-access-tokens:read`. `manage` includes `read`.

use super::error::RestError;
use crate::{api::Owner, index::PatUid, token::TokenId};

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct RestCaller {
    /// The owner of the token.
    pub owner: Owner,
    /// The PAT that the credential belongs to.
    pub id: PatUid,
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
}

impl RestCaller {
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

    /// Whether this permission is granted. No set includes another.
    pub fn allow(self, set: TokenSet, verb: Verb) -> bool {
        let granted = match set {
            TokenSet::My => self.my,
            TokenSet::Managed => self.managed,
            TokenSet::All => self.all,
        };
        granted.is_some_and(|granted| granted >= verb)
    }
}

fn parse(scope: &str) -> Option<(TokenSet, Verb)> {
    let rest = PREFIXES.iter().find_map(|prefix| scope.strip_prefix(prefix))?;
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
    Some((set, verb))
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

/// The permissions of which one is required for the caller's own tokens, where a request names no owner.
pub fn on_own_tokens(verb: Verb) -> [(TokenSet, Verb); 2] {
    [(TokenSet::My, verb), (TokenSet::All, verb)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manage_includes_read_and_no_set_includes_another() {
        for prefix in PREFIXES {
            let scope = format!("{prefix}all-personal-access-tokens:manage");
            let granted = Permissions::of(["other", &scope]);
            assert!(granted.allow(TokenSet::All, Verb::Read) && granted.allow(TokenSet::All, Verb::Manage));
            assert!(!granted.allow(TokenSet::My, Verb::Read) && !granted.allow(TokenSet::Managed, Verb::Read));
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
    fn scope_of_a_permission_grants_it() {
        for set in [TokenSet::My, TokenSet::Managed, TokenSet::All] {
            for verb in [Verb::Read, Verb::Manage] {
                assert!(Permissions::of([&*scope(set, verb)]).allow(set, verb));
            }
        }
    }
}
