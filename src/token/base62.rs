//! Fixed-width base62, most significant digit first.
//!
//! Crates for base62 encode with variable width, without zeroizing what they buffer; a token needs
//! both. There is no decoder: the digits are in ASCII order and the widths are fixed, so texts compare
//! like their numbers, and a checksum is checked by encoding the expected number.

use zeroize::Zeroizing;

/// The digits in ASCII order: exactly the ASCII letters and digits.
pub(super) const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Number of digits of a 32-byte number: the smallest w with 62^w >= 2^256.
pub(super) const WIDTH_256: usize = 43;

/// Number of digits of a 4-byte number: the smallest w with 62^w >= 2^32.
pub(super) const WIDTH_32: usize = 6;

/// 2^256 - 1, the largest number of 32 bytes.
pub(super) const MAX_256: &[u8; WIDTH_256] = b"yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1";

/// Reports whether all of `text` is base62.
pub(super) fn is_base62(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_alphanumeric)
}

/// Encodes a number in six digits.
pub(super) fn encode_32(mut number: u32) -> [u8; WIDTH_32] {
    let mut text = [0; WIDTH_32];
    for digit in text.iter_mut().rev() {
        *digit = ALPHABET[(number % 62) as usize];
        number /= 62;
    }
    text
}

/// Encodes a big-endian number in 43 digits, by long division. The caller zeroizes `text`; no other
/// copy remains.
pub(super) fn encode_256(number: &[u8; 32], text: &mut [u8; WIDTH_256]) {
    let mut limbs = Zeroizing::new([0u32; 8]);
    for (limb, bytes) in limbs.iter_mut().zip(number.as_chunks().0) {
        *limb = u32::from_be_bytes(*bytes);
    }
    for digit in text.iter_mut().rev() {
        let mut remainder = 0;
        for limb in limbs.iter_mut() {
            let dividend = remainder << 32 | u64::from(*limb);
            // The quotient is below 2^32, because the remainder is below 62.
            *limb = (dividend / 62) as u32;
            remainder = dividend % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
}

/// Number of byte values that map to each digit.
const BYTES_PER_DIGIT: u8 = 4;

/// Maps a random byte to a digit, or returns `None` for the 8 byte values that would bias the digits.
///
/// 256 = 4 × 62 + 8: four byte values per digit; the caller draws again for the rest.
pub(super) fn digit_from_random(byte: u8) -> Option<u8> {
    (byte < BYTES_PER_DIGIT * 62).then(|| ALPHABET[usize::from(byte % 62)])
}
