//! What lists know about a run.

use std::collections::BTreeMap;

use bytes::Bytes;
use everspan_proto::{
    common::{Memo, SearchAttributes, WorkflowExecution, WorkflowType},
    workflow::WorkflowExecutionInfo,
};
use everspan_types::{Error, NamespaceId, Result, RunId, Time, decode, encode};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::Value;

const VERSION: u8 = 1;

/// What a list shows of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The workflow ID.
    pub workflow_id: String,
    /// The run.
    pub run_id: RunId,
    /// The first run of its chain.
    pub first_run_id: RunId,
    /// Workflow type name.
    pub workflow_type: String,
    /// Task queue.
    pub task_queue: String,
    /// A `WorkflowExecutionStatus`. Running and paused runs are open, all others closed:
    /// `close_time` must agree with it.
    pub status: i32,
    /// When it was created.
    pub start_time: Time,
    /// When its first workflow task was due.
    pub execution_time: Time,
    /// When it closed; none while it is open.
    pub close_time: Option<Time>,
    /// Events; known once closed.
    pub history_length: i64,
    /// Bytes of history; known once closed.
    pub history_size_bytes: i64,
    /// Changes; known once closed.
    pub state_transition_count: i64,
    /// The parent's workflow ID, if it has one.
    pub parent_workflow_id: Option<String>,
    /// The parent's run ID, if it has one.
    pub parent_run_id: Option<String>,
    /// Workflow ID of the root of the tree of parents; none if it is its own.
    pub root_workflow_id: Option<String>,
    /// Run ID of the root of the tree of parents; none if it is its own.
    pub root_run_id: Option<String>,
    /// The encoded memo.
    pub memo: Option<Bytes>,
    /// Search attributes, custom ones and those that the server keeps like them.
    pub search_attributes: BTreeMap<String, Value>,
}

impl Default for Record {
    fn default() -> Self {
        let nil = uuid::Uuid::nil();
        Self {
            namespace: NamespaceId(nil),
            workflow_id: String::new(),
            run_id: RunId(nil),
            first_run_id: RunId(nil),
            workflow_type: String::new(),
            task_queue: String::new(),
            status: 0,
            start_time: Time::ZERO,
            execution_time: Time::ZERO,
            close_time: None,
            history_length: 0,
            history_size_bytes: 0,
            state_transition_count: 0,
            parent_workflow_id: None,
            parent_run_id: None,
            root_workflow_id: None,
            root_run_id: None,
            memo: None,
            search_attributes: BTreeMap::new(),
        }
    }
}

impl Record {
    /// The stored form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(VERSION, self)
    }

    /// From the stored form.
    ///
    /// # Errors
    /// `INTERNAL` if it is damaged or of a newer release.
    pub fn from_bytes(raw: &[u8]) -> Result<Self> {
        decode(VERSION, raw).map_err(|e| Error::internal(format!("list record: {e}")))
    }

    /// Nanoseconds from the execution time to the close, once closed. Negative if it was
    /// closed during its start delay.
    pub(crate) fn execution_duration(&self) -> Option<i64> {
        let close = i128::from(self.close_time?.as_nanos());
        let nanos = close - i128::from(self.execution_time.as_nanos());
        Some(i64::try_from(nanos).unwrap_or(i64::MAX))
    }

    /// The API's form. Times are cut to microseconds, which is what lists are ordered and
    /// filtered by; the first run is left out, as the real server does.
    #[must_use]
    pub fn to_info(&self) -> WorkflowExecutionInfo {
        let run_id = self.run_id.to_string();
        let time = |t: Time| Some(Time::from_nanos(t.as_nanos() / 1000 * 1000).to_proto());
        let memo = self.memo.clone().and_then(|raw| Memo::decode(raw).ok()).unwrap_or_default();
        let attributes = self.search_attributes.iter();
        let indexed_fields = attributes.map(|(n, v)| (n.clone(), v.to_payload())).collect();
        let parent = self.parent_workflow_id.clone().filter(|id| !id.is_empty());
        let closed = |n: i64| if self.close_time.is_some() { n } else { 0 };
        WorkflowExecutionInfo {
            execution: Some(WorkflowExecution {
                workflow_id: self.workflow_id.clone(),
                run_id: run_id.clone(),
            }),
            r#type: Some(WorkflowType { name: self.workflow_type.clone() }),
            start_time: time(self.start_time),
            close_time: self.close_time.and_then(time),
            status: self.status,
            history_length: closed(self.history_length),
            parent_execution: parent.map(|workflow_id| WorkflowExecution {
                workflow_id,
                run_id: self.parent_run_id.clone().unwrap_or_default(),
            }),
            execution_time: time(self.execution_time),
            memo: Some(memo),
            search_attributes: Some(SearchAttributes { indexed_fields }),
            task_queue: self.task_queue.clone(),
            state_transition_count: closed(self.state_transition_count),
            history_size_bytes: closed(self.history_size_bytes),
            execution_duration: self.execution_duration().map(|nanos| prost_types::Duration {
                seconds: nanos / 1_000_000_000,
                nanos: i32::try_from(nanos % 1_000_000_000).unwrap_or_default(),
            }),
            root_execution: Some(WorkflowExecution {
                workflow_id: self.root_workflow_id.clone().unwrap_or(self.workflow_id.clone()),
                run_id: self.root_run_id.clone().unwrap_or(run_id),
            }),
            ..WorkflowExecutionInfo::default()
        }
    }
}
