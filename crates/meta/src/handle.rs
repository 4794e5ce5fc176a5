use std::sync::Arc;

use arc_swap::ArcSwap;
use everspan_proto::workflowservice as api;
use everspan_storage::Batch;
use everspan_types::{Error, NamespaceId, Result, Time};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    group::GroupLog,
    namespace::Namespace,
    queue_config::{QueueConfig, QueueName},
    state::{AttributeTypes, Meta, Snapshot},
};

fn read(log: &GroupLog) -> Result<Meta> {
    let rows = log.rows(Meta::ROWS)?;
    Meta::load(&rows).map_err(|e| Error::internal(format!("meta group: {e}")))
}

/// The cluster's own state, for everybody. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct MetaHandle {
    snapshot: Arc<ArcSwap<Snapshot>>,
    writer: Arc<Mutex<Writer>>,
}

#[derive(Debug)]
struct Writer {
    meta: Meta,
    log: GroupLog,
}

impl MetaHandle {
    /// Reads the state from its group; a new cluster gets an ID.
    ///
    /// # Errors
    /// If the rows are damaged or the group cannot be written.
    pub async fn open(log: GroupLog) -> Result<Self> {
        let meta = read(&log)?;
        let this = Self {
            snapshot: Arc::new(ArcSwap::from_pointee(meta.snapshot().clone())),
            writer: Arc::new(Mutex::new(Writer { meta, log })),
        };
        this.change(|meta| Ok(meta.found(Uuid::new_v4()))).await?;
        Ok(this)
    }

    /// What is committed now.
    #[must_use]
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    async fn change(&self, decide: impl FnOnce(&mut Meta) -> Result<Batch>) -> Result<()> {
        let mut writer = self.writer.clone().lock_owned().await;
        if writer.log.catch_up()? {
            writer.meta = read(&writer.log)?;
            self.snapshot.store(Arc::new(writer.meta.snapshot().clone()));
        }
        let mut meta = writer.meta.clone();
        let batch = decide(&mut meta)?;
        let snapshot = self.snapshot.clone();
        // A caller that gives up must not leave a change that is committed and that nobody sees.
        let written = tokio::spawn(async move {
            writer.log.write(batch).await?;
            snapshot.store(Arc::new(meta.snapshot().clone()));
            writer.meta = meta;
            Ok(())
        });
        written.await.map_err(|e| Error::unavailable(format!("the change was given up: {e}")))?
    }

    /// Registers a namespace.
    ///
    /// # Errors
    /// See [`Meta::register`].
    pub async fn register(&self, r: &api::RegisterNamespaceRequest) -> Result<()> {
        self.change(|meta| meta.register(NamespaceId(Uuid::new_v4()), r)).await
    }

    /// Registers a namespace with defaults unless it is there.
    ///
    /// # Errors
    /// See [`Meta::ensure`].
    pub async fn ensure(&self, name: &str) -> Result<()> {
        self.change(|meta| meta.ensure(NamespaceId(Uuid::new_v4()), name)).await
    }

    /// Changes a namespace.
    ///
    /// # Errors
    /// See [`Meta::update`].
    pub async fn update(&self, r: &api::UpdateNamespaceRequest) -> Result<Arc<Namespace>> {
        self.change(|meta| meta.update(r)).await?;
        self.snapshot().namespace(&r.namespace)
    }

    /// Marks a namespace as one to be left.
    ///
    /// # Errors
    /// See [`Meta::deprecate`].
    pub async fn deprecate(&self, name: &str) -> Result<()> {
        self.change(|meta| meta.deprecate(name)).await
    }

    /// Changes the configuration of a task queue.
    ///
    /// # Errors
    /// See [`Meta::configure_queue`].
    pub async fn configure_queue(
        &self,
        now: Time,
        queue: QueueName,
        r: &api::UpdateTaskQueueConfigRequest,
        id_length_max: usize,
    ) -> Result<Arc<QueueConfig>> {
        let name = queue.clone();
        self.change(|meta| meta.configure_queue(now, queue, r, id_length_max)).await?;
        Ok(self.snapshot().queue_configs.get(&name).cloned().unwrap_or_default())
    }

    /// Adds custom search attributes.
    ///
    /// # Errors
    /// See [`Meta::add_attributes`].
    pub async fn add_attributes(
        &self,
        new: &AttributeTypes,
        is_system: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<()> {
        self.change(|meta| meta.add_attributes(new, is_system)).await
    }

    /// Removes custom search attributes.
    ///
    /// # Errors
    /// See [`Meta::remove_attributes`].
    pub async fn remove_attributes(&self, names: &[String]) -> Result<()> {
        self.change(|meta| meta.remove_attributes(names)).await
    }
}
