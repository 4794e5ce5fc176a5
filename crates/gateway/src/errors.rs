//! The one table from our errors to gRPC statuses with the API's details.

use bytes::Bytes;
use everspan_proto::{errordetails as details, google::rpc};
use everspan_types::Error;
use prost::{Message, Name};
use tonic::{Code, Status};

/// The status that a client of the API expects for an error.
pub(crate) fn status(error: &Error) -> Status {
    let text = error.to_string();
    match error {
        Error::InvalidArgument(_) => plain(Code::InvalidArgument, text),
        Error::NotFound(_) => with(Code::NotFound, text, &details::NotFoundFailure::default()),
        Error::NamespaceNotFound(name) => {
            let detail = details::NamespaceNotFoundFailure { namespace: name.clone() };
            with(Code::NotFound, text, &detail)
        }
        Error::NamespaceAlreadyExists(_) => {
            with(Code::AlreadyExists, text, &details::NamespaceAlreadyExistsFailure {})
        }
        Error::AlreadyStarted { start_request_id, run_id, first_run_id, .. } => {
            let detail = details::WorkflowExecutionAlreadyStartedFailure {
                start_request_id: start_request_id.clone(),
                run_id: run_id.clone(),
                first_execution_run_id: first_run_id.clone(),
            };
            with(Code::AlreadyExists, text, &detail)
        }
        Error::AlreadyExists(_) => plain(Code::AlreadyExists, text),
        Error::QueryFailed { failure, .. } => {
            let detail = details::QueryFailedFailure { failure: failure.as_deref().cloned() };
            with(Code::InvalidArgument, text, &detail)
        }
        Error::FailedPrecondition(_) => plain(Code::FailedPrecondition, text),
        Error::WorkflowNotReady(_) => {
            with(Code::FailedPrecondition, text, &details::WorkflowNotReadyFailure {})
        }
        Error::ResourceExhausted { cause, scope, .. } => {
            let detail =
                details::ResourceExhaustedFailure { cause: *cause as i32, scope: *scope as i32 };
            with(Code::ResourceExhausted, text, &detail)
        }
        Error::PermissionDenied(_) => {
            with(Code::PermissionDenied, text, &details::PermissionDeniedFailure::default())
        }
        Error::Unavailable(_) | Error::Moved { .. } => plain(Code::Unavailable, text),
        Error::Unimplemented(_) => plain(Code::Unimplemented, text),
        Error::DeadlineExceeded(_) => plain(Code::DeadlineExceeded, text),
        Error::MultiOperation(errors) => multi_operation(text, errors.as_slice()),
        Error::OperationAborted => {
            with(Code::Aborted, text, &everspan_proto::failure::MultiOperationExecutionAborted {})
        }
        Error::Internal(_) => plain(Code::Internal, text),
    }
}

/// The code of the first operation that failed by itself; every operation's own status is
/// among the details.
fn multi_operation(text: String, errors: &[Option<Error>]) -> Status {
    use details::multi_operation_execution_failure::OperationStatus;
    let statuses: Vec<OperationStatus> = errors
        .iter()
        .map(|error| {
            let Some(error) = error else { return OperationStatus::default() };
            let status = status(error);
            let raw = rpc::Status::decode(status.details()).unwrap_or_default();
            OperationStatus {
                code: status.code() as i32,
                message: status.message().to_owned(),
                details: raw.details,
            }
        })
        .collect();
    let own = |e: &&Error| **e != Error::OperationAborted;
    let code = errors.iter().flatten().find(own).map_or(Code::Aborted, |e| status(e).code());
    with(code, text, &details::MultiOperationExecutionFailure { statuses })
}

fn plain(code: Code, text: String) -> Status {
    Status::new(code, text)
}

fn with<M: Message + Name>(code: Code, text: String, detail: &M) -> Status {
    let any = prost_types::Any {
        type_url: format!("type.googleapis.com/{}", M::full_name()),
        value: detail.encode_to_vec(),
    };
    let status = rpc::Status { code: code as i32, message: text.clone(), details: vec![any] };
    Status::with_details(code, text, Bytes::from(status.encode_to_vec()))
}
