//! Mends the name of a server so that it fits our rule, always in the same way.
//!
//! Whether the mended name is free is asked elsewhere.

use uuid::Uuid;

use super::Refusal;

/// The rule, in words for whoever has to mend a file.
pub(super) const ACCEPTED: &str =
    "a name of its own made of letters, digits, `_` and `-`, without `__`, and not a uuid";

/// Answers the name itself where it is good, and else the nearest one that is. `[2]` is no name but
/// the place of one that is missing.
pub(super) fn mend(name: &str) -> Result<String, Refusal> {
    if is_good(name) {
        return Ok(name.to_owned());
    }
    let place = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if place.is_some_and(|index| index.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(Refusal::new("name", "is missing", ACCEPTED));
    }
    let mut mended = String::with_capacity(name.len());
    for char in name.chars() {
        let char = if is_allowed(char) { char } else { '-' };
        // Only what was mended may be shortened, but runs of both kinds would look alike in it.
        if !(matches!(char, '-' | '_') && mended.ends_with(char)) {
            mended.push(char);
        }
    }
    let mended = mended.trim_matches(['-', '_']);
    if mended.is_empty() {
        return Err(Refusal::new(
            "name",
            "holds no letter and no digit that can be used",
            ACCEPTED,
        ));
    }
    // A uuid would be taken for the id of a server wherever a name or an id may be given.
    if Uuid::try_parse(mended).is_ok() {
        return Ok(format!("server-{mended}"));
    }
    Ok(mended.to_owned())
}

fn is_good(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(is_allowed)
        && !name.contains("__")
        && Uuid::try_parse(name).is_err()
}

fn is_allowed(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '_' | '-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_name_is_mended_as_little_as_possible() {
        for (name, expected) in [
            ("github", "github"),
            ("my_server-2", "my_server-2"),
            ("-a--b-", "-a--b-"),
            ("My Server", "My-Server"),
            ("io.github.user/server", "io-github-user-server"),
            ("@scope/server", "scope-server"),
            ("a  .  b", "a-b"),
            ("a__b", "a_b"),
            ("a____b c", "a_b-c"),
            ("Größe", "Gr-e"),
            ("67e55044-10b1-426f-9247-bb680e5fe0c8", "server-67e55044-10b1-426f-9247-bb680e5fe0c8"),
            ("67e5504410b1426f9247bb680e5fe0c8", "server-67e5504410b1426f9247bb680e5fe0c8"),
        ] {
            let mended = mend(name).unwrap();
            assert_eq!(mended, expected);
            assert!(is_good(&mended));
        }
    }

    #[test]
    fn a_name_of_which_nothing_is_left_is_refused() {
        for name in ["", " ", "...", "文件", "__", "[2]"] {
            assert_eq!(mend(name).unwrap_err().field, "name", "{name:?}");
        }
    }
}
