//! Reading a run's history from outside, and waiting for more of it.

use std::time::Duration;

use bytes::Bytes;
use everspan_execution::{self as execution, Transition};
use everspan_proto::{enums::HistoryEventFilterType, history::History, workflowservice as api};
use everspan_types::{Error, Result, Time};

use crate::{
    call::Reply,
    history::Token,
    outcome::{CallId, Effect, Outcome},
    run::Run,
    shard::Shard,
};

/// Longest wait for new events before an empty answer; the real server's.
const LONG_POLL_MAX: Duration = Duration::from_secs(20);
/// How long before the caller's deadline a long poll is answered.
const LONG_POLL_MARGIN: Duration = Duration::from_millis(500);
/// Most readers waiting on one run.
const WAITERS_MAX: usize = 1_000;

/// A reader that waits for events.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) call: CallId,
    pub(crate) deadline: Time,
    /// Where it continues.
    token: Token,
    /// Whether it waits for the close only.
    close_only: bool,
    limit: usize,
}

impl Run {
    pub(crate) fn get_history(
        &mut self,
        shard: &Shard,
        now: Time,
        id: CallId,
        r: &api::GetWorkflowExecutionHistoryRequest,
        deadline: Time,
    ) -> Result<Option<Reply>> {
        let close_only = r.history_event_filter_type() == HistoryEventFilterType::CloseEvent;
        let limit = page_limit(r.maximum_page_size, shard);
        let end = self.state.info.next_event_id;
        let is_running = self.state.is_running();
        let is_first = r.next_page_token.is_empty();
        let mut token = if is_first {
            Token { run_id: self.id(), from: 1, to: end, is_running }
        } else {
            let token = Token::from_bytes(&r.next_page_token)?;
            if token.run_id != self.id() {
                return Err(Error::invalid(
                    "RunId in the request does not match the NextPageToken.",
                ));
            }
            token
        };
        let has_read_all = token.from >= token.to;
        if !is_first && has_read_all && r.wait_new_event && token.is_running {
            token.to = end;
            token.is_running = is_running;
        }
        if !is_first && !has_read_all && !r.wait_new_event {
            // A speculative task that a worker has may have been written since the first page; its
            // history is not whole without.
            token.to = token.to.max(end);
        }
        let has_news = if close_only { !is_running } else { token.from < token.to };
        if r.wait_new_event && is_running && !has_news {
            if self.waiters.len() >= WAITERS_MAX {
                return Err(Error::unavailable("too many readers wait on this workflow"));
            }
            let deadline = (now + LONG_POLL_MAX).min(deadline - LONG_POLL_MARGIN).max(now);
            self.waiters.push(Waiter { call: id, deadline, token, close_only, limit });
            return Ok(None);
        }
        if close_only {
            return self.close_event(shard).map(Some);
        }
        self.page(shard, token, limit, r.wait_new_event).map(Some)
    }

    /// The last event of a closed run; nothing of an open one.
    fn close_event(&self, shard: &Shard) -> Result<Reply> {
        let events = if self.state.is_running() {
            Vec::new()
        } else {
            let end = self.state.info.next_event_id;
            shard.events(self.id(), end - 1..end, 1)?
        };
        Ok(reply(events, Bytes::new()))
    }

    fn page(&self, shard: &Shard, token: Token, limit: usize, wait: bool) -> Result<Reply> {
        let mut events = shard.events(self.id(), token.from..token.to, limit)?;
        let from = events.last().map_or(token.from, |e| e.event_id + 1);
        let has_more = from < token.to;
        if !has_more && token.from < token.to {
            events.extend(execution::transient_events(&self.state, false));
        }
        let goes_on = has_more || (wait && token.is_running);
        let next = if goes_on { Token { from, ..token }.to_bytes() } else { Bytes::new() };
        Ok(reply(events, next))
    }

    pub(crate) fn get_history_reverse(
        &self,
        shard: &Shard,
        r: &api::GetWorkflowExecutionHistoryReverseRequest,
    ) -> Result<Reply> {
        let limit = page_limit(r.maximum_page_size, shard);
        let token = if r.next_page_token.is_empty() {
            let to = self.state.info.next_event_id;
            Token { run_id: self.id(), from: 1, to, is_running: false }
        } else {
            Token::from_bytes(&r.next_page_token)?
        };
        let size = i64::try_from(limit).unwrap_or(i64::MAX);
        let from = token.to.saturating_sub(size).max(1);
        let mut events = shard.events(self.id(), from..token.to, limit)?;
        // A page cut for its size keeps its end, since that is what comes first.
        if events.last().is_some_and(|e| e.event_id + 1 < token.to) {
            let half = (token.to - from) / 2;
            events = shard.events(self.id(), token.to - half.max(1)..token.to, limit)?;
        }
        let reached = events.first().map_or(1, |e| e.event_id);
        events.reverse();
        let next_page_token =
            if reached > 1 { Token { to: reached, ..token }.to_bytes() } else { Bytes::new() };
        Ok(Reply::GetWorkflowExecutionHistoryReverse(Box::new(
            api::GetWorkflowExecutionHistoryReverseResponse {
                history: Some(History { events }),
                next_page_token,
            },
        )))
    }

    /// Answers readers for whom something happened.
    pub(crate) fn notify(&mut self, shard: &Shard, t: &Transition, out: &mut Outcome) {
        if self.waiters.is_empty() || t.events.is_empty() {
            return;
        }
        let is_running = self.state.is_running();
        let end = self.state.info.next_event_id;
        let (ready, rest) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition(|w: &Waiter| !w.close_only || !is_running);
        self.waiters = rest;
        for mut waiter in ready {
            let reply = if waiter.close_only {
                Ok(reply(t.events.last().cloned().into_iter().collect(), Bytes::new()))
            } else {
                waiter.token.to = end;
                waiter.token.is_running = is_running;
                let ids = waiter.token.from..end;
                shard.events_with(&out.batch, self.id(), ids, waiter.limit).map(|events| {
                    let from = events.last().map_or(waiter.token.from, |e| e.event_id + 1);
                    let goes_on = from < end || is_running;
                    let next = Token { from, ..waiter.token };
                    reply(events, if goes_on { next.to_bytes() } else { Bytes::new() })
                })
            };
            out.effects.push(Effect::Reply(waiter.call, reply));
        }
    }

    /// Answers readers who waited long enough, with nothing and the way to go on.
    pub(crate) fn expire_waiters(&mut self, now: Time, out: &mut Outcome) {
        let (due, rest) =
            std::mem::take(&mut self.waiters).into_iter().partition(|w: &Waiter| w.deadline <= now);
        self.waiters = rest;
        for waiter in due {
            let answer = reply(Vec::new(), waiter.token.to_bytes());
            out.effects.push(Effect::Reply(waiter.call, Ok(answer)));
        }
    }
}

fn page_limit(asked: i32, shard: &Shard) -> usize {
    let default = shard.limits.history_page_default;
    match usize::try_from(asked) {
        Ok(n) if n > 0 => n.min(default),
        _ => default,
    }
}

fn reply(events: Vec<everspan_proto::history::HistoryEvent>, next_page_token: Bytes) -> Reply {
    Reply::GetWorkflowExecutionHistory(Box::new(api::GetWorkflowExecutionHistoryResponse {
        history: Some(History { events }),
        next_page_token,
        ..Default::default()
    }))
}
