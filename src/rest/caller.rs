//! Who calls: whose token it is, and what it may do here.

use super::rights::{Deed, Reach, Rights};
use crate::{api::Owner, index::PatUid, rest::failure::Failure, rest::rights, token::TokenId};

/// Somebody whose credential is good at this moment.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose token it is.
    pub owner: Owner,
    /// The PAT that the credential belongs to.
    pub id: PatUid,
    /// The name of that PAT, as people see it.
    pub token_name: String,
    /// The credential.
    pub credential: TokenId,
    /// What the caller may do anywhere: the PAT's present scopes, cut to those of an access token where one was sent.
    pub scopes: Vec<String>,
    /// Who may accept the PAT's tokens. Whoever calls with a token for these alone gets none for others.
    pub audiences: Vec<String>,
    /// What these scopes allow here.
    pub rights: Rights,
}

impl Caller {
    /// Refuses unless one of these rights is there.
    ///
    /// # Errors
    /// `Forbidden`, with the scope that would do.
    pub fn needs_one_of(&self, rights: &[(Reach, Deed)]) -> Result<(), Failure> {
        if rights.iter().any(|(reach, deed)| self.rights.may(*reach, *deed)) {
            return Ok(());
        }
        let scopes: Vec<String> = rights.iter().map(|(reach, deed)| rights::scope(*reach, *deed)).collect();
        Err(Failure::Forbidden(format!("this needs a token with the scope {}", scopes.join(" or "))))
    }
}
