use everspan_proto::{
    command::FailWorkflowExecutionCommandAttributes,
    enums::{EventType, WorkflowTaskFailedCause as Cause},
    history::{WorkflowExecutionFailedEventAttributes, history_event::Attributes},
    sdk::UserMetadata,
};

use super::{By, Failed, check_size};
use crate::{next::next_run_id, turn::Turn};

/// Closes the run with a failure.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    by: By<'_>,
    a: &FailWorkflowExecutionCommandAttributes,
    summary: Option<UserMetadata>,
) -> Result<(), Failed> {
    let cause = Cause::BadFailWorkflowExecutionAttributes;
    if a.failure.is_none() {
        return Err(Failed::task(cause, "Failure is not set on FailWorkflowExecutionCommand."));
    }
    check_size(
        turn,
        a.failure.as_ref(),
        cause,
        "FailWorkflowExecutionCommandAttributes.Failure exceeds size limit.",
    )?;
    turn.withdraw_all();
    let failure = a.failure.clone().unwrap_or_default();
    let (retry_state, next) = turn.after_failure(&failure, false);
    turn.write_with(
        EventType::WorkflowExecutionFailed,
        Attributes::WorkflowExecutionFailedEventAttributes(
            WorkflowExecutionFailedEventAttributes {
                failure: a.failure.clone(),
                retry_state: retry_state as i32,
                workflow_task_completed_event_id: by.completed_event_id,
                new_execution_run_id: next_run_id(next.as_ref()),
            },
        ),
        summary,
    );
    if let Some(next) = next {
        turn.repeat(next);
    }
    Ok(())
}
