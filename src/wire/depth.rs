//! How deep the objects and arrays of a text are nested, before anything else is made of it.

/// Whether they are nested deeper than that. A count of brackets is a bound on the depth, and is all that
/// most messages need.
pub fn exceeds(bytes: &[u8], depth_max: usize) -> bool {
    opened_in(bytes) > depth_max && depth_of(bytes) > depth_max
}

/// How many `{` and `[` there are. They differ in one bit, and counted in bytes they are counted many at once.
fn opened_in(bytes: &[u8]) -> usize {
    let opened = |byte: &u8| u8::from(byte | 0x20 == b'{');
    let pieces = bytes.chunks(usize::from(u8::MAX));
    pieces.map(|piece| usize::from(piece.iter().map(opened).sum::<u8>())).sum()
}

fn depth_of(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
