//! Deleting a run: everything that the shard has of it goes in one change.

use bytes::Bytes;
use everspan_storage::Batch;
use everspan_types::{Error, Result, Time};
use everspan_visibility as visibility;

use crate::{
    call::Reply,
    keys,
    outcome::{Effect, Outcome},
    run::Run,
    shard::Shard,
};

/// Rows read at a time on the way through a run's history.
const PAGE: usize = 128;

impl Run {
    /// Whether the run was deleted; what is still sent to it finds nobody.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.is_deleted
    }

    /// Deletes the run at a caller's wish; an open one is terminated first.
    pub(crate) fn delete(
        &mut self,
        shard: &mut Shard,
        now: Time,
        out: &mut Outcome,
    ) -> Result<Option<Reply>> {
        if self.state.is_running() {
            self.change(shard, now, out, |turn| {
                turn.terminate_for_delete();
                Ok(())
            })?;
        }
        self.purge(shard, out)?;
        Ok(Some(Reply::DeleteWorkflowExecution(Box::default())))
    }

    /// Removes a closed run's rows, those that `out` is about to write included.
    pub(crate) fn purge(&mut self, shard: &mut Shard, out: &mut Outcome) -> Result<()> {
        let prefixes = [keys::run(self.id()), keys::histories(self.id())];
        let mut gone = Batch::default();
        for prefix in &prefixes {
            let (mut start, end) = (prefix.clone(), keys::past(prefix));
            loop {
                let rows = shard.scan(&start, &end, PAGE)?;
                let Some((last, _)) = rows.last() else { break };
                start = [last.as_ref(), &[0]].concat();
                let is_last = rows.len() < PAGE;
                gone.ops.extend(rows.into_iter().map(|(key, _)| (key, None)));
                if is_last {
                    break;
                }
            }
        }
        let info = &self.state.info;
        let current = shard.current(info.namespace, &info.workflow_id)?;
        let is_own = |key: &Bytes| prefixes.iter().any(|p| key.starts_with(p));
        out.batch.ops.retain(|(key, _)| !is_own(key));
        out.batch.merge(gone);
        if current.is_some_and(|c| c.run_id == info.run_id) {
            out.batch.delete(keys::current(info.namespace, &info.workflow_id));
        }
        for (key, value) in visibility::change(keys::VISIBILITY, self.record.as_ref(), None) {
            out.batch.set(key, value);
        }
        self.record = None;
        shard.set_wake(self.id(), self.state.info.wake_at.take(), None, &mut out.batch);
        let missing = Error::not_found(format!(
            "workflow execution not found for workflow ID \"{}\" and run ID \"{}\"",
            self.workflow_id(),
            self.id()
        ));
        for call in self.waiting() {
            out.effects.push(Effect::Reply(call, Err(missing.clone())));
        }
        self.forget(|_| true);
        self.is_deleted = true;
        Ok(())
    }
}
