//! The envelope of a resource: its name, version and aliases, around its content.

use super::error::WireError;
use super::generated::discovery::Resource;
use bytes::Bytes;
use prost::Message;

/// `DeltaDiscoveryResponse.system_version_info` of a response that is a part: what follows belongs to it, and until then
/// the client should not act upon a state that never was. Other clients take it for a version that means nothing.
pub const MORE_FOLLOWS: &str = "warren.dev/more-follows";

/// Encodes an envelope as `DeltaDiscoveryResponse.resources` carries it: once, for all clients.
pub fn encode_envelope(resource: &Resource) -> Bytes {
    resource.encode_to_vec().into()
}

/// Opens an envelope; its content is not looked at.
///
/// # Errors
/// When the bytes are no envelope.
pub fn decode_envelope(bytes: Bytes) -> Result<Resource, WireError> {
    Ok(Resource::decode(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::super::discovery::DeltaDiscoveryResponse;
    use super::*;

    /// The response as the specification has it, with its resources as messages.
    #[derive(Clone, PartialEq, Message)]
    struct Specified {
        #[prost(message, repeated, tag = "2")]
        resources: Vec<Resource>,
        #[prost(string, tag = "4")]
        type_url: String,
    }

    #[test]
    fn on_the_wire_it_is_what_the_specification_says() {
        let resource = |name: &str| Resource {
            name: name.to_owned(),
            version: "1".to_owned(),
            resource: Some(prost_types::Any { type_url: "t".to_owned(), value: vec![1, 2] }),
            aliases: vec!["/10.0.0.1".to_owned()],
        };
        let specified = Specified { resources: vec![resource("a"), resource("b")], type_url: "t".to_owned() };
        let ours = DeltaDiscoveryResponse {
            resources: specified.resources.iter().map(encode_envelope).collect(),
            type_url: "t".to_owned(),
            ..Default::default()
        };
        assert_eq!(ours.encode_to_vec(), specified.encode_to_vec());
        let read = DeltaDiscoveryResponse::decode(specified.encode_to_vec().as_slice()).unwrap();
        let read: Vec<_> = read.resources.into_iter().map(|bytes| decode_envelope(bytes).unwrap()).collect();
        assert_eq!(read, specified.resources);
        assert!(decode_envelope(Bytes::from_static(&[0xff])).is_err());
    }
}
