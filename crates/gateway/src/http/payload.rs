//! The API's shorthand for payloads: the JSON value that a payload holds stands for it.

use base64::{Engine, alphabet, engine::DecodePaddingMode, engine::general_purpose as engines};
use bytes::Bytes;
use prost_reflect::{DynamicMessage, MapKey, MessageDescriptor, Value};
use serde_json::{Map, Value as Json, json};

/// A message that may stand in short form.
pub(crate) const PAYLOAD: &str = "temporal.api.common.v1.Payload";
/// A message that may stand as an array of payloads.
pub(crate) const PAYLOADS: &str = "temporal.api.common.v1.Payloads";

/// Names the type of a value encoded as `json/protobuf`.
const MESSAGE_TYPE: &str = "_protoMessageType";
/// `binary/null`, as bytes are written in JSON.
const BINARY_NULL: &str = "YmluYXJ5L251bGw=";

const LENIENT: engines::GeneralPurposeConfig =
    engines::GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: engines::GeneralPurpose =
    engines::GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: engines::GeneralPurpose =
    engines::GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Bytes in JSON: base64 of either alphabet, padded or not.
pub(crate) fn bytes(text: &str) -> Option<Bytes> {
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    engine.decode(text).ok().map(Bytes::from)
}

fn metadata(payload: &DynamicMessage) -> Vec<(String, Bytes)> {
    let Some(field) = payload.get_field_by_name("metadata") else { return Vec::new() };
    let entries = field.as_map().into_iter().flatten();
    entries
        .filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value.as_bytes()?.clone())))
        .collect()
}

/// The short form of a payload; none if it has to be written in full.
pub(crate) fn shorten(payload: &DynamicMessage) -> Option<Json> {
    if payload.has_field_by_name("external_payloads") {
        return None;
    }
    let metadata = metadata(payload);
    let get = |name: &str| metadata.iter().find(|(n, _)| n == name).map(|(_, value)| value);
    let data = payload.get_field_by_name("data")?;
    let data = data.as_bytes()?;
    match get("encoding")?.as_ref() {
        b"binary/null" => Some(json!({ "metadata": { "encoding": BINARY_NULL } })),
        b"json/plain" if metadata.len() == 1 => match serde_json::from_slice(data).ok()? {
            // A bare null would be read back as no payload.
            Json::Null => Some(json!({ "metadata": { "encoding": BINARY_NULL } })),
            value => Some(value),
        },
        b"json/protobuf" if metadata.len() == 2 => {
            let kind = std::str::from_utf8(get("messageType")?).ok()?;
            let mut value: Map<String, Json> = serde_json::from_slice(data).ok()?;
            value.insert(MESSAGE_TYPE.to_owned(), kind.into());
            Some(Json::Object(value))
        }
        _ => None,
    }
}

/// A payload out of either form.
///
/// # Errors
/// If a message type is no text.
pub(crate) fn expand(kind: MessageDescriptor, value: Json) -> Result<DynamicMessage, String> {
    let plain = |value: &Json| (value.to_string(), vec![("encoding", "json/plain".to_owned())]);
    let (data, metadata) = match value {
        Json::Null => (String::new(), vec![("encoding", "binary/null".to_owned())]),
        Json::Object(mut fields) => {
            if let Some((metadata, data)) = full(&fields) {
                return Ok(payload(kind, data, metadata));
            }
            match fields.remove(MESSAGE_TYPE) {
                Some(Json::String(name)) => {
                    let metadata =
                        vec![("encoding", "json/protobuf".to_owned()), ("messageType", name)];
                    (Json::Object(fields).to_string(), metadata)
                }
                Some(_) => return Err(format!("{MESSAGE_TYPE} of a payload is not a string")),
                None => plain(&Json::Object(fields)),
            }
        }
        other => plain(&other),
    };
    let metadata = metadata.into_iter().map(|(n, v)| (n.to_owned(), Bytes::from(v))).collect();
    Ok(payload(kind, data.into(), metadata))
}

type Metadata = Vec<(String, Bytes)>;

/// Metadata and data, if an object is a payload in full: both are there, nothing else is,
/// and both read as such.
fn full(fields: &Map<String, Json>) -> Option<(Metadata, Bytes)> {
    let metadata = fields.get("metadata")?.as_object()?;
    let encoding = metadata.get("encoding")?;
    let data = match fields.get("data") {
        Some(data) if fields.len() == 2 => bytes(data.as_str()?)?,
        None if fields.len() == 1 && encoding == BINARY_NULL => Bytes::new(),
        _ => return None,
    };
    let metadata = metadata
        .iter()
        .map(|(name, value)| Some((name.clone(), bytes(value.as_str()?)?)))
        .collect::<Option<_>>()?;
    Some((metadata, data))
}

fn payload(kind: MessageDescriptor, data: Bytes, metadata: Metadata) -> DynamicMessage {
    let mut message = DynamicMessage::new(kind);
    let entries = metadata.into_iter().map(|(n, v)| (MapKey::String(n), Value::Bytes(v)));
    message.set_field_by_name("metadata", Value::Map(entries.collect()));
    message.set_field_by_name("data", Value::Bytes(data));
    message
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn kind() -> MessageDescriptor {
        let pool = crate::descriptors::tests::pool();
        pool.get_message_by_name(PAYLOAD).unwrap()
    }

    fn of(encoding: &str, data: &str) -> DynamicMessage {
        let metadata = vec![("encoding".to_owned(), Bytes::from(encoding.to_owned()))];
        payload(kind(), Bytes::from(data.to_owned()), metadata)
    }

    fn back(value: &Json) -> Json {
        shorten(&expand(kind(), value.clone()).unwrap()).unwrap()
    }

    #[test]
    fn plain_values_go_there_and_back() {
        for value in [json!(1), json!("a"), json!([]), json!({"a": [null, 1.5]}), json!(false)] {
            assert_eq!(back(&value), value);
            let payload = expand(kind(), value.clone()).unwrap();
            assert_eq!(payload, of("json/plain", &value.to_string()));
        }
    }

    #[test]
    fn null_is_binary_null() {
        let null = json!({"metadata": {"encoding": "YmluYXJ5L251bGw="}});
        assert_eq!(expand(kind(), Json::Null).unwrap(), of("binary/null", ""));
        assert_eq!(back(&Json::Null), null);
        assert_eq!(back(&null), null);
        assert_eq!(shorten(&of("json/plain", "null")).unwrap(), null);
    }

    #[test]
    fn protobuf_values_name_their_type() {
        let value = json!({"_protoMessageType": "a.B", "x": 1});
        let payload = expand(kind(), value.clone()).unwrap();
        assert_eq!(
            payload.get_field_by_name("data").unwrap().as_bytes().unwrap().as_ref(),
            br#"{"x":1}"#
        );
        assert_eq!(shorten(&payload).unwrap(), value);
        assert!(expand(kind(), json!({"_protoMessageType": 1})).is_err());
    }

    #[test]
    fn full_payloads_are_taken_as_such() {
        // "encoding": "json/plain", unpadded and in the other alphabet too.
        for metadata in ["anNvbi9wbGFpbg==", "anNvbi9wbGFpbg"] {
            let value = json!({"metadata": {"encoding": metadata}, "data": "Im9uZSI="});
            assert_eq!(expand(kind(), value).unwrap(), of("json/plain", "\"one\""));
        }
    }

    #[test]
    fn what_only_looks_like_a_payload_is_a_value() {
        for value in [
            json!({"metadata": {"encoding": "anNvbi9wbGFpbg=="}}),
            json!({"metadata": {"encoding": 5}, "data": "Im9uZSI="}),
            json!({"metadata": {"encoding": "anNvbi9wbGFpbg=="}, "data": "Im9uZSI=", "x": 1}),
            json!({"metadata": {"encoding": "anNvbi9wbGFpbg=="}, "data": "no base64!"}),
            json!({"metadata": {}, "data": "Im9uZSI="}),
        ] {
            assert_eq!(back(&value), value);
        }
    }

    #[test]
    fn other_encodings_have_no_short_form() {
        assert_eq!(shorten(&of("binary/plain", "x")), None);
        assert_eq!(shorten(&of("json/plain", "{no json")), None);
        assert_eq!(shorten(&DynamicMessage::new(kind())), None);
        let mut two = of("json/plain", "1");
        let more = Value::Bytes(Bytes::from_static(b"Keyword"));
        two.get_field_by_name_mut("metadata")
            .unwrap()
            .as_map_mut()
            .unwrap()
            .insert(MapKey::String("type".into()), more);
        assert_eq!(shorten(&two), None);
    }
}
