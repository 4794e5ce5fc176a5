//! What a worker says of updates when it completes a workflow task.

use std::collections::VecDeque;

use everspan_proto::{
    enums::{EventType, WorkflowTaskFailedCause as Cause},
    history::{
        WorkflowExecutionUpdateAcceptedEventAttributes,
        WorkflowExecutionUpdateCompletedEventAttributes, history_event::Attributes,
    },
    protocol::Message,
    update::{Acceptance, Rejection, Request, Response},
};
use prost::{Message as _, Name as _};

use super::{UpdateNews, registry::request_message_id};
use crate::{commands::Failed, turn::Turn};

/// The only protocol there is.
const PROTOCOL: &str = "temporal.api.update.v1";
const CAUSE: Cause = Cause::BadUpdateWorkflowExecutionMessage;

/// Messages of one completion that no command asked for yet, in order.
pub(crate) type Messages<'a> = VecDeque<&'a Message>;

enum Body {
    Acceptance(Acceptance),
    Rejection(Rejection),
    Response(Response),
}

/// Takes the message that a command names.
pub(crate) fn take_message(
    turn: &mut Turn<'_>,
    message_id: &str,
    messages: &mut Messages<'_>,
) -> Result<(), Failed> {
    if message_id.is_empty() {
        return Err(Failed::task(CAUSE, "MessageID is not set on ProtocolMessageCommand."));
    }
    let Some(message) =
        messages.iter().position(|m| m.id == message_id).and_then(|at| messages.remove(at))
    else {
        return Err(Failed::task(
            CAUSE,
            format!("ProtocolMessageCommand referenced absent message ID {message_id}"),
        ));
    };
    take(turn, message)
}

/// Takes the messages that no command named.
pub(crate) fn take_messages(
    turn: &mut Turn<'_>,
    messages: &mut Messages<'_>,
) -> Result<(), Failed> {
    while let Some(message) = messages.pop_front() {
        take(turn, message)?;
    }
    Ok(())
}

/// Whether a message refuses an update.
pub(crate) fn is_rejection(message: &Message) -> bool {
    message.body.as_ref().is_some_and(|b| name(b) == Rejection::full_name())
}

/// The type that an `Any` holds.
fn name(any: &prost_types::Any) -> &str {
    any.type_url.rsplit_once('/').map_or(any.type_url.as_str(), |(_, name)| name)
}

fn take(turn: &mut Turn<'_>, message: &Message) -> Result<(), Failed> {
    let Some(any) = &message.body else {
        return Err(Failed::Refused("nil message body".into()));
    };
    let full_name = name(any);
    if full_name.is_empty() {
        return Err(Failed::Refused("no message name specified".into()));
    }
    let Some((protocol, _)) = full_name.rsplit_once('.') else {
        return Err(Failed::Refused(format!(
            "failed to extract protocol type: no . found in {full_name:?}"
        )));
    };
    if any.encoded_len() > turn.ctx.limits.blob_size_max {
        let reason = format!("Message type {full_name} exceeds size limit.");
        return Err(Failed::too_large(CAUSE, &reason));
    }
    if protocol != PROTOCOL {
        return Err(Failed::task(CAUSE, format!("unsupported protocol type {protocol}")));
    }
    let body = body(full_name, any);
    let id = &message.protocol_instance_id;
    if is_rejected_now(turn, id) {
        let name = full_name.rsplit('.').next().unwrap_or_default();
        return check_state(turn, id, name, false);
    }
    if turn.state.update_status(id).is_none() {
        resurrect(turn, id, body.as_ref().ok())?;
    }
    let body = body?;
    let is_rejection = matches!(body, Body::Rejection(_));
    if !turn.state.is_running() && !is_rejection {
        // A command before closed the run: what is in flight ends with it.
        return Ok(());
    }
    match body {
        Body::Acceptance(a) => accept(turn, id, &a),
        Body::Rejection(r) => reject(turn, id, r),
        Body::Response(r) => respond(turn, id, &r),
    }
}

fn body(full_name: &str, any: &prost_types::Any) -> Result<Body, Failed> {
    let raw = any.value.as_slice();
    let body = match full_name.rsplit('.').next() {
        Some(Acceptance::NAME) => Acceptance::decode(raw).map(Body::Acceptance),
        Some(Rejection::NAME) => Rejection::decode(raw).map(Body::Rejection),
        Some(Response::NAME) => Response::decode(raw).map(Body::Response),
        other => {
            let name = other.unwrap_or_default();
            return Err(Failed::task(CAUSE, format!("Message type *update.{name} not supported")));
        }
    };
    body.map_err(|e| Failed::task(CAUSE, format!("unable to unmarshal request: {e}")))
}

/// An update that was lost with the memory it lived in comes back with the worker's answer,
/// if that repeats the request. One that history says was admitted is given to the worker
/// again with each replay, and what it says then counts.
fn resurrect(turn: &mut Turn<'_>, id: &str, body: Option<&Body>) -> Result<(), Failed> {
    if turn.state.updates.get(id).is_some() {
        turn.state.registry.admit(id.to_owned(), None, turn.ctx.now);
        return Ok(());
    }
    turn.check_updates_total().map_err(Failed::Call)?;
    let request: Option<&Request> = match body {
        Some(Body::Acceptance(a)) => a.accepted_request.as_ref(),
        Some(Body::Rejection(r)) => r.rejected_request.as_ref(),
        _ => None,
    };
    let Some(request) = request else {
        return Err(Failed::task(
            CAUSE,
            format!(
                "update {id} wasn't found on the server. This is most likely a transient error \
                 which will be resolved automatically by retries"
            ),
        ));
    };
    turn.state.registry.admit(id.to_owned(), Some(request.clone()), turn.ctx.now);
    Ok(())
}

/// Whether a message before refused the update.
fn is_rejected_now(turn: &Turn<'_>, id: &str) -> bool {
    let is_rejection = |what: &UpdateNews| matches!(what, UpdateNews::Rejected(_));
    turn.updates.iter().any(|u| u.update_id == id && is_rejection(&u.what))
}

fn check_state(turn: &Turn<'_>, id: &str, message: &str, is_right: bool) -> Result<(), Failed> {
    if is_right {
        return Ok(());
    }
    // What this very completion brought about is provisional.
    let first = turn.events.first().map_or(i64::MAX, |e| e.event_id);
    let state = match turn.state.updates.get(id) {
        _ if is_rejected_now(turn, id) => "ProvisionallyCompleted",
        Some(record) if record.completed_event_id >= first => "ProvisionallyCompleted",
        Some(record) if record.completed_event_id > 0 => "Completed",
        Some(record) if record.accepted_event_id >= first => "ProvisionallyAccepted",
        Some(record) if record.is_accepted() => "Accepted",
        _ => match turn.state.registry.get(id).map(|p| p.stage) {
            Some(super::Stage::Sent) => "Sent",
            _ => "Admitted",
        },
    };
    Err(Failed::task(
        CAUSE,
        format!(
            "invalid state transition attempted for Update {id}: received *update.{message} \
             message while in state {state}"
        ),
    ))
}

fn missing(message: &str, field: &str) -> Failed {
    Failed::task(CAUSE, format!("invalid *update.{message}: {field} is not set"))
}

fn accept(turn: &mut Turn<'_>, id: &str, a: &Acceptance) -> Result<(), Failed> {
    check_state(turn, id, "Acceptance", turn.state.registry.get(id).is_some())?;
    if a.accepted_request_sequencing_event_id == 0 {
        return Err(missing("Acceptance", "accepted_request_sequencing_event_id"));
    }
    if a.accepted_request_message_id.is_empty() {
        return Err(missing("Acceptance", "accepted_request_message_id"));
    }
    let Some(pending) = turn.state.registry.take(id) else { return Ok(()) };
    turn.write(
        EventType::WorkflowExecutionUpdateAccepted,
        Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(
            WorkflowExecutionUpdateAcceptedEventAttributes {
                protocol_instance_id: id.to_owned(),
                accepted_request_message_id: request_message_id(id),
                accepted_request_sequencing_event_id: a.accepted_request_sequencing_event_id,
                accepted_request: pending.request,
            },
        ),
    );
    turn.tell_update(id.to_owned(), UpdateNews::Recorded);
    Ok(())
}

fn reject(turn: &mut Turn<'_>, id: &str, r: Rejection) -> Result<(), Failed> {
    check_state(turn, id, "Rejection", turn.state.registry.get(id).is_some())?;
    turn.state.registry.take(id);
    turn.tell_update(id.to_owned(), UpdateNews::Rejected(r.failure.unwrap_or_default()));
    Ok(())
}

fn respond(turn: &mut Turn<'_>, id: &str, r: &Response) -> Result<(), Failed> {
    let accepted_event_id =
        turn.state.updates.get(id).filter(|u| u.is_open()).map(|u| u.accepted_event_id);
    check_state(turn, id, "Response", accepted_event_id.is_some())?;
    let Some(meta) = &r.meta else { return Err(missing("Response", "meta")) };
    if meta.update_id.is_empty() {
        return Err(missing("Response", "meta.update_id"));
    }
    if meta.update_id != id {
        return Err(Failed::task(
            CAUSE,
            format!("invalid *update.Response: meta.update_id != {id}"),
        ));
    }
    if r.outcome.is_none() {
        return Err(missing("Response", "outcome"));
    }
    turn.write(
        EventType::WorkflowExecutionUpdateCompleted,
        Attributes::WorkflowExecutionUpdateCompletedEventAttributes(
            WorkflowExecutionUpdateCompletedEventAttributes {
                meta: r.meta.clone(),
                accepted_event_id: accepted_event_id.unwrap_or_default(),
                outcome: r.outcome.clone(),
            },
        ),
    );
    turn.tell_update(id.to_owned(), UpdateNews::Recorded);
    Ok(())
}
