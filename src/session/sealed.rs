//! What a session's id says to us: all that is needed to go on with the session after a restart.
//!
//! It is sealed, so that nobody else reads or makes one, and holds no secret: the principal is in it
//! only as something to compare with whoever presents the id.

use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Agreed, Via};
use crate::{
    access::Principal,
    catalogue::profiles::Profile,
    wire::{capabilities::ClientCapabilities, era},
};

/// What the ids are sealed for.
pub const PURPOSE: &str = "session ids";

/// The first byte, so that a later form can be told from this one.
const FORM: u8 = 1;
const LENGTH: usize = 1 + 16 + 16 + 1 + 1 + 2 + 8;
/// One byte holds the transport in its lower half and the client's profile in its upper one. An id that
/// was issued before there were profiles has 0 there, which is `raw`.
const PROFILE_SHIFT: u8 = 4;
const VIA_MASK: u8 = 0x0f;
/// By their numbers in an id, which never change.
const PROFILES: [Profile; 6] = [
    Profile::Raw,
    Profile::StrictCommon,
    Profile::Claude,
    Profile::OpenAi,
    Profile::Gemini,
    Profile::VsCode,
];
/// In the place of a revision where none was agreed on yet.
const NO_VERSION: u8 = u8::MAX;

/// The contents of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    pub principal: PrincipalDigest,
    pub endpoint: Uuid,
    pub via: Via,
    /// `None` for a session over SSE, whose id is older than its `initialize`.
    pub agreed: Option<Agreed>,
    /// In whole seconds.
    pub issued: OffsetDateTime,
}

/// Who a session belongs to, in as many bytes whoever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrincipalDigest([u8; 16]);

impl PrincipalDigest {
    pub fn of(principal: &Principal) -> Self {
        let mut hash = Sha256::new();
        match principal {
            Principal::Anonymous => hash.update([0]),
            Principal::Key { uuid, user_id } => {
                hash.update([1]);
                hash.update(uuid.as_bytes());
                match user_id {
                    None => hash.update([0]),
                    Some(user_id) => {
                        hash.update([1]);
                        hash.update(user_id.as_bytes());
                    }
                }
            }
        }
        let hash: [u8; 32] = hash.finalize().into();
        let [first, _second] = hash.as_chunks::<16>().0 else { return Self([0; 16]) };
        Self(*first)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl Claims {
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(FORM);
        bytes.extend_from_slice(&self.principal.0);
        bytes.extend_from_slice(self.endpoint.as_bytes());
        let via = match self.via {
            Via::StreamableHttp => 0,
            Via::Sse => 1,
        };
        let profile = self.agreed.map(|agreed| agreed.profile).unwrap_or_default();
        bytes.push(via | (code_of(profile) << PROFILE_SHIFT));
        let version = self
            .agreed
            .and_then(|agreed| era::LEGACY.iter().position(|version| *version == agreed.version));
        bytes.push(version.and_then(|place| u8::try_from(place).ok()).unwrap_or(NO_VERSION));
        let capabilities = self.agreed.map(|agreed| agreed.capabilities).unwrap_or_default();
        bytes.extend_from_slice(&capabilities.bits().to_be_bytes());
        bytes.extend_from_slice(&self.issued.unix_timestamp().to_be_bytes());
        bytes
    }

    /// `None` for what a later version may have written.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&form, rest) = bytes.split_first()?;
        let (principal, rest) = rest.split_first_chunk::<16>()?;
        let (endpoint, rest) = rest.split_first_chunk::<16>()?;
        let (&[via_and_profile, version], rest) = rest.split_first_chunk::<2>()?;
        let (via, profile) = (via_and_profile & VIA_MASK, via_and_profile >> PROFILE_SHIFT);
        let (capabilities, rest) = rest.split_first_chunk::<2>()?;
        let (issued, rest) = rest.split_first_chunk::<8>()?;
        if form != FORM || !rest.is_empty() {
            return None;
        }
        let capabilities = ClientCapabilities::from_bits(u16::from_be_bytes(*capabilities));
        Some(Self {
            principal: PrincipalDigest(*principal),
            endpoint: Uuid::from_bytes(*endpoint),
            via: match via {
                0 => Via::StreamableHttp,
                1 => Via::Sse,
                _ => return None,
            },
            agreed: match version {
                NO_VERSION => None,
                place => {
                    let version = *era::LEGACY.get(usize::from(place))?;
                    Some(Agreed {
                        version,
                        capabilities,
                        profile: *PROFILES.get(usize::from(profile))?,
                    })
                }
            },
            issued: OffsetDateTime::from_unix_timestamp(i64::from_be_bytes(*issued)).ok()?,
        })
    }
}

fn code_of(profile: Profile) -> u8 {
    let place = PROFILES.iter().position(|one| *one == profile);
    place.and_then(|place| u8::try_from(place).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn key(number: u128, user_id: Option<&str>) -> Principal {
        Principal::Key { uuid: Uuid::from_u128(number), user_id: user_id.map(str::to_owned) }
    }

    #[test]
    fn every_principal_is_another() {
        let principals = [
            Principal::Anonymous,
            key(1, None),
            key(2, None),
            key(1, Some("")),
            key(1, Some("a")),
            key(1, Some("b")),
        ];
        for (place, one) in principals.iter().enumerate() {
            for (other_place, other) in principals.iter().enumerate() {
                let are_same = PrincipalDigest::of(one) == PrincipalDigest::of(other);
                assert_eq!(are_same, place == other_place, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn another_form_and_another_length_are_not_read() {
        let claims = Claims {
            principal: PrincipalDigest::of(&Principal::Anonymous),
            endpoint: Uuid::from_u128(7),
            via: Via::StreamableHttp,
            agreed: None,
            issued: OffsetDateTime::from_unix_timestamp(1).unwrap(),
        };
        let bytes = claims.to_bytes();
        assert_eq!(bytes.len(), LENGTH);
        let mut later = bytes.clone();
        later[0] = 2;
        assert_eq!(Claims::from_bytes(&later), None);
        assert_eq!(Claims::from_bytes(&bytes[..LENGTH - 1]), None);
        assert_eq!(Claims::from_bytes(&[&*bytes, b"x"].concat()), None);
        assert_eq!(Claims::from_bytes(b""), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            number: u128, endpoint: u128, is_sse: bool, bits in 0_u16..128,
            version in proptest::option::of(0_usize..4), seconds in 0_i64..9_999_999_999,
            profile in 0_usize..6,
        ) {
            let claims = Claims {
                principal: PrincipalDigest::of(&key(number, None)),
                endpoint: Uuid::from_u128(endpoint),
                via: if is_sse { Via::Sse } else { Via::StreamableHttp },
                agreed: version.map(|place| Agreed {
                    version: era::LEGACY[place],
                    capabilities: ClientCapabilities::from_bits(bits),
                    profile: Profile::ALL[profile],
                }),
                issued: OffsetDateTime::from_unix_timestamp(seconds).unwrap(),
            };
            prop_assert_eq!(Claims::from_bytes(&claims.to_bytes()), Some(claims));
        }

        #[test]
        fn no_bytes_at_all_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            Claims::from_bytes(&bytes);
        }
    }
}
