//! What this dialect calls what the resource calls otherwise.

/// `spec.displayName`.
pub const NAME: &str = "name";
/// `spec.scopes`.
pub const SCOPE: &str = "scope";
/// `spec.accessTokenValidity`, in seconds.
pub const VALIDITY: &str = "accessTokenValiditySeconds";
/// `spec.expiry.at`.
pub const EXPIRATION_DATE: &str = "expirationDate";
/// Says that a token without an end is meant.
pub const NEVER_EXPIRES: &str = "userAwareTokenNeverExpires";

/// This dialect's name for a field of the resource; any other name is left as it is.
pub fn own(field: &str) -> String {
    const NAMES: [(&str, &str); 4] = [
        ("spec.displayName", NAME),
        ("spec.scopes", SCOPE),
        ("spec.accessTokenValidity", VALIDITY),
        ("spec.expiry", EXPIRATION_DATE),
    ];
    for (theirs, ours) in NAMES {
        if let Some(rest) = field.strip_prefix(theirs) {
            // `spec.scopes[3]` tells which, `spec.expiry.at` tells nothing more.
            return format!("{ours}{}", if rest.starts_with('[') { rest } else { "" });
        }
    }
    field.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_fields_as_the_client_wrote_them() {
        for (theirs, ours) in [
            ("spec.displayName", "name"),
            ("spec.scopes[3]", "scope[3]"),
            ("spec.scopes", "scope"),
            ("spec.expiry.at", "expirationDate"),
            ("spec.accessTokenValidity", "accessTokenValiditySeconds"),
            ("filters", "filters"),
            ("spec", "spec"),
        ] {
            assert_eq!(own(theirs), ours);
        }
    }
}
