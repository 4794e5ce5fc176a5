use everspan_proto::{
    enums::{ResourceExhaustedCause, ResourceExhaustedScope},
    failure::Failure,
};
use serde::{Deserialize, Serialize};

use crate::{ShardId, wire};

/// What a call that cannot be done is answered with. Every variant names one gRPC code
/// and one detail type; the gateway alone turns it into a status, in one table.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum Error {
    /// INVALID_ARGUMENT: the request can never succeed as it is.
    #[error("{0}")]
    InvalidArgument(String),
    /// NOT_FOUND with `NotFoundFailure`.
    #[error("{0}")]
    NotFound(String),
    /// NOT_FOUND with `NamespaceNotFoundFailure`; holds the name.
    #[error("Namespace {0} is not found.")]
    NamespaceNotFound(String),
    /// ALREADY_EXISTS with `NamespaceAlreadyExistsFailure`.
    #[error("{0}")]
    NamespaceAlreadyExists(String),
    /// ALREADY_EXISTS with `WorkflowExecutionAlreadyStartedFailure`.
    #[error("{message}")]
    AlreadyStarted {
        /// Names the workflow ID and the run ID.
        message: String,
        /// Request ID of the start that made the run.
        start_request_id: String,
        /// The run that stands in the way.
        run_id: String,
        /// The first run of its chain.
        first_run_id: String,
    },
    /// ALREADY_EXISTS without details.
    #[error("{0}")]
    AlreadyExists(String),
    /// INVALID_ARGUMENT with `QueryFailedFailure`: the worker answered with a failure.
    #[error("{message}")]
    QueryFailed {
        /// The worker's message.
        message: String,
        /// The worker's failure, if it sent one.
        #[serde(with = "wire::optional")]
        failure: Option<Box<Failure>>,
    },
    /// FAILED_PRECONDITION.
    #[error("{0}")]
    FailedPrecondition(String),
    /// FAILED_PRECONDITION with `WorkflowNotReadyFailure`.
    #[error("{0}")]
    WorkflowNotReady(String),
    /// RESOURCE_EXHAUSTED with `ResourceExhaustedFailure`.
    #[error("{message}")]
    ResourceExhausted {
        /// What was exhausted.
        #[serde(with = "wire::enumeration")]
        cause: ResourceExhaustedCause,
        /// Whether for the namespace or the whole system.
        #[serde(with = "wire::enumeration")]
        scope: ResourceExhaustedScope,
        /// For people.
        message: String,
    },
    /// PERMISSION_DENIED with `PermissionDeniedFailure`.
    #[error("{0}")]
    PermissionDenied(String),
    /// UNAVAILABLE: safe to retry; nothing is known to have happened.
    #[error("{0}")]
    Unavailable(String),
    /// UNAVAILABLE: the replica that was asked does not lead the shard. Nothing happened; whoever
    /// asked looks for the leader, so that callers see it only if there is none for long.
    #[error("shard {shard} has no leader here")]
    Moved {
        /// The shard.
        shard: ShardId,
        /// The node that leads it, as far as was known; 0 if it was not.
        leader: u64,
    },
    /// UNIMPLEMENTED: this release does not do that; see docs/compatibility.md.
    #[error("{0}")]
    Unimplemented(String),
    /// DEADLINE_EXCEEDED.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// The code of the first of its errors that is not [`Error::OperationAborted`], with
    /// `MultiOperationExecutionFailure`: one entry for each operation, none for one that
    /// was done.
    #[error("Update-with-Start could not be executed.")]
    MultiOperation(Box<[Option<Error>; 2]>),
    /// ABORTED with `MultiOperationExecutionAborted`: another operation of the same call failed.
    #[error("Operation was aborted.")]
    OperationAborted,
    /// INTERNAL: a bug or damaged data; the message says what was found.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// [`Error::InvalidArgument`] from anything printable.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::InvalidArgument(message.into())
    }
    /// [`Error::NotFound`] from anything printable.
    pub fn not_found(message: impl Into<String>) -> Self {
        Error::NotFound(message.into())
    }
    /// [`Error::Internal`] from anything printable.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::Internal(message.into())
    }
    /// [`Error::Unavailable`] from anything printable.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Error::Unavailable(message.into())
    }
}

/// The outcome of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;
