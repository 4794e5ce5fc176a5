use everspan_proto::{
    command::RequestCancelActivityTaskCommandAttributes,
    common::{Payload, Payloads},
    enums::{EventType, WorkflowTaskFailedCause as Cause},
    history::{ActivityTaskCancelRequestedEventAttributes, history_event::Attributes},
};

use super::{By, Done, Failed};
use crate::turn::Turn;

const CAUSE: Cause = Cause::BadRequestCancelActivityAttributes;

/// Asks an activity to stop; one that no worker has is cancelled at once.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    by: By<'_>,
    a: &RequestCancelActivityTaskCommandAttributes,
    done: &mut Done,
) -> Result<(), Failed> {
    let id = a.scheduled_event_id;
    if id <= 0 {
        return Err(Failed::task(
            CAUSE,
            "ScheduledEventId is not set on RequestCancelActivityTaskCommand.",
        ));
    }
    let activity = turn.state.activities.get(&id);
    // Its close may wait behind this very workflow task.
    let is_known = match activity {
        Some(activity) => !activity.cancel_requested,
        None => closed_meanwhile(turn, id),
    };
    if !is_known {
        return Err(Failed::task(
            CAUSE,
            format!(
                "invalid history builder state for action: \
                 add-activitytask-cancel-requested-event, ScheduledEventID: {id}"
            ),
        ));
    }
    let is_with_worker = activity.map(|a| a.started.is_some());
    turn.write(
        EventType::ActivityTaskCancelRequested,
        Attributes::ActivityTaskCancelRequestedEventAttributes(
            ActivityTaskCancelRequestedEventAttributes {
                scheduled_event_id: id,
                workflow_task_completed_event_id: by.completed_event_id,
            },
        ),
    );
    if is_with_worker == Some(false) {
        let details = Payloads {
            payloads: vec![Payload {
                metadata: [("encoding".to_owned(), bytes::Bytes::from_static(b"json/plain"))]
                    .into(),
                data: bytes::Bytes::from_static(b"\"ACTIVITY_ID_NOT_STARTED\""),
                ..Payload::default()
            }],
        };
        turn.close_canceled_activity(id, Some(details), by.identity);
        done.needs_workflow_task = true;
    }
    Ok(())
}

fn closed_meanwhile(turn: &Turn<'_>, id: i64) -> bool {
    turn.state.buffered.values().any(|held| match &held.0.attributes {
        Some(Attributes::ActivityTaskCompletedEventAttributes(a)) => a.scheduled_event_id == id,
        Some(Attributes::ActivityTaskFailedEventAttributes(a)) => a.scheduled_event_id == id,
        Some(Attributes::ActivityTaskTimedOutEventAttributes(a)) => a.scheduled_event_id == id,
        Some(Attributes::ActivityTaskCanceledEventAttributes(a)) => a.scheduled_event_id == id,
        _ => false,
    })
}
