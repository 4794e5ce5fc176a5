//! What executions tell each other. A message is a row in its sender's shard from the change
//! that sends it until the receiver's shard has taken it; an answer is a message of its own.

use everspan_proto::{
    enums::{
        CancelExternalWorkflowExecutionFailedCause as CancelCause,
        SignalExternalWorkflowExecutionFailedCause as SignalCause,
        StartChildWorkflowExecutionFailedCause as StartCause,
    },
    history::HistoryEvent,
    workflowservice::{
        RequestCancelWorkflowExecutionRequest, SignalWorkflowExecutionRequest,
        StartWorkflowExecutionRequest,
    },
};
use everspan_types::{EnvelopeError, NamespaceId, RunId, decode, encode};
use serde::{Deserialize, Serialize};

use crate::{
    proto_serde,
    state::{Parent, Root},
};

/// Format version of stored messages.
const VERSION: u8 = 1;

/// A message from one execution to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Namespace of the receiver.
    pub namespace: NamespaceId,
    /// Workflow ID of the receiver; decides its shard.
    pub workflow_id: String,
    /// The run that it is for; none for the latest.
    pub run_id: Option<RunId>,
    /// Who sends it, and on account of which event.
    pub sender: Parent,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// Start a run as the sender's child.
    StartChild {
        /// The start, with defaults filled in.
        #[serde(with = "proto_serde")]
        request: Box<StartWorkflowExecutionRequest>,
        /// The top of the tree that the child becomes part of.
        root: Root,
    },
    /// The child runs.
    ChildStarted {
        /// Its first run.
        run_id: RunId,
        /// The header it was started with, for the parent's event.
        #[serde(with = "proto_serde::option")]
        header: Option<everspan_proto::common::Header>,
    },
    /// The child could not be started.
    ChildNotStarted {
        /// Why, a `StartChildWorkflowExecutionFailedCause`.
        cause: i32,
    },
    /// The child, or the last of its chain of runs, closed.
    ChildClosed {
        /// First run of the chain.
        first_run_id: RunId,
        /// The run that closed.
        run_id: RunId,
        /// The event that closed it.
        #[serde(with = "proto_serde")]
        event: Box<HistoryEvent>,
    },
    /// A signal.
    Signal {
        /// As a client would send it; the request ID makes it happen once.
        #[serde(with = "proto_serde")]
        request: Box<SignalWorkflowExecutionRequest>,
        /// Whether only a child of the sender is to take it.
        child_only: bool,
    },
    /// What became of a signal.
    SignalAnswer {
        /// Why it was not taken, a `SignalExternalWorkflowExecutionFailedCause`; 0 if it was.
        failed: i32,
    },
    /// A request to cancel.
    Cancel {
        /// As a client would send it.
        #[serde(with = "proto_serde")]
        request: Box<RequestCancelWorkflowExecutionRequest>,
        /// Whether only a child of the sender is to take it.
        child_only: bool,
        /// Whether the sender waits for an answer; one that closed does not.
        answer: bool,
    },
    /// What became of a cancel request.
    CancelAnswer {
        /// Why it was not taken, a `CancelExternalWorkflowExecutionFailedCause`; 0 if it was.
        failed: i32,
    },
    /// The parent closed, and its policy is that the child ends with it.
    Terminate {
        /// First run of the child; empty where the parent never knew it.
        first_run_id: String,
    },
}

impl Message {
    /// The stored form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(VERSION, self)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// If the bytes are damaged or of a newer version.
    pub fn from_bytes(raw: &[u8]) -> Result<Self, EnvelopeError> {
        decode(VERSION, raw)
    }

    /// The kind, for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.body {
            Body::StartChild { .. } => "StartChild",
            Body::ChildStarted { .. } => "ChildStarted",
            Body::ChildNotStarted { .. } => "ChildNotStarted",
            Body::ChildClosed { .. } => "ChildClosed",
            Body::Signal { .. } => "Signal",
            Body::SignalAnswer { .. } => "SignalAnswer",
            Body::Cancel { .. } => "Cancel",
            Body::CancelAnswer { .. } => "CancelAnswer",
            Body::Terminate { .. } => "Terminate",
        }
    }

    /// Whether it answers what the receiving run asked of another, or tells it of a child.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(
            self.body,
            Body::ChildStarted { .. }
                | Body::ChildNotStarted { .. }
                | Body::ChildClosed { .. }
                | Body::SignalAnswer { .. }
                | Body::CancelAnswer { .. }
        )
    }

    /// Whether the receiver is to be found under its workflow ID alone.
    #[must_use]
    pub fn is_start(&self) -> bool {
        matches!(self.body, Body::StartChild { .. })
    }

    /// A message back to the sender.
    fn answer(&self, body: Body) -> Message {
        let from = &self.sender;
        Message {
            namespace: from.namespace,
            workflow_id: from.workflow_id.clone(),
            run_id: Some(from.run_id),
            sender: Parent {
                namespace: self.namespace,
                namespace_name: String::new(),
                workflow_id: self.workflow_id.clone(),
                run_id: self.run_id.unwrap_or(from.run_id),
                initiated_event_id: from.initiated_event_id,
            },
            body,
        }
    }

    /// The answer of a child that was started, or had been by the same message.
    #[must_use]
    pub fn started(&self, run_id: RunId) -> Message {
        let header = match &self.body {
            Body::StartChild { request, .. } => request.header.clone(),
            _ => None,
        };
        self.answer(Body::ChildStarted { run_id, header })
    }

    /// The answer where a workflow ID is taken.
    #[must_use]
    pub fn not_started(&self) -> Message {
        let cause = StartCause::WorkflowAlreadyExists as i32;
        self.answer(Body::ChildNotStarted { cause })
    }

    /// The answer where what the message asks was done, if one is waited for.
    #[must_use]
    pub fn done(&self) -> Option<Message> {
        match self.body {
            Body::Signal { .. } => Some(self.answer(Body::SignalAnswer { failed: 0 })),
            Body::Cancel { answer: true, .. } => {
                Some(self.answer(Body::CancelAnswer { failed: 0 }))
            }
            _ => None,
        }
    }

    /// The answer where there is no such execution, or not one that takes the message.
    #[must_use]
    pub fn not_found(&self) -> Option<Message> {
        match self.body {
            Body::Signal { .. } => Some(self.answer(Body::SignalAnswer {
                failed: SignalCause::ExternalWorkflowExecutionNotFound as i32,
            })),
            Body::Cancel { answer: true, .. } => Some(self.answer(Body::CancelAnswer {
                failed: CancelCause::ExternalWorkflowExecutionNotFound as i32,
            })),
            _ => None,
        }
    }

    /// The answer where a run takes no more signals.
    #[must_use]
    pub fn too_many_signals(&self) -> Option<Message> {
        match self.body {
            Body::Signal { .. } => Some(self.answer(Body::SignalAnswer {
                failed: SignalCause::SignalCountLimitExceeded as i32,
            })),
            _ => None,
        }
    }
}
