//! The texts of a PAT in one allocation: an index keeps a hundred thousand of them.
//!
//! It must not know what the texts mean.

use serde::{Serialize, Serializer};

/// Where each of several texts ends that stand one after the other.
#[derive(Clone, Copy)]
pub(super) struct Ends<const N: usize>([u16; N]);

impl<const N: usize> Ends<N> {
    /// Packs these texts; `None` if they are longer than any that admission lets in.
    pub fn pack(parts: [&str; N]) -> Option<(Box<str>, Self)> {
        let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
        let mut ends = [0; N];
        for (part, end) in parts.iter().zip(&mut ends) {
            text.push_str(part);
            *end = u16::try_from(text.len()).ok()?;
        }
        Some((text.into(), Self(ends)))
    }

    /// The text at this place.
    pub fn get(self, text: &str, place: usize) -> &str {
        let start = place.checked_sub(1).map_or(0, |before| self.0[before]);
        &text[usize::from(start)..usize::from(self.0[place])]
    }
}

/// Words without spaces in them, such as scopes, with one space between each two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    /// What [`join`] made.
    pub(super) fn new(joined: &'a str) -> Self {
        Self(joined)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = &'a str> + Clone {
        self.0.split(' ').filter(|word| !word.is_empty())
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is one of them.
    pub fn contains(self, word: &str) -> bool {
        self.iter().any(|one| one == word)
    }

    /// All of them with a space between each two, as OAuth writes scopes.
    pub fn joined(self) -> &'a str {
        self.0
    }
}

impl Serialize for Words<'_> {
    /// A list, as they stand in the resource.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Joins words by spaces; `None` if one is empty or has a space in it: then what was joined would be read as others.
pub(super) fn join(words: &[String]) -> Option<String> {
    words.iter().all(|word| !word.is_empty() && !word.contains(' ')).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_out_as_they_went_in() {
        let (text, ends) = Ends::pack(["", "namespace", "", "näme"]).unwrap();
        assert_eq!([0, 1, 2, 3].map(|place| ends.get(&text, place)), ["", "namespace", "", "näme"]);
        assert!(Ends::pack(["a", &"b".repeat(65_535)]).is_none());
    }

    #[test]
    fn a_word_with_a_space_is_not_two_words() {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(join(&owned(&["repo:read", "admin all"])), None);
        assert_eq!(join(&owned(&["repo:read", ""])), None);
        for words in [&[][..], &["one"], &["one", "two"]] {
            let joined = join(&owned(words)).unwrap();
            let read = Words::new(&joined);
            assert_eq!(read.iter().collect::<Vec<_>>(), words);
            assert_eq!((read.is_empty(), read.contains("two")), (words.is_empty(), words.contains(&"two")));
            assert!(!read.contains("") && !read.contains("one two") && !read.contains("on"));
        }
    }
}
