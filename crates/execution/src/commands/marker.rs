use everspan_proto::{
    command::RecordMarkerCommandAttributes,
    enums::{EventType, WorkflowTaskFailedCause as Cause},
    history::{MarkerRecordedEventAttributes, history_event::Attributes},
    sdk::UserMetadata,
};
use prost::Message;

use super::{By, Failed, check_id};
use crate::turn::Turn;

/// Records what the worker did by itself: local activities, side effects, versions.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    by: By<'_>,
    a: &RecordMarkerCommandAttributes,
    summary: Option<UserMetadata>,
) -> Result<(), Failed> {
    let cause = Cause::BadRecordMarkerAttributes;
    check_id(turn, cause, &a.marker_name, "MarkerName", "RecordMarkerCommand")?;
    let size: usize = a.details.values().map(Message::encoded_len).sum();
    if size > turn.ctx.limits.blob_size_max {
        return Err(Failed::too_large(
            cause,
            "RecordMarkerCommandAttributes.Details exceeds size limit.",
        ));
    }
    turn.write_with(
        EventType::MarkerRecorded,
        Attributes::MarkerRecordedEventAttributes(MarkerRecordedEventAttributes {
            marker_name: a.marker_name.clone(),
            details: a.details.clone(),
            workflow_task_completed_event_id: by.completed_event_id,
            header: a.header.clone(),
            failure: a.failure.clone(),
        }),
        summary,
    );
    Ok(())
}
