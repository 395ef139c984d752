//! `warren.v1.Revocations`: the identities that nobody may use any more.

use super::error::WireError;
use super::generated::warren::Revocations;
use crate::model::Identity;
use prost::Message;

/// Type URL of the revocations on the wire.
pub const REVOCATIONS_TYPE_URL: &str = "type.googleapis.com/warren.v1.Revocations";
/// The name of the one resource of that type.
pub const REVOCATIONS: &str = "revocations";

/// Encodes all revoked identities.
pub fn encode_revocations<'a>(identities: impl IntoIterator<Item = &'a Identity>) -> Vec<u8> {
    Revocations { identities: identities.into_iter().map(ToString::to_string).collect() }.encode_to_vec()
}

/// Decodes all revoked identities.
///
/// # Errors
/// When the bytes are no message, or any name is no identity: a list that is understood in part would let somebody in.
pub fn decode_revocations(bytes: &[u8]) -> Result<Vec<Identity>, WireError> {
    let Revocations { identities } = Revocations::decode(bytes)?;
    identities.iter().map(|identity| Ok(identity.parse()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_the_wire_and_a_bad_one_spoils_the_list() {
        let identities: Vec<_> =
            ["a", "b"].iter().map(|name| Identity::new("cluster.local", "shop", name).unwrap()).collect();
        assert_eq!(decode_revocations(&encode_revocations(&identities)).unwrap(), identities);
        assert_eq!(decode_revocations(&[]).unwrap(), []);
        let bad = Revocations { identities: vec![identities[0].to_string(), "shop/b".to_owned()] };
        assert!(decode_revocations(&bad.encode_to_vec()).is_err());
        assert!(matches!(decode_revocations(&[0xff]), Err(WireError::Malformed(_))));
    }
}
