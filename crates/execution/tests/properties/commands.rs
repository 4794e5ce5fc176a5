//! What a worker asks for, as its completion writes it.

use std::time::Duration;

use everspan_execution::convert::proto_duration;
use everspan_proto::{
    command::{self as commandpb, Command, command::Attributes},
    common::{ActivityType, RetryPolicy, WorkflowExecution, WorkflowType},
    enums::CommandType,
    failure::Failure,
    taskqueue::TaskQueue,
};

use crate::{
    Model,
    steps::{Ask, Word},
};

impl Model {
    pub(crate) fn command(&self, ask: Ask) -> Command {
        let seconds = |n: u32| (n > 0).then(|| proto_duration(Duration::from_secs(n.into())));
        let (kind, attributes) = match ask {
            Ask::Activity { id, attempts, close, beat, eager } => (
                CommandType::ScheduleActivityTask,
                Attributes::ScheduleActivityTaskCommandAttributes(
                    #[allow(deprecated)]
                    commandpb::ScheduleActivityTaskCommandAttributes {
                        activity_id: format!("a{id}"),
                        request_eager_execution: eager,
                        activity_type: Some(ActivityType { name: "act".into() }),
                        task_queue: Some(TaskQueue { name: "q".into(), ..TaskQueue::default() }),
                        schedule_to_close_timeout: seconds(close),
                        start_to_close_timeout: seconds(3),
                        heartbeat_timeout: seconds(beat),
                        retry_policy: Some(RetryPolicy {
                            maximum_attempts: attempts,
                            ..RetryPolicy::default()
                        }),
                        ..Default::default()
                    },
                ),
            ),
            Ask::CancelActivity(n) => (
                CommandType::RequestCancelActivityTask,
                Attributes::RequestCancelActivityTaskCommandAttributes(
                    commandpb::RequestCancelActivityTaskCommandAttributes {
                        scheduled_event_id: self.nth_activity(n).unwrap_or(99),
                    },
                ),
            ),
            Ask::Timer(id, s) => (
                CommandType::StartTimer,
                Attributes::StartTimerCommandAttributes(commandpb::StartTimerCommandAttributes {
                    timer_id: format!("t{id}"),
                    start_to_fire_timeout: seconds(s),
                }),
            ),
            Ask::CancelTimer(id) => (
                CommandType::CancelTimer,
                Attributes::CancelTimerCommandAttributes(commandpb::CancelTimerCommandAttributes {
                    timer_id: format!("t{id}"),
                }),
            ),
            Ask::BadTimer => (
                CommandType::StartTimer,
                Attributes::StartTimerCommandAttributes(Default::default()),
            ),
            Ask::Marker => (
                CommandType::RecordMarker,
                Attributes::RecordMarkerCommandAttributes(
                    commandpb::RecordMarkerCommandAttributes {
                        marker_name: "m".into(),
                        ..Default::default()
                    },
                ),
            ),
            Ask::Upsert => (
                CommandType::UpsertWorkflowSearchAttributes,
                Attributes::UpsertWorkflowSearchAttributesCommandAttributes(
                    commandpb::UpsertWorkflowSearchAttributesCommandAttributes {
                        search_attributes: Some(everspan_proto::common::SearchAttributes {
                            indexed_fields: [(
                                "A".to_owned(),
                                everspan_proto::common::Payload {
                                    metadata: [("type".to_owned(), "Keyword".into())].into(),
                                    data: "\"v\"".into(),
                                    ..Default::default()
                                },
                            )]
                            .into(),
                        }),
                    },
                ),
            ),
            Ask::Memo => (
                CommandType::ModifyWorkflowProperties,
                Attributes::ModifyWorkflowPropertiesCommandAttributes(
                    commandpb::ModifyWorkflowPropertiesCommandAttributes {
                        upserted_memo: Some(everspan_proto::common::Memo {
                            fields: [("m".to_owned(), Default::default())].into(),
                        }),
                    },
                ),
            ),
            Ask::Child(id, policy) => (
                CommandType::StartChildWorkflowExecution,
                Attributes::StartChildWorkflowExecutionCommandAttributes(
                    commandpb::StartChildWorkflowExecutionCommandAttributes {
                        workflow_id: format!("c{id}"),
                        workflow_type: Some(WorkflowType { name: "child".into() }),
                        parent_close_policy: policy,
                        ..Default::default()
                    },
                ),
            ),
            Ask::SignalOther(id) => (
                CommandType::SignalExternalWorkflowExecution,
                Attributes::SignalExternalWorkflowExecutionCommandAttributes(
                    commandpb::SignalExternalWorkflowExecutionCommandAttributes {
                        execution: Some(WorkflowExecution {
                            workflow_id: if id == 0 { "w".into() } else { format!("c{id}") },
                            run_id: String::new(),
                        }),
                        signal_name: "s".into(),
                        ..Default::default()
                    },
                ),
            ),
            Ask::CancelOther(id) => (
                CommandType::RequestCancelExternalWorkflowExecution,
                Attributes::RequestCancelExternalWorkflowExecutionCommandAttributes(
                    commandpb::RequestCancelExternalWorkflowExecutionCommandAttributes {
                        workflow_id: if id == 0 { "w".into() } else { format!("c{id}") },
                        ..Default::default()
                    },
                ),
            ),
            Ask::Finish(3) => (
                CommandType::ContinueAsNewWorkflowExecution,
                Attributes::ContinueAsNewWorkflowExecutionCommandAttributes(Default::default()),
            ),
            Ask::Say(..) => unreachable!("it is a message"),
            Ask::Finish(0) => (
                CommandType::CompleteWorkflowExecution,
                Attributes::CompleteWorkflowExecutionCommandAttributes(Default::default()),
            ),
            Ask::Finish(1) => (
                CommandType::FailWorkflowExecution,
                Attributes::FailWorkflowExecutionCommandAttributes(
                    commandpb::FailWorkflowExecutionCommandAttributes {
                        failure: Some(Failure::default()),
                    },
                ),
            ),
            Ask::Finish(_) => (
                CommandType::CancelWorkflowExecution,
                Attributes::CancelWorkflowExecutionCommandAttributes(Default::default()),
            ),
        };
        Command { command_type: kind as i32, attributes: Some(attributes), ..Command::default() }
    }
}

pub(crate) fn messages(ask: &Ask) -> Vec<everspan_proto::protocol::Message> {
    use everspan_proto::update;
    use prost::Message as _;
    let Ask::Say(n, word) = ask else { return Vec::new() };
    let id = format!("u{n}");
    let message = |kind: &str, value: Vec<u8>| everspan_proto::protocol::Message {
        id: format!("{id}/{kind}"),
        protocol_instance_id: id.clone(),
        body: Some(prost_types::Any {
            type_url: format!("type.googleapis.com/temporal.api.update.v1.{kind}"),
            value,
        }),
        ..Default::default()
    };
    let accept = || {
        let body = update::Acceptance {
            accepted_request_message_id: format!("{id}/request"),
            accepted_request_sequencing_event_id: 1,
            ..Default::default()
        };
        message("Acceptance", body.encode_to_vec())
    };
    let respond = || {
        let body = update::Response {
            meta: Some(update::Meta { update_id: id.clone(), ..Default::default() }),
            outcome: Some(update::Outcome::default()),
        };
        message("Response", body.encode_to_vec())
    };
    match word {
        Word::Accept => vec![accept()],
        Word::Reject => vec![message("Rejection", update::Rejection::default().encode_to_vec())],
        Word::Respond => vec![respond()],
        Word::AcceptAndRespond => vec![accept(), respond()],
    }
}
