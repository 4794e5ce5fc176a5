//! Fields of a request that stand in its path or its query string.

use std::time::Duration;

use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value,
};

use super::input;

/// Sets a field that the path holds.
///
/// # Errors
/// If the text is no value of the field.
pub(crate) fn path(message: &mut DynamicMessage, field: &str, text: &str) -> Result<(), String> {
    let names: Vec<&str> = field.split('.').collect();
    set(message, &names, None, text)
        .map_err(|e| format!("type mismatch, parameter: {field}, error: {e}"))
}

/// Sets the fields that a query string holds, but for those that are bound elsewhere. A
/// parameter that names no field is skipped, as the real server does.
///
/// # Errors
/// If a text is no value of its field.
pub(crate) fn query(
    message: &mut DynamicMessage,
    parameters: &[(String, String)],
    bound: &[&str],
) -> Result<(), String> {
    for (name, text) in parameters {
        let (name, key) = match name.strip_suffix(']').and_then(|n| n.rsplit_once('[')) {
            Some((name, key)) => (name, Some(key)),
            None => (name.as_str(), None),
        };
        let Some(names) = resolve(&message.descriptor(), name) else { continue };
        let dotted = names.join(".");
        let is_bound = bound.iter().any(|b| {
            dotted.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        if is_bound {
            continue;
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        set(message, &names, key, text)?;
    }
    Ok(())
}

fn find(kind: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    kind.get_field_by_name(name).or_else(|| kind.get_field_by_json_name(name))
}

/// The proto names along a dotted path of either kind of names; none if there is no such
/// field.
fn resolve(kind: &MessageDescriptor, path: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut kind = Some(kind.clone());
    for name in path.split('.') {
        let field = find(kind.as_ref()?, name)?;
        names.push(field.name().to_owned());
        kind = match field.kind() {
            Kind::Message(inner) => Some(inner),
            _ => None,
        };
    }
    Some(names)
}

fn set(
    message: &mut DynamicMessage,
    names: &[&str],
    key: Option<&str>,
    text: &str,
) -> Result<(), String> {
    let [name, rest @ ..] = names else { return Err("no field path".into()) };
    let Some(field) = find(&message.descriptor(), name) else {
        return Err(format!("no field {name:?}"));
    };
    if let Some(oneof) = field.containing_oneof()
        && oneof.fields().any(|other| other != field && message.has_field(&other))
    {
        return Err(format!("field already set for oneof {:?}", oneof.name()));
    }
    if !rest.is_empty() {
        if field.is_list() || field.is_map() {
            return Err(format!("invalid path: {name:?} is not a message"));
        }
        return match message.get_field_mut(&field) {
            Value::Message(inner) => set(inner, rest, key, text),
            _ => Err(format!("invalid path: {name:?} is not a message")),
        };
    }
    let bad = |what: &str, kind: &Kind| {
        format!("parsing {what} {:?}: {text:?} is not a valid {}", field.name(), input::name(kind))
    };
    let kind = field.kind();
    if let (true, Kind::Message(entry)) = (field.is_map(), &kind) {
        let Some(key) = key else {
            return Err(format!("no key for map {:?}; write {0}[key]=value", field.name()));
        };
        let (key_kind, kind) =
            (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let key = input::scalar(&key_kind, key)
            .and_then(Value::into_map_key)
            .ok_or_else(|| bad("map key", &key_kind))?;
        let value = parse(&kind, text).ok_or_else(|| bad("map value", &kind))?;
        if let Some(map) = message.get_field_mut(&field).as_map_mut() {
            map.insert(key, value);
        }
    } else if field.is_list() {
        let value = parse(&kind, text).ok_or_else(|| bad("list", &kind))?;
        if let Some(list) = message.get_field_mut(&field).as_list_mut() {
            list.push(value);
        }
    } else {
        let value = parse(&kind, text).ok_or_else(|| bad("field", &kind))?;
        message.set_field(&field, value);
    }
    Ok(())
}

/// A scalar, or a message that text can stand for.
fn parse(kind: &Kind, text: &str) -> Option<Value> {
    let Kind::Message(kind) = kind else { return input::scalar(kind, text) };
    if kind.full_name() == "google.protobuf.Duration" {
        let (negative, d) = duration(text)?;
        let sign = if negative { -1 } else { 1 };
        let mut message = DynamicMessage::new(kind.clone());
        let seconds = i64::try_from(d.as_secs()).ok()?;
        message.set_field_by_name("seconds", Value::I64(sign * seconds));
        let nanos = i32::try_from(d.subsec_nanos()).ok()?;
        message.set_field_by_name("nanos", Value::I32(i32::try_from(sign).ok()? * nanos));
        return Some(Value::Message(message));
    }
    if !kind.full_name().starts_with("google.protobuf.") {
        return None;
    }
    // Timestamps and the like are strings in JSON; numbers, booleans and structs are not.
    let quoted = serde_json::to_string(text).ok()?;
    let message = input::read(kind, quoted.as_bytes(), false)
        .or_else(|_| input::read(kind, text.as_bytes(), false))
        .ok()?;
    Some(Value::Message(message))
}

/// Go's form of durations, `1h2m3.5s`, of which proto's, `3.5s`, is a part. Negative, and how
/// long.
fn duration(text: &str) -> Option<(bool, Duration)> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Some((false, Duration::ZERO));
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..end])?;
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        rest = &rest[end..];
    }
    Some((negative, total))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::{form::Form, output};

    fn set_all(kind: &str, parameters: &[(&str, &str)], bound: &[&str]) -> Result<String, String> {
        let pool = crate::descriptors::tests::pool();
        let name = format!("temporal.api.{kind}");
        let mut message = DynamicMessage::new(pool.get_message_by_name(&name).unwrap());
        let parameters: Vec<_> =
            parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        query(&mut message, &parameters, bound)?;
        Ok(String::from_utf8(output::write(&message, Form::DEFAULT).unwrap()).unwrap())
    }

    const HISTORY: &str = "workflowservice.v1.GetWorkflowExecutionHistoryRequest";
    const OPEN: &str = "workflowservice.v1.ListOpenWorkflowExecutionsRequest";

    #[test]
    fn fields_by_either_name() {
        let parameters = [
            ("execution.run_id", "r"),
            ("maximumPageSize", "5"),
            ("waitNewEvent", "true"),
            ("nextPageToken", "YWI"),
            ("historyEventFilterType", "HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT"),
        ];
        assert_eq!(
            set_all(HISTORY, &parameters, &[]).unwrap(),
            r#"{"execution":{"runId":"r"},"maximumPageSize":5,"nextPageToken":"YWI=","waitNewEvent":true,"historyEventFilterType":"HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT"}"#
        );
    }

    #[test]
    fn what_the_path_holds_and_what_is_unknown_is_skipped() {
        let parameters =
            [("namespace", "x"), ("execution.workflowId", "w"), ("pretty", ""), ("a.b", "c")];
        let bound = ["namespace", "execution.workflow_id"];
        assert_eq!(set_all(HISTORY, &parameters, &bound).unwrap(), "{}");
    }

    #[test]
    fn times_durations_and_maps() {
        let times = [("startTimeFilter.earliestTime", "2026-01-02T03:04:05.5Z")];
        assert_eq!(
            set_all(OPEN, &times, &[]).unwrap(),
            r#"{"startTimeFilter":{"earliestTime":"2026-01-02T03:04:05.500Z"}}"#
        );
        let kind = "workflowservice.v1.RegisterNamespaceRequest";
        let parameters =
            [("workflowExecutionRetentionPeriod", "1h0m1.5s"), ("data[a]", "b"), ("data[c]", "d")];
        assert_eq!(
            set_all(kind, &parameters, &[]).unwrap(),
            r#"{"workflowExecutionRetentionPeriod":"3601.500s","data":{"a":"b","c":"d"}}"#
        );
    }

    #[test]
    fn values_that_do_not_fit_are_told_with_their_field() {
        let wrong = |name, text| set_all(HISTORY, &[(name, text)], &[]).unwrap_err();
        assert_eq!(
            wrong("maximumPageSize", "many"),
            r#"parsing field "maximum_page_size": "many" is not a valid int32"#
        );
        for (name, text) in [
            ("waitNewEvent", "yes"),
            ("nextPageToken", "!"),
            ("historyEventFilterType", "Nothing"),
            ("execution", "x"),
            ("maximumPageSize", "99999999999"),
        ] {
            assert!(wrong(name, text).contains("is not a valid"), "{name}");
        }
        let both = [("executionFilter.workflowId", "a"), ("typeFilter.name", "b")];
        assert_eq!(
            set_all(OPEN, &both, &[]).unwrap_err(),
            r#"field already set for oneof "filters""#
        );
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1h2m3.5s"), Some((false, Duration::from_millis(3_723_500))));
        assert_eq!(duration("-5ms"), Some((true, Duration::from_millis(5))));
        assert_eq!(duration("0"), Some((false, Duration::ZERO)));
        for bad in ["", "-", "5", "5x", "s", "1..5s", "1e400h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
