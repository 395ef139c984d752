//! Certificate requests.

use super::auth::IstioCertificateRequest;
use super::error::WireError;
use crate::model::Identity;
use prost_types::{Struct, Value, value::Kind};

/// Key of the request's metadata: the identity an agent asks for on behalf of a pod of its node.
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// A request for a certificate of `identity`, valid for `validity_s` seconds if the CA agrees.
pub fn certificate_request(identity: &Identity, csr_pem: String, validity_s: i64) -> IstioCertificateRequest {
    let value = Value { kind: Some(Kind::StringValue(identity.to_string())) };
    IstioCertificateRequest {
        csr: csr_pem,
        validity_duration: validity_s,
        metadata: Some(Struct { fields: [(IMPERSONATED_IDENTITY.to_owned(), value)].into() }),
    }
}

/// The identity that a request asks for.
///
/// # Errors
/// When the metadata is absent, is no string, or is no identity.
pub fn impersonated_identity(request: &IstioCertificateRequest) -> Result<Identity, WireError> {
    let value = request
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.fields.get(IMPERSONATED_IDENTITY))
        .and_then(|value| value.kind.as_ref())
        .ok_or(WireError::Missing("metadata.ImpersonatedIdentity"))?;
    match value {
        Kind::StringValue(text) => Ok(text.parse()?),
        _ => Err(WireError::Invalid {
            field: "metadata.ImpersonatedIdentity",
            value: "another kind of value".to_owned(),
            expected: "a string",
        }),
    }
}
