//! Fixed-width base62, most significant digit first.
//!
//! For the id, the secret and the checksum of a token. Must not know where in a token a number
//! stands.
//!
//! There is no decoder: the digits are in ASCII order and the widths fixed, so text compares as the
//! numbers do, and a number is checked by encoding what it ought to be.

use zeroize::Zeroizing;

/// The digits, in ASCII order; just the ASCII letters and digits.
pub(super) const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Digits of a 32-byte number: the least w with 62^w >= 2^256.
pub(super) const WIDTH_256: usize = 43;

/// Digits of a 4-byte number: the least w with 62^w >= 2^32.
pub(super) const WIDTH_32: usize = 6;

/// 2^256 - 1: the greatest text that stands for 32 bytes.
pub(super) const MAX_256: &[u8; WIDTH_256] = b"yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1";

/// Whether all of `text` is base62.
pub(super) fn is_base62(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_alphanumeric)
}

/// A number in six digits.
pub(super) fn encode_32(mut number: u32) -> [u8; WIDTH_32] {
    let mut text = [0; WIDTH_32];
    for digit in text.iter_mut().rev() {
        *digit = ALPHABET[(number % 62) as usize];
        number /= 62;
    }
    text
}

/// Writes a big-endian number as 43 digits, by long division. The caller zeroizes `text`; nothing
/// else is left behind.
pub(super) fn encode_256(number: &[u8; 32], text: &mut [u8; WIDTH_256]) {
    let mut limbs = Zeroizing::new([0u32; 8]);
    for (limb, bytes) in limbs.iter_mut().zip(number.as_chunks().0) {
        *limb = u32::from_be_bytes(*bytes);
    }
    for digit in text.iter_mut().rev() {
        let mut remainder = 0;
        for limb in limbs.iter_mut() {
            let dividend = remainder << 32 | u64::from(*limb);
            // Fits: the remainder is below 62, so the quotient is below 2^32.
            *limb = (dividend / 62) as u32;
            remainder = dividend % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
}

/// Values of a random byte that stand for one digit.
const BYTES_PER_DIGIT: u8 = 4;

/// The digit that a random byte stands for, or none for the 8 bytes that would favour some digits
/// over others.
///
/// 256 = 4 × 62 + 8: four bytes for each digit, the rest is drawn again.
pub(super) fn digit_from_random(byte: u8) -> Option<u8> {
    (byte < BYTES_PER_DIGIT * 62).then(|| ALPHABET[usize::from(byte % 62)])
}
