use std::{collections::BTreeMap, time::Duration};

use everspan_proto::{
    enums::{ArchivalState, NamespaceState},
    namespace::{NamespaceConfig, NamespaceInfo, namespace_info},
    replication::{ClusterReplicationConfig, NamespaceReplicationConfig},
    workflowservice as api,
};
use everspan_types::{Error, NamespaceId, Result};
use serde::{Deserialize, Serialize};

/// Shortest retention; measured on the real server.
const RETENTION_MIN: Duration = Duration::from_secs(3600);
/// Retention of namespaces that the server registers by itself.
pub(crate) const RETENTION_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// Longest name.
const NAME_MAX: usize = 1_000;
/// The one cluster there is, under the name that clients expect.
pub(crate) const CLUSTER: &str = "active";

/// Whether a namespace takes new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// In use.
    Registered,
    /// To be left; still serves.
    Deprecated,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    /// What it is known by inside.
    pub id: NamespaceId,
    /// What it is known by outside.
    pub name: String,
    /// For people.
    pub description: String,
    /// For people.
    pub owner_email: String,
    /// For tools.
    pub data: BTreeMap<String, String>,
    /// How long closed runs are kept.
    pub retention: Duration,
    /// Whether it takes new work.
    pub state: State,
}

impl Namespace {
    /// From a registration.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` in the real server's words.
    pub(crate) fn register(
        id: NamespaceId,
        r: &api::RegisterNamespaceRequest,
    ) -> Result<Namespace> {
        if r.is_global_namespace {
            return Err(Error::invalid("Cannot register global namespace when not enabled"));
        }
        if r.namespace.is_empty() {
            return Err(Error::invalid("Namespace not set on request."));
        }
        if r.namespace.len() > NAME_MAX {
            return Err(Error::invalid("Namespace length exceeds limit."));
        }
        Ok(Namespace {
            id,
            name: r.namespace.clone(),
            description: r.description.clone(),
            owner_email: r.owner_email.clone(),
            data: r.data.clone().into_iter().collect(),
            retention: retention(r.workflow_execution_retention_period.as_ref())?,
            state: State::Registered,
        })
    }

    /// With the changes of an update.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, or `UNIMPLEMENTED` for what only clusters of clusters do.
    pub(crate) fn updated(&self, r: &api::UpdateNamespaceRequest) -> Result<Namespace> {
        if r.promote_namespace
            || r.replication_config.as_ref().is_some_and(|c| !c.clusters.is_empty())
        {
            return Err(Error::Unimplemented(
                "replication between clusters is not implemented by Everspan".into(),
            ));
        }
        let mut new = self.clone();
        if let Some(info) = &r.update_info {
            if !info.description.is_empty() {
                new.description.clone_from(&info.description);
            }
            if !info.owner_email.is_empty() {
                new.owner_email.clone_from(&info.owner_email);
            }
            new.data.extend(info.data.clone());
            match NamespaceState::try_from(info.state) {
                Ok(NamespaceState::Unspecified) => {}
                Ok(NamespaceState::Registered) if self.state == State::Registered => {}
                Ok(NamespaceState::Deprecated) => new.state = State::Deprecated,
                _ => return Err(Error::invalid("Invalid namespace state update.")),
            }
        }
        if let Some(config) = &r.config
            && config.workflow_execution_retention_ttl.is_some()
        {
            new.retention = retention(config.workflow_execution_retention_ttl.as_ref())?;
        }
        Ok(new)
    }

    pub(crate) fn info(&self) -> NamespaceInfo {
        NamespaceInfo {
            name: self.name.clone(),
            state: match self.state {
                State::Registered => NamespaceState::Registered as i32,
                State::Deprecated => NamespaceState::Deprecated as i32,
            },
            description: self.description.clone(),
            owner_email: self.owner_email.clone(),
            data: self.data.clone().into_iter().collect(),
            id: self.id.to_string(),
            capabilities: Some(namespace_info::Capabilities {
                sync_update: true,
                async_update: true,
                eager_workflow_start: true,
                workflow_pause: true,
                worker_heartbeats: true,
                worker_poll_complete_on_shutdown: true,
                poller_autoscaling: true,
                ..Default::default()
            }),
            limits: Some(namespace_info::Limits {
                blob_size_limit_error: 2 << 20,
                memo_size_limit_error: 2 << 20,
                ..Default::default()
            }),
            supports_schedules: false,
        }
    }

    pub(crate) fn config(&self) -> NamespaceConfig {
        NamespaceConfig {
            workflow_execution_retention_ttl: Some(prost_types::Duration {
                seconds: i64::try_from(self.retention.as_secs()).unwrap_or(i64::MAX),
                nanos: 0,
            }),
            history_archival_state: ArchivalState::Disabled as i32,
            visibility_archival_state: ArchivalState::Disabled as i32,
            ..NamespaceConfig::default()
        }
    }

    /// The answer to DescribeNamespace.
    #[must_use]
    pub fn describe(&self) -> api::DescribeNamespaceResponse {
        api::DescribeNamespaceResponse {
            namespace_info: Some(self.info()),
            config: Some(self.config()),
            replication_config: Some(replication()),
            ..Default::default()
        }
    }

    /// The answer to UpdateNamespace.
    #[must_use]
    pub fn updated_response(&self) -> api::UpdateNamespaceResponse {
        api::UpdateNamespaceResponse {
            namespace_info: Some(self.info()),
            config: Some(self.config()),
            replication_config: Some(replication()),
            ..Default::default()
        }
    }
}

fn replication() -> NamespaceReplicationConfig {
    NamespaceReplicationConfig {
        active_cluster_name: CLUSTER.into(),
        clusters: vec![ClusterReplicationConfig {
            cluster_name: CLUSTER.into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn retention(d: Option<&prost_types::Duration>) -> Result<Duration> {
    let bad = || Error::invalid("A valid retention period is not set on request.");
    let seconds = d.ok_or_else(bad)?.seconds;
    let retention = Duration::from_secs(u64::try_from(seconds).map_err(|_| bad())?);
    if retention < RETENTION_MIN { Err(bad()) } else { Ok(retention) }
}
