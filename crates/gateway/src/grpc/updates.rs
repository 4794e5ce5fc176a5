//! Updates of workflows, and starts that come with one.

use everspan_proto::{
    common::{
        Link,
        link::{
            Variant, Workflow, WorkflowEvent,
            workflow_event::{EventReference, Reference, RequestIdReference},
        },
    },
    enums::{EventType, UpdateWorkflowExecutionLifecycleStage as Stage},
    update::{WaitPolicy, outcome::Value},
    workflowservice::{
        self as api, execute_multi_operation_request::operation::Operation,
        execute_multi_operation_response::response::Response,
    },
};
use everspan_types::{Error, Result};
use uuid::Uuid;

use super::{Cx, Frontend};
use crate::{callbacks, validate};

impl Frontend {
    pub(crate) async fn update_workflow_execution(
        &self,
        cx: Cx,
        mut r: api::UpdateWorkflowExecutionRequest,
    ) -> Result<api::UpdateWorkflowExecutionResponse> {
        self.check_update(&mut r)?;
        let namespace = self.namespace(&r.namespace)?;
        let workflow_id = validate::execution(r.workflow_execution.as_ref())?.to_owned();
        let request_id = request_id(&r);
        let answer = self.unless_stopping(self.ask(&cx, &namespace, &workflow_id, r));
        let mut response = answer.await?;
        link_update(&mut response, &namespace.name, request_id);
        Ok(response)
    }

    pub(crate) async fn poll_workflow_execution_update(
        &self,
        cx: Cx,
        mut r: api::PollWorkflowExecutionUpdateRequest,
    ) -> Result<api::PollWorkflowExecutionUpdateResponse> {
        let Some(update) = &r.update_ref else {
            return Err(Error::invalid("UpdateRef is not set on request."));
        };
        let namespace = self.namespace(&r.namespace)?;
        let workflow_id = validate::execution(update.workflow_execution.as_ref())?.to_owned();
        r.wait_policy.get_or_insert_default();
        self.unless_stopping(self.ask(&cx, &namespace, &workflow_id, r)).await
    }

    pub(crate) async fn execute_multi_operation(
        &self,
        cx: Cx,
        mut r: api::ExecuteMultiOperationRequest,
    ) -> Result<api::ExecuteMultiOperationResponse> {
        let namespace = self.namespace(&r.namespace)?;
        let [start, update] = r.operations.as_mut_slice() else { return Err(not_start_update()) };
        let (Some(Operation::StartWorkflow(start)), Some(Operation::UpdateWorkflow(update))) =
            (&mut start.operation, &mut update.operation)
        else {
            return Err(not_start_update());
        };
        let start_error = self.check_start_of(&cx, start, &namespace.name).err();
        let mut update_error = self.check_update_of(update, &namespace.name).err();
        let workflow_id = start.workflow_id.clone();
        let of_update = update.workflow_execution.as_ref().map_or("", |e| e.workflow_id.as_str());
        if start_error.is_none() && update_error.is_none() && workflow_id != of_update {
            let text = "WorkflowId is not consistent with previous operation(s).";
            update_error = Some(Error::invalid(text));
        }
        if start_error.is_some() || update_error.is_some() {
            let or_aborted = |e: Option<Error>| Some(e.unwrap_or(Error::OperationAborted));
            let errors = [or_aborted(start_error), or_aborted(update_error)];
            return Err(Error::MultiOperation(Box::new(errors)));
        }
        let request_id = request_id(update);
        let answer = self.unless_stopping(self.ask(&cx, &namespace, &workflow_id, r));
        let mut response = answer.await?;
        for one in &mut response.responses {
            match &mut one.response {
                Some(Response::StartWorkflow(start)) => {
                    // Present where one is wanted; what it says is known here.
                    if let Some(link) = &mut start.link {
                        let event = EventReference {
                            event_id: 1,
                            event_type: EventType::WorkflowExecutionStarted as i32,
                        };
                        link.variant = Some(Variant::WorkflowEvent(WorkflowEvent {
                            namespace: namespace.name.clone(),
                            workflow_id: workflow_id.clone(),
                            run_id: start.run_id.clone(),
                            reference: Some(Reference::EventRef(event)),
                        }));
                    }
                }
                Some(Response::UpdateWorkflow(update)) => {
                    link_update(update, &namespace.name, request_id.clone());
                }
                None => {}
            }
        }
        Ok(response)
    }

    fn check_start_of(
        &self,
        cx: &Cx,
        start: &mut api::StartWorkflowExecutionRequest,
        namespace: &str,
    ) -> Result<()> {
        check_namespace(&mut start.namespace, namespace)?;
        // Told apart from what a start may not ask for yet.
        let cron = std::mem::take(&mut start.cron_schedule);
        validate::start(start, cx.now, self.limits(), &self.inner.meta.snapshot())?;
        if !cron.is_empty() {
            return Err(Error::invalid("CronSchedule is not allowed."));
        }
        if start.request_eager_execution {
            return Err(Error::invalid("RequestEagerExecution is not supported."));
        }
        if start.workflow_start_delay.is_some_and(|d| d.seconds > 0 || d.nanos > 0) {
            return Err(Error::invalid("WorkflowStartDelay is not supported."));
        }
        Ok(())
    }

    fn check_update_of(
        &self,
        update: &mut api::UpdateWorkflowExecutionRequest,
        namespace: &str,
    ) -> Result<()> {
        check_namespace(&mut update.namespace, namespace)?;
        self.check_update(update)?;
        if !update.first_execution_run_id.is_empty() {
            return Err(Error::invalid("FirstExecutionRunId is not allowed."));
        }
        if update.workflow_execution.as_ref().is_some_and(|e| !e.run_id.is_empty()) {
            return Err(Error::invalid("RunId is not allowed."));
        }
        Ok(())
    }

    /// Fills in defaults and checks an update.
    fn check_update(&self, r: &mut api::UpdateWorkflowExecutionRequest) -> Result<()> {
        validate::execution(r.workflow_execution.as_ref())?;
        let request = r.request.as_mut();
        let Some((request, meta)) = request.and_then(|r| {
            let meta = r.meta.take()?;
            Some((r, meta))
        }) else {
            return Err(Error::invalid("Update meta is not set on request."));
        };
        let meta = request.meta.insert(meta);
        if meta.update_id.len() > self.limits().id_length_max {
            return Err(Error::invalid("UpdateId length exceeds limit."));
        }
        if meta.update_id.is_empty() {
            meta.update_id = Uuid::new_v4().to_string();
        }
        let Some(input) = &request.input else {
            return Err(Error::invalid("Update input is not set on request."));
        };
        if input.name.is_empty() {
            return Err(Error::invalid("Update name is not set on request."));
        }
        validate::links(&request.links)?;
        validate::blob(input.args.as_ref(), self.limits())?;
        callbacks::check(&request.completion_callbacks)?;
        let policy = r.wait_policy.get_or_insert_with(WaitPolicy::default);
        match policy.lifecycle_stage() {
            Stage::Unspecified => policy.set_lifecycle_stage(Stage::Completed),
            Stage::Admitted => {
                return Err(Error::PermissionDenied(
                    "UpdateWorkflowExecution issued asynchronously and waiting on update admitted \
                     is not supported."
                        .into(),
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

fn not_start_update() -> Error {
    Error::invalid("Operations have to be exactly [Start, Update].")
}

/// An operation's own namespace, which must be the call's.
fn check_namespace(of_operation: &mut String, namespace: &str) -> Result<()> {
    if !of_operation.is_empty() && *of_operation != namespace {
        return Err(Error::invalid("Operation namespace did not match request's namespace."));
    }
    namespace.clone_into(of_operation);
    Ok(())
}

fn request_id(r: &api::UpdateWorkflowExecutionRequest) -> String {
    r.request.as_ref().map(|r| r.request_id.clone()).unwrap_or_default()
}

/// Says in the link of an answer, where there is one, what it leads to.
fn link_update(
    response: &mut api::UpdateWorkflowExecutionResponse,
    namespace: &str,
    request_id: String,
) {
    let has_failed =
        matches!(response.outcome.as_ref().and_then(|o| o.value.as_ref()), Some(Value::Failure(_)));
    let execution =
        response.update_ref.as_ref().and_then(|u| u.workflow_execution.clone()).unwrap_or_default();
    let Some(link) = &mut response.link else { return };
    let namespace = namespace.to_owned();
    *link = Link {
        // A refused update is in no event, and a failed one cannot be told from it.
        variant: Some(if has_failed {
            Variant::Workflow(Workflow {
                namespace,
                workflow_id: execution.workflow_id,
                run_id: execution.run_id,
                reason: "Update rejected".into(),
            })
        } else {
            Variant::WorkflowEvent(WorkflowEvent {
                namespace,
                workflow_id: execution.workflow_id,
                run_id: execution.run_id,
                reference: Some(Reference::RequestIdRef(RequestIdReference {
                    request_id,
                    event_type: EventType::WorkflowExecutionUpdateAccepted as i32,
                })),
            })
        }),
    };
}
