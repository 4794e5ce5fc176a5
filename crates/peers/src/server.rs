//! The side that is spoken to.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use everspan_types::wire::PROTOCOL;
use futures::future::BoxFuture;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tonic::{
    Request, Response, Status, Streaming,
    metadata::MetadataMap,
    transport::{Server, server::TcpIncoming},
};

use crate::{
    links::{Peers, TIMEOUT},
    messages::{Envelope, Hello},
    stubs::peers_server::{self, PeersServer},
};

/// Names the cluster that a call is for.
pub(crate) const CLUSTER: &str = "everspan-cluster";
/// Names the protocol version that a call speaks.
pub(crate) const PROTOCOL_HEADER: &str = "everspan-protocol";
/// Names the ID of the cluster that the node that calls knows of; empty if it does not.
pub(crate) const FOUNDED: &str = "everspan-founded";
/// Names the node that calls.
pub(crate) const NODE: &str = "everspan-node";
/// Largest message: an answer may hold a page of a history.
pub(crate) const MESSAGE_MAX: usize = 256 << 20;

/// Which part of a node a question is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Its shards.
    Shards,
    /// Its task-queue brokers.
    Brokers,
    /// The meta group.
    Meta,
}

impl Topic {
    const ALL: [Topic; 3] = [Topic::Shards, Topic::Brokers, Topic::Meta];

    pub(crate) fn number(self) -> u32 {
        match self {
            Topic::Shards => 1,
            Topic::Brokers => 2,
            Topic::Meta => 3,
        }
    }
}

/// What comes of a question: bytes, or why this node cannot say now.
pub type Answer = Result<Bytes, String>;

/// The node, as others speak to it.
pub trait Service: Send + Sync + 'static {
    /// Takes what another node's log sent. Must not block.
    fn log(&self, batch: Bytes);
    /// Answers a question. Dropped half way if whoever asks gives up.
    fn ask(&self, topic: Topic, question: Bytes) -> BoxFuture<'static, Answer>;
}

/// A node that can be spoken to.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Listening {
    /// Listens to the others. To be called on a tokio runtime, where it stays.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub async fn start<S: Service>(
        address: SocketAddr,
        peers: Peers,
        service: S,
    ) -> Result<Self, String> {
        let cannot = |e: std::io::Error| format!("cannot listen on {address} for peers: {e}");
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let (stop, mut stopped) = watch::channel(false);
        let handler = Handler { peers, service: Arc::new(service) };
        let server = PeersServer::new(handler)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        let router = Server::builder()
            .http2_keepalive_interval(Some(TIMEOUT))
            .http2_keepalive_timeout(Some(TIMEOUT))
            // A follower must not be held back by the windows of a slow one.
            .initial_connection_window_size(Some(16 << 20))
            .initial_stream_window_size(Some(4 << 20))
            .add_service(server);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serving = tokio::spawn(async move {
            let until = async move {
                let _ = stopped.wait_for(|s| *s).await;
            };
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, until).await {
                tracing::error!(%error, "the listener for peers ended");
            }
        });
        Ok(Self { address, stop, serving })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections.
    pub fn stop(self) {
        let _ = self.stop.send(true);
        self.serving.abort();
    }
}

struct Handler<S> {
    peers: Peers,
    service: Arc<S>,
}

impl<S: Service> Handler<S> {
    /// The node that speaks, if it is one of this cluster's, or may become one.
    fn check_stranger(&self, head: &MetadataMap) -> Result<u64, Status> {
        let text = |name: &str| head.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let protocol = text(PROTOCOL_HEADER);
        if protocol != PROTOCOL.to_string() {
            return Err(Status::failed_precondition(format!(
                "this node speaks protocol {PROTOCOL}, and the one that calls {protocol:?}: run \
                 releases side by side that follow each other"
            )));
        }
        let cluster = text(CLUSTER);
        if cluster != self.peers.cluster() {
            return Err(Status::failed_precondition(format!(
                "this node is in the cluster of {}, and the one that calls in that of {cluster}",
                self.peers.cluster()
            )));
        }
        // Some nodes of one name and number may have founded a cluster without others that had.
        let (founded, own) = (text(FOUNDED), self.peers.founded());
        if !founded.is_empty() && !own.is_empty() && founded != own {
            return Err(Status::failed_precondition(format!(
                "this node is part of cluster {own}, and the one that calls of {founded}, of the \
                 same name: one of them was founded without data that the other has"
            )));
        }
        Ok(text(NODE).parse().unwrap_or(0))
    }

    /// The node that speaks, if it is one of this cluster's.
    fn check(&self, head: &MetadataMap) -> Result<u64, Status> {
        let node = self.check_stranger(head)?;
        if !self.peers.knows(node) {
            return Err(Status::failed_precondition(format!(
                "node {node} is none of this cluster's other nodes: it never joined, or was removed"
            )));
        }
        Ok(node)
    }
}

#[tonic::async_trait]
impl<S: Service> peers_server::Peers for Handler<S> {
    async fn hello(&self, request: Request<Hello>) -> Result<Response<Hello>, Status> {
        let node = self.check_stranger(request.metadata())?;
        let is_stranger = !self.peers.knows(node);
        Ok(Response::new(Hello { is_stranger, ..self.peers.hello() }))
    }

    async fn log(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Envelope>, Status> {
        self.check(request.metadata())?;
        let mut stream = request.into_inner();
        while let Some(envelope) = stream.message().await? {
            self.service.log(envelope.body);
        }
        Ok(Response::new(Envelope::default()))
    }

    async fn ask(&self, request: Request<Envelope>) -> Result<Response<Envelope>, Status> {
        let head = request.metadata().clone();
        let Envelope { topic, body } = request.into_inner();
        let known = Topic::ALL.into_iter().find(|t| t.number() == topic);
        let known = known.ok_or_else(|| Status::unimplemented("an unknown topic"))?;
        // Whoever is new asks the meta group to be taken in.
        match known {
            Topic::Meta => self.check_stranger(&head)?,
            Topic::Shards | Topic::Brokers => self.check(&head)?,
        };
        match self.service.ask(known, body).await {
            Ok(body) => Ok(Response::new(Envelope { topic, body })),
            Err(reason) => Err(Status::failed_precondition(reason)),
        }
    }
}
