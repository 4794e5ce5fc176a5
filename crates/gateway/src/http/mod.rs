//! The HTTP port: the API's HTTP/JSON form, metrics, health.
//!
//! ```text
//! request ─ route ─▶ params, body, query ─▶ DynamicMessage ─▶ bytes ─▶ the gRPC service, in
//!             (from the descriptors)                                   this process
//! response ◀─ JSON, in the form that the caller accepts ◀─ DynamicMessage ◀─┘
//! ```

mod api;
mod call;
mod form;
mod input;
mod metadata;
mod output;
mod payload;
mod query;
mod route;
mod transcoder;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, web};
use prometheus::{Encoder, TextEncoder};

use crate::Options;

pub(crate) use api::Api;
pub(crate) use call::InProcess;
pub use transcoder::Transcoder;

/// Most requests of one connection under way in a worker's accept queue.
const BACKLOG: u32 = 1024;

/// The HTTP server.
#[derive(Debug)]
pub(crate) struct Running {
    addr: SocketAddr,
    handle: ServerHandle,
    ready: Arc<AtomicBool>,
}

impl Running {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Takes no new connections, and waits for calls under way for `grace` at most.
    pub(crate) async fn stop(&self, grace: Duration) {
        if tokio::time::timeout(grace, self.handle.stop(true)).await.is_err() {
            self.handle.stop(false).await;
        }
    }
}

/// Binds the port and serves on threads of its own.
///
/// # Errors
/// If the port cannot be had.
pub(crate) fn start(options: &Options, api: Api) -> std::io::Result<Running> {
    let listener = std::net::TcpListener::bind(options.http)?;
    let addr = listener.local_addr()?;
    let ready = Arc::new(AtomicBool::new(false));
    let state = web::Data::from(ready.clone());
    let api = web::Data::new(api);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .app_data(api.clone())
            .route("/metrics", web::get().to(metrics))
            .route("/healthz", web::get().to(|| async { HttpResponse::Ok().body("ok\n") }))
            .route("/readyz", web::get().to(readyz))
            .default_service(web::to(api::serve))
    })
    .backlog(BACKLOG)
    .workers(options.http_threads)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(Running { addr, handle, ready })
}

async fn metrics() -> HttpResponse {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&prometheus::gather(), &mut text) {
        Ok(()) => HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text),
        Err(error) => HttpResponse::InternalServerError().body(format!("{error}\n")),
    }
}

async fn readyz(ready: web::Data<AtomicBool>) -> HttpResponse {
    if ready.load(Ordering::Acquire) {
        HttpResponse::Ok().body("ready\n")
    } else {
        HttpResponse::ServiceUnavailable().body("starting or stopping\n")
    }
}
