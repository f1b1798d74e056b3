//! The token format: mint, parse, checksum and hash.
//!
//! This module is about text only. Whether a token is valid is decided in [`crate::auth`].
//!
//! ```text
//! token  = prefix "_" id secret check
//! prefix = [a-z][a-z0-9]{1,14}
//! id     = 12 base62    public: names the credential wherever it is shown; authenticates nothing
//! secret = 43 base62    32 bytes, big-endian, fixed width; values of 2^256 and above are refused
//! check  = 6 base62     CRC-32 of everything before it, zero-padded
//! base62 = 0-9A-Za-z    in ASCII order, most significant digit first
//! ```
//!
//! The checksum follows GitHub's practice: scanners and verifiers recognize tokens offline. It detects accidents only;
//! an attacker can compute it.
//!
//! The operator stores [`TokenHash`], SHA-256 of the whole text. With a secret of 256 random bits the
//! hash cannot be reversed, so a slow or salted hash adds nothing. Comparing hashes needs no constant
//! time, because an attacker cannot choose a text by its hash.
//!
//! Buffers that hold secret bytes are zeroized. This does not cover copies that the compiler makes on
//! the stack and in registers.

mod base62;
mod hash;
mod id;
mod mint;
mod prefix;
mod presented;
#[cfg(test)]
mod tests;

pub use hash::{InvalidHash, TokenHash};
pub use id::{InvalidId, TokenId};
pub use mint::{MintError, Token};
pub use prefix::{InvalidPrefix, TokenPrefix};
pub use presented::{ParseError, Presented};
