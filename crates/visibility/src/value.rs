//! Values of search attributes, and their form in the API.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use everspan_proto::common::{Payload, SearchAttributes};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::{AttributeType, attribute, time};

/// A search attribute's value, by its type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// A keyword: compared as a whole.
    Keyword(String),
    /// Words.
    Text(String),
    /// A set of keywords, never empty.
    KeywordList(Vec<String>),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// True or false.
    Bool(bool),
    /// An instant, in nanoseconds since the epoch; negative before it.
    Datetime(i128),
}

impl Value {
    /// The value's type.
    #[must_use]
    pub fn kind(&self) -> AttributeType {
        match self {
            Value::Keyword(_) => AttributeType::Keyword,
            Value::Text(_) => AttributeType::Text,
            Value::KeywordList(_) => AttributeType::KeywordList,
            Value::Int(_) => AttributeType::Int,
            Value::Double(_) => AttributeType::Double,
            Value::Bool(_) => AttributeType::Bool,
            Value::Datetime(_) => AttributeType::Datetime,
        }
    }

    /// The API's form: JSON, with the type in the metadata.
    #[must_use]
    pub fn to_payload(&self) -> Payload {
        let data = match self {
            Value::Keyword(s) | Value::Text(s) => Json::from(s.as_str()).to_string(),
            Value::KeywordList(all) => Json::from(all.as_slice()).to_string(),
            Value::Int(n) => n.to_string(),
            // Whole numbers are written without a point, as Go does.
            Value::Double(n) if n.fract() == 0.0 && n.abs() < 1e21 => format!("{n:.0}"),
            Value::Double(n) => Json::from(*n).to_string(),
            Value::Bool(b) => b.to_string(),
            Value::Datetime(nanos) => format!("\"{}\"", time::show(*nanos)),
        };
        Payload {
            metadata: HashMap::from([
                ("encoding".to_owned(), Bytes::from_static(b"json/plain")),
                ("type".to_owned(), Bytes::from_static(self.kind().name().as_bytes())),
            ])
            .into_iter()
            .collect(),
            data: data.into(),
            ..Payload::default()
        }
    }

    /// From the API's form. The type is that of the server's own attribute `name`, else the
    /// one in the metadata, else the one that the JSON looks like. Nothing for null, for an
    /// empty list and for what does not fit the type.
    #[must_use]
    pub fn from_payload(name: &str, payload: &Payload) -> Option<Value> {
        let json: Json = serde_json::from_slice(&payload.data).ok()?;
        let named = || {
            let kind = payload.metadata.get("type")?;
            AttributeType::from_name(std::str::from_utf8(kind).ok()?)
        };
        let kind = attribute::predefined(name).or_else(named).or_else(|| guess(&json))?;
        from_json(kind, json)
    }
}

fn guess(json: &Json) -> Option<AttributeType> {
    match json {
        Json::String(_) => Some(AttributeType::Keyword),
        Json::Bool(_) => Some(AttributeType::Bool),
        Json::Number(n) if n.is_i64() => Some(AttributeType::Int),
        Json::Number(_) => Some(AttributeType::Double),
        Json::Array(_) => Some(AttributeType::KeywordList),
        _ => None,
    }
}

fn from_json(kind: AttributeType, json: Json) -> Option<Value> {
    let text = |json: &Json| json.as_str().map(str::to_owned);
    if kind == AttributeType::KeywordList {
        let all = match &json {
            Json::Array(all) => all.iter().map(text).collect::<Option<Vec<_>>>()?,
            one => vec![text(one)?],
        };
        return (!all.is_empty()).then_some(Value::KeywordList(all));
    }
    // A list of one stands for its element.
    let json = match json {
        Json::Array(mut all) if all.len() == 1 => all.pop()?,
        other => other,
    };
    Some(match kind {
        AttributeType::Keyword => Value::Keyword(text(&json)?),
        AttributeType::Text => Value::Text(text(&json)?),
        AttributeType::Int => Value::Int(json.as_i64()?),
        AttributeType::Double => Value::Double(json.as_f64()?),
        AttributeType::Bool => Value::Bool(json.as_bool()?),
        AttributeType::Datetime => Value::Datetime(time::datetime(json.as_str()?)?),
        AttributeType::KeywordList => return None,
    })
}

/// Reads search attributes; what is null, empty or does not fit its type is left out (it
/// was refused before it came here).
#[must_use]
pub fn attributes(api: &SearchAttributes) -> BTreeMap<String, Value> {
    let read = |(name, payload): (&String, &Payload)| {
        Some((name.clone(), Value::from_payload(name, payload)?))
    };
    api.indexed_fields.iter().filter_map(read).collect()
}

/// Whether a payload's value fits the type in its metadata.
#[must_use]
pub fn is_valid(payload: &Payload) -> bool {
    payload.metadata.contains_key("type") && Value::from_payload("", payload).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(kind: &str, data: &'static str) -> Payload {
        let mut metadata = BTreeMap::new();
        if !kind.is_empty() {
            metadata.insert("type".to_owned(), Bytes::from(kind.to_owned()));
        }
        Payload {
            metadata: metadata.into_iter().collect(),
            data: data.into(),
            ..Default::default()
        }
    }

    #[test]
    fn values_come_back_as_they_went() {
        for value in [
            Value::Keyword("a \"b\" ü".into()),
            Value::Text("x y".into()),
            Value::KeywordList(vec!["a".into(), "b".into()]),
            Value::Int(-7),
            Value::Double(3.0),
            Value::Double(0.1),
            Value::Double(1e300),
            Value::Bool(true),
            Value::Datetime(1_700_000_000_123_456_789),
        ] {
            assert_eq!(Value::from_payload("x", &value.to_payload()), Some(value));
        }
        assert_eq!(Value::Double(3.0).to_payload().data.as_ref(), b"3");
    }

    #[test]
    fn types_of_payloads() {
        let read = |name, kind, data| Value::from_payload(name, &payload(kind, data));
        assert_eq!(read("x", "Keyword", "[\"a\"]"), Some(Value::Keyword("a".into())));
        assert_eq!(read("x", "KeywordList", "\"a\""), Some(Value::KeywordList(vec!["a".into()])));
        assert_eq!(read("BuildIds", "", "\"a\""), Some(Value::KeywordList(vec!["a".into()])));
        assert_eq!(read("x", "", "1"), Some(Value::Int(1)));
        assert_eq!(read("x", "Double", "1"), Some(Value::Double(1.0)));
        assert_eq!(read("x", "Int", "1.5"), None);
        assert_eq!(read("x", "Int", "null"), None);
        assert_eq!(read("x", "KeywordList", "[]"), None);
        assert_eq!(read("x", "KeywordList", "[1]"), None);
        assert_eq!(read("x", "Int", ""), None);
        assert!(!is_valid(&payload("", "1")));
        assert!(is_valid(&payload("Int", "1")));
    }
}
