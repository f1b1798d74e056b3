//! Minting of tokens.

use std::{error::Error, fmt};

use rand::{TryCryptoRng, rngs::SysRng};
use zeroize::Zeroizing;

use super::{
    ParseError, Presented, TokenHash, TokenId, TokenPrefix,
    base62::{self, WIDTH_256},
    presented::checksum,
};

/// A plain token, zeroized on drop. `Debug` prints only prefix and ID; [`expose`](Self::expose) is the
/// only way to the text. It cannot be cloned, compared or serialised: compare its
/// [`hash`](Self::hash) instead.
pub struct Token(Zeroizing<String>);

/// Why no token could be minted.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The random number generator failed.
    #[error("the random number generator failed")]
    Rng(#[source] Box<dyn Error + Send + Sync>),
    /// The output of the random number generator is not random.
    #[error("the random number generator is stuck")]
    StuckRng,
}

impl MintError {
    /// Returns the name of this error in metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Rng(_) => "RandomnessFailed",
            Self::StuckRng => "RandomnessStuck",
        }
    }
}

impl Token {
    /// Mints a token from the random number generator of the operating system.
    ///
    /// # Errors
    /// Returns an error if the generator fails.
    pub fn mint(prefix: &TokenPrefix) -> Result<Self, MintError> {
        Self::mint_with(&mut SysRng, prefix)
    }

    /// Mints a token from the given generator, for tests that need reproducible tokens.
    ///
    /// # Errors
    /// Returns an error if the generator fails or is stuck.
    pub fn mint_with<R>(rng: &mut R, prefix: &TokenPrefix) -> Result<Self, MintError>
    where
        R: TryCryptoRng<Error: Send + Sync + 'static> + ?Sized,
    {
        let failed = |error| MintError::Rng(Box::new(error));
        let id = TokenId::random(rng).map_err(failed)?.ok_or(MintError::StuckRng)?;
        let mut secret = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(secret.as_mut_slice()).map_err(failed)?;
        Ok(Self::from_parts(prefix, id, &secret))
    }

    /// Builds a token from its parts, for known-answer tests and fuzzing. The secret is a big-endian
    /// number.
    pub fn from_parts(prefix: &TokenPrefix, id: TokenId, secret: &[u8; 32]) -> Self {
        // Sized for the longest token: a string that grows would leave a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(Presented::MAX_LEN));
        text.push_str(prefix.as_str());
        text.push('_');
        text.push_str(id.as_str());
        let mut digits = Zeroizing::new([0; WIDTH_256]);
        base62::encode_256(secret, &mut digits);
        push(&mut text, digits.as_slice());
        let check = checksum(text.as_bytes());
        push(&mut text, &check);
        Self(text)
    }

    /// Copies text that is a well-formed token.
    ///
    /// # Errors
    /// Returns the same errors as [`Presented::parse`].
    pub fn parse(input: &(impl AsRef<[u8]> + ?Sized)) -> Result<Self, ParseError> {
        let text = Presented::parse(input)?.expose();
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// Returns the plain token, 64 to 77 ASCII characters. It belongs in the Secret and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the prefix, without the `_`.
    pub fn prefix(&self) -> &str {
        self.presented().prefix()
    }

    /// Returns the ID of the credential.
    pub fn id(&self) -> TokenId {
        self.presented().id()
    }

    /// Computes SHA-256 of the whole token.
    pub fn hash(&self) -> TokenHash {
        self.presented().hash()
    }

    fn presented(&self) -> Presented<'_> {
        Presented::trusted(&self.0)
    }
}

fn push(text: &mut String, digits: &[u8]) {
    text.extend(digits.iter().copied().map(char::from));
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.presented().fmt(f)
    }
}
