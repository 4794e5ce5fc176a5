//! ResetWorkflowExecution: the current run ends, and another begins from a point of its
//! history, or of that of a run before it, all in one change.

use everspan_execution::{
    Ctx,
    reset::{ResetState, ResetTo, excluded, excludes_all, operations_after},
};
use everspan_proto::{
    enums::EventType,
    history::{History, HistoryEvent, history_event::Attributes},
    workflowservice as api,
};
use everspan_types::{Error, Result, RunId, Time};
use prost::Message;
use uuid::Uuid;

use crate::{
    call::{Call, Reply},
    history, keys,
    outcome::Outcome,
    run::Run,
    shard::Shard,
};

/// Rows of history read at a time.
const PAGE: usize = 128;
/// Most runs that followed the base by continue-as-new and whose signals are taken over.
const CHAIN_MAX: usize = 1_000;

/// The run that a reset names.
pub(crate) fn base_of(r: &api::ResetWorkflowExecutionRequest) -> Result<Option<RunId>> {
    match r.workflow_execution.as_ref().map_or("", |e| e.run_id.as_str()) {
        "" => Ok(None),
        text => Uuid::parse_str(text)
            .map(|id| Some(RunId(id)))
            .map_err(|_| Error::invalid("Invalid RunId.")),
    }
}

/// The run that a call to reset names, which its shell tells once the call is handled: its row
/// changes, though another run may handle it.
#[must_use]
pub fn reset_base(call: &Call) -> Option<RunId> {
    match call {
        Call::ResetWorkflowExecution(r) => base_of(r).ok().flatten(),
        _ => None,
    }
}

impl Run {
    /// Resets the workflow. This is its latest run, or the base where no latest is left.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a point that cannot be reset to; nothing changed then.
    pub(crate) fn reset(
        &mut self,
        shard: &mut Shard,
        now: Time,
        r: &api::ResetWorkflowExecutionRequest,
        out: &mut Outcome,
    ) -> Result<Option<Reply>> {
        let info = &self.state.info;
        let base_id = base_of(r)?.unwrap_or(info.run_id);
        let mut other = if base_id == info.run_id {
            None
        } else {
            Some(shard.load(info.namespace, &info.workflow_id, base_id)?)
        };
        let base = other.as_ref().map_or(&self.state, |run| &run.state);
        let from = r.workflow_task_finish_event_id;
        if from <= 1 || from >= base.info.next_event_id {
            return Err(Error::invalid(
                "Workflow task finish ID must be > 1 && <= workflow last event ID.",
            ));
        }
        if [&info.reset_request_id, &info.start_request_id].contains(&&r.request_id) {
            return Ok(Some(reply(info.run_id)));
        }
        if !shard.begins_batch(base_id, from)? {
            return Err(Error::invalid(format!(
                "StateRebuilder unable to Rebuild mutable state to event ID: {}, version: 0, \
                 this event must be at the boundary",
                from - 1
            )));
        }
        let new_run = RunId::derived(now, info.run_id, 2);
        let limits = shard.limits.clone();
        let retention = shard.retention.of(info.namespace).unwrap_or_default();
        let ctx = Ctx { now, limits: &limits, retention };
        let (rows, events, bytes) = shard.history_before(base_id, from)?;
        let begun = ResetState::new(ctx, base, new_run, &events, bytes)?;
        let operations = operations_after(r)?;
        for operation in &operations {
            operation.check(&self.state.info.task_queue)?;
        }
        let (mut after, last) = if excludes_all(&excluded(r)) {
            (Vec::new(), None)
        } else {
            shard.history_after(base_id, from)?
        };

        // From here on nothing fails.
        let to = ResetTo { run_id: new_run, from_event_id: from };
        let own_to = (base_id == self.id()).then(|| to.clone());
        if self.state.is_running() {
            self.change(shard, now, out, |turn| {
                turn.terminate_for_reset(&r.reason, own_to);
                Ok(())
            })?;
            if last == Some(self.id()) {
                after.extend(self.written(out));
            }
        } else if own_to.is_some() {
            self.state.info.reset_to = own_to;
            self.record_rows(out);
        }
        if let Some(base) = &mut other {
            base.state.info.reset_to = Some(to);
            base.record_rows(out);
        }
        for (first_event_id, raw) in rows {
            out.batch.put(keys::history(new_run, first_event_id), raw);
        }
        let (state, transition) = begun.begin(ctx, r, &after, &operations);
        let mut run = Run::new(state);
        shard.record_start(&run.state.info, &mut out.batch);
        run.record(shard, &transition, out);
        out.runs.push(run);
        Ok(Some(reply(new_run)))
    }

    /// The events that `out` is about to add to this run's history.
    fn written(&self, out: &Outcome) -> Vec<HistoryEvent> {
        let prefix = keys::histories(self.id());
        let rows = out.batch.ops.iter().filter(|(key, _)| key.starts_with(&prefix));
        rows.filter_map(|(_, raw)| history::decode_batch(raw.as_ref()?).ok()).flatten().collect()
    }
}

/// Rows of history by their first event.
type Rows = Vec<(i64, bytes::Bytes)>;

impl Shard {
    /// Whether event `id` begins a batch of the real server's, so that it can be reset to. They
    /// are ours, but for a workflow task that was not in history until it ended: what ended it
    /// begins another batch there.
    fn begins_batch(&self, run: RunId, id: i64) -> Result<bool> {
        if self.get(&keys::history(run, id))?.is_some() {
            return Ok(true);
        }
        Ok(self.event(run, id - 1)?.event_type() == EventType::WorkflowTaskStarted)
    }

    /// A run's history up to before event `end`: rows, events, bytes.
    fn history_before(&self, run: RunId, end: i64) -> Result<(Rows, Vec<HistoryEvent>, i64)> {
        let (mut rows, mut events, mut bytes): (Rows, Vec<HistoryEvent>, usize) =
            Default::default();
        let mut next = 1;
        while next < end {
            let page = self.scan(&keys::history(run, next), &keys::history(run, end), PAGE)?;
            if page.is_empty() {
                return Err(Error::internal(format!("event {next} of run {run} is missing")));
            }
            for (_, mut raw) in page {
                let mut batch = history::decode_batch(&raw)?;
                if batch.last().is_some_and(|e| e.event_id >= end) {
                    batch.retain(|e| e.event_id < end);
                    raw = History { events: batch.clone() }.encode_to_vec().into();
                }
                bytes += raw.len();
                rows.push((next, raw));
                next = batch.last().map_or(end, |e| e.event_id + 1);
                events.extend(batch);
            }
        }
        Ok((rows, events, i64::try_from(bytes).unwrap_or(i64::MAX)))
    }

    /// What happened in a run from event `from` on, and in those that followed it by
    /// continue-as-new, as far as it may be taken over; and the last of these runs.
    fn history_after(&self, base: RunId, from: i64) -> Result<(Vec<HistoryEvent>, Option<RunId>)> {
        let (mut events, mut run, mut next) = (Vec::new(), base, from);
        for _ in 0..CHAIN_MAX {
            let mut follower = None;
            loop {
                let page = self.events(run, next..i64::MAX, PAGE)?;
                let Some(last) = page.last() else { break };
                next = last.event_id + 1;
                follower = match &last.attributes {
                    Some(Attributes::WorkflowExecutionContinuedAsNewEventAttributes(a)) => {
                        Uuid::parse_str(&a.new_execution_run_id).ok().map(RunId)
                    }
                    _ => None,
                };
                events.extend(page);
            }
            let Some(id) = follower else { return Ok((events, Some(run))) };
            if self.scan(&keys::run(id), &keys::past(&keys::run(id)), 1)?.is_empty() {
                // Deleted: the chain ends here.
                return Ok((events, Some(run)));
            }
            (run, next) = (id, 1);
        }
        Err(Error::FailedPrecondition(format!(
            "more than {CHAIN_MAX} runs followed the one that is to be reset"
        )))
    }
}

fn reply(run: RunId) -> Reply {
    Reply::ResetWorkflowExecution(Box::new(api::ResetWorkflowExecutionResponse {
        run_id: run.to_string(),
    }))
}
