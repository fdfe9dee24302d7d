//! What has to hold of every parser whatever bytes it is given: each target reads the bytes, and fails
//! by a panic where the parser stumbles or says something else than a simpler reader of its own.
//!
//! Two kinds of runner call them: `stable.rs` with bytes that proptest mutates, in every run of the
//! suite, and the programs beside this folder with those of libFuzzer, where there is a nightly
//! compiler.

mod addresses;
mod files;
mod framing;
mod headers;
mod json;
mod messages;
mod names;
mod templates;

pub use addresses::{address, url};
pub use files::import;
pub use framing::{documents, lines, sse, torn};
pub use headers::{credential, edge};
pub use messages::{batch, frame};
pub use names::{listing, names, overrides};
pub use templates::template;

/// The rest of the bytes in the pieces that their beginning asks for, as a network would cut them.
fn pieces(bytes: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let Some((count, rest)) = bytes.split_first() else { return (bytes, Vec::new()) };
    let (sizes, text) = rest.split_at(usize::from(count % 5).min(rest.len()));
    let mut sizes = sizes.iter().cycle().map(|size| usize::from(*size) + 1);
    let (mut left, mut pieces) = (text, Vec::new());
    while !left.is_empty() {
        let size = sizes.next().unwrap_or(left.len()).min(left.len());
        let (piece, after) = left.split_at(size);
        pieces.push(piece);
        left = after;
    }
    (text, pieces)
}
