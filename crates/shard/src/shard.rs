//! The pure shard: which run a call concerns, rows that span runs, and wake-ups.

use std::{collections::BTreeSet, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use everspan_execution::{State, state::Info, update::UpdateRecord};
use everspan_proto::{enums::WorkflowExecutionStatus as Status, history::HistoryEvent};
use everspan_storage::{Batch, Table};
use everspan_types::{Error, Limits, NamespaceId, Result, RunId, ShardId, Time};
use everspan_visibility as visibility;
use uuid::Uuid;

use crate::{
    backlog::Counts,
    call::Call,
    history,
    keys::{self, Current},
    multi_operation,
    outbox::ShardMap,
    reset,
    retention::Retention,
    run::Run,
};

/// Wake-ups further away than this stay in the store until they come nearer.
const HORIZON: Duration = Duration::from_secs(60);
/// Wait before rows that could not be read are read again.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Most wake-ups read from the store at a time; the horizon ends at the last of them.
const WAKES_MAX: usize = 10_000;

/// One shard on its leader.
#[derive(Debug)]
pub struct Shard {
    /// Which.
    pub id: ShardId,
    /// Its rows, those proposed but not yet committed included.
    pub table: Table,
    /// Bounds in force.
    pub limits: Arc<Limits>,
    /// Which shard owns what.
    pub map: ShardMap,
    /// How long closed runs are kept.
    pub(crate) retention: Retention,
    /// Sequence of the last message sent to another execution.
    pub(crate) sent: u64,
    /// Wake-ups before `horizon`.
    wakes: BTreeSet<(Time, RunId)>,
    horizon: Time,
    /// Wake-ups past the horizon could not be read: not again before this.
    refill_from: Time,
    /// Open runs, those that are only proposed included.
    open_runs: i64,
    /// Runs opened less runs closed by what is being decided now.
    open_runs_delta: i64,
    pub(crate) backlog_counts: Counts,
}

/// Where a call goes.
#[derive(Debug, PartialEq)]
pub enum Route {
    /// To this run.
    Run(RunId),
    /// To a new run.
    Start,
}

impl Shard {
    /// Opens a shard over its rows; call [`Shard::load_wakes`] once the log is replayed.
    #[must_use]
    pub fn new(id: ShardId, table: Table, limits: Arc<Limits>, map: ShardMap) -> Self {
        Self {
            id,
            table,
            limits,
            map,
            retention: Retention::default(),
            sent: 0,
            wakes: BTreeSet::new(),
            horizon: Time::ZERO,
            refill_from: Time::ZERO,
            open_runs: 0,
            open_runs_delta: 0,
            backlog_counts: Counts::default(),
        }
    }

    /// The same with this way to look retentions up; without, closed runs are kept for good.
    #[must_use]
    pub fn with_retention(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }

    /// Finds where a call goes.
    ///
    /// # Errors
    /// `NOT_FOUND` if it names a run or workflow that does not exist.
    pub fn route(&self, namespace: NamespaceId, workflow_id: &str, call: &Call) -> Result<Route> {
        if let Some(run) = named_run(call)? {
            return Ok(Route::Run(run));
        }
        let current = self.current(namespace, workflow_id)?;
        match (call, current) {
            (Call::StartWorkflowExecution(r), Some(current)) => {
                let is_same = current.is_of_request(&r.request_id);
                if is_same || current.is_running() {
                    return Ok(Route::Run(current.run_id));
                }
                current.check_reuse(workflow_id, r.workflow_id_reuse_policy())?;
                Ok(Route::Start)
            }
            (Call::SignalWithStartWorkflowExecution(r), Some(current)) => {
                if current.is_running() {
                    return Ok(Route::Run(current.run_id));
                }
                current.check_reuse(workflow_id, r.workflow_id_reuse_policy())?;
                Ok(Route::Start)
            }
            (Call::ExecuteMultiOperation(r), Some(current)) => {
                let start = multi_operation::start_of(r)?;
                if current.is_running()
                    || current.start_request_id == start.request_id
                    || self.has_completed(current.run_id, multi_operation::update_id(r))?
                {
                    return Ok(Route::Run(current.run_id));
                }
                current
                    .check_reuse(workflow_id, start.workflow_id_reuse_policy())
                    .map_err(multi_operation::start_failed)?;
                Ok(Route::Start)
            }
            (
                Call::StartWorkflowExecution(_)
                | Call::SignalWithStartWorkflowExecution(_)
                | Call::ExecuteMultiOperation(_),
                None,
            ) => Ok(Route::Start),
            (_, Some(current)) => Ok(Route::Run(current.run_id)),
            (Call::ResetWorkflowExecution(r), None) if reset::base_of(r)?.is_some() => {
                // The latest run was deleted; an earlier one may be left.
                Ok(reset::base_of(r)?.map_or(Route::Start, Route::Run))
            }
            (_, None) => Err(Error::not_found(format!("workflow not found for ID: {workflow_id}"))),
        }
    }

    /// Whether a run has completed an update.
    fn has_completed(&self, run: RunId, update_id: &str) -> Result<bool> {
        let raw = self.get(&keys::run_row(run, &State::update_row(update_id)))?;
        let record = raw.map(|raw| UpdateRecord::from_bytes(&raw)).transpose();
        let record = record.map_err(|e| Error::internal(format!("update of run {run}: {e}")))?;
        Ok(record.is_some_and(|u| u.completed_event_id > 0))
    }

    /// The latest run of a workflow ID.
    pub(crate) fn current(
        &self,
        namespace: NamespaceId,
        workflow_id: &str,
    ) -> Result<Option<Current>> {
        let raw = self.get(&keys::current(namespace, workflow_id))?;
        raw.map(|raw| {
            Current::from_bytes(&raw)
                .map_err(|e| Error::internal(format!("current run of {workflow_id}: {e}")))
        })
        .transpose()
    }

    /// Makes a run the latest of its workflow ID.
    pub(crate) fn record_start(&mut self, info: &Info, batch: &mut Batch) {
        self.record_current(info, batch);
        self.open_runs_delta += 1;
    }

    /// Notes that a run closed, where no other follows it in the same change.
    pub(crate) fn record_close(&mut self, info: &Info, batch: &mut Batch) {
        self.open_runs_delta -= 1;
        if !info.new_run_id.is_empty() {
            return;
        }
        let current = self.current(info.namespace, &info.workflow_id);
        // A run that was replaced is not the latest any more.
        if matches!(current, Ok(Some(c)) if c.run_id != info.run_id) {
            return;
        }
        self.record_current(info, batch);
    }

    /// Writes the record of a workflow ID's latest run.
    pub(crate) fn record_current(&self, info: &Info, batch: &mut Batch) {
        let current = Current {
            run_id: info.run_id,
            first_run_id: info.first_run_id,
            start_request_id: info.start_request_id.clone(),
            attached_request_ids: info.attached_requests.keys().cloned().collect(),
            status: if info.paused.is_some() && info.close_time.is_none() {
                Status::Running as i32
            } else {
                info.status
            },
        };
        batch
            .put(keys::current(info.namespace, &info.workflow_id), Bytes::from(current.to_bytes()));
    }

    /// Reads a run.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is none, or it is of another workflow.
    pub fn load(&self, namespace: NamespaceId, workflow_id: &str, run: RunId) -> Result<Run> {
        let missing = || {
            Error::not_found(format!(
                "workflow execution not found for workflow ID \"{workflow_id}\" and run ID \
                 \"{run}\""
            ))
        };
        let run = self.load_any(run)?.ok_or_else(missing)?;
        if run.state.info.namespace != namespace || run.state.info.workflow_id != workflow_id {
            return Err(missing());
        }
        Ok(run)
    }

    /// Reads a run by its ID alone, for wake-ups.
    ///
    /// # Errors
    /// If its rows are damaged.
    pub fn load_any(&self, run: RunId) -> Result<Option<Run>> {
        let prefix = keys::run(run);
        let rows = self.scan(&prefix, &keys::past(&prefix), usize::MAX)?;
        if rows.is_empty() {
            return Ok(None);
        }
        let state = State::from_rows(
            rows.iter().map(|(key, value)| (&key[prefix.len()..], value.as_ref())),
        )
        .map_err(|e| Error::internal(format!("run {run} on shard {}: {e}", self.id)))?;
        Ok(Some(Run::loaded(state)))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.table.get(key).map_err(unreadable)
    }

    pub(crate) fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        self.table.scan(start, end, limit, false).map_err(unreadable)
    }

    /// The last key from `start` to before `end`.
    pub(crate) fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<Bytes>> {
        let rows = self.table.scan(start, end, 1, true).map_err(unreadable)?;
        Ok(rows.into_iter().next().map(|(key, _)| key))
    }

    /// Events of a run, in order.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn events(&self, run: RunId, ids: Range<i64>, limit: usize) -> Result<Vec<HistoryEvent>> {
        history::read(&self.table, run, ids, limit)
    }

    /// The same, with those that `batch` is about to add.
    pub(crate) fn events_with(
        &self,
        batch: &Batch,
        run: RunId,
        ids: Range<i64>,
        limit: usize,
    ) -> Result<Vec<HistoryEvent>> {
        let mut events = self.events(run, ids.clone(), limit)?;
        // One batch of events may begin before what is asked for.
        let (first, last) = (keys::history(run, 0), keys::history(run, ids.end));
        for (key, value) in &batch.ops {
            let Some(raw) = value.as_ref().filter(|_| *key >= first && *key < last) else {
                continue;
            };
            for event in history::decode_batch(raw)? {
                let next = events.last().map_or(ids.start, |e| e.event_id + 1);
                if event.event_id == next && next < ids.end && events.len() < limit {
                    events.push(event);
                }
            }
        }
        Ok(events)
    }

    /// One event of a run, which `batch` may be about to add.
    pub(crate) fn event_with(&self, batch: &Batch, run: RunId, id: i64) -> Result<HistoryEvent> {
        let (first, last) = (keys::history(run, 0), keys::history(run, id));
        for (key, value) in batch.ops.iter().rev() {
            if let Some(raw) = value.as_ref().filter(|_| *key >= first && *key <= last)
                && let Some(event) =
                    history::decode_batch(raw)?.into_iter().find(|e| e.event_id == id)
            {
                return Ok(event);
            }
        }
        self.event(run, id)
    }

    /// One event of a run.
    pub(crate) fn event(&self, run: RunId, id: i64) -> Result<HistoryEvent> {
        history::event(&self.table, run, id)
    }

    /// Moves a run's wake-up row.
    pub(crate) fn set_wake(
        &mut self,
        run: RunId,
        old: Option<Time>,
        new: Option<Time>,
        batch: &mut Batch,
    ) {
        if let Some(at) = old {
            batch.set(keys::timer(at, run), None);
            self.wakes.remove(&(at, run));
        }
        if let Some(at) = new {
            batch.put(keys::timer(at, run), Bytes::new());
            if at < self.horizon {
                self.wakes.insert((at, run));
            }
        }
    }

    /// Forgets what was proposed and not committed, and what memory holds because of it; call
    /// [`Shard::load_wakes`] once the shard leads again.
    pub fn forget_proposed(&mut self) {
        self.table.discard_staged();
        self.wakes.clear();
        self.horizon = Time::ZERO;
        self.refill_from = Time::ZERO;
    }

    /// Reads the wake-ups of the near future.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn load_wakes(&mut self, now: Time) -> Result<()> {
        let start = keys::timers_from(self.horizon);
        let until = now + HORIZON;
        if until <= self.horizon {
            return Ok(());
        }
        let rows = self.scan(&start, &keys::timers_from(until), WAKES_MAX)?;
        let found: Vec<_> = rows.iter().filter_map(|(key, _)| keys::parse_timer(key)).collect();
        // A full page may end between two runs of one instant; that instant is read again.
        self.horizon = match found.last() {
            Some((at, _)) if rows.len() >= WAKES_MAX => *at,
            _ => until,
        };
        self.wakes.extend(found);
        Ok(())
    }

    /// Takes the runs that are to be woken at `now`, at most `limit` of them.
    ///
    /// # Errors
    /// If wake-ups cannot be read.
    pub fn take_due(&mut self, now: Time, limit: usize) -> Result<Vec<RunId>> {
        if now + HORIZON / 2 > self.horizon
            && now >= self.refill_from
            && let Err(error) = self.load_wakes(now)
        {
            // Those that are known are woken all the same.
            self.refill_from = now + READ_AGAIN;
            if self.wakes.first().is_none_or(|(at, _)| *at > now) {
                return Err(error);
            }
        }
        let mut due = Vec::new();
        while due.len() < limit {
            match self.wakes.first() {
                Some((at, _)) if *at <= now => {}
                _ => break,
            }
            due.extend(self.wakes.pop_first().map(|(_, run)| run));
        }
        Ok(due)
    }

    /// Wakes a run again that could not be read. Its row stands, so that nothing is written.
    pub fn wake_later(&mut self, run: RunId, now: Time) {
        self.wakes.insert((now + READ_AGAIN, run));
    }

    /// When [`Shard::take_due`] is to be called next, at the latest.
    #[must_use]
    pub fn next_wake(&self) -> Time {
        let refill = (self.horizon - HORIZON / 2).max(self.refill_from);
        self.wakes.first().map_or(refill, |(at, _)| (*at).min(refill))
    }

    /// A page of the list index.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn list(
        &self,
        namespace: NamespaceId,
        query: &visibility::Query,
        after: Option<&visibility::Cursor>,
        limit: usize,
    ) -> Result<visibility::ListPage> {
        visibility::list(&Rows(self), keys::VISIBILITY, namespace, query, after, limit)
    }

    /// Counts of the list index, by group.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn count(
        &self,
        namespace: NamespaceId,
        query: &visibility::Query,
    ) -> Result<visibility::Counts> {
        visibility::count(&Rows(self), keys::VISIBILITY, namespace, query)
    }

    /// Open runs, for the metrics.
    #[must_use]
    pub fn open_runs(&self) -> i64 {
        self.open_runs
    }

    /// Reads the number of open runs, once the log is replayed.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load_open_runs(&mut self) -> Result<()> {
        let raw = self.get(keys::OPEN_RUNS)?;
        let number =
            raw.as_deref().map_or(Some(0), |raw| raw.try_into().ok().map(i64::from_be_bytes));
        self.open_runs = number.ok_or_else(|| {
            Error::internal(format!("shard {}: the number of open runs does not read", self.id))
        })?;
        self.open_runs_delta = 0;
        Ok(())
    }

    /// Adds the new number of open runs to the rows of a decision that changes it. To be called
    /// with the rows of every decision before the next one; none are those of a refusal.
    pub fn count_open_runs(&mut self, batch: &mut Batch) {
        let delta = std::mem::take(&mut self.open_runs_delta);
        if delta != 0 && !batch.is_empty() {
            self.open_runs += delta;
            batch.put(keys::OPEN_RUNS, self.open_runs.to_be_bytes().to_vec());
        }
    }
}

/// What a row that cannot be read is to callers: damage stays; what the disk refuses may be
/// had later.
pub(crate) fn unreadable(error: everspan_storage::Error) -> Error {
    match error {
        everspan_storage::Error::Io(reason) => Error::unavailable(format!("storage: {reason}")),
        damaged @ everspan_storage::Error::Corrupt(_) => Error::internal(damaged.to_string()),
    }
}

/// The shard's rows as the list index reads them.
pub(crate) struct Rows<'a>(pub(crate) &'a Shard);

impl visibility::Rows for Rows<'_> {
    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.0.scan(start, end, limit)
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(key)
    }
}

impl Call {
    /// Whether the call is for one run rather than the latest of a workflow ID.
    #[must_use]
    pub fn names_run(&self) -> bool {
        !matches!(named_run(self), Ok(None))
    }
}

/// The run that a call names, if it does.
fn named_run(call: &Call) -> Result<Option<RunId>> {
    use everspan_types::{QueryToken, TaskToken};
    let task = |raw: &Bytes| TaskToken::from_bytes(raw).map(|t| Some(t.run_id));
    let parse = |text: &str| match text {
        "" => Ok(None),
        text => Uuid::parse_str(text)
            .map(|id| Some(RunId(id)))
            .map_err(|_| Error::invalid("Invalid RunId.")),
    };
    let execution = |e: &Option<everspan_proto::common::WorkflowExecution>| {
        parse(e.as_ref().map_or("", |e| e.run_id.as_str()))
    };
    match call {
        Call::StartWorkflowExecution(_)
        | Call::SignalWithStartWorkflowExecution(_)
        | Call::ExecuteMultiOperation(_)
        // It concerns the latest run beside the one that it names.
        | Call::ResetWorkflowExecution(_) => Ok(None),
        Call::UpdateWorkflowExecution(r) => execution(&r.workflow_execution),
        Call::PollWorkflowExecutionUpdate(r) => {
            execution(&r.update_ref.as_ref().and_then(|u| u.workflow_execution.clone()))
        }
        Call::SignalWorkflowExecution(r) => execution(&r.workflow_execution),
        Call::RequestCancelWorkflowExecution(r) => execution(&r.workflow_execution),
        Call::TerminateWorkflowExecution(r) => execution(&r.workflow_execution),
        Call::DeleteWorkflowExecution(r) => execution(&r.workflow_execution),
        Call::DescribeWorkflowExecution(r) => execution(&r.execution),
        Call::GetWorkflowExecutionHistory(r) => history_run(&r.execution, &r.next_page_token),
        Call::GetWorkflowExecutionHistoryReverse(r) => {
            history_run(&r.execution, &r.next_page_token)
        }
        Call::QueryWorkflow(r) => execution(&r.execution),
        Call::ResetStickyTaskQueue(r) => execution(&r.execution),
        Call::RespondQueryTaskCompleted(r) => {
            QueryToken::from_bytes(&r.task_token).map(|t| Some(t.run_id))
        }
        Call::RespondWorkflowTaskCompleted(r) => task(&r.task_token),
        Call::RespondWorkflowTaskFailed(r) => task(&r.task_token),
        Call::RecordActivityTaskHeartbeat(r) => task(&r.task_token),
        Call::RespondActivityTaskCompleted(r) => task(&r.task_token),
        Call::RespondActivityTaskFailed(r) => task(&r.task_token),
        Call::RespondActivityTaskCanceled(r) => task(&r.task_token),
        Call::RecordActivityTaskHeartbeatById(r) => parse(&r.run_id),
        Call::RespondActivityTaskCompletedById(r) => parse(&r.run_id),
        Call::RespondActivityTaskFailedById(r) => parse(&r.run_id),
        Call::RespondActivityTaskCanceledById(r) => parse(&r.run_id),
        Call::PauseActivity(r) => execution(&r.execution),
        Call::UnpauseActivity(r) => execution(&r.execution),
        Call::ResetActivity(r) => execution(&r.execution),
        Call::UpdateActivityOptions(r) => execution(&r.execution),
        Call::UpdateWorkflowExecutionOptions(r) => execution(&r.workflow_execution),
        Call::PauseWorkflowExecution(r) => parse(&r.run_id),
        Call::UnpauseWorkflowExecution(r) => parse(&r.run_id),
    }
}

/// A page token keeps a reader on the run that it began with.
fn history_run(
    execution: &Option<everspan_proto::common::WorkflowExecution>,
    token: &Bytes,
) -> Result<Option<RunId>> {
    let named = match execution.as_ref().map_or("", |e| e.run_id.as_str()) {
        "" => None,
        text => Some(RunId(Uuid::parse_str(text).map_err(|_| Error::invalid("Invalid RunId."))?)),
    };
    if named.is_none() && !token.is_empty() {
        return Ok(Some(history::Token::from_bytes(token)?.run_id));
    }
    Ok(named)
}
