//! What a shard can be asked, and with what it answers: the API's own request and
//! response messages, wrapped in one enum each so that they pass through one mailbox.
//!
//! Adding an RPC that concerns one execution: a line in [`calls!`] below, a branch in the
//! run's dispatch, a line in the gateway's service.

use bytes::Bytes;
use everspan_proto::{enums::WorkflowIdConflictPolicy, workflowservice as api};
use everspan_types::{Error, NamespaceId, Result, Time};
use prost::Message;

use crate::start::TERMINATE_IF_RUNNING;

/// A request message that a shard answers.
pub trait ShardCall: Send + 'static {
    /// The response message.
    type Response: Send + 'static;
    /// Wraps the request.
    fn into_call(self) -> Call;
    /// Unwraps the response.
    ///
    /// # Errors
    /// `INTERNAL` if the shard answered with a message of another kind (a bug).
    fn from_reply(reply: Reply) -> Result<Self::Response>;
}

fn unreadable(e: prost::DecodeError) -> Error {
    Error::internal(format!("what another node sent does not read: {e}"))
}

macro_rules! calls {
    ($($name:ident: $request:ty => $response:ty;)*) => {
        /// Everything that can be asked of one execution.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Call { $(
            #[doc = concat!("`", stringify!($name), "`")]
            $name(Box<$request>),
        )* }

        impl Call {
            /// The RPC's name, for logs and metrics.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Call::$name(_) => stringify!($name),)* }
            }

            /// The request's bytes, for another node.
            #[must_use]
            pub fn to_bytes(&self) -> Bytes {
                match self { $(Call::$name(r) => r.encode_to_vec().into(),)* }
            }

            /// From the RPC's name and the request's bytes.
            ///
            /// # Errors
            /// `UNIMPLEMENTED` for an RPC that this release does not know, `INTERNAL` for bytes
            /// that are no such request.
            pub fn from_bytes(name: &str, body: Bytes) -> Result<Self> {
                match name {
                    $(stringify!($name) => Ok(Call::$name(Box::new(
                        <$request>::decode(body).map_err(unreadable)?,
                    ))),)*
                    _ => Err(Error::Unimplemented(format!("this node does not know {name}"))),
                }
            }
        }

        /// The answers to [`Call`].
        #[derive(Clone, Debug, PartialEq)]
        pub enum Reply { $(
            #[doc = concat!("`", stringify!($name), "`")]
            $name(Box<$response>),
        )* }

        impl Reply {
            /// The response's bytes, for another node.
            #[must_use]
            pub fn to_bytes(&self) -> Bytes {
                match self { $(Reply::$name(r) => r.encode_to_vec().into(),)* }
            }

            /// From the RPC's name and the response's bytes.
            ///
            /// # Errors
            /// As [`Call::from_bytes`].
            pub fn from_bytes(name: &str, body: Bytes) -> Result<Self> {
                match name {
                    $(stringify!($name) => Ok(Reply::$name(Box::new(
                        <$response>::decode(body).map_err(unreadable)?,
                    ))),)*
                    _ => Err(Error::Unimplemented(format!("this node does not know {name}"))),
                }
            }
        }

        $(impl ShardCall for $request {
            type Response = $response;
            fn into_call(self) -> Call { Call::$name(Box::new(self)) }
            fn from_reply(reply: Reply) -> Result<$response> {
                match reply {
                    Reply::$name(r) => Ok(*r),
                    _ => Err(Error::internal("shard answered with another message")),
                }
            }
        })*
    };
}

calls! {
    StartWorkflowExecution: api::StartWorkflowExecutionRequest => api::StartWorkflowExecutionResponse;
    SignalWithStartWorkflowExecution: api::SignalWithStartWorkflowExecutionRequest => api::SignalWithStartWorkflowExecutionResponse;
    SignalWorkflowExecution: api::SignalWorkflowExecutionRequest => api::SignalWorkflowExecutionResponse;
    RequestCancelWorkflowExecution: api::RequestCancelWorkflowExecutionRequest => api::RequestCancelWorkflowExecutionResponse;
    TerminateWorkflowExecution: api::TerminateWorkflowExecutionRequest => api::TerminateWorkflowExecutionResponse;
    DeleteWorkflowExecution: api::DeleteWorkflowExecutionRequest => api::DeleteWorkflowExecutionResponse;
    ResetWorkflowExecution: api::ResetWorkflowExecutionRequest => api::ResetWorkflowExecutionResponse;
    DescribeWorkflowExecution: api::DescribeWorkflowExecutionRequest => api::DescribeWorkflowExecutionResponse;
    GetWorkflowExecutionHistory: api::GetWorkflowExecutionHistoryRequest => api::GetWorkflowExecutionHistoryResponse;
    GetWorkflowExecutionHistoryReverse: api::GetWorkflowExecutionHistoryReverseRequest => api::GetWorkflowExecutionHistoryReverseResponse;
    QueryWorkflow: api::QueryWorkflowRequest => api::QueryWorkflowResponse;
    UpdateWorkflowExecution: api::UpdateWorkflowExecutionRequest => api::UpdateWorkflowExecutionResponse;
    PollWorkflowExecutionUpdate: api::PollWorkflowExecutionUpdateRequest => api::PollWorkflowExecutionUpdateResponse;
    ExecuteMultiOperation: api::ExecuteMultiOperationRequest => api::ExecuteMultiOperationResponse;
    RespondQueryTaskCompleted: api::RespondQueryTaskCompletedRequest => api::RespondQueryTaskCompletedResponse;
    RespondWorkflowTaskCompleted: api::RespondWorkflowTaskCompletedRequest => api::RespondWorkflowTaskCompletedResponse;
    RespondWorkflowTaskFailed: api::RespondWorkflowTaskFailedRequest => api::RespondWorkflowTaskFailedResponse;
    ResetStickyTaskQueue: api::ResetStickyTaskQueueRequest => api::ResetStickyTaskQueueResponse;
    RecordActivityTaskHeartbeat: api::RecordActivityTaskHeartbeatRequest => api::RecordActivityTaskHeartbeatResponse;
    RecordActivityTaskHeartbeatById: api::RecordActivityTaskHeartbeatByIdRequest => api::RecordActivityTaskHeartbeatByIdResponse;
    RespondActivityTaskCompleted: api::RespondActivityTaskCompletedRequest => api::RespondActivityTaskCompletedResponse;
    RespondActivityTaskCompletedById: api::RespondActivityTaskCompletedByIdRequest => api::RespondActivityTaskCompletedByIdResponse;
    RespondActivityTaskFailed: api::RespondActivityTaskFailedRequest => api::RespondActivityTaskFailedResponse;
    RespondActivityTaskFailedById: api::RespondActivityTaskFailedByIdRequest => api::RespondActivityTaskFailedByIdResponse;
    RespondActivityTaskCanceled: api::RespondActivityTaskCanceledRequest => api::RespondActivityTaskCanceledResponse;
    RespondActivityTaskCanceledById: api::RespondActivityTaskCanceledByIdRequest => api::RespondActivityTaskCanceledByIdResponse;
    PauseActivity: api::PauseActivityRequest => api::PauseActivityResponse;
    UnpauseActivity: api::UnpauseActivityRequest => api::UnpauseActivityResponse;
    ResetActivity: api::ResetActivityRequest => api::ResetActivityResponse;
    UpdateActivityOptions: api::UpdateActivityOptionsRequest => api::UpdateActivityOptionsResponse;
    UpdateWorkflowExecutionOptions: api::UpdateWorkflowExecutionOptionsRequest => api::UpdateWorkflowExecutionOptionsResponse;
    PauseWorkflowExecution: api::PauseWorkflowExecutionRequest => api::PauseWorkflowExecutionResponse;
    UnpauseWorkflowExecution: api::UnpauseWorkflowExecutionRequest => api::UnpauseWorkflowExecutionResponse;
}

impl Call {
    /// Whether it changes nothing, and waits for nothing to change.
    #[must_use]
    pub fn is_read(&self) -> bool {
        match self {
            Call::DescribeWorkflowExecution(_) | Call::GetWorkflowExecutionHistoryReverse(_) => {
                true
            }
            Call::GetWorkflowExecutionHistory(r) => !r.wait_new_event,
            _ => false,
        }
    }

    /// Gives it the ID by which it is known when it is asked again, if it can have one and has
    /// none.
    pub fn identify(&mut self, id: impl FnOnce() -> String) {
        let given = match self {
            Call::StartWorkflowExecution(r) => &mut r.request_id,
            Call::SignalWithStartWorkflowExecution(r) => &mut r.request_id,
            Call::SignalWorkflowExecution(r) => &mut r.request_id,
            Call::RequestCancelWorkflowExecution(r) => &mut r.request_id,
            _ => return,
        };
        if given.is_empty() {
            *given = id();
        }
    }

    /// Whether it may be asked again when nobody knows what came of it: it changes nothing, or
    /// bears an ID by which it is known.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        match self {
            Call::DescribeWorkflowExecution(_)
            | Call::GetWorkflowExecutionHistory(_)
            | Call::GetWorkflowExecutionHistoryReverse(_)
            | Call::QueryWorkflow(_)
            | Call::PollWorkflowExecutionUpdate(_)
            | Call::RecordActivityTaskHeartbeat(_)
            | Call::RecordActivityTaskHeartbeatById(_) => true,
            Call::StartWorkflowExecution(r) => !r.request_id.is_empty(),
            // One that ends what is open would end what it made before.
            Call::SignalWithStartWorkflowExecution(r) => {
                use WorkflowIdConflictPolicy::TerminateExisting;
                !r.request_id.is_empty()
                    && r.workflow_id_conflict_policy() != TerminateExisting
                    && r.workflow_id_reuse_policy != TERMINATE_IF_RUNNING
            }
            Call::SignalWorkflowExecution(r) => !r.request_id.is_empty(),
            Call::RequestCancelWorkflowExecution(r) => !r.request_id.is_empty(),
            Call::UpdateWorkflowExecution(r) => {
                let meta = r.request.as_ref().and_then(|request| request.meta.as_ref());
                meta.is_some_and(|meta| !meta.update_id.is_empty())
            }
            _ => false,
        }
    }
}

/// A call on its way to the shard that owns `workflow_id`.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The namespace, already looked up by the gateway.
    pub namespace: NamespaceId,
    /// The workflow ID that the shard was found by.
    pub workflow_id: String,
    /// What is asked.
    pub call: Call,
    /// When the caller stops waiting: long polls are answered before it.
    pub deadline: Time,
}
