//! One request of the HTTP/JSON API, from its route to its answer.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, http::StatusCode, web};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::{Code, Status};

use super::{
    call::{InProcess, Rpcs},
    form::Form,
    input, metadata, output, query,
    route::{Body, Found, Route, Routes},
};
use crate::{descriptors, grpc::parse_timeout};

/// A body over its limit is still read, up to so many times the limit, so that the caller
/// gets to the answer.
const OVERSIZE_FACTOR: usize = 16;
/// How long the whole body may take to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// The API over what answers it.
#[derive(Debug)]
pub(crate) struct Api<R = InProcess> {
    routes: Routes,
    status: MessageDescriptor,
    rpcs: R,
    body_bytes_max: usize,
}

/// A request without what belongs to HTTP.
pub(super) struct Call<'c> {
    pub(super) method: &'c str,
    pub(super) path: &'c str,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) form: Form,
    pub(super) metadata: Vec<(String, String)>,
}

/// An answer without what belongs to HTTP.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: Vec<u8>,
}

/// Why there is no answer.
pub(super) struct Refusal {
    status: u16,
    error: Status,
}

impl From<Status> for Refusal {
    fn from(error: Status) -> Self {
        Self { status: http_status(error.code()), error }
    }
}

impl<R: Rpcs> Api<R> {
    /// Builds the routes.
    ///
    /// # Errors
    /// If the descriptors of the API are not understood: a defect of the build.
    pub(crate) fn new(rpcs: R, body_bytes_max: usize) -> Result<Self, String> {
        let pool = descriptors::pool().map_err(|e| e.to_string())?;
        let status = pool.get_message_by_name("google.rpc.Status").ok_or("no google.rpc.Status")?;
        Ok(Self { routes: Routes::new(&pool)?, status, rpcs, body_bytes_max })
    }

    pub(super) async fn answer(
        &self,
        call: &Call<'_>,
        answer_form: Form,
        body: impl Future<Output = Result<Bytes, Refusal>>,
    ) -> Answer {
        match self.run(call, body).await {
            Ok(message) => match output::write(&message, answer_form) {
                Ok(text) => Answer { status: 200, text },
                Err(e) => self.refused(
                    &Status::internal(format!("the answer in JSON: {e}")).into(),
                    answer_form,
                ),
            },
            Err(refusal) => self.refused(&refusal, answer_form),
        }
    }

    async fn run(
        &self,
        call: &Call<'_>,
        body: impl Future<Output = Result<Bytes, Refusal>>,
    ) -> Result<DynamicMessage, Refusal> {
        let (route, fields) = match self.routes.find(call.method, call.path) {
            Found::Route(route, fields) => (route, fields),
            // What grpc-gateway, and so the real server, says.
            Found::OtherMethod => return Err(Status::unimplemented("Method Not Allowed").into()),
            Found::Nothing => return Err(Status::not_found("Not Found").into()),
            Found::Malformed => {
                return Err(Status::invalid_argument("malformed path escape").into());
            }
        };
        let timeout = call.metadata.iter().find(|(name, _)| name == metadata::TIMEOUT);
        if let Some((_, text)) = timeout
            && parse_timeout(text).is_none()
        {
            return Err(Status::invalid_argument(format!("invalid grpc-timeout: {text}")).into());
        }
        let body = match route.body {
            Body::None => Bytes::new(),
            Body::Whole | Body::Field(_) => body.await?,
        };
        let message = decode(route, &fields, &call.parameters, &body, call.form)
            .map_err(Status::invalid_argument)?;
        let answer =
            self.rpcs.call(&route.rpc, message.encode_to_vec().into(), &call.metadata).await?;
        DynamicMessage::decode(route.output.clone(), answer)
            .map_err(|e| Status::internal(format!("the answer: {e}")).into())
    }

    /// The body of an error: `google.rpc.Status`.
    fn refused(&self, refusal: &Refusal, form: Form) -> Answer {
        let error = &refusal.error;
        let mut message = DynamicMessage::decode(self.status.clone(), error.details())
            .unwrap_or_else(|_| {
                // Details that are not ours to read are left out.
                DynamicMessage::new(self.status.clone())
            });
        message.set_field_by_name("code", prost_reflect::Value::I32(error.code() as i32));
        let text = prost_reflect::Value::String(error.message().to_owned());
        message.set_field_by_name("message", text);
        let text = output::write(&message, form).unwrap_or_else(|_| {
            br#"{"code":13,"message":"failed to marshal error message"}"#.to_vec()
        });
        Answer { status: refusal.status, text }
    }
}

/// The request message: from the body, then the path, then the query string.
fn decode(
    route: &Route,
    fields: &[(&str, String)],
    parameters: &[(String, String)],
    body: &[u8],
    form: Form,
) -> Result<DynamicMessage, String> {
    let is_empty = body.iter().all(u8::is_ascii_whitespace);
    let mut message = match &route.body {
        Body::Whole if !is_empty => input::read(&route.input, body, form.shorthand)?,
        Body::Field(field) if !is_empty => {
            let mut message = DynamicMessage::new(route.input.clone());
            if let Some(value) = input::read_field(field, body, form.shorthand)? {
                message.set_field(field, value);
            }
            message
        }
        _ => DynamicMessage::new(route.input.clone()),
    };
    for (field, text) in fields {
        query::path(&mut message, field, text)?;
    }
    if !matches!(route.body, Body::Whole) {
        query::query(&mut message, parameters, &route.bound())?;
    }
    Ok(message)
}

/// Reads a body up to a limit of bytes and of time.
async fn read(payload: web::Payload, limit: usize) -> Result<Bytes, Refusal> {
    tokio::time::timeout(BODY_TIME_MAX, read_all(payload, limit)).await.unwrap_or_else(|_| {
        let text = format!("http: request body took more than {} s", BODY_TIME_MAX.as_secs());
        Err(Refusal { status: 408, error: Status::deadline_exceeded(text) })
    })
}

async fn read_all(mut payload: web::Payload, limit: usize) -> Result<Bytes, Refusal> {
    let mut body = BytesMut::new();
    let mut length = 0usize;
    while let Some(chunk) = payload.next().await {
        let chunk =
            chunk.map_err(|e| Refusal::from(Status::invalid_argument(format!("the body: {e}"))))?;
        length = length.saturating_add(chunk.len());
        if length <= limit {
            body.extend_from_slice(&chunk);
        } else if length > limit.saturating_mul(OVERSIZE_FACTOR) {
            break;
        }
    }
    if length > limit {
        let text = format!("http: request body too large: more than {limit} bytes");
        return Err(Refusal { status: 413, error: Status::invalid_argument(text) });
    }
    Ok(body.freeze())
}

/// Every request that has no handler of its own.
pub(crate) async fn serve(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
) -> HttpResponse {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.and_then(|v| v.to_str().ok())
    };
    let parameters = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map(web::Query::into_inner)
        .unwrap_or_default();
    let (form, answer_form) = Form::of_request(
        header("content-type").unwrap_or_default(),
        header("accept").unwrap_or_default(),
        parameters.iter().map(|(name, _)| name.as_str()),
    );
    let call = Call {
        method: request.method().as_str(),
        path: request.uri().path(),
        parameters,
        form,
        metadata: metadata::of_request(
            request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())),
        ),
    };
    let answer = api.answer(&call, answer_form, read(payload, api.body_bytes_max)).await;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponseBuilder::new(status).content_type(answer_form.content_type()).body(answer.text)
}

/// The status of a gRPC code, as grpc-gateway has it.
fn http_status(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::Unauthenticated => 401,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future;

    use everspan_proto::workflowservice as api;
    use everspan_types::Error;

    use super::*;

    /// Answers a describe with its own request's workflow ID, a start with an error, and
    /// anything else with nothing.
    struct Echo;

    impl Rpcs for Echo {
        async fn call(
            &self,
            rpc: &str,
            raw: Bytes,
            _: &[(String, String)],
        ) -> Result<Bytes, Status> {
            match rpc.rsplit('/').next().unwrap() {
                "DescribeNamespace" => {
                    let request = api::DescribeNamespaceRequest::decode(raw).unwrap();
                    let info = everspan_proto::namespace::NamespaceInfo {
                        name: request.namespace,
                        id: request.id,
                        ..Default::default()
                    };
                    let answer = api::DescribeNamespaceResponse {
                        namespace_info: Some(info),
                        ..Default::default()
                    };
                    Ok(answer.encode_to_vec().into())
                }
                "SignalWorkflowExecution" => {
                    let request = api::SignalWorkflowExecutionRequest::decode(raw).unwrap();
                    let execution = request.workflow_execution.unwrap();
                    Err(Status::invalid_argument(format!(
                        "{} {} {} {}",
                        request.namespace,
                        execution.workflow_id,
                        request.signal_name,
                        String::from_utf8_lossy(&request.input.unwrap().payloads[0].data),
                    )))
                }
                "StartWorkflowExecution" => Err(crate::errors::status(&Error::AlreadyStarted {
                    message: "there".into(),
                    start_request_id: "q".into(),
                    run_id: "r".into(),
                    first_run_id: String::new(),
                })),
                _ => Ok(Bytes::new()),
            }
        }
    }

    fn ask(
        method: &str,
        uri: &str,
        body: &'static str,
        timeout: Option<&'static str>,
    ) -> (u16, String) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let parameters =
            web::Query::<Vec<(String, String)>>::from_query(query).unwrap().into_inner();
        let (form, answer_form) =
            Form::of_request("", "", parameters.iter().map(|(name, _)| name.as_str()));
        let metadata = timeout.map(|t| (metadata::TIMEOUT.to_owned(), t.to_owned()));
        let metadata = metadata.into_iter().collect();
        let call = Call { method, path, parameters, form, metadata };
        let api = Api::new(Echo, 100).unwrap();
        let body = future::ready(Ok(Bytes::from_static(body.as_bytes())));
        let answer = futures::executor::block_on(api.answer(&call, answer_form, body));
        (answer.status, String::from_utf8(answer.text).unwrap())
    }

    #[test]
    fn a_call_by_path_and_query() {
        assert_eq!(
            ask("GET", "/api/v1/namespaces/n?id=x+y", "", None),
            (200, r#"{"namespaceInfo":{"name":"n","id":"x y"}}"#.into())
        );
        assert_eq!(
            ask("GET", "/cluster/namespaces/n?pretty", "", Some("5S")),
            (200, "{\n  \"namespaceInfo\": {\n    \"name\": \"n\"\n  }\n}".into())
        );
    }

    #[test]
    fn a_call_with_a_body() {
        let body = r#"{"input": ["hi"], "signalName": "ignored"}"#;
        assert_eq!(
            ask("POST", "/namespaces/n/workflows/a%2Fb/signal/s", body, None),
            (400, r#"{"code":3,"message":"n a/b s \"hi\""}"#.into())
        );
        assert_eq!(ask("POST", "/namespaces/n/workflows/a/terminate", " \n", None).0, 200);
    }

    #[test]
    fn errors_carry_their_details() {
        assert_eq!(
            ask("POST", "/namespaces/n/workflows/w", "{}", None),
            (409, r#"{"code":6,"message":"there","details":[{"@type":"type.googleapis.com/temporal.api.errordetails.v1.WorkflowExecutionAlreadyStartedFailure","startRequestId":"q","runId":"r"}]}"#.into())
        );
    }

    #[test]
    fn what_is_not_there() {
        for (method, path, status, text) in [
            ("GET", "/api/v1/nope", 404, r#"{"code":5,"message":"Not Found"}"#),
            ("GET", "/", 404, r#"{"code":5,"message":"Not Found"}"#),
            ("DELETE", "/cluster", 501, r#"{"code":12,"message":"Method Not Allowed"}"#),
            ("GET", "/namespaces/%zz", 400, r#"{"code":3,"message":"malformed path escape"}"#),
        ] {
            assert_eq!(ask(method, path, "", None), (status, text.into()));
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (uri, body, timeout, text) in [
            ("/cluster/namespaces", "{\"a\":1}", None, "(line 1:4): unknown field \\\"a\\\""),
            ("/cluster/namespaces", "{}", Some("soon"), "invalid grpc-timeout: soon"),
        ] {
            let wanted = format!(r#"{{"code":3,"message":"{text}"}}"#);
            assert_eq!(ask("POST", uri, body, timeout), (400, wanted));
        }
    }
}
