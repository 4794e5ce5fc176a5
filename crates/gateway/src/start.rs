//! Starting and stopping the listeners.

use std::{net::SocketAddr, time::Duration};

use everspan_proto::{
    DESCRIPTORS, operatorservice::operator_service_server::OperatorServiceServer,
    workflowservice::workflow_service_server::WorkflowServiceServer,
};
use everspan_types::{Error, Result};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tonic::{
    codec::CompressionEncoding,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::server::HealthReporter;
use tower::util::MapRequestLayer;

use crate::{Frontend, framing, http};

/// Largest message sent.
const ANSWER_MAX: usize = 128 << 20;
/// Idle connections are asked for a sign of life after this long.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A connection that gives no sign of life for so long after that is closed.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Options {
    /// gRPC.
    pub grpc: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
    /// Largest gRPC message taken, in bytes.
    pub message_bytes_max: usize,
    /// Largest HTTP body taken, in bytes.
    pub body_bytes_max: usize,
    /// Threads that serve HTTP.
    pub http_threads: usize,
}

/// The listeners of a node.
#[derive(Debug)]
pub struct Gateway {
    grpc: SocketAddr,
    http: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    frontend: Frontend,
    health: HealthReporter,
    http_server: http::Running,
}

impl Gateway {
    /// Binds both ports and serves, beside the API what is in `others` by gRPC. Health says SERVING
    /// from here on.
    ///
    /// # Errors
    /// If a port cannot be had.
    pub async fn start(frontend: Frontend, options: &Options, others: Routes) -> Result<Self> {
        let cannot = |what: &str, addr: SocketAddr, e: &dyn std::fmt::Display| {
            Error::unavailable(format!("cannot listen for {what} on {addr}: {e}"))
        };
        let listener =
            TcpListener::bind(options.grpc).await.map_err(|e| cannot("gRPC", options.grpc, &e))?;
        let grpc = listener.local_addr().map_err(|e| cannot("gRPC", options.grpc, &e))?;
        frontend.set_address(grpc);

        let (health, health_service) = tonic_health::server::health_reporter();
        let workflow = WorkflowServiceServer::new(frontend.clone())
            .max_decoding_message_size(options.message_bytes_max)
            .max_encoding_message_size(ANSWER_MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        let operator = OperatorServiceServer::new(frontend.clone())
            .max_decoding_message_size(options.message_bytes_max)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        let reflect = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let reflection = |e: &dyn std::fmt::Display| Error::internal(format!("reflection: {e}"));
        let v1 = reflect().build_v1().map_err(|e| reflection(&e))?;
        let v1alpha = reflect().build_v1alpha().map_err(|e| reflection(&e))?;

        let (stop, mut stopped) = watch::channel(false);
        let limit = options.message_bytes_max;
        let router = Server::builder()
            .layer(MapRequestLayer::new(move |call| framing::measured(call, limit)))
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_routes(others)
            .add_service(health_service)
            .add_service(v1)
            .add_service(v1alpha)
            .add_service(workflow.clone())
            .add_service(operator.clone());
        // Set here, since the builder's option does not reach listeners of ours: an answer of two
        // frames would wait 40 ms for the client's delayed acknowledgement.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serve = async move {
            let until = async move {
                // An error means that the gateway is gone: stop too.
                let _ = stopped.wait_for(|s| *s).await;
            };
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, until).await {
                tracing::error!(%error, "the gRPC listener ended");
            }
        };
        let services = http::InProcess { workflow, operator };
        let api = http::Api::new(services, options.body_bytes_max)
            .map_err(|e| Error::internal(format!("HTTP routes: {e}")))?;
        let http_server =
            http::start(options, api).map_err(|e| cannot("HTTP", options.http, &e))?;
        let serving = tokio::spawn(serve);
        let http = http_server.addr();
        let this = Self { grpc, http, stop, serving, frontend, health, http_server };
        this.health.set_serving::<WorkflowServiceServer<Frontend>>().await;
        this.health.set_serving::<OperatorServiceServer<Frontend>>().await;
        this.http_server.set_ready(true);
        Ok(this)
    }

    /// Where gRPC listens.
    #[must_use]
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Where HTTP listens.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Says NOT_SERVING, so that nobody sends new work, and lets go those who wait for
    /// something to happen.
    pub async fn unready(&self) {
        self.http_server.set_ready(false);
        self.frontend.stop_waits();
        self.health.set_not_serving::<WorkflowServiceServer<Frontend>>().await;
        self.health.set_not_serving::<OperatorServiceServer<Frontend>>().await;
    }

    /// Takes no new connections and lets calls under way finish, for `grace` at most.
    pub async fn stop(self, grace: Duration) {
        let Self { stop, mut serving, http_server, .. } = self;
        // The receiver is gone if the listener ended by itself.
        let _ = stop.send(true);
        let grpc = async {
            if tokio::time::timeout(grace, &mut serving).await.is_err() {
                serving.abort();
            }
        };
        tokio::join!(grpc, http_server.stop(grace));
    }
}
