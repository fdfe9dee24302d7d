//! Makes one text of what several servers say about their use.

/// The texts under headings with the names of their servers, in order, in at most `max` bytes.
/// `None` where nobody says anything, or there is no room to.
///
/// What is too long is cut, the longest first, so that no server's words push out another's.
pub fn merge(texts: &[(&str, &str)], max: usize) -> Option<String> {
    let sections: Vec<(String, &str)> = texts
        .iter()
        .map(|(server, text)| (format!("# {server}\n\n"), text.trim()))
        .filter(|(_, text)| !text.is_empty())
        .collect();
    let frame: usize = sections.iter().map(|(heading, _)| heading.len() + SEPARATOR.len()).sum();
    let lengths = sections.iter().map(|(_, text)| text.len());
    let share = share(lengths.collect(), max.checked_sub(frame)?);

    let mut merged = String::new();
    for (heading, text) in sections {
        if !merged.is_empty() {
            merged.push_str(SEPARATOR);
        }
        merged.push_str(&heading);
        match text.len() <= share {
            true => merged.push_str(text),
            false => {
                let room = share.saturating_sub(CUT.len());
                let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
                merged.push_str(&text[..end]);
                merged.push_str(if share < CUT.len() { "" } else { CUT });
            }
        }
    }
    (!merged.is_empty()).then_some(merged)
}

const SEPARATOR: &str = "\n\n";
const CUT: &str = "…";

/// The length that none may pass for all to fit into `room`.
fn share(mut lengths: Vec<usize>, mut room: usize) -> usize {
    lengths.sort_unstable();
    let mut left = lengths.len();
    for length in lengths {
        let share = room / left;
        if length > share {
            return share;
        }
        room -= length;
        left -= 1;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_servers_words_stand_under_its_name() {
        for (texts, expected) in [
            (&[][..], None),
            (&[("a", " \n")], None),
            (&[("a", "Do.\n")], Some("# a\n\nDo.")),
            (&[("a", "Do."), ("b", ""), ("c", "Not.")], Some("# a\n\nDo.\n\n# c\n\nNot.")),
        ] {
            assert_eq!(merge(texts, 1_000).as_deref(), expected);
        }
    }

    #[test]
    fn the_longest_is_cut_first_and_nothing_passes_the_limit() {
        let long = "é".repeat(500);
        let texts = [("a", &*long), ("b", "short and whole"), ("c", &long)];
        let merged = merge(&texts, 300).unwrap();
        assert!(merged.len() <= 300 && merged.len() > 280, "{}", merged.len());
        assert!(merged.contains("# b\n\nshort and whole\n\n# c"), "{merged}");
        assert!(merged.ends_with("é…"));
        for max in 0..300 {
            assert!(merge(&texts, max).is_none_or(|merged| merged.len() <= max), "{max}");
        }
    }
}
