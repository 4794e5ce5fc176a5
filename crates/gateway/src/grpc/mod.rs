//! The gRPC services.

mod executions;
mod namespaces;
mod operations;
mod polls;
mod serve;
mod system;
mod table;
mod task_queues;
mod tasks;
mod updates;
mod visibility;
mod workers;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
};

use everspan_broker::Brokers;
use everspan_meta::{MetaHandle, Namespace};
use everspan_shard::{
    Shards,
    call::{Request, ShardCall},
};
use everspan_types::{Error, Limits, Result};
use tokio::sync::watch;

pub(crate) use serve::{Cx, parse_timeout};
pub use table::RPCS;
pub use task_queues::MetaQueueConfigs;

use crate::{quotas::Quotas, workers::Registry};

/// Both services. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Frontend {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) shards: Shards,
    pub(crate) brokers: Brokers,
    pub(crate) meta: MetaHandle,
    pub(crate) limits: Arc<Limits>,
    pub(crate) shard_count: u32,
    /// True once those who wait for something to happen are to be let go.
    stopping: watch::Sender<bool>,
    quotas: Quotas,
    /// Workers that sent heartbeats.
    pub(crate) workers: Mutex<Registry>,
    /// Where gRPC is served.
    pub(crate) address: OnceLock<SocketAddr>,
}

impl Frontend {
    /// Over what is behind it.
    #[must_use]
    pub fn new(
        shards: Shards,
        brokers: Brokers,
        meta: MetaHandle,
        limits: Arc<Limits>,
        shard_count: u32,
    ) -> Self {
        let (stopping, _) = watch::channel(false);
        let inner = Inner {
            shards,
            brokers,
            meta,
            limits,
            shard_count,
            stopping,
            quotas: Quotas::default(),
            workers: Mutex::default(),
            address: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The namespace that a call is for; it is charged for the call.
    pub(crate) fn namespace(&self, name: &str) -> Result<Arc<Namespace>> {
        let namespace = self.inner.meta.snapshot().namespace(name)?;
        self.charge(&namespace)?;
        Ok(namespace)
    }

    /// Charges the call under way to a namespace, once.
    pub(crate) fn charge(&self, namespace: &Namespace) -> Result<()> {
        self.inner.quotas.admit(namespace.id, self.limits())
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Ends long polls and queries under way, and those to come, with UNAVAILABLE: callers
    /// come back when the server does.
    pub(crate) fn stop_waits(&self) {
        self.inner.stopping.send_replace(true);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.inner.stopping.borrow()
    }

    /// Waits for something that may take long, while the server is not stopping.
    pub(crate) async fn unless_stopping<T>(
        &self,
        wait: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut stopping = self.inner.stopping.subscribe();
        tokio::select! {
            biased;
            _ = stopping.wait_for(|s| *s) => {
                Err(Error::unavailable("the server is shutting down"))
            }
            answer = wait => answer,
        }
    }

    /// Asks the shard that owns `workflow_id`.
    pub(crate) async fn ask<C: ShardCall>(
        &self,
        cx: &Cx,
        namespace: &Namespace,
        workflow_id: &str,
        call: C,
    ) -> Result<C::Response> {
        let request = Request {
            namespace: namespace.id,
            workflow_id: workflow_id.to_owned(),
            call: call.into_call(),
            deadline: cx.deadline,
        };
        C::from_reply(self.inner.shards.call(request).await?)
    }
}
