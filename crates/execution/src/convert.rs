//! Between the API's shapes and ours.

use std::time::Duration;

use everspan_proto::{
    enums::{TaskQueueKind, TimeoutType},
    failure::{Failure, ServerFailureInfo, TimeoutFailureInfo, failure::FailureInfo},
    taskqueue::TaskQueue,
};

/// Longest duration that the API takes; longer ones are cut to it (10,000 years would
/// overflow arithmetic on nanoseconds, 100 do not).
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

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
