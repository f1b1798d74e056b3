//! A list of any length as one JSON array that is never in memory as a whole: it is written part by part, as fast as the client reads.

use std::{io, sync::Arc, vec};

use axum::body::{Body, Bytes};
use futures::stream;
use serde::Serialize;

use crate::rest::item::Item;

/// About how many bytes are written before the client has to read them.
const PART: usize = 32 * 1024;

/// The items as a JSON array, each written by `write`.
pub fn array(items: Vec<Arc<Item>>, write: impl Fn(&Item, &mut Vec<u8>) -> io::Result<()> + Send + 'static) -> Body {
    let writing = Writing { items: items.into_iter(), begun: false, write };
    Body::from_stream(stream::unfold(Some(writing), |writing| async {
        let mut writing = writing?;
        match writing.part() {
            Ok((part, true)) => Some((Ok(part), Some(writing))),
            Ok((part, false)) => Some((Ok(part), None)),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

/// Appends a value as JSON.
pub fn append(value: &impl Serialize, to: &mut Vec<u8>) -> io::Result<()> {
    serde_json::to_writer(to, value).map_err(io::Error::from)
}

struct Writing<W> {
    items: vec::IntoIter<Arc<Item>>,
    begun: bool,
    write: W,
}

impl<W: Fn(&Item, &mut Vec<u8>) -> io::Result<()>> Writing<W> {
    /// The next part, and whether there is more.
    fn part(&mut self) -> io::Result<(Bytes, bool)> {
        let mut part = Vec::with_capacity(if self.items.len() > 64 { PART + PART / 4 } else { 1024 });
        while part.len() < PART {
            let Some(item) = self.items.next() else {
                part.extend_from_slice(if self.begun { b"]" } else { b"[]" });
                return Ok((part.into(), false));
            };
            part.push(if self.begun { b',' } else { b'[' });
            self.begun = true;
            (self.write)(&item, &mut part)?;
        }
        Ok((part.into(), true))
    }
}
