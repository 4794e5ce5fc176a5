//! How the API's messages stand inside structs of ours that go from node to node: as protobuf
//! bytes, since bincode does not know their JSON form. For `#[serde(with = …)]`.
//!
//! What goes from node to node is encoded by [`to_bytes`]. Its form is that of one protocol
//! version, which nodes compare before they speak; nothing of it is ever stored.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{EnvelopeError, decode, encode};

/// The version of what nodes say to each other. A change that the release before cannot read
/// counts it up.
pub const PROTOCOL: u8 = 1;

/// Encodes what goes to another node.
#[must_use]
pub fn to_bytes<T: Serialize>(value: &T) -> Bytes {
    encode(PROTOCOL, value).into()
}

/// Reads what came from another node.
///
/// # Errors
/// If it is not what [`to_bytes`] makes.
pub fn from_bytes<T: DeserializeOwned>(raw: &[u8]) -> Result<T, EnvelopeError> {
    decode(PROTOCOL, raw)
}

/// A message, also in a box.
pub mod message {
    use prost::Message;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    /// Serialises.
    ///
    /// # Errors
    /// The serialiser's.
    pub fn serialize<M: Message, S: Serializer>(value: &M, to: S) -> Result<S::Ok, S::Error> {
        bytes::Bytes::from(value.encode_to_vec()).serialize(to)
    }

    /// Reads back.
    ///
    /// # Errors
    /// If it is no such message.
    pub fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
        from: D,
    ) -> Result<M, D::Error> {
        M::decode(bytes::Bytes::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A message that may be missing, also in a box.
pub mod optional {
    use prost::Message;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    /// Serialises.
    ///
    /// # Errors
    /// The serialiser's.
    pub fn serialize<M: Message, S: Serializer>(
        value: &Option<M>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|m| bytes::Bytes::from(m.encode_to_vec())).serialize(to)
    }

    /// Reads back.
    ///
    /// # Errors
    /// If it is no such message.
    pub fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<M>, D::Error> {
        let raw = Option::<bytes::Bytes>::deserialize(from)?;
        raw.map(M::decode).transpose().map_err(D::Error::custom)
    }
}

/// An enumeration of the API.
pub mod enumeration {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    /// Serialises.
    ///
    /// # Errors
    /// The serialiser's.
    pub fn serialize<E: Copy + Into<i32>, S: Serializer>(
        value: &E,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        (*value).into().serialize(to)
    }

    /// Reads back.
    ///
    /// # Errors
    /// If it has no such value.
    pub fn deserialize<'de, E: TryFrom<i32>, D: Deserializer<'de>>(from: D) -> Result<E, D::Error> {
        let number = i32::deserialize(from)?;
        E::try_from(number).map_err(|_| D::Error::custom("not a value of the enumeration"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use everspan_proto::{
        enums::{ResourceExhaustedCause, ResourceExhaustedScope},
        failure::Failure,
        workflowservice::PollWorkflowTaskQueueResponse,
    };

    use super::*;
    use crate::{Error, Poller, StartedTask};

    fn again<T: Serialize + DeserializeOwned>(value: &T) -> T {
        from_bytes(&to_bytes(value)).unwrap()
    }

    #[test]
    fn what_holds_messages_comes_back() {
        let failure = Failure { message: "no".into(), ..Failure::default() };
        for error in [
            Error::QueryFailed { message: "no".into(), failure: Some(Box::new(failure)) },
            Error::QueryFailed { message: "no".into(), failure: None },
            Error::ResourceExhausted {
                cause: ResourceExhaustedCause::SystemOverloaded,
                scope: ResourceExhaustedScope::System,
                message: "full".into(),
            },
            Error::MultiOperation(Box::new([Some(Error::OperationAborted), None])),
        ] {
            assert_eq!(again(&error), error);
        }
        let task = StartedTask::Workflow(Box::new(PollWorkflowTaskQueueResponse {
            attempt: 3,
            ..PollWorkflowTaskQueueResponse::default()
        }));
        assert_eq!(again(&task), task);
        let poller = Poller { identity: "w".into(), ..Poller::default() };
        assert_eq!(again(&poller), poller);
        assert!(from_bytes::<Poller>(b"xxxxxxxxx").is_err());
    }
}
