//! ExecuteMultiOperation: a start and an update of what it starts, or finds, in one.

use everspan_proto::{
    common::Link,
    enums::{
        UpdateWorkflowExecutionLifecycleStage as Stage, WorkflowExecutionStatus as Status,
        WorkflowIdConflictPolicy as Conflict,
    },
    workflowservice::{
        self as api, ExecuteMultiOperationRequest, StartWorkflowExecutionRequest,
        StartWorkflowExecutionResponse, UpdateWorkflowExecutionRequest,
        UpdateWorkflowExecutionResponse,
        execute_multi_operation_request::operation::Operation,
        execute_multi_operation_response::{self as multi, response::Response},
    },
};
use everspan_types::{Error, NamespaceId, Result, RunId, Time};

use crate::{
    call::Reply,
    outcome::{CallId, Outcome},
    run::Run,
    shard::Shard,
    start::client_start,
    update::Ask,
};

/// A call whose start is done.
#[derive(Debug)]
pub(crate) struct Multi {
    pub(crate) request: Box<ExecuteMultiOperationRequest>,
    pub(crate) start: StartWorkflowExecutionResponse,
}

impl Multi {
    pub(crate) fn update(&self) -> Option<&UpdateWorkflowExecutionRequest> {
        update_of(&self.request)
    }

    /// What became of both when the update came to nothing.
    pub(crate) fn update_failed(&self, error: Error) -> Error {
        let start = (!self.start.started).then_some(Error::OperationAborted);
        Error::MultiOperation(Box::new([start, Some(error)]))
    }
}

/// What became of both when the start came to nothing.
pub(crate) fn start_failed(error: Error) -> Error {
    Error::MultiOperation(Box::new([Some(error), Some(Error::OperationAborted)]))
}

/// The start; the gateway has seen to it that there is one.
pub(crate) fn start_of(r: &ExecuteMultiOperationRequest) -> Result<&StartWorkflowExecutionRequest> {
    r.operations
        .iter()
        .find_map(|o| match &o.operation {
            Some(Operation::StartWorkflow(start)) => Some(start),
            _ => None,
        })
        .ok_or_else(|| Error::internal("no start among the operations"))
}

fn update_of(r: &ExecuteMultiOperationRequest) -> Option<&UpdateWorkflowExecutionRequest> {
    r.operations.iter().find_map(|o| match &o.operation {
        Some(Operation::UpdateWorkflow(update)) => Some(update),
        _ => None,
    })
}

/// ID of the update.
pub(crate) fn update_id(r: &ExecuteMultiOperationRequest) -> &str {
    update_of(r)
        .and_then(|u| u.request.as_ref()?.meta.as_ref())
        .map_or("", |m| m.update_id.as_str())
}

pub(crate) fn reply(
    start: StartWorkflowExecutionResponse,
    update: UpdateWorkflowExecutionResponse,
) -> Reply {
    let response = |r| multi::Response { response: Some(r) };
    Reply::ExecuteMultiOperation(Box::new(api::ExecuteMultiOperationResponse {
        responses: vec![
            response(Response::StartWorkflow(start)),
            response(Response::UpdateWorkflow(update)),
        ],
    }))
}

impl Shard {
    /// Starts a run and gives it the update.
    pub(crate) fn start_multi(
        &mut self,
        now: Time,
        id: CallId,
        namespace: NamespaceId,
        new_run: RunId,
        r: &ExecuteMultiOperationRequest,
        deadline: Time,
    ) -> Result<(Run, Outcome)> {
        let mut out = Outcome::default();
        let request = start_of(r)?;
        let mut run = {
            let start = client_start(namespace, new_run, request, None);
            self.begin(now, start, &mut out).map_err(start_failed)?
        };
        let start = StartWorkflowExecutionResponse {
            run_id: new_run.to_string(),
            first_execution_run_id: new_run.to_string(),
            started: true,
            status: Status::Running as i32,
            link: Some(Link::default()),
            ..Default::default()
        };
        let multi = Multi { request: Box::new(r.clone()), start };
        // The only update of a new run is within every limit.
        run.admit_and_wait(self, now, id, Ask::Multi(multi), deadline, &mut out)?;
        Ok((run, out))
    }
}

impl Run {
    /// Whether a multi-operation uses this run rather than start one.
    pub(crate) fn is_for(&self, r: &ExecuteMultiOperationRequest) -> bool {
        let id = update_id(r);
        let completed = self.state.updates.get(id).is_some_and(|u| u.completed_event_id > 0);
        completed
            || (self.state.is_running()
                && (self.state.update_status(id).is_some()
                    || start_of(r).is_ok_and(|s| {
                        s.request_id == self.state.info.start_request_id
                            || s.workflow_id_conflict_policy() == Conflict::UseExisting
                    })))
    }

    /// Does a multi-operation on this run, which is open or has completed its update.
    pub(crate) fn multi_operation(
        &mut self,
        shard: &mut Shard,
        now: Time,
        id: CallId,
        r: Box<ExecuteMultiOperationRequest>,
        deadline: Time,
        out: &mut Outcome,
    ) -> Result<Option<Reply>> {
        let start = start_of(&r)?;
        if !self.is_for(&r) {
            if start.request_id == self.state.info.start_request_id {
                return Err(start_failed(Error::unavailable(
                    "Workflow was not started: StartDeduped",
                )));
            }
            return self.restart(shard, now, start, out).map_err(start_failed);
        }
        let mut response = StartWorkflowExecutionResponse {
            run_id: self.id().to_string(),
            started: false,
            status: self.state.info.status,
            ..Default::default()
        };
        let update_id = update_id(&r);
        if self.state.updates.get(update_id).is_some_and(|u| u.completed_event_id > 0) {
            let reached = self.update_reached(shard, out, update_id)?;
            debug_assert_eq!(reached.0, Stage::Completed);
            let mut update = self.update_response(update_id, reached);
            update.link = None;
            return Ok(Some(reply(response, update)));
        }
        response.link = Some(Link::default());
        let multi = Multi { request: r, start: response };
        let ask = Ask::Multi(multi);
        self.admit_and_wait(shard, now, id, ask, deadline, out).map_err(|e| match e {
            Error::MultiOperation(_) => e,
            e => Error::MultiOperation(Box::new([Some(Error::OperationAborted), Some(e)])),
        })
    }
}
