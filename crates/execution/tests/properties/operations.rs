//! What an operator asks for, done to a run.

use std::time::Duration;

use everspan_execution::{
    Original, Reset, Selector, Unpause, convert::proto_duration, pause::Pause,
};
use everspan_proto::{
    history::history_event::Attributes::ActivityTaskScheduledEventAttributes as Scheduled,
    taskqueue::TaskQueue, workflowservice as api,
};

use crate::{Model, steps::Operation};

impl Model {
    fn activity_name(&self, n: u8) -> String {
        let nth = self.state.activities.values().nth(usize::from(n));
        nth.map_or_else(|| "none".into(), |a| a.activity_id.clone())
    }

    fn original(&self, id: i64) -> Original {
        let event = self.history.iter().find(|e| e.event_id == id).unwrap();
        match event.attributes.clone() {
            Some(Scheduled(attributes)) => Original { scheduled_event_id: id, attributes },
            other => panic!("not a scheduled event: {other:?}"),
        }
    }

    pub(crate) fn operate(&mut self, operation: Operation) {
        let (now, jitter) = (self.now, Duration::from_millis(500));
        match operation {
            Operation::PauseActivity(n, request) => {
                let name = self.activity_name(n);
                let pause =
                    Pause { time: now, request_id: request.to_string(), ..Pause::default() };
                self.turn(|t| t.pause_activities(Selector::Id(&name), &pause));
            }
            Operation::UnpauseActivity(n, again) => {
                let name = self.activity_name(n);
                let which = if n == 4 { Selector::All } else { Selector::Id(&name) };
                let how = Unpause { reset_attempts: again, reset_heartbeat: again, jitter };
                self.turn(|t| t.unpause_activities(which, how));
            }
            Operation::ResetActivity(n, keep_paused, restore) => {
                let Some(id) = self.nth_activity(n) else { return };
                let name = self.activity_name(n);
                let originals = restore.then(|| self.original(id));
                let how = Reset { reset_heartbeat: restore, keep_paused, jitter };
                let originals: Vec<_> = originals.into_iter().collect();
                self.turn(|t| t.reset_activities(Selector::Id(&name), how, &originals));
            }
            Operation::ActivityOptions(n, close) => {
                let name = self.activity_name(n);
                let request = api::UpdateActivityOptionsRequest {
                    activity_options: Some(everspan_proto::activity::ActivityOptions {
                        task_queue: Some(TaskQueue { name: "q2".into(), ..Default::default() }),
                        schedule_to_close_timeout: Some(proto_duration(Duration::from_secs(
                            close.into(),
                        ))),
                        ..Default::default()
                    }),
                    update_mask: Some(prost_types::FieldMask {
                        paths: vec!["task_queue.name".into(), "scheduleToCloseTimeout".into()],
                    }),
                    ..Default::default()
                };
                let which = if n == 4 { Selector::All } else { Selector::Id(&name) };
                self.turn(|t| t.update_activity_options(which, &request, &[]));
            }
            Operation::Pause(request) => {
                let request_id = request.to_string();
                let r = api::PauseWorkflowExecutionRequest { request_id, ..Default::default() };
                self.turn(|t| t.pause(&r));
            }
            Operation::Unpause => {
                self.turn(|t| t.unpause(&Default::default()));
            }
            Operation::Priority(priority_key) => {
                let priority =
                    everspan_proto::common::Priority { priority_key, ..Default::default() };
                let r = api::UpdateWorkflowExecutionOptionsRequest {
                    workflow_execution_options: Some(
                        everspan_proto::workflow::WorkflowExecutionOptions {
                            priority: Some(priority),
                            ..Default::default()
                        },
                    ),
                    update_mask: Some(prost_types::FieldMask { paths: vec!["priority".into()] }),
                    ..Default::default()
                };
                self.turn(|t| t.update_options(&r));
            }
            Operation::Attach(n) => {
                let r = api::StartWorkflowExecutionRequest {
                    request_id: format!("attached-{n}"),
                    on_conflict_options: Some(everspan_proto::workflow::OnConflictOptions {
                        attach_request_id: n > 0,
                        ..Default::default()
                    }),
                    ..Default::default()
                };
                self.turn(|t| t.attach_start(&r));
            }
        }
    }
}
