//! `warren.v1.Namespace`: which namespaces are enrolled as a whole.

use super::error::WireError;
use super::generated::warren::Namespace;
use prost::Message;
use std::sync::Arc;

/// Type URL of enrolled namespaces on the wire; the resource's name is the namespace's.
pub const NAMESPACE_TYPE_URL: &str = "type.googleapis.com/warren.v1.Namespace";

/// Encodes the enrolled namespace `name`.
pub fn encode_namespace(name: &str) -> Vec<u8> {
    Namespace { name: name.to_owned() }.encode_to_vec()
}

/// Decodes the name of an enrolled namespace.
///
/// # Errors
/// When the bytes are no message, or name nothing.
pub fn decode_namespace(bytes: &[u8]) -> Result<Arc<str>, WireError> {
    let Namespace { name } = Namespace::decode(bytes)?;
    if name.is_empty() { Err(WireError::Missing("name")) } else { Ok(name.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_wire_and_nothing_is_refused() {
        assert_eq!(&*decode_namespace(&encode_namespace("shop")).unwrap(), "shop");
        assert!(matches!(decode_namespace(&[]), Err(WireError::Missing("name"))));
        assert!(matches!(decode_namespace(&[0xff]), Err(WireError::Malformed(_))));
    }
}
