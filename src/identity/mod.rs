//! Who someone is, and what only we may read: keys, and secrets at rest.
//!
//! It knows no database; what is remembered of keys is handed to it.

pub mod keys;
pub mod sealer;
pub mod secret;
pub mod vault;
