//! Calls of operators on runs and their activities: pause, reset, options.

use std::sync::LazyLock;

use everspan_meta::Namespace;
use everspan_proto::{
    common::WorkflowExecution,
    workflow::{PostResetOperation, post_reset_operation::Variant},
    workflowservice::{self as api},
};
use everspan_shard::call::ShardCall;
use everspan_types::{Error, Result};
use prost_reflect::{Kind, MessageDescriptor};
use uuid::Uuid;

use super::{Cx, Frontend};
use crate::{descriptors, validate};

const OPTIONS_MESSAGE: &str = "temporal.api.workflow.v1.WorkflowExecutionOptions";

impl Frontend {
    /// Routes a call about activities of a workflow.
    async fn on_activities<C: ShardCall>(
        &self,
        cx: &Cx,
        namespace: &str,
        execution: Option<&WorkflowExecution>,
        names_any: bool,
        call: C,
    ) -> Result<C::Response> {
        let workflow_id = named(execution)?.to_owned();
        if !names_any {
            return Err(Error::invalid(
                "Either Activity.Id or Activity.Type should be set on request.",
            ));
        }
        let namespace = self.namespace(namespace)?;
        check_run_id(execution.map_or("", |e| e.run_id.as_str()))?;
        self.ask(cx, &namespace, &workflow_id, call).await
    }

    pub(crate) async fn pause_activity(
        &self,
        cx: Cx,
        r: api::PauseActivityRequest,
    ) -> Result<api::PauseActivityResponse> {
        let (name, execution) = (r.namespace.clone(), r.execution.clone());
        self.on_activities(&cx, &name, execution.as_ref(), r.activity.is_some(), r).await
    }

    pub(crate) async fn unpause_activity(
        &self,
        cx: Cx,
        r: api::UnpauseActivityRequest,
    ) -> Result<api::UnpauseActivityResponse> {
        let (name, execution) = (r.namespace.clone(), r.execution.clone());
        self.on_activities(&cx, &name, execution.as_ref(), r.activity.is_some(), r).await
    }

    pub(crate) async fn reset_activity(
        &self,
        cx: Cx,
        r: api::ResetActivityRequest,
    ) -> Result<api::ResetActivityResponse> {
        let (name, execution) = (r.namespace.clone(), r.execution.clone());
        self.on_activities(&cx, &name, execution.as_ref(), r.activity.is_some(), r).await
    }

    pub(crate) async fn update_activity_options(
        &self,
        cx: Cx,
        r: api::UpdateActivityOptionsRequest,
    ) -> Result<api::UpdateActivityOptionsResponse> {
        named(r.execution.as_ref())?;
        if r.activity.is_some() {
            validate::priority(r.activity_options.as_ref().and_then(|o| o.priority.as_ref()))?;
        }
        if r.restore_original && r.update_mask.as_ref().is_some_and(|m| !m.paths.is_empty()) {
            self.namespace(&r.namespace)?;
            return Err(Error::invalid("Both UpdateMask and RestoreOriginal are provided"));
        }
        let (name, execution) = (r.namespace.clone(), r.execution.clone());
        self.on_activities(&cx, &name, execution.as_ref(), r.activity.is_some(), r).await
    }

    /// The newer form of [`Frontend::pause_activity`], which is also for activities without a
    /// workflow.
    pub(crate) async fn pause_activity_execution(
        &self,
        cx: Cx,
        r: api::PauseActivityExecutionRequest,
    ) -> Result<api::PauseActivityExecutionResponse> {
        let of = ActivityOf::new(&r.workflow_id, &r.run_id, &r.activity_id);
        let limits = self.limits();
        of.check(&r.request_id, &r.identity, limits.id_length_max)?;
        if r.reason.len() > limits.blob_size_max {
            return Err(Error::invalid("reason exceeds length limit"));
        }
        let older = api::PauseActivityRequest {
            namespace: r.namespace,
            execution: of.execution(),
            identity: r.identity,
            activity: Some(api::pause_activity_request::Activity::Id(r.activity_id)),
            reason: r.reason,
            request_id: r.request_id,
        };
        self.pause_activity(cx, older).await?;
        Ok(api::PauseActivityExecutionResponse {})
    }

    /// The newer form of [`Frontend::unpause_activity`].
    pub(crate) async fn unpause_activity_execution(
        &self,
        cx: Cx,
        r: api::UnpauseActivityExecutionRequest,
    ) -> Result<api::UnpauseActivityExecutionResponse> {
        let of = ActivityOf::new(&r.workflow_id, &r.run_id, &r.activity_id);
        of.check(&r.request_id, &r.identity, self.limits().id_length_max)?;
        check_jitter(r.jitter.as_ref())?;
        let older = api::UnpauseActivityRequest {
            namespace: r.namespace,
            execution: of.execution(),
            identity: r.identity,
            activity: Some(api::unpause_activity_request::Activity::Id(r.activity_id)),
            jitter: r.jitter,
            ..Default::default()
        };
        self.unpause_activity(cx, older).await?;
        Ok(api::UnpauseActivityExecutionResponse {})
    }

    /// The newer form of [`Frontend::reset_activity`].
    pub(crate) async fn reset_activity_execution(
        &self,
        cx: Cx,
        r: api::ResetActivityExecutionRequest,
    ) -> Result<api::ResetActivityExecutionResponse> {
        let of = ActivityOf::new(&r.workflow_id, &r.run_id, &r.activity_id);
        of.check(&r.request_id, &r.identity, self.limits().id_length_max)?;
        check_jitter(r.jitter.as_ref())?;
        let older = api::ResetActivityRequest {
            namespace: r.namespace,
            execution: of.execution(),
            identity: r.identity,
            activity: Some(api::reset_activity_request::Activity::Id(r.activity_id)),
            keep_paused: r.keep_paused,
            jitter: r.jitter,
            reset_heartbeat: r.reset_heartbeat,
            restore_original_options: r.restore_original_options,
        };
        self.reset_activity(cx, older).await?;
        Ok(api::ResetActivityExecutionResponse {})
    }

    /// The newer form of [`Frontend::update_activity_options`].
    pub(crate) async fn update_activity_execution_options(
        &self,
        cx: Cx,
        r: api::UpdateActivityExecutionOptionsRequest,
    ) -> Result<api::UpdateActivityExecutionOptionsResponse> {
        let of = ActivityOf::new(&r.workflow_id, &r.run_id, &r.activity_id);
        of.check(&r.request_id, &r.identity, self.limits().id_length_max)?;
        let paths = r.update_mask.as_ref().map_or(&[][..], |m| &m.paths);
        if r.restore_original && !paths.is_empty() {
            return Err(Error::invalid("Both UpdateMask and RestoreOriginal are provided"));
        }
        let missing = match (&r.activity_options, &r.update_mask) {
            _ if r.restore_original => None,
            (None, _) => Some("ActivityOptions are not provided"),
            (_, None) => Some("UpdateMask is not provided"),
            _ if paths.is_empty() => Some("UpdateMask must specify at least one path"),
            _ => None,
        };
        if let Some(missing) = missing {
            return Err(Error::invalid(missing));
        }
        let older = api::UpdateActivityOptionsRequest {
            namespace: r.namespace,
            execution: of.execution(),
            identity: r.identity,
            activity: Some(api::update_activity_options_request::Activity::Id(r.activity_id)),
            activity_options: r.activity_options,
            update_mask: r.update_mask,
            restore_original: r.restore_original,
        };
        let updated = self.update_activity_options(cx, older).await?;
        let activity_options = updated.activity_options;
        Ok(api::UpdateActivityExecutionOptionsResponse { activity_options })
    }

    pub(crate) async fn update_workflow_execution_options(
        &self,
        cx: Cx,
        r: api::UpdateWorkflowExecutionOptionsRequest,
    ) -> Result<api::UpdateWorkflowExecutionOptionsResponse> {
        let workflow_id = named(r.workflow_execution.as_ref())?.to_owned();
        let Some(mask) = &r.update_mask else {
            return Err(Error::invalid("UpdateMask is required"));
        };
        let Some(options) = &r.workflow_execution_options else {
            return Err(Error::invalid("WorkflowExecutionOptions is required"));
        };
        check_mask("error parsing UpdateMask", &mask.paths)?;
        validate::priority(options.priority.as_ref())?;
        let namespace = self.namespace(&r.namespace)?;
        check_run_id(r.workflow_execution.as_ref().map_or("", |e| e.run_id.as_str()))?;
        self.ask(&cx, &namespace, &workflow_id, r).await
    }

    pub(crate) async fn pause_workflow_execution(
        &self,
        cx: Cx,
        r: api::PauseWorkflowExecutionRequest,
    ) -> Result<api::PauseWorkflowExecutionResponse> {
        let namespace = self.namespace(&r.namespace)?;
        self.check_pause_texts(&r.reason, &r.request_id, &r.identity)?;
        let workflow_id = r.workflow_id.clone();
        check_run_id(&r.run_id)?;
        self.pause_or_unpause(&cx, &namespace, &workflow_id, r).await
    }

    pub(crate) async fn unpause_workflow_execution(
        &self,
        cx: Cx,
        r: api::UnpauseWorkflowExecutionRequest,
    ) -> Result<api::UnpauseWorkflowExecutionResponse> {
        self.check_pause_texts(&r.reason, &r.request_id, &r.identity)?;
        let namespace = self.namespace(&r.namespace)?;
        let workflow_id = r.workflow_id.clone();
        check_run_id(&r.run_id)?;
        self.pause_or_unpause(&cx, &namespace, &workflow_id, r).await
    }

    async fn pause_or_unpause<C: ShardCall>(
        &self,
        cx: &Cx,
        namespace: &Namespace,
        workflow_id: &str,
        call: C,
    ) -> Result<C::Response> {
        if workflow_id.is_empty() {
            return Err(Error::invalid("WorkflowId is not set on request."));
        }
        self.ask(cx, namespace, workflow_id, call).await
    }

    fn check_pause_texts(&self, reason: &str, request_id: &str, identity: &str) -> Result<()> {
        let limit = self.limits().id_length_max;
        for (text, name) in [(reason, "reason"), (request_id, "request id"), (identity, "identity")]
        {
            if text.len() > limit {
                return Err(Error::invalid(format!("{name} is too long.")));
            }
        }
        Ok(())
    }
}

/// Which activity the newer forms of calls name: one of a workflow, or one without.
struct ActivityOf {
    workflow_id: String,
    run_id: String,
    activity_id: String,
}

impl ActivityOf {
    fn new(workflow_id: &str, run_id: &str, activity_id: &str) -> Self {
        Self {
            workflow_id: workflow_id.to_owned(),
            run_id: run_id.to_owned(),
            activity_id: activity_id.to_owned(),
        }
    }

    fn execution(&self) -> Option<WorkflowExecution> {
        Some(WorkflowExecution {
            workflow_id: self.workflow_id.clone(),
            run_id: self.run_id.clone(),
        })
    }

    /// What such a call must have; its words are the real server's.
    fn check(&self, request_id: &str, identity: &str, limit: usize) -> Result<()> {
        if self.workflow_id.is_empty() {
            let what = "activities without a workflow are not implemented by Everspan yet";
            return Err(Error::Unimplemented(what.into()));
        }
        if self.activity_id.is_empty() {
            return Err(Error::invalid("activity ID is required"));
        }
        let texts = [
            ("request ID", request_id),
            ("activity ID", &self.activity_id),
            ("identity", identity),
        ];
        for (name, text) in texts {
            if text.len() > limit {
                return Err(Error::invalid(format!(
                    "{name} exceeds length limit. Length={} Limit={limit}",
                    text.len()
                )));
            }
        }
        if !self.run_id.is_empty() && Uuid::parse_str(&self.run_id).is_err() {
            return Err(Error::invalid("invalid run id: must be a valid UUID"));
        }
        Ok(())
    }
}

fn check_jitter(jitter: Option<&prost_types::Duration>) -> Result<()> {
    match everspan_execution::convert::checked_duration(jitter) {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::invalid(format!("invalid jitter: {e}"))),
    }
}

/// The workflow ID of an execution, which alone is looked at before all else.
fn named(execution: Option<&WorkflowExecution>) -> Result<&str> {
    match execution.map_or("", |e| e.workflow_id.as_str()) {
        "" => Err(Error::invalid("WorkflowId is not set on request.")),
        id => Ok(id),
    }
}

fn check_run_id(text: &str) -> Result<()> {
    if !text.is_empty() && Uuid::parse_str(text).is_err() {
        return Err(Error::invalid("RunId is not valid UUID."));
    }
    Ok(())
}

/// What is to be done right after a reset: only options can be changed, as with the real server.
pub(super) fn check_post_reset(operations: &[PostResetOperation]) -> Result<()> {
    let unsupported =
        |kind: &str| Err(Error::invalid(format!("unsupported post reset operation: {kind}")));
    for operation in operations {
        match &operation.variant {
            None => return unsupported("<nil>"),
            Some(Variant::SignalWorkflow(_)) => {
                return unsupported("*workflow.PostResetOperation_SignalWorkflow_");
            }
            Some(Variant::UpdateWorkflowOptions(update)) => {
                let paths = update.update_mask.as_ref().map_or(&[][..], |m| &m.paths);
                check_mask("error applying update_options", paths)?;
                let options = update.workflow_execution_options.as_ref();
                validate::priority(options.and_then(|o| o.priority.as_ref()))?;
            }
        }
    }
    Ok(())
}

/// Refuses a mask that names what options do not have; `doing` begins the error's message.
fn check_mask(doing: &str, paths: &[String]) -> Result<()> {
    static OPTIONS: LazyLock<Option<MessageDescriptor>> =
        LazyLock::new(|| descriptors::pool().ok()?.get_message_by_name(OPTIONS_MESSAGE));
    let Some(options) = &*OPTIONS else {
        return Err(Error::internal(format!("{OPTIONS_MESSAGE} is not among the descriptors")));
    };
    for path in paths {
        if !has_path(options.clone(), path) {
            return Err(Error::invalid(format!(
                "{doing}: proto: invalid path {path:?} for message {OPTIONS_MESSAGE:?}"
            )));
        }
    }
    Ok(())
}

fn has_path(message: MessageDescriptor, path: &str) -> bool {
    let mut message = Some(message);
    path.split('.').all(|name| {
        let field = message.as_ref().and_then(|m| m.get_field_by_name(name));
        message = field.as_ref().and_then(|f| match f.kind() {
            Kind::Message(inner) if !f.is_list() && !f.is_map() => Some(inner),
            _ => None,
        });
        field.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_name_fields_in_snake_case() {
        let check = |path: &str| check_mask("error", &[path.to_owned()]);
        for path in ["priority", "priority.priority_key", "versioning_override.behavior"] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
        for path in ["", "Priority", "priority.priorityKey", "priority.priority_key.x", "no"] {
            assert!(check(path).is_err(), "{path}");
        }
    }
}
