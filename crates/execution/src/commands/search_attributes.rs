use everspan_proto::{
    command::UpsertWorkflowSearchAttributesCommandAttributes,
    enums::{EventType, WorkflowTaskFailedCause as Cause},
    history::{UpsertWorkflowSearchAttributesEventAttributes, history_event::Attributes},
    sdk::UserMetadata,
};

use super::{By, Failed, check_search_attributes, check_size};
use crate::turn::Turn;

/// Changes search attributes. Names and types were checked before the run was asked, since
/// the run does not know the namespace's attributes.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    by: By<'_>,
    a: &UpsertWorkflowSearchAttributesCommandAttributes,
    summary: Option<UserMetadata>,
) -> Result<(), Failed> {
    let cause = Cause::BadSearchAttributes;
    let reason = match &a.search_attributes {
        None => Some("SearchAttributes is not set on UpsertWorkflowSearchAttributesCommand."),
        Some(s) if s.indexed_fields.is_empty() => {
            Some("IndexedFields is not set on UpsertWorkflowSearchAttributesCommand.")
        }
        Some(_) => None,
    };
    if let Some(reason) = reason {
        return Err(Failed::task(cause, reason));
    }
    check_search_attributes(a.search_attributes.as_ref())?;
    check_size(
        turn,
        a.search_attributes.as_ref(),
        cause,
        "UpsertWorkflowSearchAttributesCommandAttributes exceeds size limit.",
    )?;
    turn.write_with(
        EventType::UpsertWorkflowSearchAttributes,
        Attributes::UpsertWorkflowSearchAttributesEventAttributes(
            UpsertWorkflowSearchAttributesEventAttributes {
                workflow_task_completed_event_id: by.completed_event_id,
                search_attributes: a.search_attributes.clone(),
            },
        ),
        summary,
    );
    Ok(())
}
