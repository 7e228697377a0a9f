//! A text in parts.
//!
//! A large document changes little. The next document's text shares the unchanged parts with the
//! last one's, so that it needs neither the time nor the memory of a second text.

use bytes::{Bytes, BytesMut};

/// A text that is written part by part.
#[derive(Clone, Debug, Default)]
pub struct Chunks(Vec<Bytes>);

impl Chunks {
    /// The parts, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|part| &**part)
    }

    /// The number of bytes of the text.
    pub fn size(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// The text in one piece.
    pub fn whole(&self) -> Bytes {
        match &self.0[..] {
            [only] => only.clone(),
            parts => parts.concat().into(),
        }
    }

    /// Returns whether the text has exactly these bytes.
    pub fn are(&self, bytes: &[u8]) -> bool {
        let rest = self.iter().try_fold(bytes, |rest, part| rest.strip_prefix(part));
        rest.is_some_and(<[u8]>::is_empty)
    }

    /// Overwrites bytes at a place in one part.
    pub(super) fn overwrite(&mut self, part: usize, place: usize, bytes: &[u8]) -> Option<()> {
        let part = self.0.get_mut(part)?;
        let mut changed = match std::mem::take(part).try_into_mut() {
            Ok(own) => own,
            Err(shared) => BytesMut::from(&*shared),
        };
        changed.get_mut(place..place + bytes.len())?.copy_from_slice(bytes);
        *part = changed.freeze();
        Some(())
    }
}

impl From<Vec<Bytes>> for Chunks {
    fn from(parts: Vec<Bytes>) -> Self {
        Self(parts)
    }
}

impl From<Bytes> for Chunks {
    fn from(text: Bytes) -> Self {
        Self(vec![text])
    }
}
