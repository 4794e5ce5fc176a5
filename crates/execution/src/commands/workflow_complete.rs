use everspan_proto::{
    command::CompleteWorkflowExecutionCommandAttributes,
    enums::{EventType, WorkflowTaskFailedCause as Cause},
    history::{WorkflowExecutionCompletedEventAttributes, history_event::Attributes},
    sdk::UserMetadata,
};

use super::{By, Failed, check_size};
use crate::{next::next_run_id, turn::Turn};

/// Closes the run with a result.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    by: By<'_>,
    a: &CompleteWorkflowExecutionCommandAttributes,
    summary: Option<UserMetadata>,
) -> Result<(), Failed> {
    check_size(
        turn,
        a.result.as_ref(),
        Cause::BadCompleteWorkflowExecutionAttributes,
        "CompleteWorkflowExecutionCommandAttributes.Result exceeds size limit.",
    )?;
    turn.withdraw_all();
    let next = turn.after_completion(a.result.clone());
    turn.write_with(
        EventType::WorkflowExecutionCompleted,
        Attributes::WorkflowExecutionCompletedEventAttributes(
            WorkflowExecutionCompletedEventAttributes {
                result: a.result.clone(),
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
