use everspan_proto::{
    command::StartTimerCommandAttributes,
    enums::{EventType, WorkflowTaskFailedCause as Cause},
    history::{TimerStartedEventAttributes, history_event::Attributes},
    sdk::UserMetadata,
};

use super::{By, Failed, check_id};
use crate::{convert::checked_duration, turn::Turn};

/// Starts a timer.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    by: By<'_>,
    a: &StartTimerCommandAttributes,
    summary: Option<UserMetadata>,
) -> Result<(), Failed> {
    let cause = Cause::BadStartTimerAttributes;
    check_id(turn, cause, &a.timer_id, "TimerId", "StartTimerCommand")?;
    checked_duration(a.start_to_fire_timeout.as_ref()).map_err(|e| {
        Failed::task(
            cause,
            format!(
                "An invalid StartToFireTimeout is set on StartTimerCommand: {e}. TimerId={}",
                a.timer_id
            ),
        )
    })?;
    if turn.state.timers.contains(&a.timer_id) {
        return Err(Failed::task(
            Cause::StartTimerDuplicateId,
            format!(
                "invalid history builder state for action: add-timer-started-event, TimerID: {}",
                a.timer_id
            ),
        ));
    }
    turn.write_with(
        EventType::TimerStarted,
        Attributes::TimerStartedEventAttributes(TimerStartedEventAttributes {
            timer_id: a.timer_id.clone(),
            start_to_fire_timeout: a.start_to_fire_timeout,
            workflow_task_completed_event_id: by.completed_event_id,
        }),
        summary,
    );
    Ok(())
}
