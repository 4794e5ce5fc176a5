//! The older lists, which filter by fields instead of by text.

use everspan_proto::{
    enums::WorkflowExecutionStatus as Status,
    filter::StartTimeFilter,
    workflowservice::{
        ListClosedWorkflowExecutionsRequest, ListOpenWorkflowExecutionsRequest,
        list_closed_workflow_executions_request::Filters as Closed,
        list_open_workflow_executions_request::Filters as Open,
    },
};
use everspan_types::{Error, Result};
use prost_types::Timestamp;

use crate::{
    Query,
    attribute::{Field, status_name},
    eval::{Constant, Op, Order, Test, micros},
};

/// Seconds of the year 1, Go's zero time, which stands for no time.
const ZERO_TIME: i64 = -62_135_596_800;

/// Running runs by start time, and workflow ID (the run ID is not looked at) or type.
///
/// # Errors
/// `INVALID_ARGUMENT` if the range of times is turned round.
pub fn open_query(request: &ListOpenWorkflowExecutionsRequest) -> Result<Query> {
    let mut tests = vec![status(Status::Running, false)];
    tests.extend(range(Field::StartTime, request.start_time_filter.as_ref())?);
    tests.extend(request.filters.as_ref().map(|filter| match filter {
        Open::ExecutionFilter(f) => text(Field::WorkflowId, &f.workflow_id),
        Open::TypeFilter(f) => text(Field::WorkflowType, &f.name),
    }));
    Ok(Query::all_of(tests))
}

/// Runs that are not running by close time (whatever the filter's name says), and workflow
/// ID (the run ID is not looked at), type or status.
///
/// # Errors
/// `INVALID_ARGUMENT` if the range of times is turned round or the status is not one of
/// closed runs.
pub fn closed_query(request: &ListClosedWorkflowExecutionsRequest) -> Result<Query> {
    let mut tests = vec![status(Status::Running, true)];
    tests.extend(range(Field::CloseTime, request.start_time_filter.as_ref())?);
    match &request.filters {
        Some(Closed::ExecutionFilter(f)) => tests.push(text(Field::WorkflowId, &f.workflow_id)),
        Some(Closed::TypeFilter(f)) => tests.push(text(Field::WorkflowType, &f.name)),
        Some(Closed::StatusFilter(f)) => match f.status() {
            Status::Unspecified | Status::Running => {
                return Err(Error::invalid(
                    "StatusFilter must be specified and must be not Running.",
                ));
            }
            wanted => tests.push(status(wanted, false)),
        },
        None => {}
    }
    Ok(Query::all_of(tests))
}

fn status(status: Status, is_negated: bool) -> Test {
    let n = status as i32;
    let op = Op::Compare(Order::Equal, Constant::Status(n, status_name(n).to_owned()));
    Test { field: Field::Status, op, is_negated }
}

fn text(field: Field, text: &str) -> Test {
    Test::new(field, Op::Compare(Order::Equal, Constant::Text(text.to_owned())))
}

fn range(field: Field, filter: Option<&StartTimeFilter>) -> Result<Option<Test>> {
    let Some(filter) = filter else { return Ok(None) };
    let nanos = |t: &Option<Timestamp>| {
        let t = t.as_ref().filter(|t| t.seconds != ZERO_TIME || t.nanos != 0)?;
        Some(i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos))
    };
    let time = |nanos: i128| Constant::Time(micros(nanos));
    let op = match (nanos(&filter.earliest_time), nanos(&filter.latest_time)) {
        (Some(from), Some(to)) if from > to => {
            return Err(Error::invalid(
                "EarliestTime in StartTimeFilter should not be larger than LatestTime.",
            ));
        }
        (Some(from), Some(to)) => Op::Between(time(from), time(to)),
        (Some(from), None) => Op::Compare(Order::AtLeast, time(from)),
        (None, Some(to)) => Op::Compare(Order::AtMost, time(to)),
        (None, None) => return Ok(None),
    };
    Ok(Some(Test::new(field, op)))
}
