//! The shell around the rows of one replica on their way to another: a replica that was away so
//! long that the log has let go what it lacks. Why that is right is in `everspan_storage`.
//!
//! Pages come one at a time, no faster than checkpoints write them. When all are on disk, the log
//! goes on after them.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler};
use bytes::Bytes;
use everspan_storage::{Copying, Page};
use everspan_types::{Error, Result};
use tracing::{error, info, warn};

use crate::actor::ShardActor;

/// Bytes of a page.
const PAGE_BYTES: usize = 512 << 10;
/// Bytes a second that one shard copies at most, so that those it is copied from can work.
const BYTES_PER_SECOND: f64 = 64e6;
/// Wait before a page that could not be had is asked for again, or one that does not fit yet.
const AGAIN: Duration = Duration::from_millis(200);

/// A copy under way.
pub(crate) struct Copy {
    copying: Copying,
    /// Whom to ask.
    from: u64,
    bytes: u64,
}

impl Copy {
    pub(crate) fn is_done(&self) -> bool {
        self.copying.is_done()
    }

    pub(crate) fn restart(&mut self) {
        self.copying.restart();
    }
}

/// A page that was asked for.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Rows(Result<Page>);

impl ShardActor {
    /// Gives another replica a page.
    pub(crate) fn rows(&self, index: u64, from: &Bytes) -> Result<Page> {
        let core = self.shared.borrow();
        let shard = core.shard.id;
        if self.copy.is_some() || core.shard.table.applied() < index {
            return Err(Error::unavailable(format!("shard {shard} is not at entry {index} here")));
        }
        core.shard.table.page(from, PAGE_BYTES).map_err(|e| Error::internal(e.to_string()))
    }

    pub(crate) fn begin_copy(&mut self, index: u64, term: u64, from: u64, ctx: &mut Context<Self>) {
        info!(shard = %self.shared.borrow().shard.id, index, from, "rows are copied from there");
        self.copy = Some(Copy { copying: Copying::new(index, term), from, bytes: 0 });
        self.fetch(ctx);
    }

    /// Says that the copy goes on, to whom offered it.
    pub(crate) fn sign_of_copy(&self) {
        if let Some(copy) = &self.copy {
            self.log.fetching(u64::from(self.shared.borrow().shard.id.0), copy.from);
        }
    }

    /// Asks for the next page.
    fn fetch(&mut self, ctx: &mut Context<Self>) {
        let Some(copy) = &self.copy else { return };
        let (shard, bytes) = {
            let core = self.shared.borrow();
            (core.shard.id, core.shard.table.memory_bytes())
        };
        if bytes > self.rule.bytes.saturating_mul(2) {
            self.checkpoint_if_due(ctx);
            ctx.run_later(AGAIN, Self::fetch);
            return;
        }
        let (index, next, from) = (copy.copying.index(), copy.copying.next().clone(), copy.from);
        let (peers, addr) = (self.peers.clone(), ctx.address());
        actix::spawn(async move {
            addr.do_send(Rows(peers.rows(from, shard, index, next).await));
        });
    }

    /// What was copied is on disk, if all of it was copied: the log goes on from there.
    pub(crate) fn copy_is_written(&mut self) {
        let Some(copy) = self.copy.take_if(|copy| copy.is_done()) else { return };
        let (shard, durable) = {
            let core = self.shared.borrow();
            (core.shard.id, core.shard.table.durable())
        };
        let index = copy.copying.index();
        if durable < index {
            // It failed, or began before all was there: the next tick has another.
            self.copy = Some(copy);
            return;
        }
        info!(%shard, index, bytes = copy.bytes, "rows are copied");
        self.log.restored(u64::from(shard.0), index);
    }
}

impl Handler<Rows> for ShardActor {
    type Result = ();
    fn handle(&mut self, rows: Rows, ctx: &mut Self::Context) {
        let Some(copy) = &mut self.copy else { return };
        let core = &mut *self.shared.borrow_mut();
        let shard = core.shard.id;
        let page = match rows.0 {
            Ok(page) => page,
            Err(error) => {
                // Any replica that has come so far will do.
                let me = self.routes.peers().me();
                let others: Vec<u64> =
                    self.routes.replicas(shard).into_iter().filter(|node| *node != me).collect();
                let place = others.iter().position(|node| *node == copy.from).unwrap_or(0);
                warn!(%shard, from = copy.from, %error, "rows cannot be had");
                if let Some(other) = others.get((place + 1) % others.len().max(1)) {
                    copy.from = *other;
                }
                ctx.run_later(AGAIN, Self::fetch);
                return;
            }
        };
        let bytes = page.bytes();
        copy.bytes += bytes as u64;
        if let Err(error) = copy.copying.take(&mut core.shard.table, page) {
            error!(%shard, %error, "copied rows cannot be taken; they are asked for again");
            ctx.run_later(AGAIN, Self::fetch);
            return;
        }
        if copy.is_done() {
            self.restored_at = copy.copying.index();
            ctx.notify(CheckpointNow);
            return;
        }
        let pause = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND);
        ctx.run_later(pause, Self::fetch);
    }
}

/// All is copied and is to be written.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct CheckpointNow;

impl Handler<CheckpointNow> for ShardActor {
    type Result = ();
    fn handle(&mut self, _: CheckpointNow, ctx: &mut Self::Context) {
        self.checkpoint_if_due(ctx);
    }
}
