//! Calls of workers: the outcomes of tasks.

use std::sync::Arc;

use everspan_execution::commands::REFUSED;
use everspan_meta::Namespace;
use everspan_proto::{
    command::command::Attributes, enums::QueryResultType, workflowservice as api,
};
use everspan_shard::call::ShardCall;
use everspan_types::{Error, NamespaceId, QueryToken, Result, TaskKind, TaskToken};

use super::{Cx, Frontend};
use crate::validate;

impl Frontend {
    /// Routes a call by the workflow ID in its task token.
    async fn by_token<C: ShardCall>(
        &self,
        cx: &Cx,
        name: &str,
        raw: &[u8],
        call: C,
    ) -> Result<C::Response> {
        if raw.is_empty() {
            return Err(Error::invalid("Task token not set on request."));
        }
        let token = TaskToken::from_bytes(raw)?;
        let namespace = self.token_namespace(name, token.namespace)?;
        self.ask(cx, &namespace, &token.workflow_id, call).await
    }

    /// The namespace of a token, which must be the one that the request names, if it does.
    fn token_namespace(&self, name: &str, id: NamespaceId) -> Result<Arc<Namespace>> {
        let snapshot = self.inner.meta.snapshot();
        let of_token = snapshot
            .by_id
            .get(&id)
            .cloned()
            .ok_or_else(|| Error::NamespaceNotFound(id.to_string()))?;
        if !name.is_empty() && snapshot.namespace(name)?.id != id {
            return Err(Error::invalid(
                "Operation requested with a token from a different namespace.",
            ));
        }
        self.charge(&of_token)?;
        Ok(of_token)
    }

    /// Routes a call by the workflow ID that it names.
    async fn by_id<C: ShardCall>(
        &self,
        cx: &Cx,
        name: &str,
        workflow_id: &str,
        activity_id: &str,
        call: C,
    ) -> Result<C::Response> {
        let namespace = self.namespace(name)?;
        validate::workflow_id(workflow_id, self.limits())?;
        if activity_id.is_empty() {
            return Err(Error::invalid("ActivityId is not set on request."));
        }
        self.ask(cx, &namespace, workflow_id, call).await
    }

    pub(crate) async fn respond_workflow_task_completed(
        &self,
        cx: Cx,
        mut r: api::RespondWorkflowTaskCompletedRequest,
    ) -> Result<api::RespondWorkflowTaskCompletedResponse> {
        validate::identity(&r.identity, self.limits())?;
        if r.intermediate_page || r.page_number > 0 {
            return Err(Error::FailedPrecondition(format!(
                "workflow task completion pagination is disabled for this namespace {}",
                r.namespace
            )));
        }
        let snapshot = self.inner.meta.snapshot().clone();
        for command in &mut r.commands {
            // Another namespace is refused by the run, one that is not there at once.
            #[allow(deprecated)]
            let named = match &command.attributes {
                Some(Attributes::StartChildWorkflowExecutionCommandAttributes(a)) => &a.namespace,
                Some(Attributes::SignalExternalWorkflowExecutionCommandAttributes(a)) => {
                    &a.namespace
                }
                Some(Attributes::RequestCancelExternalWorkflowExecutionCommandAttributes(a)) => {
                    &a.namespace
                }
                _ => "",
            };
            if !named.is_empty() {
                snapshot.namespace(named)?;
            }
            let attributes = match &mut command.attributes {
                Some(Attributes::UpsertWorkflowSearchAttributesCommandAttributes(a)) => {
                    a.search_attributes.as_mut()
                }
                Some(Attributes::StartChildWorkflowExecutionCommandAttributes(a)) => {
                    a.search_attributes.as_mut()
                }
                Some(Attributes::ContinueAsNewWorkflowExecutionCommandAttributes(a)) => {
                    a.search_attributes.as_mut()
                }
                _ => None,
            };
            if let Some(attributes) = attributes {
                // What is wrong goes along, since it is the task that fails, not the call.
                let checked = validate::search_attributes(attributes, &snapshot, &r.namespace);
                for payload in attributes.indexed_fields.values_mut() {
                    payload.metadata.remove(REFUSED);
                    if let Err(error) = &checked {
                        payload.metadata.insert(REFUSED.into(), error.to_string().into());
                    }
                }
            }
        }
        let (name, token) = (r.namespace.clone(), r.task_token.clone());
        let mut response = self.by_token(&cx, &name, &token, r).await?;
        everspan_broker::count_eager(TaskKind::Activity, response.activity_tasks.len());
        if !response.activity_tasks.is_empty() {
            let id = TaskToken::from_bytes(&token)?.namespace;
            let namespace = self.token_namespace("", id)?;
            for task in &mut response.activity_tasks {
                task.workflow_namespace.clone_from(&namespace.name);
            }
        }
        Ok(response)
    }

    pub(crate) async fn respond_workflow_task_failed(
        &self,
        cx: Cx,
        r: api::RespondWorkflowTaskFailedRequest,
    ) -> Result<api::RespondWorkflowTaskFailedResponse> {
        validate::identity(&r.identity, self.limits())?;
        let (name, token) = (r.namespace.clone(), r.task_token.clone());
        self.by_token(&cx, &name, &token, r).await
    }

    pub(crate) async fn respond_query_task_completed(
        &self,
        cx: Cx,
        mut r: api::RespondQueryTaskCompletedRequest,
    ) -> Result<api::RespondQueryTaskCompletedResponse> {
        if r.task_token.is_empty() {
            return Err(Error::invalid("Task token not set on request."));
        }
        let token = QueryToken::from_bytes(&r.task_token)?;
        let namespace = self.token_namespace(&r.namespace, token.namespace)?;
        if let Err(error) = validate::blob(r.query_result.as_ref(), self.limits()) {
            r.completed_type = QueryResultType::Failed as i32;
            r.query_result = None;
            r.error_message = error.to_string();
        }
        self.ask(&cx, &namespace, &token.workflow_id, r).await
    }

    pub(crate) async fn record_activity_task_heartbeat(
        &self,
        cx: Cx,
        r: api::RecordActivityTaskHeartbeatRequest,
    ) -> Result<api::RecordActivityTaskHeartbeatResponse> {
        validate::details(
            r.details.as_ref(),
            self.limits(),
            "Heartbeat details exceed size limit.",
        )?;
        let (name, token) = (r.namespace.clone(), r.task_token.clone());
        self.by_token(&cx, &name, &token, r).await
    }

    pub(crate) async fn record_activity_task_heartbeat_by_id(
        &self,
        cx: Cx,
        r: api::RecordActivityTaskHeartbeatByIdRequest,
    ) -> Result<api::RecordActivityTaskHeartbeatByIdResponse> {
        validate::details(
            r.details.as_ref(),
            self.limits(),
            "Heartbeat details exceed size limit.",
        )?;
        let (name, workflow, activity) =
            (r.namespace.clone(), r.workflow_id.clone(), r.activity_id.clone());
        self.by_id(&cx, &name, &workflow, &activity, r).await
    }

    pub(crate) async fn respond_activity_task_completed(
        &self,
        cx: Cx,
        r: api::RespondActivityTaskCompletedRequest,
    ) -> Result<api::RespondActivityTaskCompletedResponse> {
        validate::identity(&r.identity, self.limits())?;
        let (name, token) = (r.namespace.clone(), r.task_token.clone());
        if validate::blob(r.result.as_ref(), self.limits()).is_err() {
            let failed = api::RespondActivityTaskFailedRequest {
                task_token: r.task_token,
                failure: Some(everspan_execution::convert::server_failure(
                    "Complete result exceeds size limit.",
                    true,
                )),
                identity: r.identity,
                namespace: r.namespace,
                ..Default::default()
            };
            self.by_token(&cx, &name, &token, failed).await?;
            return Ok(api::RespondActivityTaskCompletedResponse::default());
        }
        self.by_token(&cx, &name, &token, r).await
    }

    pub(crate) async fn respond_activity_task_completed_by_id(
        &self,
        cx: Cx,
        r: api::RespondActivityTaskCompletedByIdRequest,
    ) -> Result<api::RespondActivityTaskCompletedByIdResponse> {
        validate::blob(r.result.as_ref(), self.limits())?;
        let (name, workflow, activity) =
            (r.namespace.clone(), r.workflow_id.clone(), r.activity_id.clone());
        self.by_id(&cx, &name, &workflow, &activity, r).await
    }

    pub(crate) async fn respond_activity_task_failed(
        &self,
        cx: Cx,
        mut r: api::RespondActivityTaskFailedRequest,
    ) -> Result<api::RespondActivityTaskFailedResponse> {
        validate::identity(&r.identity, self.limits())?;
        if r.failure.as_ref().is_some_and(|f| {
            !matches!(
                f.failure_info,
                Some(everspan_proto::failure::failure::FailureInfo::ApplicationFailureInfo(_))
                    | None
            )
        }) {
            return Err(Error::invalid("Failure must have ApplicationFailureInfo."));
        }
        if validate::blob(r.failure.as_ref(), self.limits()).is_err() {
            let text = "Failure exceeds size limit.";
            r.failure = Some(everspan_execution::convert::server_failure(text, true));
        }
        let (name, token) = (r.namespace.clone(), r.task_token.clone());
        self.by_token(&cx, &name, &token, r).await
    }

    pub(crate) async fn respond_activity_task_failed_by_id(
        &self,
        cx: Cx,
        r: api::RespondActivityTaskFailedByIdRequest,
    ) -> Result<api::RespondActivityTaskFailedByIdResponse> {
        validate::blob(r.failure.as_ref(), self.limits())?;
        let (name, workflow, activity) =
            (r.namespace.clone(), r.workflow_id.clone(), r.activity_id.clone());
        self.by_id(&cx, &name, &workflow, &activity, r).await
    }

    pub(crate) async fn respond_activity_task_canceled(
        &self,
        cx: Cx,
        r: api::RespondActivityTaskCanceledRequest,
    ) -> Result<api::RespondActivityTaskCanceledResponse> {
        validate::details(r.details.as_ref(), self.limits(), "Cancel details exceed size limit.")?;
        let (name, token) = (r.namespace.clone(), r.task_token.clone());
        self.by_token(&cx, &name, &token, r).await
    }

    pub(crate) async fn respond_activity_task_canceled_by_id(
        &self,
        cx: Cx,
        r: api::RespondActivityTaskCanceledByIdRequest,
    ) -> Result<api::RespondActivityTaskCanceledByIdResponse> {
        validate::details(r.details.as_ref(), self.limits(), "Cancel details exceed size limit.")?;
        let (name, workflow, activity) =
            (r.namespace.clone(), r.workflow_id.clone(), r.activity_id.clone());
        self.by_id(&cx, &name, &workflow, &activity, r).await
    }
}
