//! Messages between plugin and agent: JSON behind its length.

use serde::Serialize;
use serde::de::DeserializeOwned;
use warren_common::model::cni::MAX_MESSAGE;

const HEADER: usize = 4;

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is beyond [`MAX_MESSAGE`].
    #[error("a message of {0} bytes; at most {MAX_MESSAGE} are allowed")]
    TooLong(usize),
    /// There is more than one message.
    #[error("bytes after the message")]
    Trailing,
    /// It is not what was expected.
    #[error("malformed message: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// A message as it goes over the socket.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MAX_MESSAGE {
        return Err(FrameError::TooLong(body.len()));
    }
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend(body);
    Ok(bytes)
}

/// The one message that came so far; none while there are bytes missing.
///
/// # Errors
/// [`FrameError`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<T>, FrameError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let length = u32::from_be_bytes(*header) as usize;
    if length > MAX_MESSAGE {
        return Err(FrameError::TooLong(length));
    }
    if rest.len() > length {
        return Err(FrameError::Trailing);
    }
    if rest.len() < length {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(rest)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use warren_common::model::cni::{Answer, Command, PodName, Request};

    fn request() -> Request {
        Request {
            command: Command::Add,
            pod: PodName { namespace: "shop".into(), name: "web".into(), uid: "u1".into() },
            container_id: "c1".into(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        }
    }

    #[test]
    fn messages_survive_in_pieces() {
        let bytes = encode(&request()).unwrap();
        for cut in 0..bytes.len() {
            assert_eq!(decode::<Request>(&bytes[..cut]).unwrap(), None, "{cut} bytes");
        }
        assert_eq!(decode(&bytes).unwrap(), Some(request()));
        let answer = Answer::NotYet("because".to_owned());
        assert_eq!(decode(&encode(&answer).unwrap()).unwrap(), Some(answer));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut bytes = encode(&request()).unwrap();
        bytes.push(0);
        assert!(matches!(decode::<Request>(&bytes), Err(FrameError::Trailing)));
        assert!(matches!(decode::<Request>(&[0xff; 4]), Err(FrameError::TooLong(_))));
        assert!(matches!(decode::<Request>(&[0, 0, 0, 2, b'{', b'}']), Err(FrameError::Malformed(_))));
        assert!(matches!(encode(&"x".repeat(MAX_MESSAGE)), Err(FrameError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Answer>(&bytes);
        }
    }
}
