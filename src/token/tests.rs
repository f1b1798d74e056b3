//! Tests of the token grammar against accidents and forgery.

use std::{collections::HashMap, convert::Infallible, io};

use proptest::{collection::vec, prelude::*};
use rand::{SeedableRng, TryCryptoRng, TryRng, rngs::ChaCha8Rng};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    base62::{self, ALPHABET, WIDTH_256},
    presented::checksum,
    *,
};

// ---- helpers

/// A generator that repeats these bytes.
struct Scripted(Vec<u8>, usize);

impl Scripted {
    fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into(), 0)
    }
}

impl TryRng for Scripted {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("minting takes bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("minting takes bytes")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for byte in out {
            *byte = self.0[self.1 % self.0.len()];
            self.1 += 1;
        }
        Ok(())
    }
}

impl TryCryptoRng for Scripted {}

/// A generator that fails after this number of calls.
struct Failing(usize);

impl TryRng for Failing {
    type Error = io::Error;

    fn try_next_u32(&mut self) -> io::Result<u32> {
        unreachable!("minting takes bytes")
    }

    fn try_next_u64(&mut self) -> io::Result<u64> {
        unreachable!("minting takes bytes")
    }

    fn try_fill_bytes(&mut self, _: &mut [u8]) -> io::Result<()> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("no entropy"))?;
        Ok(())
    }
}

impl TryCryptoRng for Failing {}

fn minted(seed: u64, prefix: &TokenPrefix) -> Token {
    Token::mint_with(&mut ChaCha8Rng::seed_from_u64(seed), prefix).unwrap()
}

fn refusal(input: &(impl AsRef<[u8]> + ?Sized)) -> Option<ParseError> {
    Presented::parse(input).err()
}

/// Appends the right checksum.
fn sealed(signed: impl AsRef<[u8]>) -> Vec<u8> {
    [signed.as_ref(), &checksum(signed.as_ref())].concat()
}

fn encoded(secret: &[u8; 32]) -> String {
    let mut text = [0; WIDTH_256];
    base62::encode_256(secret, &mut text);
    String::from_utf8(text.into()).unwrap()
}

/// Decodes base62 into 33 bytes, so that numbers above the maximum decode too.
fn decoded(text: &str) -> [u8; 33] {
    let mut number = [0; 33];
    for digit in text.bytes() {
        let mut carry = ALPHABET.iter().position(|&d| d == digit).unwrap();
        for byte in number.iter_mut().rev() {
            carry += usize::from(*byte) * 62;
            *byte = carry as u8;
            carry >>= 8;
        }
        assert_eq!(carry, 0);
    }
    number
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

fn prefixes() -> impl Strategy<Value = TokenPrefix> {
    "[a-z][a-z0-9]{1,14}".prop_map(|text| text.parse().unwrap())
}

fn ids() -> impl Strategy<Value = TokenId> {
    "[0-9A-Za-z]{12}".prop_map(|text| text.parse().unwrap())
}

// ---- known answers

fn vectors(list: &str) -> Vec<HashMap<String, String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/token-vectors.json");
    let mut file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    serde_json::from_value(file[list].take()).unwrap()
}

#[test]
fn tokens_match_another_implementation() {
    let list = vectors("valid");
    assert!(list.len() >= 10);
    for vector in list {
        let prefix: TokenPrefix = vector["prefix"].parse().unwrap();
        let id: TokenId = vector["id"].parse().unwrap();
        let secret = unhex(&vector["secret_hex"]).try_into().unwrap();

        let token = Token::from_parts(&prefix, id, &secret);
        assert_eq!(token.expose(), vector["token"]);
        assert_eq!(token.hash(), vector["sha256"].parse().unwrap());

        let presented = Presented::parse(&vector["token"]).unwrap();
        assert_eq!(presented.prefix(), prefix.as_str());
        assert_eq!(presented.id(), id);
        assert_eq!(presented.hash().to_string(), vector["sha256"]);
    }
}

#[test]
fn invalid_vectors_are_refused_for_the_expected_reason() {
    let list = vectors("invalid");
    assert!(list.len() >= 40);
    for vector in list {
        let (rule, _) = vector["why"].split_once(':').unwrap();
        let got = refusal(&vector["token"]).map(|e| format!("{e:?}").to_lowercase());
        assert_eq!(got.as_deref(), Some(rule), "{vector:?}");
    }
}

#[test]
fn the_checksum_is_crc_32_of_ieee_802_3() {
    // The check value of CRC-32/ISO-HDLC.
    assert_eq!(checksum(b"123456789"), base62::encode_32(0xcbf4_3926));
}

// ---- base62

#[test]
fn the_alphabet_is_in_ascii_order() {
    assert!(ALPHABET.is_sorted());
    let all = (0..=u8::MAX).filter(|&byte| base62::is_base62(&[byte]));
    assert_eq!(all.collect::<Vec<_>>(), ALPHABET);
}

#[test]
fn the_largest_secret_is_two_to_the_256_minus_one() {
    assert_eq!(encoded(&[0xff; 32]).as_bytes(), base62::MAX_256);
}

#[test]
fn checksums_are_zero_padded() {
    let cases = [(0, "000000"), (61, "00000z"), (62, "000010"), (u32::MAX, "4gfFC3")];
    for (number, text) in cases {
        assert_eq!(base62::encode_32(number), text.as_bytes(), "{number}");
    }
}

#[test]
fn every_digit_has_exactly_four_byte_values() {
    let mut made = HashMap::new();
    for byte in 0..=u8::MAX {
        match base62::digit_from_random(byte) {
            Some(digit) => *made.entry(digit).or_insert(0) += 1,
            None => assert!(byte >= 248),
        }
    }
    assert_eq!(made, ALPHABET.iter().map(|&digit| (digit, 4)).collect());
}

proptest! {
    #[test]
    fn secrets_are_encoded_as_big_endian_numbers(secret: [u8; 32]) {
        prop_assert_eq!(decoded(&encoded(&secret)).to_vec(), [&[0], &secret[..]].concat());
    }
}

// ---- minting

#[test]
fn ids_and_secrets_come_from_the_generator() {
    // Bytes from 248 are skipped and 12 digits are taken; the rest of the two draws of 16 is dropped.
    let id = [255, 0, 61, 62, 247, 10, 248, 35, 36, 1, 2, 3, 255, 254, 253, 252];
    let more = [4, 5, 251, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
    let secret: Vec<u8> = (1..=32).collect();
    let mut rng = Scripted::new([&id[..], &more, &secret].concat());

    let token = Token::mint_with(&mut rng, &TokenPrefix::default()).unwrap();
    assert_eq!(token.id().as_str(), "0z0zAZa12345");
    let secret = secret.try_into().unwrap();
    assert_eq!(token.expose()[17..60], encoded(&secret));
}

#[test]
fn minted_tokens_differ() {
    let prefix = TokenPrefix::default();
    let [a, b] = [Token::mint(&prefix).unwrap(), Token::mint(&prefix).unwrap()];
    assert_ne!(a.id(), b.id());
    assert_ne!(a.expose()[17..60], b.expose()[17..60]);
    assert_ne!(a.hash(), b.hash());
    assert!(a.expose().starts_with("kpat_"));
}

#[test]
fn a_failing_generator_is_an_error() {
    // The first call draws the ID, for which zeros suffice; the second draws the secret.
    for works in [0, 1] {
        let error = Token::mint_with(&mut Failing(works), &TokenPrefix::default()).unwrap_err();
        assert!(matches!(error, MintError::Rng(_)));
        assert_eq!(error.category(), "RandomnessFailed");
    }
    assert!(Token::mint_with(&mut Failing(2), &TokenPrefix::default()).is_ok());
}

#[test]
fn a_stuck_generator_is_an_error() {
    let error = Token::mint_with(&mut Scripted::new([255]), &TokenPrefix::default()).unwrap_err();
    assert!(matches!(error, MintError::StuckRng));
}

/// Chi-squared of 62 counts against a uniform distribution.
fn chi_squared(counts: &[u32; 62]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / 62.0;
    counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum()
}

#[test]
fn digits_of_ids_and_low_digits_of_secrets_are_uniform() {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let prefix = TokenPrefix::default();
    // The first digits of a secret are biased, because 2^256 is not a power of 62. From the fourth digit
    // on, the bias is far below the noise.
    let positions: Vec<_> = (5..17).chain(20..60).collect();
    let mut counts = vec![[0; 62]; positions.len()];
    for _ in 0..62 * 400 {
        let token = Token::mint_with(&mut rng, &prefix).unwrap();
        for (count, &at) in counts.iter_mut().zip(&positions) {
            count[ALPHABET.binary_search(&token.expose().as_bytes()[at]).unwrap()] += 1;
        }
    }
    for (count, at) in counts.iter().zip(positions) {
        // 61 degrees of freedom: the mean is 61, and the probability of more than 120 is 1 in 100,000.
        // `byte % 62` without rejection would give about 225 in the ID.
        let chi = chi_squared(count);
        assert!(chi < 120.0, "position {at}: {chi}");
    }
}

// ---- parsing

proptest! {
    #[test]
    fn a_token_round_trips(prefix in prefixes(), id in ids(), secret: [u8; 32]) {
        let token = Token::from_parts(&prefix, id, &secret);
        let text = token.expose();
        let check = &text[text.len() - 6..];
        prop_assert_eq!(text, format!("{prefix}_{id}{}{check}", encoded(&secret)));

        for copy in [Token::parse(text).unwrap(), Token::parse(text.as_bytes()).unwrap()] {
            prop_assert_eq!(copy.expose(), text);
            prop_assert_eq!(copy.prefix(), prefix.as_str());
            prop_assert_eq!(copy.id(), id);
            prop_assert_eq!(copy.hash(), token.hash());
            prop_assert_eq!(copy.hash(), <[u8; 32]>::from(Sha256::digest(text)).into());
        }
    }

    #[test]
    fn random_bytes_are_refused_without_a_panic(input in vec(any::<u8>(), 0..100)) {
        prop_assert!(refusal(&input).is_some());
    }

    #[test]
    fn random_text_is_refused_without_a_panic(input in "\\PC{0,90}") {
        prop_assert!(refusal(&input).is_some());
    }

    #[test]
    fn near_tokens_are_refused_without_a_panic(
        input in "[a-z_]{0,3}[a-z0-9_é]{0,14}_[0-9A-Za-z_é-]{52,64}",
    ) {
        prop_assert!(refusal(&input).is_some());
    }

    #[test]
    fn text_with_a_valid_checksum_must_still_match_the_grammar(
        signed in "[a-z0-9_]{1,16}_[0-9A-Za-z]{54,56}",
    ) {
        if let Ok(presented) = Presented::parse(&sealed(&signed)) {
            let (prefix, body) = signed.split_once('_').unwrap();
            prop_assert_eq!(presented.prefix(), prefix);
            prop_assert_eq!(presented.id().to_string(), &body[..12]);
            prop_assert_eq!(decoded(&body[12..])[0], 0);
        }
    }
}

/// Tokens with the shortest, default and longest prefix, and with the smallest and largest secret.
fn specimens() -> Vec<Token> {
    let longest: TokenPrefix = "a23456789012345".parse().unwrap();
    let kpat = TokenPrefix::default();
    let id = "AccidentProo".parse().unwrap();
    vec![
        minted(1, &"zz".parse().unwrap()),
        minted(2, &kpat),
        minted(3, &longest),
        Token::from_parts(&kpat, id, &[0; 32]),
        Token::from_parts(&kpat, id, &[0xff; 32]),
    ]
}

#[test]
fn every_single_byte_change_is_refused() {
    for token in specimens() {
        let mut text = token.expose().as_bytes().to_vec();
        for at in 0..text.len() {
            let original = text[at];
            for other in (0..=u8::MAX).filter(|&byte| byte != original) {
                text[at] = other;
                assert!(refusal(&text).is_some(), "{token:?} with {other} at {at}");
            }
            text[at] = original;
        }
        assert_eq!(refusal(&text), None);
    }
}

#[test]
fn every_swap_of_adjacent_characters_is_refused() {
    for token in specimens() {
        let text = token.expose().as_bytes();
        for at in 1..text.len() {
            let mut swapped = text.to_vec();
            swapped.swap(at - 1, at);
            assert!(swapped == text || refusal(&swapped).is_some(), "{token:?} at {at}");
        }
    }
}

#[test]
fn missing_and_additional_characters_are_refused() {
    for token in specimens() {
        let text = token.expose();
        for at in 0..text.len() {
            assert!(refusal(&text[..at]).is_some(), "{token:?} cut off at {at}");
            assert!(at == 0 || refusal(&text[at..]).is_some(), "{token:?} without the first {at}");

            let without = [&text[..at], &text[at + 1..]].concat();
            assert!(refusal(&without).is_some(), "{token:?} without {at}");
        }
        for at in 0..=text.len() {
            for more in [" ", "\n", "\0", "_", "é", "0", "A", "z", "00000000"] {
                let extended = [&text[..at], more, &text[at..]].concat();
                assert!(refusal(&extended).is_some(), "{token:?} with {more:?} at {at}");
            }
        }
        assert!(refusal(&[text, text].concat()).is_some());
    }
}

#[test]
fn a_secret_of_two_to_the_256_or_more_is_refused() {
    let with = |secret: &str| refusal(&sealed(format!("kpat_NonCanonical{secret}")));
    let greatest = str::from_utf8(base62::MAX_256).unwrap();
    assert_eq!(with(greatest), None);
    assert_eq!(decoded(greatest)[0], 0);

    // The smallest number above the maximum ends in …p2. Then increase each other digit by one, followed
    // by zeros.
    for at in 0..WIDTH_256 {
        let digit = ALPHABET.binary_search(&greatest.as_bytes()[at]).unwrap();
        let Some(&next) = ALPHABET.get(digit + 1) else {
            continue;
        };
        let bigger = format!("{}{}{}", &greatest[..at], char::from(next), "0".repeat(WIDTH_256 - at - 1));
        assert_eq!(decoded(&bigger)[0], 1, "{bigger}");
        assert_eq!(with(&bigger), Some(ParseError::Range), "{bigger}");
    }
    assert_eq!(with(&"z".repeat(WIDTH_256)), Some(ParseError::Range));
}

proptest! {
    #[test]
    fn a_secret_has_one_encoding(digits in "[0-9A-Za-z]{43}") {
        let canonical = decoded(&digits)[0] == 0;
        let text = sealed(format!("kpat_NonCanonical{digits}"));
        prop_assert_eq!(refusal(&text), (!canonical).then_some(ParseError::Range));
    }
}

#[test]
fn length_bounds_match_the_shortest_and_longest_prefix() {
    let specimens = specimens();
    assert_eq!(specimens[0].expose().len(), Presented::MIN_LEN);
    assert_eq!(specimens[2].expose().len(), Presented::MAX_LEN);
    let message = format!("a token has {} to {} characters", Presented::MIN_LEN, Presented::MAX_LEN);
    assert_eq!(ParseError::Length.to_string(), message);
}

// ---- what is shown

#[test]
fn debug_shows_only_prefix_and_id() {
    let token = minted(4, &TokenPrefix::default());
    let presented = Presented::parse(token.expose()).unwrap();
    let shown = format!("kpat_{}…", token.id());
    assert_eq!(format!("{token:?}"), shown);
    assert_eq!(format!("{token:#?}"), shown);
    assert_eq!(format!("{presented:?}"), shown);
    assert_eq!(format!("{:?}", Some(&token)), format!("Some({shown})"));
}

#[test]
fn errors_do_not_repeat_the_input() {
    let token = minted(5, &TokenPrefix::default());
    let text = token.expose();
    let shown = [
        format!("{:?} {0}", text[..65].parse::<TokenPrefix>().unwrap_err()),
        format!("{:?} {0}", text.parse::<TokenId>().unwrap_err()),
        format!("{:?} {0}", text.parse::<TokenHash>().unwrap_err()),
        format!("{:?} {0}", Token::parse(&text[..65]).unwrap_err()),
    ];
    for message in shown {
        assert!(!message.contains(&text[17..25]), "{message}");
    }
}

// ---- the parts

#[test]
fn prefixes_are_2_to_15_lower_case_letters_and_digits_starting_with_a_letter() {
    for good in ["ab", "kpat", "a1", "z99999999999999", "abcdefghijklmno"] {
        assert_eq!(good.parse::<TokenPrefix>().unwrap().to_string(), good);
        assert_eq!(TokenPrefix::try_from(good).unwrap().as_str(), good);
    }
    let bad = ["", "a", "abcdefghijklmnop", "1a", "Ab", "aB", "a_b", "a-b", "a b", "ab\n", "äb", "aä", "a\0"];
    for bad in bad {
        assert_eq!(bad.parse::<TokenPrefix>(), Err(InvalidPrefix), "{bad:?}");
    }
    assert_eq!(TokenPrefix::default().as_str(), "kpat");
}

#[test]
fn ids_are_12_base62_characters() {
    let good = "09AZaz012345";
    let id: TokenId = good.parse().unwrap();
    assert_eq!((id.as_str(), id.to_string(), format!("{id:?}")), (good, good.into(), good.into()));
    for bad in ["", "09AZaz01234", "09AZaz0123456", "09AZaz01234_", "09AZaz01234\n", "09AZaz0123é"] {
        assert_eq!(bad.parse::<TokenId>(), Err(InvalidId), "{bad:?}");
    }
}

#[test]
fn ids_are_ordered_as_text() {
    let texts = ["000000000000", "00000000000A", "00000000000a", "zzzzzzzzzzzz"];
    assert!(texts.map(|text| text.parse::<TokenId>().unwrap()).is_sorted());
}

#[test]
fn hashes_are_64_lower_case_hexadecimal_digits() {
    let good = "00ff0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab";
    let hash: TokenHash = good.parse().unwrap();
    assert_eq!((hash.to_string(), format!("{hash:?}")), (good.into(), good.into()));
    assert_eq!(TokenHash::from(*hash.as_bytes()), hash);
    let bad = [
        String::new(),
        good[1..].into(),
        good[2..].into(),
        format!("{good}0"),
        format!("{good}00"),
        good.to_uppercase(),
        good.replace('f', "g"),
        good.replace("ff", "é"),
        good.replace("ff", "+f"),
    ];
    for bad in bad {
        assert_eq!(bad.parse::<TokenHash>(), Err(InvalidHash), "{bad}");
    }
}

// ---- properties of types that a change of features or derives could remove

#[test]
fn the_hasher_zeroizes_what_it_buffers() {
    fn zeroizes<T: zeroize::ZeroizeOnDrop>() {}
    zeroizes::<Sha256>();
}

#[test]
fn tokens_can_move_between_threads() {
    fn sent<T: Send + Sync + 'static>() {}
    sent::<Token>();
    sent::<MintError>();
}
