//! Protobuf messages inside our own records: stored as their encoded bytes.

use prost::Message;
use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(crate) fn serialize<M: Message, S: Serializer>(m: &M, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_bytes(&m.encode_to_vec())
}

pub(crate) fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
    d: D,
) -> Result<M, D::Error> {
    let raw = bytes::Bytes::deserialize(d)?;
    M::decode(raw).map_err(D::Error::custom)
}

/// The same for `Option<M>`.
pub(crate) mod option {
    use super::{Deserialize, Deserializer, Error, Message, Serializer};

    pub(crate) fn serialize<M: Message, S: Serializer>(
        m: &Option<M>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match m {
            Some(m) => s.serialize_some(&bytes::Bytes::from(m.encode_to_vec())),
            None => s.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<M>, D::Error> {
        Option::<bytes::Bytes>::deserialize(d)?
            .map(|raw| M::decode(raw).map_err(D::Error::custom))
            .transpose()
    }
}
