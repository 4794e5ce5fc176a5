//! What every RPC passes through: deadline, metrics, error table.

use std::{
    future::Future,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use everspan_types::{Error, Result, Time};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{errors, metrics, quotas};

/// How long a call without a deadline may take.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(60);
/// An answer that is this late is of no use: tonic would say CANCELLED in its place.
const ANSWER_MARGIN: Duration = Duration::from_millis(10);

/// What a method may know of its call beside the message.
#[derive(Clone, Debug)]
pub(crate) struct Cx {
    /// When the caller stops waiting.
    pub(crate) deadline: Time,
    /// How long that is from the call's arrival; none if the caller did not say.
    pub(crate) timeout: Option<Duration>,
    /// When the call arrived.
    pub(crate) now: Time,
}

impl Cx {
    /// How long the method may wait before the caller gives up.
    pub(crate) fn wait(&self) -> Duration {
        let all = self.deadline.since(self.now);
        all - ANSWER_MARGIN.min(all / 4)
    }

    fn new(metadata: &MetadataMap) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Time::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        let timeout =
            metadata.get("grpc-timeout").and_then(|v| v.to_str().ok()).and_then(parse_timeout);
        Self { deadline: now + timeout.unwrap_or(DEADLINE_DEFAULT), timeout, now }
    }
}

/// gRPC's form: up to eight digits and a unit.
pub(crate) fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// Runs a method.
pub(crate) async fn serve<Req: 'static, Res, Fut>(
    method: &'static str,
    request: Request<Req>,
    run: impl FnOnce(Cx, Req) -> Fut,
) -> Result<Response<Res>, Status>
where
    Fut: Future<Output = Result<Res>>,
{
    let began = Instant::now();
    let in_flight = metrics::InFlight::new(method);
    let cx = Cx::new(request.metadata());
    let wait = cx.wait();
    let call = quotas::Call::new(method, cx.now, request.get_ref());
    let answer = quotas::CALL.scope(call, run(cx, request.into_inner()));
    let answer = tokio::time::timeout(wait, answer)
        .await
        .unwrap_or_else(|_| Err(Error::DeadlineExceeded("context deadline exceeded".into())));
    drop(in_flight);
    match answer {
        Ok(message) => {
            metrics::answered(method, began.elapsed(), None);
            Ok(Response::new(message))
        }
        Err(error) => {
            let status = errors::status(&error);
            metrics::answered(method, began.elapsed(), Some(status.code()));
            if status.code() == tonic::Code::Internal {
                tracing::error!(method, %error, "a call failed");
            } else {
                tracing::debug!(method, %error, "a call was refused");
            }
            Err(status)
        }
    }
}

/// Implements whole services out of tables of their RPCs.
macro_rules! services {
    ($(
        $($service:ident)::+, $package:path, $full:literal {
            works { $($rpc:ident: $name:ident, $request:ident => $response:ident;)* }
            not_yet { $($no:ident: $no_name:ident, $no_request:ident => $no_response:ident;)* }
        }
    )*) => {
        /// Every RPC: service, name, whether it works.
        pub const RPCS: &[(&str, &str, bool)] = &[$(
            $(($full, stringify!($name), true),)*
            $(($full, stringify!($no_name), false),)*
        )*];

        $(const _: () = {
            use $package as api;

            type Answer<'t, M> = ::std::pin::Pin<Box<
                dyn ::std::future::Future<Output = Result<tonic::Response<M>, tonic::Status>>
                    + Send + 't>>;

            impl everspan_proto::$($service)::+ for crate::grpc::Frontend {
                $(
                    fn $rpc<'a, 't>(
                        &'a self,
                        request: tonic::Request<api::$request>,
                    ) -> Answer<'t, api::$response>
                    where 'a: 't, Self: 't {
                        Box::pin(crate::grpc::serve::serve(
                            stringify!($name),
                            request,
                            move |cx, message| self.$rpc(cx, message),
                        ))
                    }
                )*
                $(
                    fn $no<'a, 't>(
                        &'a self,
                        request: tonic::Request<api::$no_request>,
                    ) -> Answer<'t, api::$no_response>
                    where 'a: 't, Self: 't {
                        Box::pin(crate::grpc::serve::serve(
                            stringify!($no_name),
                            request,
                            move |_, _| async {
                                Err(everspan_types::Error::Unimplemented(
                                    concat!(
                                        stringify!($no_name),
                                        " is not implemented by Everspan yet"
                                    ).to_owned(),
                                ))
                            },
                        ))
                    }
                )*
            }
        };)*
    };
}
pub(crate) use services;
