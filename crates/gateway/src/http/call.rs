//! A gRPC call within the process: framed and unframed, but never on a socket.

use std::future::Future;

use bytes::{BufMut, Bytes, BytesMut};
use everspan_proto::{
    operatorservice::operator_service_server::OperatorServiceServer,
    workflowservice::workflow_service_server::WorkflowServiceServer,
};
use http_body_util::{BodyExt, Full};
use tonic::{Status, body::Body};
use tower::ServiceExt;

use crate::Frontend;

/// Bytes before each message: a flag for compression, and the length.
const FRAME: usize = 5;

/// Who answers RPCs.
pub(crate) trait Rpcs: Send + Sync + 'static {
    /// Calls `/service/method` with an encoded message, and metadata.
    fn call(
        &self,
        rpc: &str,
        message: Bytes,
        metadata: &[(String, String)],
    ) -> impl Future<Output = Result<Bytes, Status>>;
}

/// The services that gRPC serves too.
#[derive(Clone, Debug)]
pub(crate) struct InProcess {
    pub(crate) workflow: WorkflowServiceServer<Frontend>,
    pub(crate) operator: OperatorServiceServer<Frontend>,
}

impl Rpcs for InProcess {
    async fn call(
        &self,
        rpc: &str,
        message: Bytes,
        metadata: &[(String, String)],
    ) -> Result<Bytes, Status> {
        let request = framed(rpc, &message, metadata)?;
        let is_operator = rpc.starts_with("/temporal.api.operatorservice.");
        let response = if is_operator {
            self.operator.clone().oneshot(request).await
        } else {
            self.workflow.clone().oneshot(request).await
        };
        let Ok(response) = response;
        unframed(response).await
    }
}

fn framed(
    rpc: &str,
    message: &[u8],
    metadata: &[(String, String)],
) -> Result<http::Request<Full<Bytes>>, Status> {
    let length = u32::try_from(message.len())
        .map_err(|_| Status::invalid_argument("the message is too large"))?;
    let mut frame = BytesMut::with_capacity(FRAME + message.len());
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put_slice(message);
    let mut request = http::Request::post(rpc)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata {
        request = request.header(name, value);
    }
    request
        .body(Full::new(frame.freeze()))
        .map_err(|e| Status::internal(format!("the call cannot be made: {e}")))
}

async fn unframed(response: http::Response<Body>) -> Result<Bytes, Status> {
    let (head, body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        ok(status)?;
    }
    let body = body.collect().await?;
    if let Some(status) = body.trailers().and_then(Status::from_header_map) {
        ok(status)?;
    }
    let mut bytes = body.to_bytes();
    if bytes.len() < FRAME {
        return Err(Status::internal("the answer has no message"));
    }
    Ok(bytes.split_off(FRAME))
}

fn ok(status: Status) -> Result<(), Status> {
    if status.code() == tonic::Code::Ok { Ok(()) } else { Err(status) }
}
