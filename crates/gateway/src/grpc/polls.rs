//! Polls for tasks.

use std::time::Duration;

use everspan_meta::Namespace;
use everspan_proto::{
    common::{WorkerVersionCapabilities, WorkerVersionStamp},
    taskqueue::TaskQueue,
    workflowservice as api,
};
use everspan_types::{Error, Poller, QueueKey, Result, StartedTask, TaskKind};
use uuid::Uuid;

use super::{Cx, Frontend};
use crate::validate;

/// Longest wait of a poll; the real server's.
const POLL_MAX: Duration = Duration::from_secs(60);
/// How long before the caller's deadline a poll is answered empty.
const POLL_MARGIN: Duration = Duration::from_secs(1);
/// Shortest deadline that a poll makes sense with; the real server's.
const POLL_MIN: Duration = Duration::from_secs(1);

/// How long a poll may wait.
fn poll_wait(cx: &Cx) -> Result<Duration> {
    let Some(timeout) = cx.timeout else {
        return Err(Error::invalid("Context timeout is not set."));
    };
    if timeout < POLL_MIN {
        return Err(Error::FailedPrecondition("Context timeout is too short.".into()));
    }
    Ok(timeout.saturating_sub(POLL_MARGIN).min(POLL_MAX))
}

fn stamp(c: Option<&WorkerVersionCapabilities>) -> Option<WorkerVersionStamp> {
    c.map(|c| WorkerVersionStamp { build_id: c.build_id.clone(), use_versioning: c.use_versioning })
}

impl Frontend {
    async fn poll(
        &self,
        cx: &Cx,
        namespace: &Namespace,
        kind: TaskKind,
        queue: Option<&TaskQueue>,
        poller: Poller,
    ) -> Result<Option<StartedTask>> {
        let wait = poll_wait(cx)?;
        validate::identity(&poller.identity, self.limits())?;
        let name = validate::task_queue(queue, false, self.limits())?;
        let poller =
            Poller { request_id: Uuid::new_v4().to_string(), queue: name.clone(), ..poller };
        let key = QueueKey { namespace: namespace.id, kind, name };
        if self.is_stopping() {
            return Err(Error::unavailable("the server is shutting down"));
        }
        self.inner.brokers.poll(key, poller, wait).await
    }

    pub(crate) async fn poll_workflow_task_queue(
        &self,
        cx: Cx,
        r: api::PollWorkflowTaskQueueRequest,
    ) -> Result<api::PollWorkflowTaskQueueResponse> {
        let namespace = self.namespace(&r.namespace)?;
        #[allow(deprecated)]
        let worker_version = stamp(r.worker_version_capabilities.as_ref());
        let poller = Poller {
            identity: r.identity,
            worker_version,
            worker_instance_key: r.worker_instance_key,
            deployment_options: r.deployment_options,
            ..Poller::default()
        };
        let queue = r.task_queue.as_ref();
        match self.poll(&cx, &namespace, TaskKind::Workflow, queue, poller).await? {
            Some(StartedTask::Workflow(task)) => Ok(*task),
            _ => Ok(api::PollWorkflowTaskQueueResponse::default()),
        }
    }

    pub(crate) async fn poll_activity_task_queue(
        &self,
        cx: Cx,
        r: api::PollActivityTaskQueueRequest,
    ) -> Result<api::PollActivityTaskQueueResponse> {
        let namespace = self.namespace(&r.namespace)?;
        #[allow(deprecated)]
        let worker_version = stamp(r.worker_version_capabilities.as_ref());
        let poller = Poller {
            identity: r.identity,
            worker_version,
            worker_instance_key: r.worker_instance_key,
            deployment_options: r.deployment_options,
            tasks_per_second_max: r.task_queue_metadata.and_then(|m| m.max_tasks_per_second),
            ..Poller::default()
        };
        let queue = r.task_queue.as_ref();
        match self.poll(&cx, &namespace, TaskKind::Activity, queue, poller).await? {
            Some(StartedTask::Activity(mut task)) => {
                task.workflow_namespace.clone_from(&namespace.name);
                Ok(*task)
            }
            _ => Ok(api::PollActivityTaskQueueResponse::default()),
        }
    }
}
