//! Messages to JSON: proto3's canonical form, with the API's shorthand for payloads.

use base64::{Engine, prelude::BASE64_STANDARD};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};
use serde::ser::{Error as _, Serialize, SerializeMap, SerializeSeq, Serializer};

use super::{
    form::Form,
    payload::{self, PAYLOAD, PAYLOADS},
};

/// A message's JSON.
///
/// # Errors
/// If a timestamp or duration in it is out of JSON's range.
pub(crate) fn write(message: &DynamicMessage, form: Form) -> Result<Vec<u8>, String> {
    let message = Message { message, shorthand: form.shorthand, type_url: None };
    let text = if form.pretty {
        serde_json::to_vec_pretty(&message)
    } else {
        serde_json::to_vec(&message)
    };
    text.map_err(|e| e.to_string())
}

struct Message<'m> {
    message: &'m DynamicMessage,
    shorthand: bool,
    /// Written as `@type`, for what stands in a `google.protobuf.Any`.
    type_url: Option<&'m str>,
}

impl Serialize for Message<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = self.message.descriptor();
        match kind.full_name() {
            "google.protobuf.Any" => return self.any(serializer),
            // Well-known types have forms of their own.
            name if name.starts_with("google.protobuf.") => {
                return self.message.serialize(serializer);
            }
            PAYLOAD if self.shorthand => {
                if let Some(value) = payload::shorten(self.message) {
                    return value.serialize(serializer);
                }
            }
            PAYLOADS if self.shorthand => {
                let field = self.message.get_field_by_name("payloads");
                let all = field.as_ref().and_then(|v| v.as_list()).unwrap_or_default();
                let short = |p: &Value| payload::shorten(p.as_message()?);
                if let Some(values) = all.iter().map(short).collect::<Option<Vec<_>>>() {
                    return values.serialize(serializer);
                }
            }
            _ => {}
        }
        let mut map = serializer.serialize_map(None)?;
        if let Some(url) = self.type_url {
            map.serialize_entry("@type", url)?;
        }
        for field in kind.fields().filter(|f| self.message.has_field(f)) {
            let value = self.message.get_field(&field);
            map.serialize_entry(
                field.json_name(),
                &Field { field: &field, value: &value, shorthand: self.shorthand },
            )?;
        }
        map.end()
    }
}

impl Message<'_> {
    fn any<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let field = |name| self.message.get_field_by_name(name);
        let url = field("type_url").and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        let raw = field("value").and_then(|v| v.as_bytes().cloned()).unwrap_or_default();
        let name = url.rsplit('/').next().unwrap_or_default();
        let kind = self.message.descriptor().parent_pool().get_message_by_name(name);
        let Some(kind) = kind.filter(|k| !k.full_name().starts_with("google.protobuf.")) else {
            let mut map = serializer.serialize_map(Some(2))?;
            map.serialize_entry("@type", &url)?;
            map.serialize_entry("value", &BASE64_STANDARD.encode(raw))?;
            return map.end();
        };
        let message = DynamicMessage::decode(kind, raw).map_err(S::Error::custom)?;
        Message { message: &message, shorthand: self.shorthand, type_url: Some(&url) }
            .serialize(serializer)
    }
}

struct Field<'m> {
    field: &'m FieldDescriptor,
    value: &'m Value,
    shorthand: bool,
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = self.field.kind();
        let shorthand = self.shorthand;
        match (self.value, &kind) {
            (Value::List(items), kind) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for value in items {
                    list.serialize_element(&Single { kind, value, shorthand })?;
                }
                list.end()
            }
            (Value::Map(entries), Kind::Message(entry)) => {
                let kind = entry.map_entry_value_field().kind();
                let mut entries: Vec<_> = entries.iter().map(|(k, v)| (key(k), v)).collect();
                entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (name, value) in entries {
                    map.serialize_entry(&name, &Single { kind: &kind, value, shorthand })?;
                }
                map.end()
            }
            (value, kind) => Single { kind, value, shorthand }.serialize(serializer),
        }
    }
}

fn key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(b) => b.to_string(),
        MapKey::I32(n) => n.to_string(),
        MapKey::I64(n) => n.to_string(),
        MapKey::U32(n) => n.to_string(),
        MapKey::U64(n) => n.to_string(),
        MapKey::String(s) => s.clone(),
    }
}

struct Single<'m> {
    kind: &'m Kind,
    value: &'m Value,
    shorthand: bool,
}

impl Serialize for Single<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::I32(n) => serializer.serialize_i32(*n),
            Value::U32(n) => serializer.serialize_u32(*n),
            // 64-bit numbers do not fit into JavaScript's.
            Value::I64(n) => serializer.collect_str(n),
            Value::U64(n) => serializer.collect_str(n),
            Value::F32(x) => match special(f64::from(*x)) {
                Some(name) => serializer.serialize_str(name),
                None => serializer.serialize_f32(*x),
            },
            Value::F64(x) => match special(*x) {
                Some(name) => serializer.serialize_str(name),
                None => serializer.serialize_f64(*x),
            },
            Value::String(s) => serializer.serialize_str(s),
            Value::Bytes(b) => serializer.serialize_str(&BASE64_STANDARD.encode(b)),
            Value::EnumNumber(n) => {
                let name = match self.kind {
                    Kind::Enum(kind) => kind.get_value(*n),
                    _ => None,
                };
                match name {
                    Some(value) => serializer.serialize_str(value.name()),
                    None => serializer.serialize_i32(*n),
                }
            }
            Value::Message(message) => {
                Message { message, shorthand: self.shorthand, type_url: None }.serialize(serializer)
            }
            Value::List(_) | Value::Map(_) => Err(S::Error::custom("a list within a list")),
        }
    }
}

/// JSON has no numbers for these.
fn special(x: f64) -> Option<&'static str> {
    if x.is_nan() {
        Some("NaN")
    } else if x == f64::INFINITY {
        Some("Infinity")
    } else if x == f64::NEG_INFINITY {
        Some("-Infinity")
    } else {
        None
    }
}
