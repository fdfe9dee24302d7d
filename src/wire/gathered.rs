//! Bytes that come piece by piece until they are whole, however many that will be.
//!
//! A buffer that grows has to be copied into a larger one again and again, the last time with both of them
//! there at once. Here what was gathered stays where it is until all of it is there.

use bytes::{Bytes, BytesMut};

/// Bytes that are gathered in one block. What fits into one is never put together.
pub const BLOCK: usize = 256 << 10;

/// What has come so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    full: Vec<Bytes>,
    last: BytesMut,
    length: usize,
}

impl Gathered {
    pub fn extend(&mut self, mut piece: &[u8]) {
        self.length += piece.len();
        loop {
            let (head, rest) = piece.split_at(piece.len().min(BLOCK - self.last.len()));
            self.last.extend_from_slice(head);
            if rest.is_empty() {
                return;
            }
            // The next one is as long as it will get: by now there is much to come.
            let full = std::mem::replace(&mut self.last, BytesMut::with_capacity(BLOCK));
            self.full.push(full.freeze());
            piece = rest;
        }
    }

    /// The same of what need not be copied, where that is worth something.
    pub fn adopt(&mut self, piece: Bytes) {
        if piece.len() <= BLOCK {
            return self.extend(&piece);
        }
        self.length += piece.len();
        let last = std::mem::take(&mut self.last);
        if !last.is_empty() {
            self.full.push(last.freeze());
        }
        self.full.push(piece);
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether it takes a copy to have it in one piece.
    pub fn is_long(&self) -> bool {
        !self.full.is_empty()
    }

    /// What there is, as it lies there.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.full.iter().map(|piece| &**piece).chain(std::iter::once(&*self.last))
    }

    /// All of it in one piece. The block that it lay in, if it was one, serves the next.
    pub fn take(&mut self) -> Bytes {
        if !self.is_long() {
            self.length = 0;
            return self.last.split().freeze();
        }
        std::mem::take(self).join()
    }

    fn join(mut self) -> Bytes {
        if self.full.len() == 1 && self.last.is_empty() {
            return self.full.swap_remove(0);
        }
        let mut whole = BytesMut::with_capacity(self.length);
        // Each piece goes as soon as it was copied.
        for piece in self.full {
            whole.extend_from_slice(&piece);
        }
        whole.extend_from_slice(&self.last);
        whole.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gathered(pieces: &[&[u8]]) -> Gathered {
        let mut gathered = Gathered::default();
        pieces.iter().for_each(|piece| gathered.extend(piece));
        gathered
    }

    #[test]
    fn what_fits_into_a_block_is_not_long() {
        assert!(!gathered(&[&[b'x'; BLOCK]]).is_long());
        assert!(gathered(&[&[b'x'; BLOCK], b"x"]).is_long());
    }

    #[test]
    fn it_takes_as_much_memory_as_there_are_bytes() {
        let mut gathered = Gathered::default();
        for _ in 0..10_000 {
            gathered.extend(&[b'x'; 1_000]);
            let held: usize = gathered.full.iter().map(Bytes::len).sum();
            let held = held + gathered.last.capacity();
            assert!(held < gathered.len() + 2 * BLOCK, "{held} for {}", gathered.len());
        }
    }

    proptest! {
        #[test]
        fn it_is_what_the_pieces_were(sizes in proptest::collection::vec(0..BLOCK * 3 / 2, 0..8)) {
            let whole: Vec<u8> = (0..sizes.iter().sum()).map(|place| place as u8).collect();
            let (mut rest, mut pieces) = (&whole[..], Vec::new());
            for size in sizes {
                let (piece, more) = rest.split_at(size);
                pieces.push(piece);
                rest = more;
            }
            let mut gathered = gathered(&pieces);
            let mut adopted = Gathered::default();
            pieces.iter().for_each(|piece| adopted.adopt(Bytes::copy_from_slice(piece)));
            prop_assert_eq!(adopted.take(), whole.clone());
            prop_assert_eq!(gathered.len(), whole.len());
            prop_assert_eq!(gathered.pieces().collect::<Vec<_>>().concat(), whole.clone());
            prop_assert_eq!(gathered.take(), whole);
            prop_assert!(gathered.is_empty() && !gathered.is_long());
        }
    }
}
