//! Much of nothing in little: a gzip of spaces, written by hand (RFC 1951 and 1952).

/// A gzip that unpacks to JSON of at least so many bytes: `answer` behind that many spaces.
pub fn bomb(spaces: u64, answer: &[u8]) -> Vec<u8> {
    let mut bits = Bits::default();
    // The last block, with the fixed codes.
    bits.put(1, 1);
    bits.put(1, 2);
    bits.literal(b' ');
    let mut length = 1;
    while length < spaces {
        // 258 bytes from one byte back: code 285 (8 bits) and distance code 0 (5 bits).
        bits.code(0b1100_0101, 8);
        bits.code(0, 5);
        length += 258;
    }
    for byte in answer {
        bits.literal(*byte);
    }
    // The end of the block.
    bits.code(0, 7);
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let sum = checksum(length, answer);
    let size = (length + answer.len() as u64) as u32;
    [&head[..], &bits.finish(), &sum.to_le_bytes(), &size.to_le_bytes()].concat()
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    filled: u32,
}

impl Bits {
    /// Bits from the lowest on.
    fn put(&mut self, value: u32, count: u32) {
        for place in 0..count {
            if self.filled.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= (((value >> place) & 1) as u8) << (self.filled % 8);
            }
            self.filled += 1;
        }
    }

    /// A Huffman code, which is packed from its highest bit on.
    fn code(&mut self, code: u32, count: u32) {
        for place in (0..count).rev() {
            self.put((code >> place) & 1, 1);
        }
    }

    fn literal(&mut self, byte: u8) {
        match byte {
            0..=143 => self.code(0x30 + u32::from(byte), 8),
            _ => self.code(0x190 + u32::from(byte) - 144, 9),
        }
    }

    fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// CRC-32 of so many spaces and what follows.
fn checksum(spaces: u64, answer: &[u8]) -> u32 {
    let mut table = [0_u32; 256];
    for (index, entry) in table.iter_mut().enumerate() {
        *entry = (0..8).fold(index as u32, |sum, _| match sum & 1 {
            1 => (sum >> 1) ^ 0xedb8_8320,
            _ => sum >> 1,
        });
    }
    let step = |sum: u32, byte: u8| (sum >> 8) ^ table[((sum ^ u32::from(byte)) & 0xff) as usize];
    let sum = (0..spaces).fold(u32::MAX, |sum, _| step(sum, b' '));
    !answer.iter().fold(sum, |sum, byte| step(sum, *byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_standard() {
        assert_eq!(checksum(0, b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_bomb_is_small() {
        let bomb = bomb(10_000_000, b"{}");
        assert!(bomb.len() < 100_000, "{}", bomb.len());
    }
}
