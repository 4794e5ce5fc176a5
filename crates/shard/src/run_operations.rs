//! What operators do to a run and its activities, and activities that go to a worker
//! without a poll.

use everspan_execution::{
    Original, Reset, Selector, Unpause, convert, pause::Pause, select, state::Activity,
};
use everspan_proto::{
    history::{HistoryEvent, history_event::Attributes},
    workflowservice::{
        self as api, pause_activity_request as pause, reset_activity_request as reset,
        unpause_activity_request as unpause, update_activity_options_request as options,
    },
};
use everspan_types::{Error, Result, TaskRef, TaskToken, Time};

use crate::{
    call::{Call, Reply},
    outcome::Outcome,
    run::Run,
    shard::Shard,
};

impl Run {
    pub(crate) fn operate(
        &mut self,
        shard: &mut Shard,
        now: Time,
        call: Call,
        out: &mut Outcome,
    ) -> Result<Reply> {
        match call {
            Call::PauseActivity(r) => {
                let which = match r.activity.as_ref().ok_or_else(nobody)? {
                    pause::Activity::Id(id) => Selector::Id(id),
                    pause::Activity::Type(name) => Selector::Type(name),
                };
                let pause = Pause {
                    time: now,
                    identity: r.identity.clone(),
                    reason: r.reason.clone(),
                    request_id: r.request_id.clone(),
                };
                self.change(shard, now, out, |t| t.pause_activities(which, &pause))?;
                Ok(Reply::PauseActivity(Box::default()))
            }
            Call::UnpauseActivity(r) => {
                let which = match r.activity.as_ref().ok_or_else(nobody)? {
                    unpause::Activity::Id(id) => Selector::Id(id),
                    unpause::Activity::Type(name) => Selector::Type(name),
                    unpause::Activity::UnpauseAll(_) => Selector::All,
                };
                let how = Unpause {
                    reset_attempts: r.reset_attempts,
                    reset_heartbeat: r.reset_heartbeat,
                    jitter: convert::duration(r.jitter.as_ref()),
                };
                self.change(shard, now, out, |t| t.unpause_activities(which, how))?;
                Ok(Reply::UnpauseActivity(Box::default()))
            }
            Call::ResetActivity(r) => {
                let which = match r.activity.as_ref().ok_or_else(nobody)? {
                    reset::Activity::Id(id) => Selector::Id(id),
                    reset::Activity::Type(name) => Selector::Type(name),
                    reset::Activity::MatchAll(_) => Selector::All,
                };
                let how = Reset {
                    reset_heartbeat: r.reset_heartbeat,
                    keep_paused: r.keep_paused,
                    jitter: convert::duration(r.jitter.as_ref()),
                };
                let originals = self.originals(shard, which, r.restore_original_options)?;
                self.change(shard, now, out, |t| t.reset_activities(which, how, &originals))?;
                Ok(Reply::ResetActivity(Box::default()))
            }
            Call::UpdateActivityOptions(r) => {
                let which = match r.activity.as_ref().ok_or_else(nobody)? {
                    options::Activity::Id(id) => Selector::Id(id),
                    options::Activity::Type(name) => Selector::Type(name),
                    options::Activity::MatchAll(_) => Selector::All,
                };
                let originals = self.originals(shard, which, r.restore_original)?;
                let options = self.change(shard, now, out, |t| {
                    t.update_activity_options(which, &r, &originals)
                })?;
                Ok(Reply::UpdateActivityOptions(Box::new(api::UpdateActivityOptionsResponse {
                    activity_options: Some(options),
                })))
            }
            Call::UpdateWorkflowExecutionOptions(r) => {
                let options = self.change(shard, now, out, |t| t.update_options(&r))?;
                Ok(Reply::UpdateWorkflowExecutionOptions(Box::new(
                    api::UpdateWorkflowExecutionOptionsResponse {
                        workflow_execution_options: Some(options),
                        ..Default::default()
                    },
                )))
            }
            Call::PauseWorkflowExecution(r) => {
                self.change(shard, now, out, |t| t.pause(&r))?;
                Ok(Reply::PauseWorkflowExecution(Box::default()))
            }
            Call::UnpauseWorkflowExecution(r) => {
                self.change(shard, now, out, |t| t.unpause(&r))?;
                Ok(Reply::UnpauseWorkflowExecution(Box::default()))
            }
            other => Err(Error::internal(format!("{} is no operation", other.name()))),
        }
    }

    /// Scheduled events of the activities that a call is about, if it restores their options.
    fn originals(&self, shard: &Shard, which: Selector<'_>, wanted: bool) -> Result<Vec<Original>> {
        if !wanted || !self.state.is_running() {
            return Ok(Vec::new());
        }
        let read = |id: i64| match shard.event(self.id(), id)?.attributes {
            Some(Attributes::ActivityTaskScheduledEventAttributes(attributes)) => {
                Ok(Original { scheduled_event_id: id, attributes })
            }
            _ => Err(Error::invalid("ActivityTaskScheduledEvent is invalid")),
        };
        select(&self.state, which)?.into_iter().map(read).collect()
    }

    /// An activity that goes to the worker that scheduled it; it is recorded as started.
    pub(crate) fn eager_activity(
        &self,
        shard: &Shard,
        id: i64,
        out: &Outcome,
    ) -> Result<api::PollActivityTaskQueueResponse> {
        let event = shard.event_with(&out.batch, self.id(), id)?;
        let activity = self
            .state
            .activities
            .get(&id)
            .cloned()
            .ok_or_else(|| Error::internal("an activity that was just started is gone"))?;
        let priority = activity.priority.clone();
        Ok(api::PollActivityTaskQueueResponse { priority, ..self.activity_task(event, activity)? })
    }

    /// A started activity as its worker gets it, but for the priority.
    pub(crate) fn activity_task(
        &self,
        event: HistoryEvent,
        activity: Activity,
    ) -> Result<api::PollActivityTaskQueueResponse> {
        let Some(Attributes::ActivityTaskScheduledEventAttributes(a)) = event.attributes else {
            return Err(Error::internal("scheduled event is of another type"));
        };
        let info = &self.state.info;
        let started = activity.started.unwrap_or_default();
        let token = TaskToken {
            namespace: info.namespace,
            workflow_id: info.workflow_id.clone(),
            run_id: info.run_id,
            task: TaskRef::Activity {
                scheduled_event_id: activity.scheduled_event_id,
                stamp: started.stamp,
            },
            attempt: activity.attempt,
            started_event_id: 0,
        };
        Ok(api::PollActivityTaskQueueResponse {
            task_token: token.to_bytes(),
            workflow_type: Some(everspan_proto::common::WorkflowType {
                name: info.workflow_type.clone(),
            }),
            workflow_execution: Some(self.execution()),
            activity_type: a.activity_type,
            activity_id: a.activity_id,
            header: a.header,
            input: a.input,
            heartbeat_details: activity.heartbeat_details,
            scheduled_time: Some(activity.scheduled_time.to_proto()),
            current_attempt_scheduled_time: Some(activity.attempt_scheduled_time.to_proto()),
            started_time: Some(started.time.to_proto()),
            attempt: activity.attempt,
            // As scheduled: later changes of options are not told here, as in the real server.
            schedule_to_close_timeout: a.schedule_to_close_timeout,
            start_to_close_timeout: a.start_to_close_timeout,
            heartbeat_timeout: a.heartbeat_timeout,
            retry_policy: Some(activity.retry.to_proto()),
            ..Default::default()
        })
    }
}

fn nobody() -> Error {
    Error::invalid("Either Activity.Id or Activity.Type should be set on request.")
}
