use everspan_proto::{
    command::CancelWorkflowExecutionCommandAttributes,
    enums::EventType,
    history::{WorkflowExecutionCanceledEventAttributes, history_event::Attributes},
    sdk::UserMetadata,
};

use super::{By, Failed};
use crate::turn::Turn;

/// Closes the run as canceled.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    by: By<'_>,
    a: &CancelWorkflowExecutionCommandAttributes,
    summary: Option<UserMetadata>,
) -> Result<(), Failed> {
    turn.withdraw_all();
    turn.write_with(
        EventType::WorkflowExecutionCanceled,
        Attributes::WorkflowExecutionCanceledEventAttributes(
            WorkflowExecutionCanceledEventAttributes {
                workflow_task_completed_event_id: by.completed_event_id,
                details: a.details.clone(),
            },
        ),
        summary,
    );
    Ok(())
}
