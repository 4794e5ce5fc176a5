use everspan_proto::{
    command::CancelTimerCommandAttributes,
    enums::{EventType, WorkflowTaskFailedCause as Cause},
    history::{TimerCanceledEventAttributes, history_event::Attributes},
};

use super::{By, Failed, check_id};
use crate::turn::Turn;

/// Cancels a timer, even one that fired while the workflow was deciding.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    by: By<'_>,
    a: &CancelTimerCommandAttributes,
) -> Result<(), Failed> {
    let cause = Cause::BadCancelTimerAttributes;
    check_id(turn, cause, &a.timer_id, "TimerId", "CancelTimerCommand")?;
    let started_event_id = match turn.state.timers.get(&a.timer_id) {
        Some(timer) => timer.started_event_id,
        None => take_held_fire(turn, &a.timer_id).ok_or_else(|| {
            Failed::task(
                cause,
                format!(
                    "invalid history builder state for action: add-timer-canceled-event, \
                     TimerID: {}",
                    a.timer_id
                ),
            )
        })?,
    };
    turn.write(
        EventType::TimerCanceled,
        Attributes::TimerCanceledEventAttributes(TimerCanceledEventAttributes {
            timer_id: a.timer_id.clone(),
            started_event_id,
            workflow_task_completed_event_id: by.completed_event_id,
            identity: by.identity.to_owned(),
        }),
    );
    Ok(())
}

/// Takes a held-back firing of the timer out, as if it had not come.
fn take_held_fire(turn: &mut Turn<'_>, timer_id: &str) -> Option<i64> {
    let (n, started) =
        turn.state.buffered.iter().find_map(|(n, held)| match &held.0.attributes {
            Some(Attributes::TimerFiredEventAttributes(a)) if a.timer_id == timer_id => {
                Some((*n, a.started_event_id))
            }
            _ => None,
        })?;
    let held = turn.state.buffered.remove(&n)?;
    let size = prost::Message::encoded_len(&held.0);
    turn.state.info.buffered_bytes = turn.state.info.buffered_bytes.saturating_sub(size);
    Some(started)
}
