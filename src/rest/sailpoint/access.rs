//! Who may see and change which tokens, by the rights my / managed / all. Pure.
//!
//! A token that the caller may not know of is the same `NotFound` as one that is not there.

use crate::{
    api::Owner,
    rest::{
        caller::Caller,
        failure::Failure,
        item::Item,
        query::Whose,
        rights::{Deed, Reach, scope},
    },
};

/// Whose tokens a list asks for: the parameter `owner-id`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OwnerId {
    /// It is not there, or empty.
    #[default]
    Everybody,
    /// `me`.
    Me,
    /// An owner's id.
    Id(String),
}

/// Whose tokens the answer has; `None` for nobody's, because there is no such owner.
///
/// # Errors
/// `Forbidden`.
pub fn whose(
    caller: &Caller,
    asked: &OwnerId,
    known: impl FnOnce(&str) -> Option<Owner>,
) -> Result<Option<Whose>, Failure> {
    let may_read = |reach| caller.rights.may(reach, Deed::Read);
    let (all, owner) = match asked {
        OwnerId::Everybody => {
            // Managed tokens are shown by owner only.
            caller.needs_one_of(&[(Reach::All, Deed::Read)])?;
            return Ok(Some(Whose::All));
        }
        OwnerId::Me => (Reach::My, Some(caller.owner.clone())),
        OwnerId::Id(id) => (Reach::All, known(id)),
    };
    caller.needs_one_of(&[(all, Deed::Read), (Reach::Managed, Deed::Read)])?;
    Ok(owner.map(if may_read(all) { Whose::Owner } else { Whose::Managed }))
}

/// Whether the caller may create a token, which will be its own.
///
/// # Errors
/// `Forbidden`.
pub fn may_create(caller: &Caller) -> Result<(), Failure> {
    caller.needs_one_of(&[(Reach::My, Deed::Manage), (Reach::All, Deed::Manage)])
}

/// Whether the caller may change or delete any token at all: asked before anything is looked up.
///
/// # Errors
/// `Forbidden`.
pub fn may_manage_some(caller: &Caller) -> Result<(), Failure> {
    caller.needs_one_of(&[(Reach::My, Deed::Manage), (Reach::Managed, Deed::Manage), (Reach::All, Deed::Manage)])
}

/// Whether the caller may change and delete this token.
///
/// # Errors
/// `NotFound` if the caller may not know of it, else `Forbidden`.
pub fn may_manage(caller: &Caller, item: &Item) -> Result<(), Failure> {
    let reaches = |deed| {
        caller.rights.may(Reach::All, deed)
            || caller.rights.may(Reach::My, deed) && caller.owner == item.owner
            || caller.rights.may(Reach::Managed, deed) && item.managed
    };
    if reaches(Deed::Manage) {
        return Ok(());
    }
    if !reaches(Deed::Read) {
        return Err(Failure::NotFound);
    }
    let scope = scope(if caller.owner == item.owner { Reach::My } else { Reach::All }, Deed::Manage);
    Err(Failure::Forbidden(format!("this needs a token with the scope {scope}")))
}

/// Whether the caller may change many tokens at once, whoever they belong to.
///
/// # Errors
/// `Forbidden`.
pub fn may_manage_all(caller: &Caller) -> Result<(), Failure> {
    caller.needs_one_of(&[(Reach::All, Deed::Manage)])
}
