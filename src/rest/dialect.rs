//! The dialects, their base paths, and which of them a path belongs to.

/// The base path of SailPoint's dialect.
pub const SAILPOINT: &str = "/sailpoint";

/// The base path of Cryptlex's dialect.
pub const CRYPTLEX: &str = "/cryptlex";

/// The base path of TrueFoundry's dialect. Its clients ignore the path of the URL that they are given.
pub const TRUEFOUNDRY: &str = "/api/svc";

/// The path of the OAuth token endpoint, at the root and below [`SAILPOINT`].
pub const OAUTH_TOKEN: &str = "/oauth/token";

/// The part of the API that a path belongs to, as metrics and log name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// SailPoint's personal access tokens.
    Sailpoint,
    /// TrueFoundry's personal access tokens and virtual accounts.
    Truefoundry,
    /// Cryptlex's personal access tokens.
    Cryptlex,
    /// The OAuth token endpoint.
    Oauth,
    /// Everything else.
    Other,
}

impl Dialect {
    /// All dialects.
    pub const ALL: [Self; 5] = [Self::Sailpoint, Self::Truefoundry, Self::Cryptlex, Self::Oauth, Self::Other];

    /// Returns the name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sailpoint => "sailpoint",
            Self::Truefoundry => "truefoundry",
            Self::Cryptlex => "cryptlex",
            Self::Oauth => "oauth",
            Self::Other => "other",
        }
    }

    /// Returns the dialect of a path.
    pub fn of(path: &str) -> Self {
        let under = |mount: &str| path.strip_prefix(mount).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if path.ends_with(OAUTH_TOKEN) {
            Self::Oauth
        } else if under(SAILPOINT) {
            Self::Sailpoint
        } else if under(TRUEFOUNDRY) {
            Self::Truefoundry
        } else if under(CRYPTLEX) {
            Self::Cryptlex
        } else {
            Self::Other
        }
    }
}
