//! JSON to messages: proto3's canonical form, with the API's shorthand for payloads and its
//! short names of enum values. Errors tell line and column.

use std::{borrow::Cow, collections::HashMap, collections::HashSet, fmt};

use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor,
    value::MapAccessDeserializer,
};

use super::payload::{self, PAYLOAD, PAYLOADS};

/// Reads a message.
///
/// # Errors
/// What is wrong, after where: `(line 1:2): unknown field "a"`.
pub(crate) fn read(
    kind: &MessageDescriptor,
    text: &[u8],
    shorthand: bool,
) -> Result<DynamicMessage, String> {
    all(text, Message { kind, shorthand })
}

/// Reads the value of one field.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_field(
    field: &FieldDescriptor,
    text: &[u8],
    shorthand: bool,
) -> Result<Option<Value>, String> {
    all(text, Field { field, shorthand })
}

fn all<'de, S: DeserializeSeed<'de>>(text: &'de [u8], seed: S) -> Result<S::Value, String> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    value.map_err(|e| {
        let (text, end) = (e.to_string(), format!(" at line {} column {}", e.line(), e.column()));
        let what = text.strip_suffix(&end).unwrap_or(&text);
        format!("(line {}:{}): {what}", e.line(), e.column())
    })
}

/// A message.
#[derive(Clone, Copy)]
struct Message<'k> {
    kind: &'k MessageDescriptor,
    shorthand: bool,
}

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = DynamicMessage;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<DynamicMessage, D::Error> {
        match self.kind.full_name() {
            PAYLOAD if self.shorthand => {
                let value = serde_json::Value::deserialize(json)?;
                payload::expand(self.kind.clone(), value).map_err(D::Error::custom)
            }
            PAYLOADS if self.shorthand => json.deserialize_any(self),
            // Well-known types have forms of their own.
            name if name.starts_with("google.protobuf.") => {
                DynamicMessage::deserialize(self.kind.clone(), json)
            }
            _ => json.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = DynamicMessage;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", self.kind.name())
    }

    /// Payloads in short form.
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<DynamicMessage, A::Error> {
        let mut message = DynamicMessage::new(self.kind.clone());
        let Some(field) = self.kind.get_field_by_name("payloads") else {
            return Err(A::Error::custom("an array where an object belongs"));
        };
        let element = Element { field: &field, kind: field.kind(), shorthand: self.shorthand };
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(&element)? {
            list.push(item);
        }
        message.set_field(&field, Value::List(list));
        Ok(message)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<DynamicMessage, A::Error> {
        let mut message = DynamicMessage::new(self.kind.clone());
        let mut seen = HashSet::new();
        while let Some(name) = entries.next_key::<Cow<'de, str>>()? {
            let field = self
                .kind
                .get_field_by_json_name(&name)
                .or_else(|| self.kind.get_field_by_name(&name))
                .ok_or_else(|| A::Error::custom(format!("unknown field {name:?}")))?;
            if !seen.insert(field.number()) {
                return Err(A::Error::custom(format!("duplicate field {name:?}")));
            }
            let seed = Field { field: &field, shorthand: self.shorthand };
            let Some(value) = entries.next_value_seed(seed)? else { continue };
            if let Some(oneof) = field.containing_oneof()
                && oneof.fields().any(|other| message.has_field(&other))
            {
                return Err(A::Error::custom(format!(
                    "error parsing {name:?}, oneof {} is already set",
                    oneof.full_name()
                )));
            }
            message.set_field(&field, value);
        }
        Ok(message)
    }
}

/// The value of a field; none for a null, which means unset.
struct Field<'k> {
    field: &'k FieldDescriptor,
    shorthand: bool,
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<Value>, D::Error> {
        match self.field.kind() {
            Kind::Message(kind) if kind.full_name() == "google.protobuf.Value" => {
                self.present(json).map(Some)
            }
            _ => json.deserialize_option(self),
        }
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of {}", self.field.json_name())
    }

    fn visit_none<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<Option<Value>, D::Error> {
        self.present(json).map(Some)
    }
}

impl Field<'_> {
    fn present<'de, D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        let Field { field, shorthand } = self;
        match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let (key, kind) =
                    (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
                json.deserialize_map(Entries { key, element: Element { field, kind, shorthand } })
            }
            kind if field.is_list() => {
                json.deserialize_seq(List(Element { field, kind, shorthand }))
            }
            kind => (&Element { field, kind, shorthand }).deserialize(json),
        }
    }
}

struct List<'k>(Element<'k>);

impl<'de> Visitor<'de> for List<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array ({})", self.0.field.json_name())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(&self.0)? {
            list.push(item);
        }
        Ok(Value::List(list))
    }
}

struct Entries<'k> {
    key: Kind,
    element: Element<'k>,
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", self.element.field.json_name())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = HashMap::new();
        while let Some(text) = entries.next_key::<Cow<'de, str>>()? {
            let key = map_key(&self.key, &text).ok_or_else(|| {
                A::Error::custom(format!("invalid value for {} key: {text:?}", name(&self.key)))
            })?;
            let value = entries.next_value_seed(&self.element)?;
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom(format!("duplicate map key {text:?}")));
            }
        }
        Ok(Value::Map(map))
    }
}

fn map_key(kind: &Kind, text: &str) -> Option<MapKey> {
    match kind {
        Kind::String => Some(MapKey::String(text.to_owned())),
        Kind::Bool => text.parse().ok().map(MapKey::Bool),
        kind => number(kind, Number::of(text)?)?.into_map_key(),
    }
}

/// One value: a field's, a list's or a map's.
struct Element<'k> {
    field: &'k FieldDescriptor,
    kind: Kind,
    shorthand: bool,
}

impl<'de> DeserializeSeed<'de> for &Element<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        match &self.kind {
            Kind::Message(kind) => {
                Message { kind, shorthand: self.shorthand }.deserialize(json).map(Value::Message)
            }
            _ => json.deserialize_any(self),
        }
    }
}

impl Element<'_> {
    fn wrong<E: Error>(&self, value: impl fmt::Debug) -> E {
        E::custom(format!(
            "invalid value for {} of type {}: {value:?}",
            self.field.json_name(),
            name(&self.kind)
        ))
    }

    fn number<E: Error>(&self, n: Number, value: impl fmt::Debug) -> Result<Value, E> {
        number(&self.kind, n).ok_or_else(|| self.wrong(value))
    }
}

impl<'de> Visitor<'de> for &Element<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of type {} ({})", name(&self.kind), self.field.json_name())
    }

    fn visit_bool<E: Error>(self, b: bool) -> Result<Value, E> {
        if matches!(self.kind, Kind::Bool) { Ok(Value::Bool(b)) } else { Err(self.wrong(b)) }
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<Value, E> {
        self.number(Number::Integer(n.into()), n)
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<Value, E> {
        self.number(Number::Integer(n.into()), n)
    }

    fn visit_f64<E: Error>(self, x: f64) -> Result<Value, E> {
        self.number(Number::Float(x), x)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        let value = match &self.kind {
            Kind::String => Some(Value::String(text.to_owned())),
            Kind::Bytes => payload::bytes(text).map(Value::Bytes),
            Kind::Enum(kind) => enum_value(kind, text).map(Value::EnumNumber),
            kind => Number::of(text).and_then(|n| number(kind, n)),
        };
        value.ok_or_else(|| self.wrong(text))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Err(E::custom(format!("null in {}", self.field.json_name())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(self.wrong("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        // Read to its end, so that a syntax error in it is what is told.
        serde::de::IgnoredAny::deserialize(MapAccessDeserializer::new(map))?;
        Err(self.wrong("an object"))
    }
}

/// A JSON number, in a string or not.
#[derive(Clone, Copy)]
enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    fn of(text: &str) -> Option<Number> {
        match text {
            "NaN" => return Some(Number::Float(f64::NAN)),
            "Infinity" => return Some(Number::Float(f64::INFINITY)),
            "-Infinity" => return Some(Number::Float(f64::NEG_INFINITY)),
            _ => {}
        }
        // Rust reads more than JSON does: "+1", "inf".
        if !text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return None;
        }
        let integer = text.parse().ok().map(Number::Integer);
        integer.or_else(|| text.parse().ok().map(Number::Float))
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn number(kind: &Kind, n: Number) -> Option<Value> {
    let integer = || match n {
        Number::Integer(n) => Some(n),
        Number::Float(x) if x.fract() == 0.0 && x.abs() < 1e19 => Some(x as i128),
        Number::Float(_) => None,
    };
    let float = || match n {
        Number::Integer(n) => n as f64,
        Number::Float(x) => x,
    };
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            i32::try_from(integer()?).ok().map(Value::I32)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            i64::try_from(integer()?).ok().map(Value::I64)
        }
        Kind::Uint32 | Kind::Fixed32 => u32::try_from(integer()?).ok().map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => u64::try_from(integer()?).ok().map(Value::U64),
        Kind::Enum(_) => i32::try_from(integer()?).ok().map(Value::EnumNumber),
        Kind::Float => Some(Value::F32(float() as f32)),
        Kind::Double => Some(Value::F64(float())),
        _ => None,
    }
}

/// An enum value by its name, or by the part of it that is not the enum's name, in camel case.
pub(crate) fn enum_value(kind: &EnumDescriptor, text: &str) -> Option<i32> {
    let long = || format!("{}_{}", screaming(kind.name()), screaming(text));
    let value = kind.get_value_by_name(text).or_else(|| kind.get_value_by_name(&long()))?;
    Some(value.number())
}

/// `TimedOut` as `TIMED_OUT`.
fn screaming(camel: &str) -> String {
    let chars: Vec<char> = camel.chars().collect();
    let mut out = String::with_capacity(camel.len() + 8);
    for (i, c) in chars.iter().enumerate() {
        let follows_lower = i > 0 && !chars[i - 1].is_uppercase() && chars[i - 1] != '_';
        let ends_acronym = i > 0
            && chars[i - 1].is_uppercase()
            && chars.get(i + 1).is_some_and(|next| next.is_lowercase());
        if c.is_uppercase() && (follows_lower || ends_acronym) {
            out.push('_');
        }
        out.extend(c.to_uppercase());
    }
    out
}

/// What a kind is called in errors.
pub(crate) fn name(kind: &Kind) -> Cow<'static, str> {
    Cow::Borrowed(match kind {
        Kind::Double => "double",
        Kind::Float => "float",
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "int32",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "int64",
        Kind::Uint32 | Kind::Fixed32 => "uint32",
        Kind::Uint64 | Kind::Fixed64 => "uint64",
        Kind::Bool => "bool",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Message(m) => return m.name().to_owned().into(),
        Kind::Enum(e) => return e.name().to_owned().into(),
    })
}

/// A scalar out of plain text, as parameters hold it.
pub(crate) fn scalar(kind: &Kind, text: &str) -> Option<Value> {
    match kind {
        Kind::String => Some(Value::String(text.to_owned())),
        Kind::Bytes => payload::bytes(text).map(Value::Bytes),
        Kind::Bool => match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(Value::Bool(false)),
            _ => None,
        },
        Kind::Enum(e) => {
            let by_number = || e.get_value(text.parse().ok()?).map(|v| v.number());
            enum_value(e, text).or_else(by_number).map(Value::EnumNumber)
        }
        Kind::Message(_) => None,
        kind => number(kind, Number::of(text)?),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::{form::Form, output};

    fn kind(name: &str) -> MessageDescriptor {
        let pool = crate::descriptors::tests::pool();
        pool.get_message_by_name(&format!("temporal.api.{name}")).unwrap()
    }

    /// Reads and writes again.
    fn there_and_back(name: &str, text: &str) -> Result<String, String> {
        let message = read(&kind(name), text.as_bytes(), true)?;
        Ok(String::from_utf8(output::write(&message, Form::DEFAULT).unwrap()).unwrap())
    }

    const START: &str = "workflowservice.v1.StartWorkflowExecutionRequest";
    const SIGNAL: &str = "workflowservice.v1.SignalWorkflowExecutionRequest";
    const HISTORY: &str = "workflowservice.v1.GetWorkflowExecutionHistoryRequest";
    const EVENT: &str = "history.v1.HistoryEvent";

    #[test]
    fn every_kind_of_field() {
        for (name, text) in [
            (
                START,
                r#"{"workflowId":"w","input":[1,{"a":[]}],"workflowRunTimeout":"1.500s","retryPolicy":{"backoffCoefficient":1.5,"maximumAttempts":3,"nonRetryableErrorTypes":["a","b"]},"memo":{"fields":{"a":"x","b":2}},"requestEagerExecution":true}"#,
            ),
            (
                EVENT,
                r#"{"eventId":"9007199254740993","eventTime":"2026-01-02T03:04:05.678Z","eventType":"EVENT_TYPE_TIMER_FIRED","timerFiredEventAttributes":{"timerId":"t","startedEventId":"5"}}"#,
            ),
            (
                HISTORY,
                r#"{"nextPageToken":"AQID/w==","historyEventFilterType":"HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT"}"#,
            ),
            ("taskqueue.v1.PollerInfo", r#"{"ratePerSecond":100000.0}"#),
            ("taskqueue.v1.PollerInfo", r#"{"ratePerSecond":"Infinity"}"#),
        ] {
            assert_eq!(there_and_back(name, text).unwrap(), text);
        }
    }

    #[test]
    fn other_spellings() {
        for (name, text, canonical) in [
            (START, r#"{"workflow_id":"w","input":null}"#, r#"{"workflowId":"w"}"#),
            (
                START,
                r#"{"workflowIdReusePolicy":"AllowDuplicate"}"#,
                r#"{"workflowIdReusePolicy":"WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE"}"#,
            ),
            (
                START,
                r#"{"workflowIdReusePolicy":2}"#,
                r#"{"workflowIdReusePolicy":"WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY"}"#,
            ),
            (EVENT, r#"{"eventId":5,"version":"7"}"#, r#"{"eventId":"5","version":"7"}"#),
            (EVENT, r#"{"eventId":5.0,"version":7e0}"#, r#"{"eventId":"5","version":"7"}"#),
            (HISTORY, r#"{"maximumPageSize":"5"}"#, r#"{"maximumPageSize":5}"#),
            (HISTORY, "{\"nextPageToken\":\"AQID_w\"}", r#"{"nextPageToken":"AQID/w=="}"#),
            (START, r#"{"input":{"payloads":[5]}}"#, r#"{"input":[5]}"#),
        ] {
            assert_eq!(there_and_back(name, text).unwrap(), canonical);
        }
    }

    #[test]
    fn errors_tell_where() {
        for (text, told) in [
            ("{\"input\": ", "(line 1:10): EOF while parsing a value"),
            ("{\n  \"nobodyKnowsThis\": 1}", "(line 2:19): unknown field \"nobodyKnowsThis\""),
            (r#"{"signalName": 5}"#, "(line 1:16): invalid value for signalName of type string: 5"),
            (r#"{"links": {}}"#, "(line 1:10): invalid type: map, expected an array (links)"),
            (
                r#"["not", "an", "object"]"#,
                "(line 1:0): invalid type: sequence, expected an object (SignalWorkflowExecutionRequest)",
            ),
            ("no json", "(line 1:2): expected ident"),
            (r#"{"identity":"a","identity":"b"}"#, "(line 1:26): duplicate field \"identity\""),
            (r#"{"header":{"fields":{"a":1,"a":2}}}"#, "(line 1:33): duplicate map key \"a\""),
            (r#"{"identity":"a"} {}"#, "(line 1:18): trailing characters"),
            (
                r#"{"workflowExecution":"w"}"#,
                "(line 1:24): invalid type: string \"w\", expected an object (WorkflowExecution)",
            ),
        ] {
            assert_eq!(there_and_back(SIGNAL, text).unwrap_err(), told, "{text}");
        }
    }

    #[test]
    fn values_that_do_not_fit() {
        for (name, text) in [
            (HISTORY, r#"{"maximumPageSize":2147483648}"#),
            (HISTORY, r#"{"maximumPageSize":1.5}"#),
            (HISTORY, r#"{"maximumPageSize":"+5"}"#),
            (HISTORY, r#"{"maximumPageSize":[1]}"#),
            (HISTORY, r#"{"maximumPageSize":{"a":1}}"#),
            (HISTORY, r#"{"waitNewEvent":"true"}"#),
            (HISTORY, r#"{"nextPageToken":"!"}"#),
            (HISTORY, r#"{"historyEventFilterType":"Nothing"}"#),
            (EVENT, r#"{"eventId":9223372036854775808}"#),
            (EVENT, r#"{"eventTime":"yesterday"}"#),
            (START, r#"{"workflowRunTimeout":5}"#),
            (START, r#"{"links":[null]}"#),
            (EVENT, r#"{"timerFiredEventAttributes":{},"timerCanceledEventAttributes":{}}"#),
        ] {
            assert!(there_and_back(name, text).is_err(), "{text}");
        }
    }

    #[test]
    fn payloads_in_full_when_shorthand_is_off() {
        let long = r#"{"input":{"payloads":[{"metadata":{"encoding":"anNvbi9wbGFpbg=="},"data":"MQ=="}]}}"#;
        let form = Form { pretty: false, shorthand: false };
        let message = read(&kind(START), long.as_bytes(), false).unwrap();
        assert_eq!(output::write(&message, form).unwrap(), long.as_bytes());
        assert_eq!(output::write(&message, Form::DEFAULT).unwrap(), br#"{"input":[1]}"#);
        assert!(read(&kind(START), br#"{"input":[1]}"#, false).is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!(r#"{{"input":{}1{}}}"#, "[".repeat(500), "]".repeat(500));
        assert!(there_and_back(START, &deep).unwrap_err().contains("recursion limit"));
    }

    #[test]
    fn camel_to_screaming() {
        for (camel, wanted) in [
            ("TimedOut", "TIMED_OUT"),
            ("WorkflowIdReusePolicy", "WORKFLOW_ID_REUSE_POLICY"),
            ("SDKMetadata", "SDK_METADATA"),
            ("ALREADY_SO", "ALREADY_SO"),
            ("running", "RUNNING"),
        ] {
            assert_eq!(screaming(camel), wanted);
        }
    }
}
