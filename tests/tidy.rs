//! The house rules that no compiler holds: which room may name which, what dependencies may be,
//! how long a file is, and that every setting and every word of a closed list is explained.
//!
//! Reads sources and `cargo metadata`; knows nothing of what the program does.

mod arrows;
mod dependencies;
mod files;
mod words;
