//! How long calls wait when a leader dies: three nodes, starts through one of them, and the one that
//! leads the most is killed and comes back, again and again.

use std::{
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use everspan_proto::{
    common::WorkflowType,
    taskqueue::TaskQueue,
    workflowservice::{
        StartWorkflowExecutionRequest, workflow_service_client::WorkflowServiceClient,
    },
};
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use crate::{
    Result,
    report::Latencies,
    server::{self, Place, Server},
};

/// Callers at once, one call each at a time.
const CALLERS: usize = 16;
/// How long calls are watched after a kill, and before one.
const WATCHED: Duration = Duration::from_secs(5);
/// How long a node may take to come back.
const BACK: Duration = Duration::from_secs(60);

/// What is run.
#[derive(Debug, Args)]
pub(crate) struct Failover {
    /// Kills
    #[arg(short, default_value_t = 20)]
    n: u32,
    #[command(flatten)]
    server: server::Options,
}

/// Calls that were made in some time.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) calls: Latencies,
    pub(crate) longest: Duration,
    pub(crate) errors: u64,
}

impl Failover {
    pub(crate) async fn run(&self) -> Result {
        let mut server = Server::start_nodes(&self.server, Place::Disk, self.server.shards, 3)?;
        let (mut waits, mut quiet, mut errors) = (Latencies::default(), Latencies::default(), 0);
        let mut restarted: Vec<Child> = Vec::new();
        for kill in 1..=self.n {
            let victim = server.leader_of_most();
            let through = (victim + 1) % 3;
            let before = watch(&server, through, WATCHED, || Ok(())).await?;
            let mut again = None;
            let after = watch(&server, through, WATCHED, || {
                again = Some(server.kill(&self.server, victim)?);
                Ok(())
            })
            .await?;
            println!(
                "kill {kill} of {}: the longest call took {:.0} ms ({:.0} ms before), {} errors",
                self.n,
                after.longest.as_secs_f64() * 1000.0,
                before.longest.as_secs_f64() * 1000.0,
                after.errors,
            );
            quiet.extend(before.calls);
            waits.add(after.longest);
            errors += before.errors + after.errors;
            if let Some(mut again) = again {
                let child = again.spawn()?;
                server.adopt(child.id());
                restarted.push(child);
            }
            let began = Instant::now();
            while !(0..3).all(|node| server.is_ready(node))
                || server.shards_led() != u64::from(self.server.shards)
            {
                if began.elapsed() > BACK {
                    return Err("a node does not come back".into());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        for mut child in restarted {
            let _ = child.kill();
            let _ = child.wait();
        }
        let (waits, quiet) = (waits.sorted(), quiet.sorted());
        println!(
            "the longest call after a kill: p50 {:.0} ms, p99 {:.0} ms; errors {errors}",
            waits.quantile_ms(0.5),
            waits.quantile_ms(0.99),
        );
        println!("{:8.2}  p99 of those / p99 of a call before", {
            waits.quantile_ms(0.99) / quiet.quantile_ms(0.99).max(1e-9)
        });
        Ok(())
    }
}

/// Makes calls through a node, does something, and sees how the calls fare.
pub(crate) async fn watch(
    server: &Server,
    through: usize,
    time: Duration,
    act: impl FnOnce() -> Result,
) -> Result<Seen> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc[through]))?;
    let client = WorkflowServiceClient::new(endpoint.connect().await?);
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (mut client, stop) = (client.clone(), stop.clone());
        callers.spawn(async move {
            let mut seen = Seen::default();
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                // The nanosecond tells the calls of one caller apart.
                let id = format!("{caller}-{:?}", std::time::SystemTime::now());
                let request = StartWorkflowExecutionRequest {
                    namespace: "default".into(),
                    workflow_id: id.clone(),
                    request_id: id,
                    workflow_type: Some(WorkflowType { name: "probe".into() }),
                    task_queue: Some(TaskQueue { name: "nobody".into(), ..TaskQueue::default() }),
                    ..StartWorkflowExecutionRequest::default()
                };
                let outcome = client.start_workflow_execution(request).await;
                seen.errors += u64::from(outcome.is_err());
                seen.longest = seen.longest.max(began.elapsed());
                seen.calls.add(began.elapsed());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            seen
        });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    act()?;
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut all = Seen::default();
    while let Some(seen) = callers.join_next().await {
        let seen = seen?;
        all.longest = all.longest.max(seen.longest);
        all.errors += seen.errors;
        all.calls.extend(seen.calls);
    }
    Ok(all)
}
