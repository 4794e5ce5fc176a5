//! How much of the node a namespace may use: requests a second, and long polls at once.
//!
//! Every call passes here when it looks its namespace up; see [`Call`].

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use everspan_proto::{
    enums::{ResourceExhaustedCause as Cause, ResourceExhaustedScope as Scope},
    workflowservice as api,
};
use everspan_types::{Error, Limits, NamespaceId, Result, Time};

/// Classes of calls, from the most important to the least; the real server's.
const CLASSES: usize = 6;
/// Burst of calls as a multiple of their rate; the real server's.
const BURST: f64 = 2.0;
/// Burst of calls of visibility; the real server's.
const VISIBILITY_BURST: f64 = 1.0;

tokio::task_local! {
    /// The call that this task serves.
    pub(crate) static CALL: Call;
}

/// A call on its way through the quotas. It is charged once, to the first namespace that it
/// looks up.
pub(crate) struct Call {
    method: &'static str,
    is_long: bool,
    now: Time,
    is_charged: Cell<bool>,
    /// Held until the call ends.
    slot: RefCell<Option<Slot>>,
}

impl Call {
    pub(crate) fn new(method: &'static str, now: Time, request: &dyn Any) -> Self {
        let is_long = match method {
            "GetWorkflowExecutionHistory" => request
                .downcast_ref::<api::GetWorkflowExecutionHistoryRequest>()
                .is_some_and(|r| r.wait_new_event),
            method => is_long(method),
        };
        Self { method, is_long, now, is_charged: Cell::new(false), slot: RefCell::default() }
    }
}

/// Calls that wait for something to happen.
fn is_long(method: &str) -> bool {
    matches!(
        method,
        "PollActivityTaskQueue"
            | "PollWorkflowTaskQueue"
            | "PollWorkflowExecutionUpdate"
            | "PollNexusTaskQueue"
            | "PollNexusOperationExecution"
            | "PollActivityExecution"
            | "QueryWorkflow"
            | "UpdateWorkflowExecution"
            | "ExecuteMultiOperation"
    )
}

fn is_visibility(method: &str) -> bool {
    matches!(
        method,
        "CountWorkflowExecutions"
            | "ScanWorkflowExecutions"
            | "ListOpenWorkflowExecutions"
            | "ListClosedWorkflowExecutions"
            | "ListWorkflowExecutions"
            | "ListArchivedWorkflowExecutions"
            | "CountActivityExecutions"
            | "ListActivityExecutions"
            | "CountNexusOperationExecutions"
            | "ListNexusOperationExecutions"
            | "GetWorkerTaskReachability"
            | "ListSchedules"
            | "CountSchedules"
            | "ListBatchOperations"
            | "ListDeployments"
            | "GetDeploymentReachability"
            | "ListWorkerDeployments"
    )
}

/// The class of a call: what brings in events first, what only looks or waits last.
fn class(method: &str, is_long: bool) -> usize {
    match method {
        "GetSearchAttributes" | "DescribeNamespace" | "DeprecateNamespace" => 0,
        "SignalWorkflowExecution"
        | "SignalWithStartWorkflowExecution"
        | "StartWorkflowExecution"
        | "UpdateWorkflowExecution"
        | "ExecuteMultiOperation"
        | "CreateSchedule"
        | "StartBatchOperation"
        | "StartActivityExecution"
        | "StartNexusOperationExecution"
        | "RecordActivityTaskHeartbeat"
        | "RecordActivityTaskHeartbeatById"
        | "RespondActivityTaskCompleted"
        | "RespondActivityTaskCompletedById"
        | "RespondWorkflowTaskCompleted"
        | "RespondQueryTaskCompleted"
        | "RespondNexusTaskCompleted" => 1,
        "GetWorkflowExecutionHistory" if is_long => 5,
        "GetWorkflowExecutionHistoryReverse"
        | "ResetStickyTaskQueue"
        | "ShutdownWorker"
        | "RecordWorkerHeartbeat" => 4,
        "QueryWorkflow" => 3,
        method if method.starts_with("Poll") => 4,
        method
            if ["Respond", "Describe", "List", "Count"].iter().any(|p| method.starts_with(p))
                || method == "GetWorkerVersioningRules"
                || method == "GetWorkerBuildIdCompatibility" =>
        {
            3
        }
        _ => 2,
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Time,
}

impl Bucket {
    fn refill(&mut self, now: Time, rate: f64, burst: f64) {
        self.tokens = (self.tokens + now.since(self.at).as_secs_f64() * rate).min(burst);
        self.at = self.at.max(now);
    }
}

/// The buckets of one kind of call. Each class has one; a call needs a token of its own
/// class's, and takes one of those of all lesser classes too.
#[derive(Debug)]
struct Buckets<const N: usize> {
    rate: f64,
    burst: f64,
    classes: [Bucket; N],
}

impl<const N: usize> Buckets<N> {
    fn new(now: Time, rate: f64, burst_ratio: f64) -> Self {
        let burst = rate * burst_ratio;
        Self { rate, burst, classes: std::array::from_fn(|_| Bucket { tokens: burst, at: now }) }
    }

    fn take(&mut self, now: Time, class: usize) -> bool {
        if self.rate <= 0.0 {
            return true;
        }
        let (rate, burst) = (self.rate, self.burst);
        for bucket in self.classes.iter_mut().skip(class) {
            bucket.refill(now, rate, burst);
        }
        if self.classes.get(class).is_some_and(|bucket| bucket.tokens < 1.0) {
            return false;
        }
        for bucket in self.classes.iter_mut().skip(class) {
            bucket.tokens -= 1.0;
        }
        true
    }
}

#[derive(Debug)]
struct Namespace {
    calls: Buckets<CLASSES>,
    visibility: Buckets<1>,
    /// Long calls under way, by method.
    long: HashMap<&'static str, Arc<AtomicUsize>>,
}

/// A long call under way.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the namespaces of a node use.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    namespaces: Mutex<HashMap<NamespaceId, Namespace>>,
}

impl Quotas {
    /// Charges the call that this task serves, if it was not yet.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`.
    pub(crate) fn admit(&self, namespace: NamespaceId, limits: &Limits) -> Result<()> {
        let admit = |call: &Call| {
            if call.is_charged.replace(true) {
                return Ok(());
            }
            self.charge(namespace, limits, call)
        };
        // What no call brought about is not charged.
        CALL.try_with(admit).unwrap_or(Ok(()))
    }

    fn charge(&self, id: NamespaceId, limits: &Limits, call: &Call) -> Result<()> {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = namespaces.entry(id).or_insert_with(|| Namespace {
            calls: Buckets::new(call.now, limits.requests_per_second_max as f64, BURST),
            visibility: Buckets::new(
                call.now,
                limits.visibility_requests_per_second_max as f64,
                VISIBILITY_BURST,
            ),
            long: HashMap::new(),
        });
        if call.is_long && limits.long_polls_max > 0 {
            let count = namespace.long.entry(call.method).or_default();
            let before = count.fetch_add(1, Ordering::Relaxed);
            let slot = Slot(count.clone());
            if before >= limits.long_polls_max {
                return Err(exhausted(
                    Cause::ConcurrentLimit,
                    "namespace concurrent poller limit exceeded",
                ));
            }
            *call.slot.borrow_mut() = Some(slot);
        }
        let is_admitted = if is_visibility(call.method) {
            namespace.visibility.take(call.now, 0)
        } else {
            namespace.calls.take(call.now, class(call.method, call.is_long))
        };
        if is_admitted {
            Ok(())
        } else {
            Err(exhausted(Cause::RpsLimit, "namespace rate limit exceeded"))
        }
    }
}

fn exhausted(cause: Cause, message: &str) -> Error {
    Error::ResourceExhausted { cause, scope: Scope::Namespace, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    const T0: Time = Time::from_millis(1_700_000_000_000);
    const NAMESPACE: NamespaceId = NamespaceId(Uuid::nil());

    fn limits() -> Limits {
        Limits {
            requests_per_second_max: 10,
            visibility_requests_per_second_max: 2,
            long_polls_max: 3,
            ..Limits::default()
        }
    }

    fn admitted(quotas: &Quotas, method: &'static str, now: Time, count: usize) -> usize {
        let call = || Call::new(method, now, &());
        (0..count).filter(|_| quotas.charge(NAMESPACE, &limits(), &call()).is_ok()).count()
    }

    #[test]
    fn requests_a_second() {
        let quotas = Quotas::default();
        assert_eq!(admitted(&quotas, "DescribeTaskQueue", T0, 100), 20);
        assert_eq!(admitted(&quotas, "DescribeTaskQueue", T0 + Duration::from_secs(1), 100), 10);
        assert_eq!(admitted(&quotas, "ListWorkflowExecutions", T0, 100), 2);
    }

    #[test]
    fn lesser_calls_give_way() {
        let quotas = Quotas::default();
        assert_eq!(admitted(&quotas, "RespondWorkflowTaskFailed", T0, 20), 20);
        assert_eq!(admitted(&quotas, "ShutdownWorker", T0, 1), 0);
        assert_eq!(admitted(&quotas, "StartWorkflowExecution", T0, 100), 20);
    }

    #[test]
    fn long_polls_at_once() {
        let quotas = Quotas::default();
        let poll = || Call::new("PollWorkflowTaskQueue", T0, &());
        let mut waiting: Vec<Call> = (0..3).map(|_| poll()).collect();
        for call in &waiting {
            assert!(quotas.charge(NAMESPACE, &limits(), call).is_ok());
        }
        let refused = quotas.charge(NAMESPACE, &limits(), &poll());
        assert!(matches!(
            refused,
            Err(Error::ResourceExhausted { cause: Cause::ConcurrentLimit, .. })
        ));
        // Another method has its own.
        let activity = Call::new("PollActivityTaskQueue", T0, &());
        assert!(quotas.charge(NAMESPACE, &limits(), &activity).is_ok());
        waiting.pop();
        assert!(quotas.charge(NAMESPACE, &limits(), &poll()).is_ok());
    }

    #[test]
    fn history_is_long_only_if_it_waits() {
        let request = |wait_new_event| api::GetWorkflowExecutionHistoryRequest {
            wait_new_event,
            ..Default::default()
        };
        let is_long = |wait| Call::new("GetWorkflowExecutionHistory", T0, &request(wait)).is_long;
        assert!(is_long(true) && !is_long(false));
    }
}
