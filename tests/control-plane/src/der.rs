//! The DER elements of an X.509 certificate.
//!
//! `pki` writes certificates with them: rcgen cannot put two groups into one subject.

/// One DER element: tag, length, content.
pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        length @ 0..=0x7f => out.push(length as u8),
        length => {
            let bytes = length.to_be_bytes();
            let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            out.push(0x80 | significant.len() as u8);
            out.extend_from_slice(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A SEQUENCE of encoded elements.
pub fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

/// A SET of one element.
pub fn set(part: &[u8]) -> Vec<u8> {
    element(0x31, part)
}

/// An OBJECT IDENTIFIER, given by its encoded content.
pub fn object_identifier(content: &[u8]) -> Vec<u8> {
    element(0x06, content)
}

/// A positive INTEGER, big-endian. The first byte must be below 0x80.
pub fn integer(content: &[u8]) -> Vec<u8> {
    element(0x02, content)
}

/// BOOLEAN TRUE.
pub fn yes() -> Vec<u8> {
    element(0x01, &[0xff])
}

/// A UTF8String.
pub fn text(content: &str) -> Vec<u8> {
    element(0x0c, content.as_bytes())
}

/// A BIT STRING without the last `unused` bits.
pub fn bits(unused: u8, content: &[u8]) -> Vec<u8> {
    element(0x03, &[&[unused], content].concat())
}

/// An OCTET STRING.
pub fn octets(content: &[u8]) -> Vec<u8> {
    element(0x04, content)
}

/// An explicitly tagged context element, `[number]`.
pub fn context(number: u8, content: &[u8]) -> Vec<u8> {
    element(0xa0 | number, content)
}

#[cfg(test)]
mod tests {
    use super::element;

    #[test]
    fn long_form_of_a_length_starts_at_128() {
        assert_eq!(element(4, &[7; 127])[..3], [4, 127, 7]);
        assert_eq!(element(4, &[7; 128])[..4], [4, 0x81, 128, 7]);
        assert_eq!(element(4, &[7; 256])[..5], [4, 0x82, 1, 0, 7]);
    }
}
