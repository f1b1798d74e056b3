//! One model of rights for all dialects: whose tokens, and to read or to manage them. Pure.
//!
//! They come from the scopes of the caller's token, in both spellings that the products use: `sp:my-personal-access-tokens:read`
//! and `idn:my-personal-access-tokens:read`. To manage includes to read.

/// Whose tokens a right is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// The caller's own.
    My,
    /// Those of anybody that are marked as managed.
    Managed,
    /// Everybody's.
    All,
}

/// What may be done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// See them.
    Read,
    /// Create, change and delete them; includes to see them.
    Manage,
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    my: Option<Deed>,
    managed: Option<Deed>,
    all: Option<Deed>,
}

/// The two spellings of the first part.
const SPELLINGS: [&str; 2] = ["sp:", "idn:"];

/// What these scopes are about.
const RESOURCE: &str = "-personal-access-tokens:";

impl Rights {
    /// The rights that these scopes give; all others are not about this API.
    pub fn of<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Self {
        scopes.into_iter().filter_map(read).fold(Self::default(), Self::with)
    }

    /// These rights and one more.
    #[must_use]
    pub fn with(mut self, (reach, deed): (Reach, Deed)) -> Self {
        let place = match reach {
            Reach::My => &mut self.my,
            Reach::Managed => &mut self.managed,
            Reach::All => &mut self.all,
        };
        *place = (*place).max(Some(deed));
        self
    }

    /// Whether exactly this is allowed. No reach stands for another: whoever accepts several asks for each.
    pub fn may(self, reach: Reach, deed: Deed) -> bool {
        let given = match reach {
            Reach::My => self.my,
            Reach::Managed => self.managed,
            Reach::All => self.all,
        };
        given.is_some_and(|given| given >= deed)
    }
}

fn read(scope: &str) -> Option<(Reach, Deed)> {
    let rest = SPELLINGS.iter().find_map(|spelling| scope.strip_prefix(spelling))?;
    let (reach, deed) = rest.split_once(RESOURCE)?;
    let reach = match reach {
        "my" => Reach::My,
        "managed" => Reach::Managed,
        "all" => Reach::All,
        _ => return None,
    };
    let deed = match deed {
        "read" => Deed::Read,
        "manage" => Deed::Manage,
        _ => return None,
    };
    Some((reach, deed))
}

/// Whether this product itself honours a scope, in this API or the verifier: a token that is made for somebody else's product does
/// not get it along.
pub fn is_own(scope: &str) -> bool {
    const INTROSPECT: &str = "introspect";
    scope == INTROSPECT || SPELLINGS.iter().any(|spelling| scope.starts_with(spelling) && scope.contains(RESOURCE))
}

/// The scope that gives a right, for messages.
pub fn scope(reach: Reach, deed: Deed) -> String {
    let reach = match reach {
        Reach::My => "my",
        Reach::Managed => "managed",
        Reach::All => "all",
    };
    let deed = match deed {
        Deed::Read => "read",
        Deed::Manage => "manage",
    };
    format!("{}{reach}{RESOURCE}{deed}", SPELLINGS[0])
}

/// What is needed for one's own tokens, where no owner can be named. Who may reach everybody's may reach his own.
pub fn own(deed: Deed) -> [(Reach, Deed); 2] {
    [(Reach::My, deed), (Reach::All, deed)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_manage_includes_to_read_and_no_reach_stands_for_another() {
        for spelling in SPELLINGS {
            let scope = format!("{spelling}all-personal-access-tokens:manage");
            let rights = Rights::of(["other", &scope]);
            assert!(rights.may(Reach::All, Deed::Read) && rights.may(Reach::All, Deed::Manage));
            assert!(!rights.may(Reach::My, Deed::Read) && !rights.may(Reach::Managed, Deed::Read));
        }
        let rights = Rights::of(["sp:my-personal-access-tokens:read", "idn:managed-personal-access-tokens:read"]);
        assert!(rights.may(Reach::My, Deed::Read) && rights.may(Reach::Managed, Deed::Read));
        assert!(!rights.may(Reach::My, Deed::Manage));
    }

    #[test]
    fn what_is_spelt_otherwise_gives_nothing() {
        for scope in [
            "my-personal-access-tokens:read",
            "sp:my-personal-access-tokens",
            "sp:my-personal-access-tokens:write",
            "SP:my-personal-access-tokens:read",
            "sp:mine-personal-access-tokens:read",
            "sp:my-personal-access-tokens:read:x",
        ] {
            assert_eq!(Rights::of([scope]), Rights::default(), "{scope}");
        }
    }

    #[test]
    fn the_scope_of_a_right_gives_it() {
        for reach in [Reach::My, Reach::Managed, Reach::All] {
            for deed in [Deed::Read, Deed::Manage] {
                assert!(Rights::of([&*scope(reach, deed)]).may(reach, deed));
            }
        }
    }
}
