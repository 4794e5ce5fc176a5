//! Workers: their heartbeats, lists of them, and how they go.

use std::sync::{MutexGuard, PoisonError};

use everspan_proto::{
    enums::TaskQueueType,
    worker::{WorkerHeartbeat, WorkerInfo, WorkerListInfo},
    workflowservice as api,
};
use everspan_types::{QueueKey, Result, TaskKind};
use everspan_visibility::WorkerQuery;

use super::{Cx, Frontend};
use crate::{validate, workers::Registry};

fn list_info(h: &WorkerHeartbeat) -> WorkerListInfo {
    let host = h.host_info.clone().unwrap_or_default();
    WorkerListInfo {
        worker_instance_key: h.worker_instance_key.clone(),
        worker_identity: h.worker_identity.clone(),
        task_queue: h.task_queue.clone(),
        deployment_version: h.deployment_version.clone(),
        sdk_name: h.sdk_name.clone(),
        sdk_version: h.sdk_version.clone(),
        status: h.status,
        start_time: h.start_time,
        host_name: host.host_name,
        worker_grouping_key: host.worker_grouping_key,
        process_id: host.process_id,
        plugins: h.plugins.clone(),
        drivers: h.drivers.clone(),
    }
}

impl Frontend {
    fn workers(&self) -> MutexGuard<'_, Registry> {
        // What is in there stands for itself, entry by entry.
        self.inner.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn record_worker_heartbeat(
        &self,
        cx: Cx,
        r: api::RecordWorkerHeartbeatRequest,
    ) -> Result<api::RecordWorkerHeartbeatResponse> {
        let namespace = self.namespace(&r.namespace)?;
        r.worker_heartbeat.iter().try_for_each(|h| validate::heartbeat(h, self.limits()))?;
        self.workers().record(cx.now, namespace.id, r.worker_heartbeat);
        Ok(api::RecordWorkerHeartbeatResponse::default())
    }

    pub(crate) async fn list_workers(
        &self,
        cx: Cx,
        r: api::ListWorkersRequest,
    ) -> Result<api::ListWorkersResponse> {
        let namespace = self.namespace(&r.namespace)?;
        let query = WorkerQuery::parse(&r.query)?;
        let size = usize::try_from(r.page_size).unwrap_or(0);
        let page = (size, &r.next_page_token[..]);
        let (workers, token) =
            self.workers().list(cx.now, namespace.id, &query, r.include_system_workers, page)?;
        let list = workers.iter().map(list_info).collect();
        let info = |h| WorkerInfo { worker_heartbeat: Some(h) };
        #[allow(deprecated)]
        Ok(api::ListWorkersResponse {
            workers_info: workers.into_iter().map(info).collect(),
            workers: list,
            next_page_token: token.into(),
        })
    }

    pub(crate) async fn count_workers(
        &self,
        cx: Cx,
        r: api::CountWorkersRequest,
    ) -> Result<api::CountWorkersResponse> {
        let namespace = self.namespace(&r.namespace)?;
        let query = WorkerQuery::parse(&r.query)?;
        let count = self.workers().count(cx.now, namespace.id, &query, r.include_system_workers);
        Ok(api::CountWorkersResponse { count: i64::try_from(count).unwrap_or(i64::MAX) })
    }

    pub(crate) async fn describe_worker(
        &self,
        cx: Cx,
        r: api::DescribeWorkerRequest,
    ) -> Result<api::DescribeWorkerResponse> {
        let namespace = self.namespace(&r.namespace)?;
        let heartbeat = self.workers().describe(cx.now, namespace.id, &r.worker_instance_key)?;
        Ok(api::DescribeWorkerResponse {
            worker_info: Some(WorkerInfo { worker_heartbeat: Some(heartbeat) }),
        })
    }

    /// A worker goes: its polls are answered empty, tasks of its sticky queue go back, and it
    /// leaves the list.
    pub(crate) async fn shutdown_worker(
        &self,
        cx: Cx,
        r: api::ShutdownWorkerRequest,
    ) -> Result<api::ShutdownWorkerResponse> {
        let namespace = self.namespace(&r.namespace)?;
        validate::instance_key(&r.worker_instance_key, self.limits())?;
        r.worker_heartbeat.iter().try_for_each(|h| validate::heartbeat(h, self.limits()))?;
        let key = |kind, name: &str| QueueKey { namespace: namespace.id, kind, name: name.into() };
        if !r.worker_instance_key.is_empty() && !r.task_queue.is_empty() {
            let mut types: Vec<TaskQueueType> = r.task_queue_types().collect();
            if types.is_empty() {
                types = vec![TaskQueueType::Workflow, TaskQueueType::Activity];
            }
            let mut queues: Vec<QueueKey> = types
                .into_iter()
                .filter_map(|kind| match kind {
                    TaskQueueType::Workflow => Some(key(TaskKind::Workflow, &r.task_queue)),
                    TaskQueueType::Activity => Some(key(TaskKind::Activity, &r.task_queue)),
                    _ => None,
                })
                .collect();
            if !r.sticky_task_queue.is_empty() {
                queues.push(key(TaskKind::Workflow, &r.sticky_task_queue));
            }
            self.inner.brokers.shut_down(queues, &r.worker_instance_key, &r.identity);
        }
        if !r.sticky_task_queue.is_empty() {
            self.inner.brokers.abandon(key(TaskKind::Workflow, &r.sticky_task_queue));
        }
        if let Some(heartbeat) = r.worker_heartbeat {
            self.workers().record(cx.now, namespace.id, vec![heartbeat]);
        }
        Ok(api::ShutdownWorkerResponse::default())
    }
}
