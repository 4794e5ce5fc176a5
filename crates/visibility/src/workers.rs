//! The filter of ListWorkers and CountWorkers: the syntax of list filters over what workers
//! tell of themselves in heartbeats.
//!
//! As in the real server only the syntax is checked when the filter is read. A condition
//! that makes no sense, such as one on an unknown name, matches no worker.

use everspan_proto::worker::WorkerHeartbeat;
use everspan_types::{Error, Result, Time};

use crate::{
    ast::{Ast, Literal, Node},
    parse::QUERY_BYTES_MAX,
    syntax, time,
};

/// A parsed filter of workers.
#[derive(Clone, Debug)]
pub struct WorkerQuery {
    filter: Option<Ast>,
}

impl WorkerQuery {
    /// Parses a filter; the empty text matches every worker.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it is malformed.
    pub fn parse(text: &str) -> Result<WorkerQuery> {
        if text.is_empty() {
            return Ok(WorkerQuery { filter: None });
        }
        let malformed = |e: String| Error::invalid(format!("malformed query: {e}"));
        if text.len() > QUERY_BYTES_MAX {
            return Err(malformed(format!("longer than {QUERY_BYTES_MAX} bytes")));
        }
        let trimmed = text.trim();
        let starts = |s: &str| trimmed.get(..s.len()).is_some_and(|t| t.eq_ignore_ascii_case(s));
        if starts("where ") || starts("select ") {
            return Err(Error::invalid(format!("invalid filter: {trimmed}")));
        }
        let statement = syntax::parse(text).map_err(malformed)?;
        if statement.has_limit {
            return Err(Error::invalid("operation is not supported: 'limit' clause"));
        }
        match statement.filter {
            Some(filter) => Ok(WorkerQuery { filter: Some(filter) }),
            None => Err(Error::invalid("operation is not supported: 'where' clause is missing")),
        }
    }

    /// Whether a worker is in the result.
    #[must_use]
    pub fn matches(&self, worker: &WorkerHeartbeat) -> bool {
        self.filter.as_ref().is_none_or(|filter| holds(filter, worker).unwrap_or(false))
    }
}

/// `None` where a condition makes no sense; that ends the evaluation.
fn holds(condition: &Ast, worker: &WorkerHeartbeat) -> Option<bool> {
    match &condition.node {
        Node::And(left, right) => Some(holds(left, worker)? && holds(right, worker)?),
        Node::Or(left, right) => Some(holds(left, worker)? || holds(right, worker)?),
        Node::Paren(inner) => holds(inner, worker),
        Node::Compare(left, operator, right) => match field(left, worker)? {
            Field::Text(text) => compare_text(&text, operator, &literal(right)?),
            Field::Time(at) => compare_time(at.unwrap_or(0), operator, instant(right)?),
        },
        Node::Range { left, is_not, from, to } => match field(left, worker)? {
            Field::Time(None) => Some(false),
            Field::Time(Some(at)) => Some((instant(from)?..=instant(to)?).contains(&at) != *is_not),
            Field::Text(_) => None,
        },
        Node::IsNull(left, is_not) => match field(left, worker)? {
            Field::Text(text) => Some(text.is_empty() != *is_not),
            Field::Time(at) => Some(at.is_none() != *is_not),
        },
        _ => None,
    }
}

enum Field<'a> {
    Text(std::borrow::Cow<'a, str>),
    /// Nanoseconds since the epoch.
    Time(Option<i128>),
}

fn field<'a>(left: &Ast, worker: &'a WorkerHeartbeat) -> Option<Field<'a>> {
    let Node::Column(_) = left.node else { return None };
    let time = |t: &Option<prost_types::Timestamp>| {
        Field::Time(t.as_ref().map(|t| i128::from(Time::from_proto(t).as_nanos())))
    };
    // Words of the language, such as status, are shown in quotes and small letters.
    let name = left.to_string().replace('`', "");
    let deployment = worker.deployment_version.as_ref();
    let text = match name.as_str() {
        "WorkerInstanceKey" => &worker.worker_instance_key,
        "WorkerIdentity" => &worker.worker_identity,
        "HostName" => worker.host_info.as_ref().map_or("", |h| h.host_name.as_str()),
        "TaskQueue" => &worker.task_queue,
        "DeploymentName" => deployment.map_or("", |d| d.deployment_name.as_str()),
        "BuildId" => deployment.map_or("", |d| d.build_id.as_str()),
        "SdkName" => &worker.sdk_name,
        "SdkVersion" => &worker.sdk_version,
        "WorkerStatus" | "status" => return Some(Field::Text(status(worker).into())),
        "StartTime" => return Some(time(&worker.start_time)),
        "HeartbeatTime" => return Some(time(&worker.heartbeat_time)),
        _ => return None,
    };
    Some(Field::Text(text.into()))
}

/// The status as filters write it: `Running` and so on.
fn status(worker: &WorkerHeartbeat) -> String {
    let name = worker.status().as_str_name();
    let name = name.strip_prefix("WORKER_STATUS_").unwrap_or(name);
    let mut words = String::new();
    for word in name.split('_') {
        words.extend(word.chars().next());
        words.push_str(&word.get(1..).unwrap_or_default().to_ascii_lowercase());
    }
    words
}

fn literal(value: &Ast) -> Option<String> {
    match &value.node {
        // The real server refuses to compare with nothing.
        Node::Value(Literal::Text, text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

fn instant(value: &Ast) -> Option<i128> {
    match &value.node {
        Node::Value(Literal::Text, text) => time::datetime(text),
        Node::Value(Literal::Int, digits) => digits.parse().ok(),
        _ => None,
    }
}

fn compare_text(mine: &str, operator: &str, given: &str) -> Option<bool> {
    Some(match operator {
        "=" => mine == given,
        "!=" => mine != given,
        "starts_with" => mine.starts_with(given),
        "not starts_with" => !mine.starts_with(given),
        _ => return None,
    })
}

fn compare_time(mine: i128, operator: &str, given: i128) -> Option<bool> {
    Some(match operator {
        "=" => mine == given,
        "!=" => mine != given,
        "<" => mine < given,
        "<=" => mine <= given,
        ">" => mine > given,
        ">=" => mine >= given,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use everspan_proto::{enums::WorkerStatus, worker::WorkerHostInfo};

    use super::*;

    fn worker() -> WorkerHeartbeat {
        WorkerHeartbeat {
            worker_instance_key: "key".into(),
            worker_identity: "1@host".into(),
            host_info: Some(WorkerHostInfo { host_name: "host".into(), ..Default::default() }),
            task_queue: "queue".into(),
            sdk_name: "temporal-python".into(),
            status: WorkerStatus::ShuttingDown as i32,
            start_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            ..Default::default()
        }
    }

    #[test]
    fn conditions() {
        for (text, expected) in [
            ("", true),
            ("TaskQueue = 'queue'", true),
            ("TaskQueue = 'other' OR HostName = 'host'", true),
            ("TaskQueue = 'queue' AND (SdkName starts_with 'temporal-go')", false),
            ("SdkName not starts_with 'temporal-go'", true),
            ("Status = 'ShuttingDown'", true),
            ("WorkerStatus != 'Running'", true),
            ("StartTime > '2023-01-01T00:00:00Z'", true),
            ("StartTime BETWEEN '2023-01-01T00:00:00Z' AND '2023-02-01T00:00:00Z'", false),
            ("BuildId IS NULL", true),
            ("TaskQueue IS NOT NULL", true),
            ("HeartbeatTime IS NULL", true),
            // What makes no sense matches nothing.
            ("Nonsense = 'x'", false),
            ("taskqueue = 'queue'", false),
            ("TaskQueue > 'a'", false),
            ("NOT TaskQueue = 'other'", false),
        ] {
            let query = WorkerQuery::parse(text).expect(text);
            assert_eq!(query.matches(&worker()), expected, "{text}");
        }
    }

    #[test]
    fn malformed_filters_are_refused() {
        for text in ["TaskQueue =", "where TaskQueue = 'q'", "TaskQueue = 'q' LIMIT 1", "  "] {
            let refused = WorkerQuery::parse(text);
            assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{text}");
        }
    }
}
