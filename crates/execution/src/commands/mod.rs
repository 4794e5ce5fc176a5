//! What a worker asks for when it completes a workflow task: a file for each command.
//!
//! A new command type is a file with one function of the shape
//! `fn apply(turn, by, &attributes, user_metadata) -> Result<(), Failed>` and a line in
//! [`apply_one`].

mod activity_cancel;
pub(crate) mod activity_schedule;
mod child_start;
mod external_cancel;
mod external_signal;
mod marker;
mod properties;
mod protocol_message;
mod search_attributes;
mod timer_cancel;
mod timer_start;
mod workflow_cancel;
mod workflow_complete;
mod workflow_continue;
mod workflow_fail;

use everspan_proto::{
    command::{Command, command::Attributes},
    common::{Memo, SearchAttributes, WorkflowExecution},
    enums::{CommandType, WorkflowTaskFailedCause as Cause},
    protocol,
    taskqueue::TaskQueue,
};
use prost::Message;

use crate::{
    convert::{camel, is_internal_queue},
    turn::Turn,
    update::{Messages, take_messages},
};

/// Why commands were not taken.
#[derive(Debug, PartialEq)]
pub(crate) enum Failed {
    /// The workflow task fails with this cause.
    Task {
        /// As in the failed event.
        cause: Cause,
        /// Cause and reason.
        message: String,
        /// Whether the whole run is terminated, since trying again cannot help.
        terminate: bool,
    },
    /// A command that this release does not do yet.
    Unimplemented(String),
    /// The call is refused and the task stays with the worker.
    Refused(String),
    /// The same with an error of another kind.
    Call(everspan_types::Error),
}

impl Failed {
    pub(crate) fn task(cause: Cause, reason: impl std::fmt::Display) -> Self {
        let name = camel(cause.as_str_name(), "WORKFLOW_TASK_FAILED_CAUSE_");
        Failed::Task { cause, message: format!("{name}: {reason}"), terminate: false }
    }
    fn bare(cause: Cause) -> Self {
        let name = camel(cause.as_str_name(), "WORKFLOW_TASK_FAILED_CAUSE_");
        Failed::Task { cause, message: name, terminate: false }
    }
    pub(crate) fn too_large(cause: Cause, reason: &str) -> Self {
        let name = camel(cause.as_str_name(), "WORKFLOW_TASK_FAILED_CAUSE_");
        Failed::Task { cause, message: format!("{name}: {reason}"), terminate: true }
    }
}

/// Who asks, and in which workflow task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct By<'a> {
    /// Event that completed the task.
    completed_event_id: i64,
    /// The worker.
    identity: &'a str,
}

/// What commands ask of the run beside their events.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// An activity was cancelled before it started: the workflow is to see that.
    pub(crate) needs_workflow_task: bool,
    /// Activities that the worker wants at once, by scheduled event.
    pub(crate) eager: Vec<i64>,
}

/// Applies commands in order, and then the messages that no command named; stops at the
/// first that cannot be.
pub(crate) fn apply_all(
    turn: &mut Turn<'_>,
    completed_event_id: i64,
    identity: &str,
    commands: &[Command],
    messages: &[protocol::Message],
) -> Result<Done, Failed> {
    check_sequence(commands)?;
    let by = By { completed_event_id, identity };
    let mut done = Done::default();
    let mut messages: Messages<'_> = messages.iter().collect();
    // A workflow may not close over events that it has not seen. What its own commands bring
    // about is not of them, and is lost in the close.
    let is_unaware = !turn.state.buffered.is_empty();
    for command in commands {
        if command.command_type() == CommandType::ProtocolMessage {
            protocol_message::apply(turn, command, &mut messages)?;
        } else if is_unaware && is_closing(command) {
            return Err(Failed::bare(Cause::UnhandledCommand));
        } else {
            let from = turn.events.len();
            apply_one(turn, by, command, &mut done)?;
            if let Some(event) = turn.events.get_mut(from) {
                event.event_group_markers.clone_from(&command.event_group_markers);
            }
        }
    }
    take_messages(turn, &mut messages)?;
    Ok(done)
}

fn apply_one(
    turn: &mut Turn<'_>,
    by: By<'_>,
    command: &Command,
    done: &mut Done,
) -> Result<(), Failed> {
    let summary = command.user_metadata.clone();
    let attributes = command.attributes.as_ref();
    macro_rules! attributes {
        ($variant:ident, $cause:ident, $name:literal) => {
            match attributes {
                Some(Attributes::$variant(a)) => a,
                _ => {
                    return Err(Failed::task(
                        Cause::$cause,
                        concat!($name, "CommandAttributes is not set on ", $name, "Command."),
                    ));
                }
            }
        };
    }
    match command.command_type() {
        CommandType::ScheduleActivityTask => {
            let a = attributes!(
                ScheduleActivityTaskCommandAttributes,
                BadScheduleActivityAttributes,
                "ScheduleActivityTask"
            );
            activity_schedule::apply(turn, by, a, summary, done)
        }
        CommandType::RequestCancelActivityTask => {
            let a = attributes!(
                RequestCancelActivityTaskCommandAttributes,
                BadRequestCancelActivityAttributes,
                "RequestCancelActivityTask"
            );
            activity_cancel::apply(turn, by, a, done)
        }
        CommandType::StartTimer => {
            let a = attributes!(StartTimerCommandAttributes, BadStartTimerAttributes, "StartTimer");
            timer_start::apply(turn, by, a, summary)
        }
        CommandType::CancelTimer => {
            let a =
                attributes!(CancelTimerCommandAttributes, BadCancelTimerAttributes, "CancelTimer");
            timer_cancel::apply(turn, by, a)
        }
        CommandType::RecordMarker => {
            let a = attributes!(
                RecordMarkerCommandAttributes,
                BadRecordMarkerAttributes,
                "RecordMarker"
            );
            marker::apply(turn, by, a, summary)
        }
        CommandType::UpsertWorkflowSearchAttributes => {
            let a = attributes!(
                UpsertWorkflowSearchAttributesCommandAttributes,
                BadSearchAttributes,
                "UpsertWorkflowSearchAttributes"
            );
            search_attributes::apply(turn, by, a, summary)
        }
        CommandType::ModifyWorkflowProperties => {
            let a = attributes!(
                ModifyWorkflowPropertiesCommandAttributes,
                BadModifyWorkflowPropertiesAttributes,
                "ModifyWorkflowProperties"
            );
            properties::apply(turn, by, a, summary)
        }
        CommandType::CompleteWorkflowExecution => {
            let a = attributes!(
                CompleteWorkflowExecutionCommandAttributes,
                BadCompleteWorkflowExecutionAttributes,
                "CompleteWorkflowExecution"
            );
            workflow_complete::apply(turn, by, a, summary)
        }
        CommandType::FailWorkflowExecution => {
            let a = attributes!(
                FailWorkflowExecutionCommandAttributes,
                BadFailWorkflowExecutionAttributes,
                "FailWorkflowExecution"
            );
            workflow_fail::apply(turn, by, a, summary)
        }
        CommandType::CancelWorkflowExecution => {
            let a = attributes!(
                CancelWorkflowExecutionCommandAttributes,
                BadCancelWorkflowExecutionAttributes,
                "CancelWorkflowExecution"
            );
            workflow_cancel::apply(turn, by, a, summary)
        }
        CommandType::ContinueAsNewWorkflowExecution => {
            let a = attributes!(
                ContinueAsNewWorkflowExecutionCommandAttributes,
                BadContinueAsNewAttributes,
                "ContinueAsNewWorkflowExecution"
            );
            workflow_continue::apply(turn, by, a, summary)
        }
        CommandType::StartChildWorkflowExecution => {
            let a = attributes!(
                StartChildWorkflowExecutionCommandAttributes,
                BadStartChildExecutionAttributes,
                "StartChildWorkflowExecution"
            );
            child_start::apply(turn, by, a, summary)
        }
        CommandType::SignalExternalWorkflowExecution => {
            let a = attributes!(
                SignalExternalWorkflowExecutionCommandAttributes,
                BadSignalWorkflowExecutionAttributes,
                "SignalExternalWorkflowExecution"
            );
            external_signal::apply(turn, by, a, summary)
        }
        CommandType::RequestCancelExternalWorkflowExecution => {
            let a = attributes!(
                RequestCancelExternalWorkflowExecutionCommandAttributes,
                BadRequestCancelExternalWorkflowExecutionAttributes,
                "RequestCancelExternalWorkflowExecution"
            );
            external_cancel::apply(turn, by, a, summary)
        }
        other => Err(Failed::Unimplemented(format!(
            "command {} is not implemented by Everspan yet",
            other.as_str_name()
        ))),
    }
}

/// Whether a command ends the run.
fn is_closing(command: &Command) -> bool {
    matches!(
        command.command_type(),
        CommandType::CompleteWorkflowExecution
            | CommandType::FailWorkflowExecution
            | CommandType::CancelWorkflowExecution
            | CommandType::ContinueAsNewWorkflowExecution
    )
}

/// A closing command must be the last.
fn check_sequence(commands: &[Command]) -> Result<(), Failed> {
    let name = |c: &Command| camel(c.command_type().as_str_name(), "COMMAND_TYPE_");
    if let Some(c) = commands.iter().find(|c| c.command_type() == CommandType::Unspecified) {
        let kind = match c.command_type {
            0 => "Unspecified".to_owned(),
            n => n.to_string(),
        };
        return Err(Failed::Refused(format!("unknown command type: {kind}")));
    }
    match commands.iter().position(is_closing) {
        Some(at) if at + 1 < commands.len() => Err(Failed::Refused(format!(
            "invalid command sequence: [{}], command {} must be the last command.",
            commands.iter().map(name).collect::<Vec<_>>().join(", "),
            name(&commands[at])
        ))),
        _ => Ok(()),
    }
}

/// Refuses a payload set over the blob limit.
fn check_size<M: Message>(
    turn: &Turn<'_>,
    payload: Option<&M>,
    cause: Cause,
    reason: &str,
) -> Result<(), Failed> {
    if payload.map_or(0, Message::encoded_len) > turn.ctx.limits.blob_size_max {
        return Err(Failed::too_large(cause, reason));
    }
    Ok(())
}

/// Checks an ID that a command names something by.
fn check_id(
    turn: &Turn<'_>,
    cause: Cause,
    id: &str,
    field: &str,
    command: &str,
) -> Result<(), Failed> {
    let limit = turn.ctx.limits.id_length_max;
    if id.is_empty() {
        return Err(Failed::task(cause, format!("{field} is not set on {command}.")));
    }
    if id.len() > limit {
        return Err(Failed::task(
            cause,
            format!(
                "{field} on {command} exceeds length limit. {field}={id} Length={} Limit={limit}",
                id.len()
            ),
        ));
    }
    Ok(())
}

/// Refuses a memo over its limit.
fn check_memo(
    turn: &Turn<'_>,
    memo: Option<&Memo>,
    cause: Cause,
    reason: &str,
) -> Result<(), Failed> {
    if memo.map_or(0, Message::encoded_len) > turn.ctx.limits.memo_size_max {
        return Err(Failed::too_large(cause, reason));
    }
    Ok(())
}

/// Refuses one more of what is pending already `limit` times.
fn check_count(count: usize, limit: usize, cause: Cause, of: &str) -> Result<(), Failed> {
    if count < limit {
        return Ok(());
    }
    let reason =
        format!("the number of {of}, {count}, has reached the per-workflow limit of {limit}");
    Err(Failed::task(cause, reason))
}

/// Commands stay within their namespace, as the real server has it by default.
fn check_namespace(turn: &Turn<'_>, name: &str, cause: Cause) -> Result<(), Failed> {
    if name.is_empty() || name == turn.state.info.namespace_name {
        return Ok(());
    }
    Err(Failed::task(cause, "cross namespace commands are not allowed"))
}

/// Under this name the gateway, which knows the namespace's attributes, writes into a search
/// attribute's metadata why it cannot be taken.
pub const REFUSED: &str = "refused";

/// Refuses search attributes that the gateway found wrong.
fn check_search_attributes(attributes: Option<&SearchAttributes>) -> Result<(), Failed> {
    let fields = attributes.iter().flat_map(|s| &s.indexed_fields);
    match fields.into_iter().find_map(|(_, p)| p.metadata.get(REFUSED)) {
        None => Ok(()),
        Some(why) => Err(Failed::task(Cause::BadSearchAttributes, String::from_utf8_lossy(why))),
    }
}

/// The queue that a command names, or else the run's own.
fn queue_name(queue: Option<&TaskQueue>, own: &str, limit: usize) -> Result<String, String> {
    let name = queue.map_or("", |q| q.name.as_str());
    if name.is_empty() {
        return Ok(own.to_owned());
    }
    if name.len() > limit {
        return Err("taskQueue length exceeds limit".into());
    }
    check_internal_queue(name, own)?;
    Ok(name.to_owned())
}

/// Refuses the server's own queues to a run that is not on one.
fn check_internal_queue(name: &str, own: &str) -> Result<(), String> {
    if is_internal_queue(name) && !is_internal_queue(own) {
        return Err(format!(
            "cannot use internal per-namespace task queue:{name} \
             (in parent component task queue: {own})"
        ));
    }
    Ok(())
}

/// The queue that a command names, or else the run's own, as errors show it.
fn shown_queue(queue: Option<&TaskQueue>, own: &str) -> String {
    let name = queue.map_or("", |q| q.name.as_str());
    let name = if name.is_empty() { own } else { name };
    format!("name:\"{name}\"  kind:TASK_QUEUE_KIND_NORMAL")
}

/// What is wrong with whom a command is for.
enum BadTarget {
    Missing,
    TooLong { length: usize, limit: usize },
    RunId,
}

/// Checks whom a command is for; `refuse` puts what is wrong into the command's own words.
fn check_target(
    turn: &Turn<'_>,
    execution: &WorkflowExecution,
    cause: Cause,
    refuse: impl Fn(BadTarget) -> String,
) -> Result<(), Failed> {
    let WorkflowExecution { workflow_id: id, run_id } = execution;
    let limit = turn.ctx.limits.id_length_max;
    let bad = if id.is_empty() {
        BadTarget::Missing
    } else if id.len() > limit {
        BadTarget::TooLong { length: id.len(), limit }
    } else if !run_id.is_empty() && run_id.parse::<uuid::Uuid>().is_err() {
        BadTarget::RunId
    } else {
        return Ok(());
    };
    Err(Failed::task(cause, refuse(bad)))
}
