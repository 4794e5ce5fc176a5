use everspan_proto::{
    command::ModifyWorkflowPropertiesCommandAttributes,
    enums::{EventType, WorkflowTaskFailedCause as Cause},
    history::{WorkflowPropertiesModifiedEventAttributes, history_event::Attributes},
    sdk::UserMetadata,
};
use prost::Message;

use super::{By, Failed, check_size};
use crate::turn::Turn;

/// Changes the memo.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    by: By<'_>,
    a: &ModifyWorkflowPropertiesCommandAttributes,
    summary: Option<UserMetadata>,
) -> Result<(), Failed> {
    let cause = Cause::BadModifyWorkflowPropertiesAttributes;
    let reason = match &a.upserted_memo {
        None => Some("UpsertedMemo is not set on ModifyWorkflowPropertiesCommand."),
        Some(memo) if memo.fields.is_empty() => {
            Some("UpsertedMemo.Fields is not set on ModifyWorkflowPropertiesCommand.")
        }
        Some(_) => None,
    };
    if let Some(reason) = reason {
        return Err(Failed::task(cause, reason));
    }
    let too_large = "ModifyWorkflowPropertiesCommandAttributes exceeds size limit.";
    check_size(turn, a.upserted_memo.as_ref(), cause, too_large)?;
    turn.write_with(
        EventType::WorkflowPropertiesModified,
        Attributes::WorkflowPropertiesModifiedEventAttributes(
            WorkflowPropertiesModifiedEventAttributes {
                workflow_task_completed_event_id: by.completed_event_id,
                upserted_memo: a.upserted_memo.clone(),
            },
        ),
        summary,
    );
    if turn.state.info.memo.encoded_len() > turn.ctx.limits.memo_size_max {
        return Err(Failed::too_large(cause, too_large));
    }
    Ok(())
}
