//! The filters of templates: text in, text out.
//!
//! They must not shrink their input: that is why the limit on a template's output bounds everything on the way to it.

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use super::buffer::{Buffer, TooLarge};

/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a template may do with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// Base64 with padding, in the standard alphabet (RFC 4648, section 4).
    B64encode,
    /// A JSON string, quotes included.
    Tojson,
    /// Percent-encoding of all but RFC 3986's unreserved characters.
    Urlencode,
}

impl Filter {
    pub(super) const ALL: &'static [Self] = &[Self::B64encode, Self::Tojson, Self::Urlencode];

    /// The name that it has in a template.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::B64encode => "b64encode",
            Self::Tojson => "tojson",
            Self::Urlencode => "urlencode",
        }
    }

    /// Applies it to `text`.
    pub(super) fn apply(self, text: &str, limit: usize) -> Result<Buffer, TooLarge> {
        let mut output = Buffer::new(limit);
        match self {
            Self::B64encode => base64(text, &mut output)?,
            Self::Tojson => json(text, &mut output)?,
            Self::Urlencode => percent_encode(text.as_bytes(), RESERVED).try_for_each(|part| output.push(part))?,
        }
        Ok(output)
    }
}

fn base64(text: &str, output: &mut Buffer) -> Result<(), TooLarge> {
    output.push(&Zeroizing::new(STANDARD.encode(text)))
}

/// Appends `value` as JSON. What is serialised here is text and maps of text, so there is one way to fail.
pub(super) fn json(value: &(impl serde::Serialize + ?Sized), output: &mut Buffer) -> Result<(), TooLarge> {
    serde_json::to_writer(output, value).map_err(|_| TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::MAX_DATA;

    fn apply(filter: Filter, text: &str) -> String {
        filter.apply(text, MAX_DATA).unwrap().as_str().to_owned()
    }

    #[test]
    fn filters_do_what_their_standards_say() {
        for (filter, text, output) in [
            (Filter::B64encode, "", ""),
            (Filter::B64encode, "f", "Zg=="),
            (Filter::B64encode, "foobar", "Zm9vYmFy"),
            (Filter::B64encode, "\u{7ff}\u{ff}~", "37/Dv34="),
            (Filter::Tojson, "", r#""""#),
            (Filter::Tojson, "a\"\\\n\u{1}é", r#""a\"\\\n\u0001é""#),
            (Filter::Urlencode, "AZaz09-._~", "AZaz09-._~"),
            (Filter::Urlencode, "a b+c/d:e@é%", "a%20b%2Bc%2Fd%3Ae%40%C3%A9%25"),
        ] {
            assert_eq!(apply(filter, text), output, "{filter:?} of {text:?}");
        }
    }

    #[test]
    fn a_filter_stops_at_the_limit() {
        for &filter in Filter::ALL {
            assert!(filter.apply("%%%%", 3).is_err(), "{filter:?}");
        }
    }

    proptest! {
        #[test]
        fn what_a_filter_writes_reads_back_and_is_never_shorter(text in "\\PC*|[\\x00-\\x7f]*") {
            prop_assert_eq!(&serde_json::from_str::<String>(&apply(Filter::Tojson, &text)).unwrap(), &text);
            prop_assert_eq!(&STANDARD.decode(apply(Filter::B64encode, &text)).unwrap(), text.as_bytes());
            let encoded = apply(Filter::Urlencode, &text);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
            prop_assert_eq!(percent_encoding::percent_decode_str(&encoded).decode_utf8().unwrap(), text.as_str());
            for &filter in Filter::ALL {
                prop_assert!(apply(filter, &text).len() >= text.len());
            }
        }
    }
}
