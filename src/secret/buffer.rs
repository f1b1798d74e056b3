//! A buffer for text that contains a token: zeroized when dropped, and never larger than its limit.

use std::{io, str};

use zeroize::Zeroizing;

/// Text that would be larger than its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Text that grows. A `String` that grows leaves its old allocation unwiped; this does not.
pub(super) struct Buffer {
    text: Zeroizing<String>,
    limit: usize,
}

impl Buffer {
    /// An empty buffer for up to `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { text: Zeroizing::default(), limit }
    }

    /// A buffer that holds `text`.
    pub(super) fn of(text: &str, limit: usize) -> Result<Self, TooLarge> {
        let mut buffer = Self::new(limit);
        buffer.push(text)?;
        Ok(buffer)
    }

    /// Appends `text`, or nothing if it does not fit.
    pub(super) fn push(&mut self, text: &str) -> Result<(), TooLarge> {
        if text.len() > self.limit.saturating_sub(self.text.len()) {
            return Err(TooLarge);
        }
        let length = self.text.len() + text.len();
        if length > self.text.capacity() {
            let mut larger = Zeroizing::new(String::with_capacity(length.max(2 * self.text.capacity())));
            larger.push_str(&self.text);
            self.text = larger;
        }
        self.text.push_str(text);
        Ok(())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The text as bytes, in the same allocation.
    pub(super) fn into_bytes(mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(std::mem::take(&mut *self.text).into_bytes())
    }
}

/// For serialisers, which write whole pieces of text.
impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = str::from_utf8(bytes).map_err(io::Error::other)?;
        self.push(text).map_err(|TooLarge| io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_takes_text_up_to_its_limit_and_no_part_of_what_exceeds_it() {
        let mut buffer = Buffer::of("abc", 5).unwrap();
        assert_eq!(buffer.push("def"), Err(TooLarge));
        assert_eq!(buffer.push("de"), Ok(()));
        assert_eq!(buffer.push(""), Ok(()));
        assert_eq!(buffer.as_str(), "abcde");
        assert_eq!(*buffer.into_bytes(), b"abcde");
    }
}
