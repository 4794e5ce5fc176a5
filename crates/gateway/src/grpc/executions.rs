//! Calls on executions, from clients.

use std::time::Duration;

use everspan_proto::{
    common::{
        Link,
        link::{
            Variant, WorkflowEvent,
            workflow_event::{EventReference, Reference, RequestIdReference},
        },
    },
    enums::{EventType, ResetReapplyType},
    workflowservice as api,
};
use everspan_types::{Error, Result, TaskKind};

use super::{Cx, Frontend, operations};
use crate::validate;

/// How long before its deadline a query is answered with an error of its own.
const QUERY_MARGIN: Duration = Duration::from_millis(5);

impl Frontend {
    pub(crate) async fn start_workflow_execution(
        &self,
        cx: Cx,
        mut r: api::StartWorkflowExecutionRequest,
    ) -> Result<api::StartWorkflowExecutionResponse> {
        let namespace = self.namespace(&r.namespace)?;
        validate::start(&mut r, cx.now, self.limits(), &self.inner.meta.snapshot())?;
        let (workflow_id, request_id) = (r.workflow_id.clone(), r.request_id.clone());
        let is_attached = r.on_conflict_options.is_some_and(|o| o.attach_request_id);
        let mut response = self.ask(&cx, &namespace, &workflow_id, r).await?;
        if response.eager_workflow_task.is_some() {
            everspan_broker::count_eager(TaskKind::Workflow, 1);
        }
        let reference = if response.started || !is_attached {
            started_event()
        } else {
            request(request_id, EventType::WorkflowExecutionOptionsUpdated)
        };
        response.link = Some(link(&namespace.name, &workflow_id, &response.run_id, reference));
        Ok(response)
    }

    pub(crate) async fn signal_with_start_workflow_execution(
        &self,
        cx: Cx,
        mut r: api::SignalWithStartWorkflowExecutionRequest,
    ) -> Result<api::SignalWithStartWorkflowExecutionResponse> {
        let namespace = self.namespace(&r.namespace)?;
        validate::signal_name(&r.signal_name, self.limits())?;
        validate::blob(r.signal_input.as_ref(), self.limits())?;
        validate::policies(
            &mut r.workflow_id_reuse_policy,
            &mut r.workflow_id_conflict_policy,
            true,
        )?;
        let mut start = api::StartWorkflowExecutionRequest {
            namespace: r.namespace.clone(),
            workflow_id: r.workflow_id.clone(),
            workflow_type: r.workflow_type.clone(),
            task_queue: r.task_queue.clone(),
            input: r.input.clone(),
            workflow_execution_timeout: r.workflow_execution_timeout,
            workflow_run_timeout: r.workflow_run_timeout,
            workflow_task_timeout: r.workflow_task_timeout,
            identity: r.identity.clone(),
            request_id: r.request_id.clone(),
            workflow_id_reuse_policy: r.workflow_id_reuse_policy,
            workflow_id_conflict_policy: r.workflow_id_conflict_policy,
            retry_policy: r.retry_policy.clone(),
            cron_schedule: r.cron_schedule.clone(),
            memo: r.memo.clone(),
            search_attributes: r.search_attributes.clone(),
            workflow_start_delay: r.workflow_start_delay,
            user_metadata: r.user_metadata.clone(),
            links: r.links.clone(),
            versioning_override: r.versioning_override.clone(),
            priority: r.priority.clone(),
            time_skipping_config: r.time_skipping_config.clone(),
            ..Default::default()
        };
        validate::start(&mut start, cx.now, self.limits(), &self.inner.meta.snapshot())?;
        r.request_id = start.request_id;
        r.search_attributes = start.search_attributes;
        let (workflow_id, request_id) = (r.workflow_id.clone(), r.request_id.clone());
        let mut response = self.ask(&cx, &namespace, &workflow_id, r).await?;
        let reference = request(request_id, EventType::WorkflowExecutionSignaled);
        response.signal_link =
            Some(link(&namespace.name, &workflow_id, &response.run_id, reference));
        Ok(response)
    }

    pub(crate) async fn signal_workflow_execution(
        &self,
        cx: Cx,
        r: api::SignalWorkflowExecutionRequest,
    ) -> Result<api::SignalWorkflowExecutionResponse> {
        let workflow_id = validate::execution(r.workflow_execution.as_ref())?.to_owned();
        validate::signal_name(&r.signal_name, self.limits())?;
        if r.request_id.len() > self.limits().id_length_max {
            return Err(Error::invalid("RequestId length exceeds limit."));
        }
        validate::links(&r.links)?;
        let namespace = self.namespace(&r.namespace)?;
        validate::blob(r.input.as_ref(), self.limits())?;
        let request_id = r.request_id.clone();
        let mut response = self.ask(&cx, &namespace, &workflow_id, r).await?;
        // The shard names the run; the rest of the link is known here.
        if let Some(Link { variant: Some(Variant::WorkflowEvent(event)) }) = &mut response.link {
            event.namespace.clone_from(&namespace.name);
            event.workflow_id = workflow_id;
            event.reference = Some(request(request_id, EventType::WorkflowExecutionSignaled));
        }
        Ok(response)
    }

    pub(crate) async fn request_cancel_workflow_execution(
        &self,
        cx: Cx,
        r: api::RequestCancelWorkflowExecutionRequest,
    ) -> Result<api::RequestCancelWorkflowExecutionResponse> {
        let workflow_id = validate::execution(r.workflow_execution.as_ref())?.to_owned();
        validate::links(&r.links)?;
        let namespace = self.namespace(&r.namespace)?;
        self.ask(&cx, &namespace, &workflow_id, r).await
    }

    pub(crate) async fn terminate_workflow_execution(
        &self,
        cx: Cx,
        mut r: api::TerminateWorkflowExecutionRequest,
    ) -> Result<api::TerminateWorkflowExecutionResponse> {
        if r.reason.is_empty() {
            // As the real server has it.
            r.reason = "terminated by user via frontend".into();
        }
        if r.identity.is_empty() {
            r.identity = "frontend-service".into();
        }
        let workflow_id = validate::execution(r.workflow_execution.as_ref())?.to_owned();
        validate::links(&r.links)?;
        let namespace = self.namespace(&r.namespace)?;
        self.ask(&cx, &namespace, &workflow_id, r).await
    }

    pub(crate) async fn reset_workflow_execution(
        &self,
        cx: Cx,
        r: api::ResetWorkflowExecutionRequest,
    ) -> Result<api::ResetWorkflowExecutionResponse> {
        if r.request_id.is_empty() {
            return Err(Error::invalid("RequestId is not set on request."));
        }
        if r.request_id.len() > self.limits().id_length_max {
            return Err(Error::invalid("RequestId length exceeds limit."));
        }
        let workflow_id = validate::execution(r.workflow_execution.as_ref())?.to_owned();
        // Clients still send what the API calls deprecated.
        #[allow(deprecated)]
        let reapply = r.reset_reapply_type;
        if ResetReapplyType::try_from(reapply).is_err() {
            return Err(Error::internal(format!("unknown reset reapply type: {reapply}")));
        }
        operations::check_post_reset(&r.post_reset_operations)?;
        let namespace = self.namespace(&r.namespace)?;
        self.ask(&cx, &namespace, &workflow_id, r).await
    }

    pub(crate) async fn delete_workflow_execution(
        &self,
        cx: Cx,
        r: api::DeleteWorkflowExecutionRequest,
    ) -> Result<api::DeleteWorkflowExecutionResponse> {
        let workflow_id = validate::execution(r.workflow_execution.as_ref())?.to_owned();
        let namespace = self.namespace(&r.namespace)?;
        self.ask(&cx, &namespace, &workflow_id, r).await
    }

    pub(crate) async fn describe_workflow_execution(
        &self,
        cx: Cx,
        r: api::DescribeWorkflowExecutionRequest,
    ) -> Result<api::DescribeWorkflowExecutionResponse> {
        let workflow_id = validate::execution(r.execution.as_ref())?.to_owned();
        let namespace = self.namespace(&r.namespace)?;
        self.ask(&cx, &namespace, &workflow_id, r).await
    }

    pub(crate) async fn get_workflow_execution_history(
        &self,
        cx: Cx,
        r: api::GetWorkflowExecutionHistoryRequest,
    ) -> Result<api::GetWorkflowExecutionHistoryResponse> {
        let workflow_id = validate::execution(r.execution.as_ref())?.to_owned();
        let namespace = self.namespace(&r.namespace)?;
        let waits = r.wait_new_event;
        let answer = self.ask(&cx, &namespace, &workflow_id, r);
        if waits { self.unless_stopping(answer).await } else { answer.await }
    }

    pub(crate) async fn get_workflow_execution_history_reverse(
        &self,
        cx: Cx,
        r: api::GetWorkflowExecutionHistoryReverseRequest,
    ) -> Result<api::GetWorkflowExecutionHistoryReverseResponse> {
        let workflow_id = validate::execution(r.execution.as_ref())?.to_owned();
        let namespace = self.namespace(&r.namespace)?;
        self.ask(&cx, &namespace, &workflow_id, r).await
    }

    pub(crate) async fn query_workflow(
        &self,
        cx: Cx,
        r: api::QueryWorkflowRequest,
    ) -> Result<api::QueryWorkflowResponse> {
        let workflow_id = validate::execution(r.execution.as_ref())?.to_owned();
        let Some(query) = &r.query else {
            return Err(Error::invalid("WorkflowQuery is not set on request."));
        };
        if query.query_type.is_empty() {
            return Err(Error::invalid("QueryType is not set on request."));
        }
        let namespace = self.namespace(&r.namespace)?;
        validate::blob(query.query_args.as_ref(), self.limits())?;
        let answer = self.unless_stopping(self.ask(&cx, &namespace, &workflow_id, r));
        let wait = cx.wait().saturating_sub(QUERY_MARGIN);
        tokio::time::timeout(wait, answer).await.unwrap_or_else(|_| {
            Err(Error::DeadlineExceeded("query timed out before a worker could process it".into()))
        })
    }

    pub(crate) async fn reset_sticky_task_queue(
        &self,
        cx: Cx,
        r: api::ResetStickyTaskQueueRequest,
    ) -> Result<api::ResetStickyTaskQueueResponse> {
        let workflow_id = validate::execution(r.execution.as_ref())?.to_owned();
        let namespace = self.namespace(&r.namespace)?;
        self.ask(&cx, &namespace, &workflow_id, r).await
    }
}

fn link(namespace: &str, workflow_id: &str, run_id: &str, reference: Reference) -> Link {
    Link {
        variant: Some(Variant::WorkflowEvent(WorkflowEvent {
            namespace: namespace.to_owned(),
            workflow_id: workflow_id.to_owned(),
            run_id: run_id.to_owned(),
            reference: Some(reference),
        })),
    }
}

/// The event that every run begins with.
fn started_event() -> Reference {
    Reference::EventRef(EventReference {
        event_id: 1,
        event_type: EventType::WorkflowExecutionStarted as i32,
    })
}

/// An event whose ID is not known yet, by the request that made it.
fn request(request_id: String, kind: EventType) -> Reference {
    Reference::RequestIdRef(RequestIdReference { request_id, event_type: kind as i32 })
}
