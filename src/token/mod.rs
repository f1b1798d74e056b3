//! The token: minting it, recognising it, naming it and hashing it.
//!
//! For everything that has to make or accept a token, so that its grammar is written once. Must not
//! know Kubernetes, a clock, or whether a token is still good: all of this is about text alone.
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
//! The checksum in the token is GitHub's practice: scanners and verifiers tell junk from a token
//! offline. It protects against accidents only; whoever wants to forge one can compute it.
//!
//! What is stored is [`TokenHash`], SHA-256 over the whole text. At 256 bits of secret a slow or
//! salted hash buys nothing, and comparing hashes needs no constant time: an attacker cannot choose
//! a text by its hash.
//!
//! Buffers that hold secret bytes are zeroized. What the compiler itself spills to stack and
//! registers is beyond us, as it is for every crate that makes this promise.

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
