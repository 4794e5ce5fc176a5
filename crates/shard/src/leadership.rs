//! How the leadership of a shard comes to its replica on this node, and goes: by election, by being
//! handed over, or because it is lost.

use std::time::Duration;

use actix::{AsyncContext, Context};
use everspan_types::{Error, Result};
use tokio::sync::oneshot;
use tracing::{error, info};

use crate::{actor::ShardActor, execution_actor::Abandon, metrics};

/// Wait before a shard whose rows could not be read tries to lead again.
const LEAD_AGAIN: Duration = Duration::from_secs(1);
/// A log that cannot be written for so many ticks is given up, where another replica may lead.
const STALLED_TICKS_MAX: u32 = 2;
/// A hand-over that nobody took after so long came to nothing.
const TRANSFER_MAX: Duration = Duration::from_secs(2);
/// What a shard that is handed over has under way is looked at so often.
const SETTLE: Duration = Duration::from_millis(20);

impl ShardActor {
    /// Leads from here on. If rows that this takes cannot be read: a shard that never led says
    /// so to whoever starts it, one that led tries again until it loses the leadership.
    pub(crate) fn lead(&mut self, term: u64, ctx: &mut Context<Self>) {
        if let Some(waiting) = self.leads_later.take() {
            ctx.cancel_future(waiting);
        }
        if let Err(error) = self.load_to_lead(ctx) {
            error!(shard = %self.shared.borrow().shard.id, term, %error,
                "the shard cannot lead yet: rows cannot be read");
            if let Some(tell) = self.on_leading.take() {
                tell(Err(error));
                return;
            }
            self.leads_later = Some(ctx.run_later(LEAD_AGAIN, move |actor, ctx| {
                actor.leads_later = None;
                actor.lead(term, ctx);
            }));
            return;
        }
        {
            let core = &mut *self.shared.borrow_mut();
            let counted = if core.is_leading { core.shard.open_runs() } else { 0 };
            if let Err(error) = core.shard.load_open_runs() {
                // For the metrics only.
                error!(shard = %core.shard.id, %error, "open runs are not counted");
            }
            metrics::add(&metrics::OPEN_EXECUTIONS, core.shard.open_runs() - counted);
            if !core.is_leading {
                metrics::add(&metrics::SHARD_ACTORS, 1);
            }
            core.lead(term);
            self.is_handed_over = false;
            self.routes.learn(core.shard.id, self.routes.peers().me());
            info!(shard = %core.shard.id, term, "shard leads");
        }
        self.wake_due();
        self.rearm(ctx);
        if let Some(tell) = self.on_leading.take() {
            tell(Ok(()));
        }
    }

    fn load_to_lead(&mut self, ctx: &mut Context<Self>) -> Result<()> {
        {
            let core = &mut *self.shared.borrow_mut();
            let now = core.now();
            core.shard.load_wakes(now)?;
        }
        self.load_outbox(ctx)
    }

    /// Another replica leads, or none.
    pub(crate) fn follow(&mut self, leader: u64) {
        let id = self.shared.borrow().shard.id;
        info!(shard = %id, leader, "shard follows");
        self.is_handed_over &= leader == 0;
        self.routes.learn(id, leader);
    }

    /// Gives the leadership away: takes nothing more, lets what was decided be committed, and has
    /// the replica on node `to` lead.
    pub(crate) fn hand_over(
        &mut self,
        to: u64,
        done: oneshot::Sender<()>,
        ctx: &mut Context<Self>,
    ) {
        {
            let core = &mut *self.shared.borrow_mut();
            if !core.is_leading {
                let _ = done.send(());
                return;
            }
            core.is_handing_over = true;
        }
        ctx.run_later(SETTLE, move |actor, ctx| {
            // It may have been lost meanwhile, or handed over by another who asked.
            let is_ready = {
                let core = actor.shared.borrow();
                core.is_leading && core.is_settled()
            };
            if !is_ready {
                return actor.hand_over(to, done, ctx);
            }
            let id = actor.shared.borrow().shard.id;
            info!(shard = %id, to, "shard is handed over");
            // Of those who wait still, nothing was decided that is not known to them.
            let moved = Error::Moved { shard: id, leader: 0 };
            actor.abandon(&moved, ctx);
            actor.is_handed_over = true;
            actor.log.transfer(u64::from(id.0), to);
            let _ = done.send(());
            ctx.run_later(TRANSFER_MAX, move |actor, _| {
                // It came to nothing: the log leads still, and says so in a new term.
                if std::mem::take(&mut actor.is_handed_over) {
                    actor.log.give_up(u64::from(id.0));
                }
            });
        });
    }

    pub(crate) fn abandon(&mut self, error: &Error, ctx: &mut Context<Self>) {
        if let Some(waiting) = self.leads_later.take() {
            ctx.cancel_future(waiting);
        }
        self.inbox.refuse("leadership of the shard was lost");
        let core = &mut *self.shared.borrow_mut();
        core.is_handing_over = false;
        self.routes.learn(core.shard.id, 0);
        if std::mem::replace(&mut core.is_leading, false) {
            metrics::add(&metrics::SHARD_ACTORS, -1);
            metrics::add(&metrics::OPEN_EXECUTIONS, -core.shard.open_runs());
        }
        for (_, slot) in core.runs.drain() {
            slot.addr.do_send(Abandon);
        }
        core.shard.forget_proposed();
        core.shard.backlog_counts.clear();
        core.fail_all(error);
    }

    /// Lets those go who wait for a log that cannot be written: another replica answers them. What
    /// they asked for may still be done if the log can be written again before that.
    pub(crate) fn give_up_if_stalled(&mut self) {
        let core = self.shared.borrow();
        let others_may = core.is_leading && !self.routes.peers().is_alone();
        if !others_may || self.log.stalled().is_none() {
            self.stalled_ticks = 0;
            return;
        }
        self.stalled_ticks += 1;
        if self.stalled_ticks == STALLED_TICKS_MAX {
            self.log.give_up(u64::from(core.shard.id.0));
        }
    }
}
