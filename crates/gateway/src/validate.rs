//! Checks on requests, in the real server's words.

use everspan_execution::{
    convert::{checked_duration, is_internal_queue},
    retry::RetryPolicy,
    validate_cron, versioning,
};
use everspan_meta::Snapshot;
use everspan_proto::{
    common::{Link, Payload, Payloads, SearchAttributes, WorkflowExecution},
    enums::{IndexedValueType, TaskQueueKind, WorkflowIdConflictPolicy, WorkflowIdReusePolicy},
    sdk::UserMetadata,
    taskqueue::TaskQueue,
    worker::WorkerHeartbeat,
    workflowservice as api,
};
use everspan_types::{Error, Limits, RESERVED_QUEUE, Result, Time};
use prost::Message;
use uuid::Uuid;

use crate::callbacks;

/// Most links of a request.
const LINKS_MAX: usize = 10;
/// Largest heartbeat of a worker, in bytes; those of SDKs are a hundredth of it.
const HEARTBEAT_MAX: usize = 64 << 10;

fn invalid<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::invalid(text))
}

pub(crate) fn workflow_id(id: &str, limits: &Limits) -> Result<()> {
    if id.is_empty() {
        return invalid("WorkflowId is not set on request.");
    }
    if id.len() > limits.id_length_max {
        return invalid("WorkflowId length exceeds limit.");
    }
    Ok(())
}

/// The workflow ID of an execution that a request names.
pub(crate) fn execution(e: Option<&WorkflowExecution>) -> Result<&str> {
    let Some(e) = e else { return invalid("Execution is not set on request.") };
    if e.workflow_id.is_empty() {
        return invalid("WorkflowId is not set on request.");
    }
    if !e.run_id.is_empty() && Uuid::parse_str(&e.run_id).is_err() {
        return invalid("Invalid RunId.");
    }
    Ok(&e.workflow_id)
}

/// A worker's instance key, which is kept in memory.
pub(crate) fn instance_key(key: &str, limits: &Limits) -> Result<()> {
    if key.len() > limits.id_length_max {
        return Err(Error::invalid("WorkerInstanceKey exceeds length limit."));
    }
    Ok(())
}

/// What a worker tells of itself, which is kept in memory.
pub(crate) fn heartbeat(h: &WorkerHeartbeat, limits: &Limits) -> Result<()> {
    instance_key(&h.worker_instance_key, limits)?;
    if h.encoded_len() > HEARTBEAT_MAX {
        return Err(Error::invalid(format!(
            "WorkerHeartbeat exceeds size limit of {HEARTBEAT_MAX} bytes."
        )));
    }
    Ok(())
}

pub(crate) fn identity(text: &str, limits: &Limits) -> Result<()> {
    if text.len() > limits.id_length_max {
        return invalid("Identity length exceeds limit.");
    }
    Ok(())
}

pub(crate) fn request_id(id: &mut String, limits: &Limits) -> Result<()> {
    if id.is_empty() {
        *id = Uuid::new_v4().to_string();
    }
    if id.len() > limits.id_length_max {
        return invalid("RequestId length exceeds limit.");
    }
    Ok(())
}

/// A queue that a user names; `user_defined` ones may not be the server's own.
pub(crate) fn task_queue(
    queue: Option<&TaskQueue>,
    user_defined: bool,
    limits: &Limits,
) -> Result<String> {
    let Some(queue) = queue else { return invalid("taskQueue is not set") };
    if queue.name.is_empty() {
        return invalid("missing task queue name");
    }
    if queue.name.len() > limits.id_length_max {
        return invalid("taskQueue length exceeds limit");
    }
    if user_defined && queue.name.starts_with(RESERVED_QUEUE) {
        return invalid(format!(
            "task queue name cannot start with reserved prefix {RESERVED_QUEUE}"
        ));
    }
    if user_defined && is_internal_queue(&queue.name) {
        return invalid(format!("cannot use internal per-namespace task queue:{}", queue.name));
    }
    if queue.kind() == TaskQueueKind::Sticky && user_defined {
        return invalid("sticky task queues cannot be used here");
    }
    Ok(queue.name.clone())
}

pub(crate) fn blob<M: Message>(payload: Option<&M>, limits: &Limits) -> Result<()> {
    if payload.map_or(0, Message::encoded_len) > limits.blob_size_max {
        return invalid("Blob data size exceeds limit.");
    }
    Ok(())
}

pub(crate) fn links(links: &[Link]) -> Result<()> {
    if links.len() > LINKS_MAX {
        return invalid(format!(
            "cannot attach more than {LINKS_MAX} links per request, got {}",
            links.len()
        ));
    }
    Ok(())
}

fn user_metadata(m: Option<&UserMetadata>, limits: &Limits) -> Result<()> {
    let size = |p: &Option<Payload>| p.as_ref().map_or(0, |p| p.data.len());
    let Some(m) = m else { return Ok(()) };
    if size(&m.summary) > limits.user_metadata_summary_max {
        return invalid("UserMetadata.Summary exceeds size limit.");
    }
    if size(&m.details) > limits.user_metadata_details_max {
        return invalid("UserMetadata.Details exceeds size limit.");
    }
    Ok(())
}

fn bad_duration(name: &str, error: &str) -> Error {
    Error::invalid(format!("An invalid {name}Seconds is set on request. cause: {error}"))
}

/// Fills in defaults and checks a start.
pub(crate) fn start(
    r: &mut api::StartWorkflowExecutionRequest,
    now: Time,
    limits: &Limits,
    snapshot: &Snapshot,
) -> Result<()> {
    policies(&mut r.workflow_id_reuse_policy, &mut r.workflow_id_conflict_policy, false)?;
    if r.workflow_id.len() > limits.id_length_max {
        return invalid(format!(
            "WorkflowId exceeds maximum allowed length ({}/{})",
            r.workflow_id.len(),
            limits.id_length_max
        ));
    }
    workflow_id(&r.workflow_id, limits)?;
    if let Some(policy) = &r.retry_policy {
        RetryPolicy::from_proto(policy)?;
    }
    if r.workflow_start_delay.is_some() {
        if !r.cron_schedule.is_empty() {
            return invalid("CronSchedule and WorkflowStartDelay may not be used together.");
        }
        checked_duration(r.workflow_start_delay.as_ref())
            .map_err(|e| bad_duration("WorkflowStartDelay", &e))?;
    }
    validate_cron(&r.cron_schedule, now).map_err(Error::InvalidArgument)?;
    let kind = r.workflow_type.as_ref().map_or("", |t| t.name.as_str());
    if kind.is_empty() {
        return invalid("WorkflowType is not set on request.");
    }
    if kind.len() > limits.id_length_max {
        return invalid("WorkflowType length exceeds limit.");
    }
    task_queue(r.task_queue.as_ref(), true, limits)?;
    for (d, name) in [
        (&r.workflow_execution_timeout, "WorkflowExecutionTimeout"),
        (&r.workflow_run_timeout, "WorkflowRunTimeout"),
        (&r.workflow_task_timeout, "WorkflowTaskTimeout"),
    ] {
        checked_duration(d.as_ref()).map_err(|e| bad_duration(name, &e))?;
    }
    request_id(&mut r.request_id, limits)?;
    identity(&r.identity, limits)?;
    if let Some(attributes) = &mut r.search_attributes {
        search_attributes(attributes, snapshot, &r.namespace)?;
    }
    priority(r.priority.as_ref())?;
    links(&r.links)?;
    blob(r.input.as_ref(), limits)?;
    if r.memo.as_ref().map_or(0, Message::encoded_len) > limits.memo_size_max {
        return invalid("Memo size exceeds limit.");
    }
    user_metadata(r.user_metadata.as_ref(), limits)?;
    not_built(r)
}

/// Refuses priorities that make no sense.
pub(crate) fn priority(p: Option<&everspan_proto::common::Priority>) -> Result<()> {
    everspan_types::check_priority(p).map_err(Error::invalid)
}

/// Refuses what a start may ask for that this release does not do, or no setting allows.
fn not_built(r: &api::StartWorkflowExecutionRequest) -> Result<()> {
    if r.time_skipping_config.is_some() {
        let what = "time_skipping_config is not implemented by Everspan yet";
        return Err(Error::Unimplemented(what.into()));
    }
    callbacks::check(&r.completion_callbacks)?;
    let queue = r.task_queue.as_ref().map_or("", |q| q.name.as_str());
    r.versioning_override.as_ref().map_or(Ok(()), |given| versioning::check(given, queue))
}

/// Defaults and forbidden combinations of the two ID policies.
pub(crate) fn policies(reuse: &mut i32, conflict: &mut i32, signals: bool) -> Result<()> {
    #[allow(deprecated)]
    let terminate_if_running = WorkflowIdReusePolicy::TerminateIfRunning as i32;
    if *reuse == WorkflowIdReusePolicy::Unspecified as i32 {
        *reuse = WorkflowIdReusePolicy::AllowDuplicate as i32;
    }
    if *reuse == terminate_if_running {
        if *conflict != WorkflowIdConflictPolicy::Unspecified as i32 {
            return invalid(
                "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING \
                 cannot be used together with a WorkflowIDConflictPolicy",
            );
        }
        *reuse = WorkflowIdReusePolicy::AllowDuplicate as i32;
        *conflict = WorkflowIdConflictPolicy::TerminateExisting as i32;
    }
    if *conflict == WorkflowIdConflictPolicy::Unspecified as i32 {
        *conflict = if signals {
            WorkflowIdConflictPolicy::UseExisting as i32
        } else {
            WorkflowIdConflictPolicy::Fail as i32
        };
    }
    if signals && *conflict == WorkflowIdConflictPolicy::Fail as i32 {
        return invalid(
            "Invalid WorkflowIDConflictPolicy: WORKFLOW_ID_CONFLICT_POLICY_FAIL is not supported \
             for this operation.",
        );
    }
    if *conflict == WorkflowIdConflictPolicy::TerminateExisting as i32
        && *reuse == WorkflowIdReusePolicy::RejectDuplicate as i32
    {
        return invalid(
            "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE cannot be \
             used together with WorkflowIdConflictPolicy \
             WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING",
        );
    }
    Ok(())
}

/// Checks names and values and writes each attribute's type into its metadata.
pub(crate) fn search_attributes(
    attributes: &mut SearchAttributes,
    snapshot: &Snapshot,
    namespace: &str,
) -> Result<()> {
    for (name, payload) in &mut attributes.indexed_fields {
        let kind = everspan_visibility::settable_system_attribute(name)
            .map(str::to_owned)
            .or_else(|| snapshot.attributes.get(name).and_then(|k| type_name(*k)));
        let Some(kind) = kind else {
            if everspan_visibility::is_system_attribute(name) {
                return invalid(format!("{name} attribute can't be set in SearchAttributes"));
            }
            return invalid(format!(
                "Namespace {namespace} has no mapping defined for search attribute {name}"
            ));
        };
        payload.metadata.insert("type".into(), kind.clone().into());
        let is_unset = payload.metadata.get("encoding").is_some_and(|e| e == "binary/null")
            || payload.data.is_empty()
            || payload.data.as_ref() == b"null"
            || payload.data.as_ref() == b"[]";
        if !is_unset && !everspan_visibility::is_valid(payload) {
            let value = match serde_json::from_slice(&payload.data) {
                Ok(serde_json::Value::String(text)) => text,
                _ => String::from_utf8_lossy(&payload.data).into_owned(),
            };
            return invalid(format!(
                "invalid value for search attribute {name} of type {kind}: {value}"
            ));
        }
    }
    Ok(())
}

/// `Keyword` and so on.
pub(crate) fn type_name(kind: i32) -> Option<String> {
    let kind = IndexedValueType::try_from(kind).ok()?;
    Some(
        match kind {
            IndexedValueType::Text => "Text",
            IndexedValueType::Keyword => "Keyword",
            IndexedValueType::Int => "Int",
            IndexedValueType::Double => "Double",
            IndexedValueType::Bool => "Bool",
            IndexedValueType::Datetime => "Datetime",
            IndexedValueType::KeywordList => "KeywordList",
            IndexedValueType::Unspecified => return None,
        }
        .to_owned(),
    )
}

pub(crate) fn signal_name(name: &str, limits: &Limits) -> Result<()> {
    if name.is_empty() {
        return invalid("SignalName is not set on request.");
    }
    if name.len() > limits.id_length_max {
        return invalid("SignalName length exceeds limit.");
    }
    Ok(())
}

/// Refuses payloads over the limit, for calls whose error the worker must see as such.
pub(crate) fn details(p: Option<&Payloads>, limits: &Limits, text: &str) -> Result<()> {
    if p.map_or(0, Message::encoded_len) > limits.blob_size_max {
        return invalid(text);
    }
    Ok(())
}
