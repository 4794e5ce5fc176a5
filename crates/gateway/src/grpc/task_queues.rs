//! Task queues as operators see them: described and configured.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use everspan_broker::{BacklogCounts, PollerInfo, QueueConfig, QueueConfigs, QueueStatus};
use everspan_meta::{MetaHandle, Namespace, QueueName};
use everspan_proto::{
    common::WorkerVersionCapabilities,
    enums::{BuildIdTaskReachability, DescribeTaskQueueMode, TaskQueueKind, TaskQueueType},
    taskqueue::{self, TaskIdBlock, TaskQueueStats},
    workflowservice::{self as api, describe_task_queue_response::EffectiveRateLimit},
};
use everspan_types::{Error, PRIORITY_DEFAULT, QueueKey, RESERVED_QUEUE, Result, TaskKind, Time};

use super::{Cx, Frontend};
use crate::validate;

/// What a poller's rate is when it names none; the real server's.
const RATE_DEFAULT: f64 = 100_000.0;
/// The version that unversioned workers are of.
const UNVERSIONED: &str = "__unversioned__";
/// Seconds from the epoch to the first day of the year 1, at which the real server dates what
/// was never set.
const NEVER: prost_types::Timestamp = prost_types::Timestamp { seconds: -62_135_596_800, nanos: 0 };

/// The configuration of queues, out of the cluster's own state.
#[derive(Debug)]
pub struct MetaQueueConfigs {
    meta: MetaHandle,
}

impl MetaQueueConfigs {
    /// Reads from `meta`.
    #[must_use]
    pub fn new(meta: MetaHandle) -> Self {
        Self { meta }
    }
}

fn api_type(kind: TaskKind) -> TaskQueueType {
    match kind {
        TaskKind::Workflow => TaskQueueType::Workflow,
        TaskKind::Activity => TaskQueueType::Activity,
    }
}

fn task_kind(kind: TaskQueueType) -> Option<TaskKind> {
    match kind {
        TaskQueueType::Workflow => Some(TaskKind::Workflow),
        TaskQueueType::Activity => Some(TaskKind::Activity),
        _ => None,
    }
}

impl QueueConfigs for MetaQueueConfigs {
    fn config(&self, queue: &QueueKey) -> Arc<QueueConfig> {
        let snapshot = self.meta.snapshot();
        if snapshot.queue_configs.is_empty() {
            return Arc::default();
        }
        let name = QueueName {
            namespace: queue.namespace,
            kind: api_type(queue.kind) as i32,
            name: queue.name.clone(),
        };
        let Some(config) = snapshot.queue_configs.get(&name) else { return Arc::default() };
        Arc::new(QueueConfig {
            rate: config.rate_limit.as_ref().and_then(|l| l.per_second),
            fairness_key_rate: config.fairness_keys_rate_limit.as_ref().and_then(|l| l.per_second),
            weights: config.weights.clone(),
        })
    }
}

#[allow(deprecated)]
fn poller(p: &PollerInfo) -> taskqueue::PollerInfo {
    taskqueue::PollerInfo {
        last_access_time: Some(p.last_access.to_proto()),
        identity: p.identity.clone(),
        rate_per_second: p.tasks_per_second_max.unwrap_or(RATE_DEFAULT),
        worker_version_capabilities: p.worker_version.as_ref().map(|v| WorkerVersionCapabilities {
            build_id: v.build_id.clone(),
            use_versioning: v.use_versioning,
            ..Default::default()
        }),
        deployment_options: p.deployment_options.clone(),
    }
}

fn empty_stats() -> TaskQueueStats {
    TaskQueueStats {
        approximate_backlog_age: Some(prost_types::Duration::default()),
        ..Default::default()
    }
}

/// Statistics by priority key: of the default one, and of those that had tasks.
#[allow(clippy::cast_possible_truncation, reason = "rates are shown in single precision")]
fn stats_by_priority(
    now: Time,
    status: &QueueStatus,
    backlog: &BacklogCounts,
) -> HashMap<i32, TaskQueueStats> {
    let mut all = HashMap::new();
    for (index, rates) in status.rates.iter().enumerate() {
        let count = backlog.counts[index];
        let key = index as i32 + 1;
        if count == 0 && rates.is_none() && key != i32::from(PRIORITY_DEFAULT) {
            continue;
        }
        let age = backlog.oldest[index].map_or_else(Default::default, |at| now.since(at));
        let (added, dispatched) = rates.unwrap_or_default();
        let stats = TaskQueueStats {
            approximate_backlog_count: i64::try_from(count).unwrap_or(i64::MAX),
            approximate_backlog_age: Some(everspan_execution::convert::proto_duration(age)),
            tasks_add_rate: added as f32,
            tasks_dispatch_rate: dispatched as f32,
            rate_limiting_active: status.is_rate_limited,
        };
        all.insert(key, stats);
    }
    all
}

fn sum<'a>(all: impl Iterator<Item = &'a TaskQueueStats>) -> TaskQueueStats {
    let seconds = |d: &Option<prost_types::Duration>| d.map_or((0, 0), |d| (d.seconds, d.nanos));
    all.fold(empty_stats(), |mut sum, one| {
        sum.approximate_backlog_count += one.approximate_backlog_count;
        sum.tasks_add_rate += one.tasks_add_rate;
        sum.tasks_dispatch_rate += one.tasks_dispatch_rate;
        sum.rate_limiting_active |= one.rate_limiting_active;
        if seconds(&one.approximate_backlog_age) > seconds(&sum.approximate_backlog_age) {
            sum.approximate_backlog_age = one.approximate_backlog_age;
        }
        sum
    })
}

impl Frontend {
    pub(crate) fn set_address(&self, address: SocketAddr) {
        // A gateway is started once.
        let _ = self.inner.address.set(address);
    }

    pub(crate) async fn describe_task_queue(
        &self,
        cx: Cx,
        r: api::DescribeTaskQueueRequest,
    ) -> Result<api::DescribeTaskQueueResponse> {
        let namespace = self.namespace(&r.namespace)?;
        let name = validate::task_queue(r.task_queue.as_ref(), false, self.limits())?;
        #[allow(deprecated)]
        if r.api_mode() == DescribeTaskQueueMode::Enhanced {
            return self.describe_versions(&cx, &namespace, &name, &r).await;
        }
        let is_partition = name.starts_with(RESERVED_QUEUE);
        if is_partition && r.report_stats {
            return Err(Error::invalid(
                "DescribeTaskQueue stats are only supported for the root partition",
            ));
        }
        let api_type = match r.task_queue_type() {
            TaskQueueType::Unspecified => TaskQueueType::Workflow,
            other => other,
        };
        let mut response = api::DescribeTaskQueueResponse::default();
        if r.report_config {
            let queue =
                QueueName { namespace: namespace.id, kind: api_type as i32, name: name.clone() };
            let config = self.inner.meta.snapshot().queue_configs.get(&queue).cloned();
            response.config = config.map(|c| c.to_proto());
        }
        #[allow(deprecated)]
        if r.task_queue.as_ref().is_some_and(|q| q.kind() != TaskQueueKind::Sticky) {
            response.versioning_info = Some(taskqueue::TaskQueueVersioningInfo {
                current_version: UNVERSIONED.into(),
                update_time: Some(NEVER),
                ..Default::default()
            });
        }
        let Some(kind) = task_kind(api_type) else {
            if r.report_stats {
                response.stats = Some(empty_stats());
            }
            return Ok(response);
        };
        let key = QueueKey { namespace: namespace.id, kind, name };
        let status = self.inner.brokers.describe(key.clone()).await?;
        response.pollers = status.pollers.iter().map(poller).collect();
        #[allow(clippy::cast_possible_truncation, reason = "shown in single precision")]
        let requests_per_second = status.rate_limit as f32;
        response.effective_rate_limit = Some(EffectiveRateLimit {
            requests_per_second,
            rate_limit_source: status.rate_limit_source as i32,
        });
        #[allow(deprecated)]
        let wants_status = r.include_task_queue_status;
        if r.report_stats || wants_status {
            let backlog = self.inner.brokers.backlog(&key).await?;
            if r.report_stats {
                response.stats_by_priority_key = stats_by_priority(cx.now, &status, &backlog);
                response.stats = Some(sum(response.stats_by_priority_key.values()));
            }
            #[allow(deprecated)]
            if wants_status {
                response.task_queue_status = Some(taskqueue::TaskQueueStatus {
                    backlog_count_hint: i64::try_from(backlog.total()).unwrap_or(i64::MAX),
                    rate_per_second: status.rate_limit,
                    task_id_block: Some(TaskIdBlock::default()),
                    ..Default::default()
                });
            }
        }
        Ok(response)
    }

    /// The mode that describes versions: there is the unversioned queue only.
    #[allow(deprecated)]
    async fn describe_versions(
        &self,
        cx: &Cx,
        namespace: &Namespace,
        name: &str,
        r: &api::DescribeTaskQueueRequest,
    ) -> Result<api::DescribeTaskQueueResponse> {
        if r.task_queue.as_ref().is_some_and(|q| q.kind() == TaskQueueKind::Sticky) {
            return Err(Error::invalid(
                "Enhanced DescribeTaskQueue is not valid for a sticky queue, use \
                 api_mode=UNSPECIFIED or a normal queue.",
            ));
        }
        if name.starts_with(RESERVED_QUEUE) {
            return Err(Error::invalid(format!("invalid task queue partition name {name}")));
        }
        let mut types: Vec<TaskQueueType> = r.task_queue_types().collect();
        if types.is_empty() {
            types = vec![TaskQueueType::Workflow, TaskQueueType::Activity];
        }
        let mut build_ids: Vec<&str> = match &r.versions {
            None => vec![""],
            Some(v) => v.build_ids.iter().map(String::as_str).collect(),
        };
        if r.versions.as_ref().is_some_and(|v| v.unversioned || v.all_active) {
            build_ids.push("");
        }
        let mut versions_info = HashMap::new();
        for build_id in build_ids {
            let mut types_info = HashMap::new();
            for kind in &types {
                let info = match task_kind(*kind).filter(|_| build_id.is_empty()) {
                    Some(kind) => self.type_info(cx, namespace, kind, name, r).await?,
                    None => taskqueue::TaskQueueTypeInfo {
                        stats: r.report_stats.then(empty_stats),
                        ..Default::default()
                    },
                };
                types_info.insert(*kind as i32, info);
            }
            let reachability = match (r.report_task_reachability, build_id) {
                (false, _) => BuildIdTaskReachability::Unspecified,
                (true, "") => BuildIdTaskReachability::Reachable,
                (true, _) => BuildIdTaskReachability::Unreachable,
            };
            let info = taskqueue::TaskQueueVersionInfo {
                types_info,
                task_reachability: reachability as i32,
            };
            versions_info.insert(build_id.to_owned(), info);
        }
        Ok(api::DescribeTaskQueueResponse { versions_info, ..Default::default() })
    }

    #[allow(deprecated)]
    async fn type_info(
        &self,
        cx: &Cx,
        namespace: &Namespace,
        kind: TaskKind,
        name: &str,
        r: &api::DescribeTaskQueueRequest,
    ) -> Result<taskqueue::TaskQueueTypeInfo> {
        let key = QueueKey { namespace: namespace.id, kind, name: name.to_owned() };
        let status = self.inner.brokers.describe(key.clone()).await?;
        let mut info = taskqueue::TaskQueueTypeInfo::default();
        if r.report_pollers {
            info.pollers = status.pollers.iter().map(poller).collect();
        }
        if r.report_stats {
            let backlog = self.inner.brokers.backlog(&key).await?;
            info.stats = Some(sum(stats_by_priority(cx.now, &status, &backlog).values()));
        }
        Ok(info)
    }

    pub(crate) async fn list_task_queue_partitions(
        &self,
        _: Cx,
        r: api::ListTaskQueuePartitionsRequest,
    ) -> Result<api::ListTaskQueuePartitionsResponse> {
        self.namespace(&r.namespace)?;
        let key = validate::task_queue(r.task_queue.as_ref(), false, self.limits())?;
        if key.starts_with(RESERVED_QUEUE) {
            return Err(Error::invalid(format!("invalid task queue partition name {key}")));
        }
        let owner_host_name =
            self.inner.address.get().map_or_else(String::new, SocketAddr::to_string);
        let one = vec![taskqueue::TaskQueuePartitionMetadata { key, owner_host_name }];
        Ok(api::ListTaskQueuePartitionsResponse {
            activity_task_queue_partitions: one.clone(),
            workflow_task_queue_partitions: one,
        })
    }

    pub(crate) async fn update_task_queue_config(
        &self,
        cx: Cx,
        r: api::UpdateTaskQueueConfigRequest,
    ) -> Result<api::UpdateTaskQueueConfigResponse> {
        let namespace = self.namespace(&r.namespace)?;
        if r.task_queue.starts_with(RESERVED_QUEUE) {
            let text = format!("invalid task queue partition name {}", r.task_queue);
            return Err(Error::invalid(text));
        }
        let max = self.limits().id_length_max;
        if r.task_queue.len() > max {
            return Err(Error::invalid("taskQueue length exceeds limit"));
        }
        let queue = QueueName {
            namespace: namespace.id,
            kind: r.task_queue_type,
            name: r.task_queue.clone(),
        };
        let config = self.inner.meta.configure_queue(cx.now, queue, &r, max).await?;
        if let Some(kind) = task_kind(r.task_queue_type()) {
            let key = QueueKey { namespace: namespace.id, kind, name: r.task_queue };
            self.inner.brokers.reconfigure(key);
        }
        Ok(api::UpdateTaskQueueConfigResponse { config: Some(config.to_proto()) })
    }
}
