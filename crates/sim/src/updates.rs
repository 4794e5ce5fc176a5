//! What simulated workflows make of updates: refuse, accept, and answer, at once or later.

use everspan_proto::{
    command::{
        Command, ProtocolMessageCommandAttributes, command::Attributes as CommandAttributes,
    },
    enums::CommandType,
    protocol::{Message, message::SequencingId},
    update::{Acceptance, Meta, Outcome, Rejection, Request, Response, outcome::Value},
    workflowservice as api,
};
use prost::Message as _;
use prost_types::Any;

use crate::{
    commands::{View, command, failure},
    payload,
    rng::Rng,
};

/// What goes with a completion.
#[derive(Debug, Default)]
pub(crate) struct Decided {
    pub(crate) commands: Vec<Command>,
    pub(crate) messages: Vec<Message>,
    /// Updates that wait for their outcome after it.
    pub(crate) open: usize,
}

impl Decided {
    fn say(&mut self, update_id: &str, kind: &str, type_name: &str, body: Vec<u8>, named: bool) {
        let id = format!("{update_id}/{kind}");
        if named {
            // Its place among the commands.
            let attributes = ProtocolMessageCommandAttributes { message_id: id.clone() };
            self.commands.extend(command(
                CommandType::ProtocolMessage,
                CommandAttributes::ProtocolMessageCommandAttributes(attributes),
            ));
        }
        self.messages.push(Message {
            id,
            protocol_instance_id: update_id.to_owned(),
            body: Some(Any {
                type_url: format!("type.googleapis.com/temporal.api.update.v1.{type_name}"),
                value: body,
            }),
            ..Message::default()
        });
    }

    fn answer(&mut self, rng: &mut Rng, update_id: &str, named: bool) {
        let value = if rng.chance(25) {
            failure(update_id, false).map(Value::Failure)
        } else {
            payload::text(&format!("{update_id} at {}", rng.below(1_000_000))).map(Value::Success)
        };
        let response = Response {
            meta: Some(Meta { update_id: update_id.to_owned(), ..Meta::default() }),
            outcome: Some(Outcome { value }),
        };
        self.say(update_id, "respond", "Response", response.encode_to_vec(), named);
    }
}

/// Decides on what a task brings, and on what the run accepted before.
pub(crate) fn decide(
    rng: &mut Rng,
    task: &api::PollWorkflowTaskQueueResponse,
    view: &View,
    is_calm: bool,
) -> Decided {
    let mut decided = Decided::default();
    let answers = |rng: &mut Rng| is_calm || rng.chance(60);
    // Of a history that comes in pages it knows the first one only.
    let known = task.next_page_token.is_empty().then_some(&view.updates);
    for id in known.into_iter().flatten() {
        if answers(rng) {
            decided.answer(rng, id, true);
        } else {
            decided.open += 1;
        }
    }
    for message in &task.messages {
        let id = &message.protocol_instance_id;
        let body = message.body.as_ref().map_or(&[][..], |b| &b.value);
        let request = Request::decode(body).ok();
        let sequencing = match message.sequencing_id {
            Some(SequencingId::EventId(id)) => id,
            _ => 0,
        };
        if rng.chance(20) {
            let rejection = Rejection {
                rejected_request_message_id: message.id.clone(),
                rejected_request_sequencing_event_id: sequencing,
                rejected_request: request,
                failure: failure("refused", false),
            };
            decided.say(id, "reject", "Rejection", rejection.encode_to_vec(), false);
            continue;
        }
        let named = rng.chance(80);
        let acceptance = Acceptance {
            accepted_request_message_id: message.id.clone(),
            accepted_request_sequencing_event_id: sequencing,
            accepted_request: request,
        };
        decided.say(id, "accept", "Acceptance", acceptance.encode_to_vec(), named);
        if answers(rng) {
            decided.answer(rng, id, named);
        } else {
            decided.open += 1;
        }
    }
    decided
}
