//! Between the API's shapes and ours.

use std::time::Duration;

use bytes::Bytes;
use everspan_proto::{
    common::{Memo, Payload, SearchAttributes},
    enums::{TaskQueueKind, TimeoutType},
    failure::{Failure, ServerFailureInfo, TimeoutFailureInfo, failure::FailureInfo},
    taskqueue::TaskQueue,
};

/// Longest duration that the API takes; longer ones are cut to it (10,000 years would
/// overflow arithmetic on nanoseconds, 100 do not).
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Whether a task queue is the server's own, which only what runs on such a queue may use.
#[must_use]
pub fn is_internal_queue(name: &str) -> bool {
    name.starts_with("temporal-sys-per-ns-") || name == "temporal-sys-worker-controller-per-ns-tq"
}

/// A search attribute that is a keyword.
#[must_use]
pub fn keyword(word: &str) -> Payload {
    attribute(b"Keyword", json_string(word))
}

/// A search attribute that is a list of keywords.
#[must_use]
pub fn keyword_list(words: &[String]) -> Payload {
    let quoted: Vec<String> = words.iter().map(|word| json_string(word)).collect();
    attribute(b"KeywordList", format!("[{}]", quoted.join(",")))
}

fn attribute(kind: &'static [u8], json: String) -> Payload {
    Payload {
        metadata: [
            ("encoding".to_owned(), Bytes::from_static(b"json/plain")),
            ("type".to_owned(), Bytes::from_static(kind)),
        ]
        .into(),
        data: json.into(),
        ..Payload::default()
    }
}

/// A JSON string.
fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether a field of a memo or a search attribute has no value, which takes it away: no data, or
/// the JSON of nothing or of an empty list.
#[must_use]
pub fn is_nil(payload: &Payload) -> bool {
    matches!(payload.data.as_ref(), b"" | b"null" | b"[]")
}

/// The memo without fields that have no value; none if nothing is left of it.
#[must_use]
pub fn memo_without_nil(memo: Option<&Memo>) -> Option<Memo> {
    let mut memo = memo?.clone();
    memo.fields.retain(|_, value| !is_nil(value));
    (!memo.fields.is_empty()).then_some(memo)
}

/// The search attributes without those that have no value; none if nothing is left of them.
#[must_use]
pub fn attributes_without_nil(attributes: Option<&SearchAttributes>) -> Option<SearchAttributes> {
    let mut attributes = attributes?.clone();
    attributes.indexed_fields.retain(|_, value| !is_nil(value));
    (!attributes.indexed_fields.is_empty()).then_some(attributes)
}

/// A duration that was checked, or comes from ourselves; none is zero.
#[must_use]
pub fn duration(d: Option<&prost_types::Duration>) -> Duration {
    checked_duration(d).unwrap_or_default()
}

/// A duration from outside; none is zero.
///
/// # Errors
/// What is wrong with it, in the real server's words.
pub fn checked_duration(d: Option<&prost_types::Duration>) -> Result<Duration, String> {
    let Some(d) = d else { return Ok(Duration::ZERO) };
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(d.seconds), u32::try_from(d.nanos)) else {
        return Err("negative duration".into());
    };
    Ok((Duration::from_secs(seconds) + Duration::from_nanos(nanos.into())).min(DURATION_MAX))
}

/// The API's form.
#[must_use]
pub fn proto_duration(d: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        // Below 10^9.
        nanos: d.subsec_nanos() as i32,
    }
}

/// A normal queue.
#[must_use]
pub fn normal_queue(name: &str) -> TaskQueue {
    TaskQueue {
        name: name.to_owned(),
        kind: TaskQueueKind::Normal as i32,
        normal_name: String::new(),
    }
}

/// A worker's own queue, standing in for `normal`.
#[must_use]
pub fn sticky_queue(name: &str, normal: &str) -> TaskQueue {
    TaskQueue {
        name: name.to_owned(),
        kind: TaskQueueKind::Sticky as i32,
        normal_name: normal.to_owned(),
    }
}

/// A failure made by the server.
#[must_use]
pub fn server_failure(message: impl Into<String>, non_retryable: bool) -> Failure {
    Failure {
        message: message.into(),
        source: "Server".into(),
        failure_info: Some(FailureInfo::ServerFailureInfo(ServerFailureInfo { non_retryable })),
        ..Failure::default()
    }
}

/// A timeout noticed by the server.
#[must_use]
pub fn timeout_failure(message: impl Into<String>, kind: TimeoutType) -> Failure {
    Failure {
        message: message.into(),
        source: "Server".into(),
        failure_info: Some(FailureInfo::TimeoutFailureInfo(TimeoutFailureInfo {
            timeout_type: kind as i32,
            last_heartbeat_details: None,
        })),
        ..Failure::default()
    }
}

/// `SOME_PREFIX_BAD_START_TIMER` as people read it: `BadStartTimer`.
#[must_use]
pub fn camel(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .split('_')
        .flat_map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            [first.to_owned(), rest.to_lowercase()]
        })
        .collect()
}
