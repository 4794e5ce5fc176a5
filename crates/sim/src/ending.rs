//! The end of a seed: faults have stopped, runs end, and what there is is read and checked.

use std::time::Duration;

use everspan_shard::call::Call;
use everspan_types::RunId;
use everspan_visibility::Query;

use crate::{
    check,
    histories::{Histories, Run},
    node::shard_of,
    record::Issuer,
    sched::Event,
    workload::{CLOSER, CallKind, Draft, TERMINATOR, UNPAUSE, UNPAUSE_ACTIVITIES},
    world::{NAMESPACE, SETTLE_MAX, World, new_op},
};

/// Once faults have stopped for so long, everything has happened that needs no caller.
pub(crate) const SETTLED: Duration = Duration::from_secs(60);
/// How often the settlement looks around.
const SETTLE_STEP: Duration = Duration::from_secs(5);
impl World {
    /// Faults have stopped. What waits for nothing is told to end; the rest must end by itself.
    pub(crate) fn settle(&mut self, step: u32) {
        if step == 0 {
            self.sched.log(|| "faults stop".into());
            self.is_calm = true;
            self.record.loss = 0;
            self.mend();
            if self.machine.dies_on_error {
                self.power_off();
            }
        }
        let settled_for = SETTLE_STEP * step;
        let open = self.open_runs();
        let is_done = open.as_ref().is_some_and(Vec::is_empty) && !self.has_waiting_calls();
        if step > 0 && is_done && !self.has_proposals() && !self.has_messages() {
            self.is_over = true;
            return;
        }
        for (shard, run) in open.into_iter().flatten() {
            let Some(state) = self.state_of(shard, run) else { continue };
            let i = &state.info;
            let waits_for_nothing = i.workflow_task.is_none()
                && i.first_task_at.is_none()
                && state.activities.is_empty()
                && state.timers.is_empty()
                && state.children.is_empty()
                && state.external_signals.is_empty()
                && state.external_cancels.is_empty();
            // A reset's run waits for ever for a child that closed when nobody was its parent, as
            // with the real server.
            let has_no_end = !i.cron_schedule.is_empty()
                || (i.original_start_time.is_some() && !state.children.is_empty());
            let (id, run_id) = (i.workflow_id.clone(), run.to_string());
            if i.paused.is_some() {
                self.close(&UNPAUSE, &id, run_id);
            } else if state.activities.values().any(|a| a.paused.is_some()) {
                self.record.reset_activities.insert(id.clone());
                self.close(&UNPAUSE_ACTIVITIES, &id, run_id);
            } else if has_no_end && settled_for > SETTLED {
                self.close(&TERMINATOR, &id, String::new());
            } else if waits_for_nothing {
                self.close(&CLOSER, &id, run_id);
            }
        }
        if settled_for > SETTLE_MAX {
            let open = self.open_runs().unwrap_or_default();
            for (shard, run) in open {
                if let Some(state) = self.state_of(shard, run) {
                    let (task, wake_at) = (&state.info.workflow_task, state.info.wake_at);
                    let (activities, timers) = (&state.activities, &state.timers);
                    self.record.fail(format!(
                        "run {run} on shard {shard} makes no progress: its wake-up is at \
                         {wake_at:?}; {task:?}, {activities:?}, {timers:?}"
                    ));
                }
            }
            if self.record.violations.is_empty() {
                let (calls, proposals, messages) =
                    (self.has_waiting_calls(), self.has_proposals(), self.has_messages());
                self.record.fail(format!(
                    "the node does not come to rest: calls {calls}, proposals {proposals}, \
                     messages {messages}"
                ));
            }
            return;
        }
        self.sched.after(SETTLE_STEP, Event::Settle(step + 1));
    }

    /// Whether what the list shows may still come to nothing.
    fn has_proposals(&self) -> bool {
        let shells = self.machine.up.iter().flat_map(|up| up.shards.values());
        shells.into_iter().any(|shell| !shell.is_committed())
    }

    /// Whether what one execution told another has not arrived.
    fn has_messages(&self) -> bool {
        self.rows().iter().any(|(_, rows)| rows.iter().any(|(key, _)| key.starts_with(b"o")))
    }

    /// Whether clients or workers still wait for answers.
    fn has_waiting_calls(&self) -> bool {
        self.record.ops.iter().any(|op| op.is_waiting)
    }

    fn close(&mut self, kind: &'static CallKind, workflow_id: &str, run_id: String) {
        let Self { record, sched, .. } = self;
        let wait = Duration::from_secs(3);
        let op = new_op(record, kind, Issuer::Closer, workflow_id, wait, 1, |name| {
            let update_id = String::new();
            let mut draft = Draft { rng: &mut sched.rng, name, workflow_id, run_id, update_id };
            kind.make.map_or_else(|| Call::ResetStickyTaskQueue(Box::default()), |f| f(&mut draft))
        });
        self.send(op);
    }

    /// Open runs with their shards, as the list shows them; none while a shard does not lead.
    fn open_runs(&self) -> Option<Vec<(u32, RunId)>> {
        let runs = self.listed("ExecutionStatus = \"Running\" OR ExecutionStatus = \"Paused\"")?;
        Some(
            runs.into_iter().map(|r| (shard_of(self.setup.shards, NAMESPACE, &r.0), r.1)).collect(),
        )
    }

    fn listed(&self, query: &str) -> Option<Vec<(String, RunId)>> {
        let up = self.machine.up.as_ref()?;
        if !up.shards.values().all(|shell| shell.leads_in().is_some()) {
            // It has not read all that it has.
            return None;
        }
        let query = Query::parse(query, &|_| None).ok()?;
        let mut found = Vec::new();
        for shell in up.shards.values() {
            let page = shell.shard.list(NAMESPACE, &query, None, 100_000).ok()?;
            found.extend(page.records.into_iter().map(|r| (r.workflow_id, r.run_id)));
        }
        Some(found)
    }

    fn state_of(&self, shard: u32, run: RunId) -> Option<everspan_execution::State> {
        let shell = self.machine.up.as_ref()?.shards.get(&shard)?;
        shell.shard.load_any(run).ok()?.map(|run| run.state().clone())
    }

    /// All rows of all shards.
    fn rows(&self) -> Vec<(u32, Vec<(bytes::Bytes, bytes::Bytes)>)> {
        let shards = self.machine.up.iter().flat_map(|up| &up.shards);
        let rows = shards.map(|(id, shell)| {
            (*id, shell.shard.table.scan(&[1], &[u8::MAX], usize::MAX, false).unwrap_or_default())
        });
        rows.collect()
    }

    /// After a last crash, with everybody gone, reads what there is and checks it.
    pub(crate) fn audit(&mut self) {
        let before = self.rows();
        self.machine.power_off(&mut self.sched);
        self.start_node();
        // It may take its time, but not for ever.
        let end = self.sched.now + Duration::from_secs(60);
        while self.listed("").is_none()
            && let Some(event) = self.sched.pop(end)
        {
            if let Event::Node(..) = event {
                self.handle(event);
            }
        }
        if !self.record.violations.is_empty() {
            return;
        }
        for ((shard, old), (_, new)) in before.iter().zip(self.rows()) {
            let is_same = |row: &&(bytes::Bytes, bytes::Bytes)| new.contains(row);
            let differ =
                old.iter().find(|row| !is_same(row)).or(new.iter().find(|r| !old.contains(r)));
            if let Some((key, _)) = differ {
                let (key, old, new) = (key.escape_ascii(), old.len(), new.len());
                self.record.fail(format!(
                    "a crash and a restart changed {old} rows of shard {shard} to {new}: {key}"
                ));
            }
        }
        let mut histories = Histories::default();
        let deletes = self.record.ops.iter().filter(|op| op.kind.name == "delete");
        histories.deleted = deletes.map(|op| op.request.workflow_id.clone()).collect();
        let Some(runs) = self.listed("") else {
            return self.record.fail("the node does not come up at the end");
        };
        for (workflow_id, run) in runs {
            let shard = shard_of(self.setup.shards, NAMESPACE, &workflow_id);
            let Some(state) = self.state_of(shard, run) else {
                self.record.fail(format!("run {run} is listed and cannot be read"));
                continue;
            };
            let shell = self.machine.up.as_ref().and_then(|up| up.shards.get(&shard));
            let Some(shell) = shell else { continue };
            match shell.shard.events(run, 1..i64::MAX, usize::MAX) {
                Ok(events) => {
                    let id = run.to_string();
                    histories.runs.insert(id.clone(), Run::new(id, workflow_id, events, state));
                }
                Err(error) => self.record.fail(format!("history of run {run}: {error}")),
            }
        }
        for (shard, rows) in self.rows() {
            for (key, row) in rows {
                // A wake-up of a closed run stays: it is deleted then.
                match key.first() {
                    Some(b'q') => self
                        .record
                        .fail(format!("shard {shard} has a task of a closed run left: {row:?}")),
                    Some(b'o') => {
                        self.record.fail(format!("shard {shard} has a message left to deliver"));
                    }
                    _ => {}
                }
            }
        }
        let wrong = check::check(&self.record, &histories);
        self.record.violations.extend(wrong);
        if !self.record.violations.is_empty() {
            for run in histories.runs.values() {
                self.sched.log(|| run.to_string());
            }
        }
    }
}
