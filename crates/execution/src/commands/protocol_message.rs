use everspan_proto::{
    command::{Command, command::Attributes},
    enums::WorkflowTaskFailedCause as Cause,
};

use super::Failed;
use crate::{
    turn::Turn,
    update::{Messages, take_message},
};

/// Takes the message that the command names at this place among the commands.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    command: &Command,
    messages: &mut Messages<'_>,
) -> Result<(), Failed> {
    let Some(Attributes::ProtocolMessageCommandAttributes(a)) = &command.attributes else {
        return Err(Failed::task(
            Cause::BadUpdateWorkflowExecutionMessage,
            "ProtocolMessageCommandAttributes is not set on ProtocolMessageCommand.",
        ));
    };
    take_message(turn, &a.message_id, messages)
}
