//! What can be wrong with a message.

/// Why a message of the wire was refused.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The bytes are not the message they claim to be.
    #[error("malformed protobuf: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A field that everything hangs on is missing.
    #[error("the field {0} is missing")]
    Missing(&'static str),
    /// A field holds what it must not hold.
    #[error("the field {field} holds {value}, which is not {expected}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What it holds, shortened.
        value: String,
        /// What it should have held.
        expected: &'static str,
    },
    /// The names of an identity do not form one.
    #[error(transparent)]
    Identity(#[from] crate::model::IdentityError),
    /// A trust bundle without roots, or with too many.
    #[error("it names {0} roots; expected 1 to {1} certificates, retired ones included")]
    Roots(usize, usize),
}
