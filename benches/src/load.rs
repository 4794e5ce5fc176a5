//! Clients and workers that make bare calls, so that the server is what is measured.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use everspan_proto::{
    command::{
        Command, CompleteWorkflowExecutionCommandAttributes, ScheduleActivityTaskCommandAttributes,
        StartTimerCommandAttributes, command::Attributes,
    },
    common::{ActivityType, Payload, Payloads, WorkflowExecution, WorkflowType},
    enums::{CommandType, EventType},
    taskqueue::TaskQueue,
    workflowservice::{self as api, workflow_service_client::WorkflowServiceClient},
};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    Result,
    report::{Latencies, Report},
    server::Server,
};

type Client = WorkflowServiceClient<Channel>;

const NAMESPACE: &str = "default";
const IDENTITY: &str = "bench";
/// How long a poll waits for work.
const POLL: Duration = Duration::from_secs(70);
/// How long what was started may take to end once the last was started.
const SETTLE: Duration = Duration::from_secs(120);
/// Between looks at whether all is done.
const LOOK: Duration = Duration::from_millis(2);
/// After an error, so that a server that is gone is not flooded.
const BACK_OFF: Duration = Duration::from_millis(50);

/// What is asked of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Start, task, activity, task, close.
    Echo,
    /// Start, task, a timer that does not fire.
    Timer,
    /// Signals to open workflows.
    Signal,
    /// GetSystemInfo.
    Bare,
}

impl Scenario {
    /// Its name, and what one of it is.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Scenario::Echo => ("echo", "workflows"),
            Scenario::Timer => ("timer", "workflows"),
            Scenario::Signal => ("signal", "signals"),
            Scenario::Bare => ("bare", "calls"),
        }
    }
}

/// How much of what.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) scenario: Scenario,
    pub(crate) n: u64,
    /// Starters at once; workflows that are signalled.
    pub(crate) starters: usize,
    pub(crate) pollers: usize,
    /// Bytes of a payload.
    pub(crate) size: usize,
}

/// What the tasks of one run share.
struct Shared {
    load: Load,
    queue: String,
    payload: Payloads,
    next: AtomicU64,
    done: AtomicU64,
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// When each workflow was started that has not ended.
    starts: Mutex<HashMap<String, Instant>>,
    calls: Mutex<Latencies>,
    ends: Mutex<Latencies>,
    is_over: AtomicBool,
}

impl Load {
    /// Runs it to its end, and says what it came to.
    pub(crate) async fn run(&self, server: &Server) -> Result<Report> {
        let client = connect(server).await?;
        let shared = Arc::new(Shared::new(self.clone()));
        let mut workers = JoinSet::new();
        if self.scenario != Scenario::Bare {
            for _ in 0..self.pollers {
                workers.spawn(work_on_workflows(shared.clone(), client.clone()));
                if self.scenario == Scenario::Echo {
                    workers.spawn(work_on_activities(shared.clone(), client.clone()));
                }
            }
        }
        let before = server.usage()?;
        let began = Instant::now();
        let mut starters = JoinSet::new();
        for number in 0..self.starters {
            starters.spawn(start_all(shared.clone(), client.clone(), number));
        }
        while starters.join_next().await.is_some() {}
        let until = Instant::now() + SETTLE;
        while !shared.is_done() && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
        let took = began.elapsed();
        let after = server.usage()?;
        shared.is_over.store(true, Ordering::Relaxed);
        workers.shutdown().await;
        Ok(shared.report(took, before, after))
    }
}

async fn connect(server: &Server) -> Result<Client> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc[0]))?.tcp_nodelay(true);
    let channel = endpoint.connect().await?;
    Ok(Client::new(channel).max_decoding_message_size(64 << 20))
}

impl Shared {
    fn new(load: Load) -> Self {
        let payload = Payload {
            metadata: [("encoding".to_owned(), "binary/plain".into())].into(),
            data: vec![0; load.size].into(),
            ..Payload::default()
        };
        Self {
            load,
            queue: format!("bench-{}", uuid::Uuid::now_v7().simple()),
            payload: Payloads { payloads: vec![payload] },
            next: AtomicU64::new(0),
            done: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            last_error: Mutex::default(),
            starts: Mutex::default(),
            calls: Mutex::default(),
            ends: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    fn queue(&self) -> Option<TaskQueue> {
        Some(TaskQueue { name: self.queue.clone(), ..TaskQueue::default() })
    }

    fn is_done(&self) -> bool {
        let errors = self.errors.load(Ordering::Relaxed);
        self.done.load(Ordering::Relaxed) + errors >= self.load.n
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn failed(&self, status: &Status) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock() = Some(status.to_string());
    }

    /// A workflow got where the scenario wants it.
    fn ended(&self, workflow_id: &str) {
        if let Some(began) = self.starts.lock().remove(workflow_id) {
            self.ends.lock().add(began.elapsed());
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn report(
        &self,
        took: Duration,
        before: crate::server::Usage,
        after: crate::server::Usage,
    ) -> Report {
        let (scenario, unit) = self.load.scenario.names();
        let done = self.done.load(Ordering::Relaxed);
        Report {
            scenario,
            unit,
            done,
            lost: self.load.n.saturating_sub(done),
            errors: self.errors.load(Ordering::Relaxed),
            last_error: self.last_error.lock().take(),
            took,
            calls: std::mem::take(&mut *self.calls.lock()).sorted(),
            ends: std::mem::take(&mut *self.ends.lock()).sorted(),
            before,
            after,
        }
    }

    /// What the worker's code would decide on a task.
    fn decide(&self, task: &api::PollWorkflowTaskQueueResponse) -> Vec<Command> {
        let is_first = task.previous_started_event_id == 0;
        match self.load.scenario {
            Scenario::Echo if is_first => vec![self.schedule_activity()],
            Scenario::Echo => vec![self.complete()],
            Scenario::Timer if is_first => vec![start_timer()],
            _ => Vec::new(),
        }
    }

    fn schedule_activity(&self) -> Command {
        let attributes = ScheduleActivityTaskCommandAttributes {
            activity_id: "1".into(),
            activity_type: Some(ActivityType { name: "echo".into() }),
            task_queue: self.queue(),
            input: Some(self.payload.clone()),
            start_to_close_timeout: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            ..Default::default()
        };
        command(
            CommandType::ScheduleActivityTask,
            Attributes::ScheduleActivityTaskCommandAttributes(attributes),
        )
    }

    fn complete(&self) -> Command {
        let attributes =
            CompleteWorkflowExecutionCommandAttributes { result: Some(self.payload.clone()) };
        command(
            CommandType::CompleteWorkflowExecution,
            Attributes::CompleteWorkflowExecutionCommandAttributes(attributes),
        )
    }
}

fn start_timer() -> Command {
    let attributes = StartTimerCommandAttributes {
        timer_id: "t".into(),
        start_to_fire_timeout: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
    };
    command(CommandType::StartTimer, Attributes::StartTimerCommandAttributes(attributes))
}

fn command(kind: CommandType, attributes: Attributes) -> Command {
    Command { command_type: kind as i32, attributes: Some(attributes), ..Command::default() }
}

fn polling<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(POLL);
    request
}

/// One of the starters: takes numbers until there are none left.
async fn start_all(shared: Arc<Shared>, mut client: Client, number: usize) {
    let signalled = format!("{}-s{number}", shared.queue);
    if shared.load.scenario == Scenario::Signal
        && start(&shared, &mut client, signalled.clone()).await.is_err()
    {
        return;
    }
    loop {
        let k = shared.next.fetch_add(1, Ordering::Relaxed);
        if k >= shared.load.n {
            return;
        }
        let began = Instant::now();
        let answer = match shared.load.scenario {
            Scenario::Echo | Scenario::Timer => {
                let workflow_id = format!("{}-{k}", shared.queue);
                shared.starts.lock().insert(workflow_id.clone(), began);
                start(&shared, &mut client, workflow_id).await
            }
            Scenario::Signal => signal(&shared, &mut client, &signalled).await,
            Scenario::Bare => {
                let answer = client.get_system_info(api::GetSystemInfoRequest::default()).await;
                answer.map(|_| {
                    shared.done.fetch_add(1, Ordering::Relaxed);
                })
            }
        };
        match answer {
            Ok(()) => shared.calls.lock().add(began.elapsed()),
            Err(status) => shared.failed(&status),
        }
    }
}

async fn start(shared: &Shared, client: &mut Client, workflow_id: String) -> Result<(), Status> {
    let request = api::StartWorkflowExecutionRequest {
        namespace: NAMESPACE.into(),
        request_id: uuid::Uuid::now_v7().to_string(),
        workflow_id,
        workflow_type: Some(WorkflowType { name: "bench".into() }),
        task_queue: shared.queue(),
        input: Some(shared.payload.clone()),
        identity: IDENTITY.into(),
        ..Default::default()
    };
    client.start_workflow_execution(request).await.map(drop)
}

async fn signal(shared: &Shared, client: &mut Client, workflow_id: &str) -> Result<(), Status> {
    let request = api::SignalWorkflowExecutionRequest {
        namespace: NAMESPACE.into(),
        workflow_execution: Some(WorkflowExecution {
            workflow_id: workflow_id.into(),
            run_id: String::new(),
        }),
        signal_name: "s".into(),
        input: Some(shared.payload.clone()),
        request_id: uuid::Uuid::now_v7().to_string(),
        identity: IDENTITY.into(),
        ..Default::default()
    };
    client.signal_workflow_execution(request).await.map(drop)
}

async fn work_on_workflows(shared: Arc<Shared>, mut client: Client) {
    while !shared.is_over() {
        let poll = api::PollWorkflowTaskQueueRequest {
            namespace: NAMESPACE.into(),
            task_queue: shared.queue(),
            identity: IDENTITY.into(),
            ..Default::default()
        };
        let task = match client.poll_workflow_task_queue(polling(poll)).await {
            Ok(task) => task.into_inner(),
            Err(status) => {
                shared.failed(&status);
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
        };
        if task.task_token.is_empty() {
            continue;
        }
        let is_first = task.previous_started_event_id == 0;
        let answer = api::RespondWorkflowTaskCompletedRequest {
            namespace: NAMESPACE.into(),
            commands: shared.decide(&task),
            task_token: task.task_token.clone(),
            identity: IDENTITY.into(),
            ..Default::default()
        };
        if let Err(status) = client.respond_workflow_task_completed(answer).await {
            shared.failed(&status);
            continue;
        }
        match shared.load.scenario {
            Scenario::Signal => {
                let new = signals_in(&task);
                shared.done.fetch_add(new, Ordering::Relaxed);
            }
            Scenario::Echo if is_first => {}
            _ => {
                let execution = task.workflow_execution.unwrap_or_default();
                shared.ended(&execution.workflow_id);
            }
        }
    }
}

/// Signals that a task tells for the first time.
fn signals_in(task: &api::PollWorkflowTaskQueueResponse) -> u64 {
    let events = task.history.iter().flat_map(|h| &h.events);
    let new = events.filter(|e| {
        e.event_type() == EventType::WorkflowExecutionSignaled
            && e.event_id > task.previous_started_event_id
    });
    new.count() as u64
}

async fn work_on_activities(shared: Arc<Shared>, mut client: Client) {
    while !shared.is_over() {
        let poll = api::PollActivityTaskQueueRequest {
            namespace: NAMESPACE.into(),
            task_queue: shared.queue(),
            identity: IDENTITY.into(),
            ..Default::default()
        };
        let task = match client.poll_activity_task_queue(polling(poll)).await {
            Ok(task) => task.into_inner(),
            Err(status) => {
                shared.failed(&status);
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
        };
        if task.task_token.is_empty() {
            continue;
        }
        let answer = api::RespondActivityTaskCompletedRequest {
            namespace: NAMESPACE.into(),
            task_token: task.task_token,
            result: Some(shared.payload.clone()),
            identity: IDENTITY.into(),
            ..Default::default()
        };
        if let Err(status) = client.respond_activity_task_completed(answer).await {
            shared.failed(&status);
        }
    }
}
