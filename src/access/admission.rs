//! Decides who a request to an endpoint is made for, and whether that one may use it.
//!
//! A refusal never tells more than it must: without a good credential everything is `Unauthorized`,
//! and with one an endpoint that is not the holder's looks as if it did not exist.

use uuid::Uuid;

/// Who a request is made for. Sessions and answers are bound to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    Anonymous,
    Key {
        uuid: Uuid,
        /// The owner of the key; `None` for a public one.
        user_id: Option<String>,
    },
}

/// What is known of an endpoint when a request for it comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointFacts {
    /// The owner; `None` for a public endpoint.
    pub user_id: Option<String>,
    pub enable_api_key_auth: bool,
    pub use_query_param_auth: bool,
    pub enable_oauth: bool,
}

/// What is known of the key that a request presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    pub uuid: Uuid,
    /// The owner; `None` for a public key.
    pub user_id: Option<String>,
    pub kind: KeyKind,
    pub is_active: bool,
}

/// What a key opens: endpoints or the admin API, never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    Client,
    Admin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed(Principal),
    /// No credential that means anything here.
    Unauthorized,
    /// A good credential without the right: to be answered like an endpoint that does not exist.
    Hidden,
}

impl EndpointFacts {
    /// Whether a request needs no credential at all.
    pub fn is_open(&self) -> bool {
        !self.enable_api_key_auth && !self.enable_oauth
    }
}

/// Decides about one request. `key` is the record of the presented key, and `None` when there was
/// no credential, an unknown one, or several that contradict each other.
///
/// An open endpoint lets everybody in, so there a credential that is good for nothing is no reason
/// to refuse, and a good one still names its principal. OAuth grants no access yet: an endpoint
/// that takes nothing else is closed to all.
pub fn admit(endpoint: &EndpointFacts, key: Option<&KeyFacts>) -> Verdict {
    let good_key = key.filter(|key| key.is_active && key.kind == KeyKind::Client);

    if endpoint.is_open() {
        return Verdict::Allowed(good_key.map_or(Principal::Anonymous, principal));
    }
    match good_key {
        Some(key) if endpoint.enable_api_key_auth => {
            let may_use = endpoint.user_id.is_none() || endpoint.user_id == key.user_id;
            if may_use { Verdict::Allowed(principal(key)) } else { Verdict::Hidden }
        }
        Some(_) | None => Verdict::Unauthorized,
    }
}

fn principal(key: &KeyFacts) -> Principal {
    Principal::Key { uuid: key.uuid, user_id: key.user_id.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome in one word: `anonymous`, `key`, `401` or `404`.
    fn outcome(endpoint: &EndpointFacts, key: Option<&KeyFacts>) -> &'static str {
        match admit(endpoint, key) {
            Verdict::Allowed(Principal::Anonymous) => "anonymous",
            Verdict::Allowed(Principal::Key { uuid, user_id }) => {
                assert_eq!(key.map(|key| (key.uuid, &key.user_id)), Some((uuid, &user_id)));
                "key"
            }
            Verdict::Unauthorized => "401",
            Verdict::Hidden => "404",
        }
    }

    fn endpoint(
        owner: Option<&str>,
        enable_api_key_auth: bool,
        enable_oauth: bool,
    ) -> EndpointFacts {
        let user_id = owner.map(str::to_owned);
        EndpointFacts { user_id, enable_api_key_auth, enable_oauth, use_query_param_auth: false }
    }

    fn key(owner: Option<&str>, kind: KeyKind, is_active: bool) -> Option<KeyFacts> {
        let user_id = owner.map(str::to_owned);
        Some(KeyFacts { uuid: Uuid::from_u128(1), user_id, kind, is_active })
    }

    /// Every kind of key against every kind of endpoint. Columns: endpoints of nobody, of ann, of
    /// bob.
    fn assert_matrix(keys_on: bool, oauth_on: bool, rows: [(&str, [&str; 3]); 7]) {
        use KeyKind::{Admin, Client};
        let keys = [
            ("none", None),
            ("public", key(None, Client, true)),
            ("ann's", key(Some("ann"), Client, true)),
            ("inactive public", key(None, Client, false)),
            ("inactive ann's", key(Some("ann"), Client, false)),
            ("admin", key(None, Admin, true)),
            ("ann's admin", key(Some("ann"), Admin, true)),
        ];
        for ((name, key), (row, expected)) in keys.iter().zip(rows) {
            assert_eq!(*name, row);
            let found = [None, Some("ann"), Some("bob")]
                .map(|owner| outcome(&endpoint(owner, keys_on, oauth_on), key.as_ref()));
            assert_eq!(found, expected, "key: {name}, keys on: {keys_on}, oauth on: {oauth_on}");
        }
    }

    #[test]
    fn an_endpoint_with_keys_on_takes_public_keys_only_where_it_is_public_and_private_ones_at_home()
    {
        for oauth_on in [false, true] {
            assert_matrix(
                true,
                oauth_on,
                [
                    ("none", ["401", "401", "401"]),
                    ("public", ["key", "404", "404"]),
                    ("ann's", ["key", "key", "404"]),
                    ("inactive public", ["401", "401", "401"]),
                    ("inactive ann's", ["401", "401", "401"]),
                    ("admin", ["401", "401", "401"]),
                    ("ann's admin", ["401", "401", "401"]),
                ],
            );
        }
    }

    #[test]
    fn an_open_endpoint_lets_everybody_in_and_a_good_key_still_names_its_principal() {
        assert_matrix(
            false,
            false,
            [
                ("none", ["anonymous"; 3]),
                ("public", ["key"; 3]),
                ("ann's", ["key"; 3]),
                ("inactive public", ["anonymous"; 3]),
                ("inactive ann's", ["anonymous"; 3]),
                ("admin", ["anonymous"; 3]),
                ("ann's admin", ["anonymous"; 3]),
            ],
        );
    }

    #[test]
    fn an_endpoint_with_oauth_alone_is_closed_to_every_key() {
        let names = [
            "none",
            "public",
            "ann's",
            "inactive public",
            "inactive ann's",
            "admin",
            "ann's admin",
        ];
        assert_matrix(false, true, names.map(|name| (name, ["401"; 3])));
    }
}
