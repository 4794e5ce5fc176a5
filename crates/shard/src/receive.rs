//! What a message from another execution does here.

use std::sync::Arc;

use everspan_execution::{
    self as execution, Start, Turn,
    message::{Body, Message},
};
use everspan_types::{Error, Result, RunId, Time};

use crate::{
    outcome::Outcome,
    run::Run,
    shard::{Route, Shard},
    start::TERMINATE_IF_RUNNING,
};

impl Shard {
    /// Finds where a message goes; `None` where it goes nowhere.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn route_message(&self, message: &Message) -> Result<Option<Route>> {
        if let Some(run) = message.run_id {
            return Ok(Some(Route::Run(run)));
        }
        let current = self.current(message.namespace, &message.workflow_id)?;
        Ok(match (&message.body, current) {
            (Body::StartChild { request, .. }, Some(current)) => {
                let is_here = current.start_request_id == request.request_id;
                if is_here || current.is_running() {
                    Some(Route::Run(current.run_id))
                } else {
                    let policy = request.workflow_id_reuse_policy();
                    let is_free = current.check_reuse(&message.workflow_id, policy).is_ok();
                    is_free.then_some(Route::Start)
                }
            }
            (Body::StartChild { .. }, None) => Some(Route::Start),
            (_, current) => current.map(|c| Route::Run(c.run_id)),
        })
    }

    /// Starts a child under `new_run`, and tells its parent.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for settings that make no sense, which the parent's shard refused.
    pub fn start_child(&mut self, now: Time, new_run: RunId, message: &Message) -> Result<Outcome> {
        let mut out = Outcome::default();
        let run = self.begin_child(now, new_run, message, &mut out)?;
        out.runs.push(run);
        self.post(&message.started(new_run), &mut out);
        Ok(out)
    }

    /// Starts a child and tells nobody yet: what fails after this leaves no trace.
    fn begin_child(
        &mut self,
        now: Time,
        new_run: RunId,
        message: &Message,
        out: &mut Outcome,
    ) -> Result<Run> {
        let Body::StartChild { request, root } = &message.body else {
            return Err(Error::internal(format!("{} starts no child", message.name())));
        };
        let start = Start {
            namespace: message.namespace,
            run_id: new_run,
            request,
            signal: None,
            parent: Some((message.sender.clone(), root.clone())),
            chain: None,
        };
        self.begin(now, start, out)
    }

    /// Answers a message that finds nobody.
    pub fn receive_for_nobody(&mut self, message: &Message) -> Outcome {
        let mut out = Outcome::default();
        let answer = match message.body {
            Body::StartChild { .. } => Some(message.not_started()),
            _ => message.not_found(),
        };
        if let Some(answer) = answer {
            self.post(&answer, &mut out);
        }
        out
    }
}

impl Run {
    /// Takes a message from another execution.
    ///
    /// # Errors
    /// If rows that it takes cannot be read; nothing changed then.
    pub fn receive(&mut self, shard: &mut Shard, now: Time, message: &Message) -> Result<Outcome> {
        let mut out = Outcome::default();
        let id = message.sender.initiated_event_id;
        if let Some(to) =
            self.state.info.reset_to.as_ref().filter(|to| {
                message.is_answer() && id < to.from_event_id && !self.state.is_running()
            })
        {
            // What it speaks of is in the history of the run that went on.
            shard.post(&Message { run_id: Some(to.run_id), ..message.clone() }, &mut out);
            return Ok(out);
        }
        let mut told = |run: &mut Run, shard: &mut Shard, tell: &dyn Fn(&mut Turn<'_>)| {
            run.change(shard, now, &mut out, |turn| {
                tell(turn);
                Ok(())
            })
        };
        match &message.body {
            Body::ChildStarted { run_id, header } => {
                told(self, shard, &|t| t.child_started(id, *run_id, header.clone()))?;
                return Ok(out);
            }
            Body::ChildNotStarted { cause } => {
                told(self, shard, &|t| t.child_not_started(id, *cause))?;
                return Ok(out);
            }
            Body::ChildClosed { first_run_id, run_id, event } => {
                told(self, shard, &|t| {
                    t.child_closed(id, *first_run_id, *run_id, event);
                })?;
                return Ok(out);
            }
            Body::SignalAnswer { failed } => {
                told(self, shard, &|t| t.signal_answered(id, *failed))?;
                return Ok(out);
            }
            Body::CancelAnswer { failed } => {
                told(self, shard, &|t| t.cancel_answered(id, *failed))?;
                return Ok(out);
            }
            Body::StartChild { request, .. } => {
                let is_here = self.state.info.start_request_id == request.request_id;
                let makes_room = request.workflow_id_reuse_policy == TERMINATE_IF_RUNNING;
                if !is_here && makes_room && self.state.is_running() {
                    return self.make_room(shard, now, message);
                }
                let answer =
                    if is_here { message.started(self.id()) } else { message.not_started() };
                shard.post(&answer, &mut out);
                return Ok(out);
            }
            Body::Signal { .. } | Body::Cancel { .. } | Body::Terminate { .. } => {}
        }
        let sender = &message.sender;
        let taken = self.change(shard, now, &mut out, |t| match &message.body {
            Body::Signal { request, child_only } => t.signal_from(sender, request, *child_only),
            Body::Cancel { request, child_only, answer } => {
                t.cancel_from(sender, request, *child_only, *answer)
            }
            Body::Terminate { first_run_id } => t.terminate_from(sender, first_run_id),
            _ => Ok(()),
        });
        let answer = match taken {
            Ok(()) => message.done(),
            Err(Error::InvalidArgument(_)) => message.too_many_signals(),
            // What cannot be read now is not gone.
            Err(e @ (Error::Internal(_) | Error::Unavailable(_))) => return Err(e),
            Err(Error::ResourceExhausted { message: reason, .. }) => {
                // The workflow is about to close; the message is delivered again.
                return Err(Error::Unavailable(reason));
            }
            Err(_) => message.not_found(),
        };
        if let Some(answer) = answer {
            shard.post(&answer, &mut out);
        }
        Ok(out)
    }

    /// Terminates this run, and starts the child that has its workflow ID, in one change.
    fn make_room(&mut self, shard: &mut Shard, now: Time, message: &Message) -> Result<Outcome> {
        // 0 to 2 are the runs that follow this one of themselves.
        let new_run = RunId::derived(now, self.id(), 3);
        let mut begun = Outcome::default();
        let child = shard.begin_child(now, new_run, message, &mut begun)?;
        let mut out = Outcome::default();
        self.change(shard, now, &mut out, |turn| {
            turn.terminate_for_new_run(&new_run.to_string());
            Ok(())
        })?;
        // The new run's rows come last, so that it is the latest of its ID, and after them the
        // answer: messages are numbered in the order of the batch.
        out.batch.ops.extend(begun.batch.ops);
        out.effects.extend(begun.effects);
        out.runs.push(child);
        shard.post(&message.started(new_run), &mut out);
        Ok(out)
    }

    /// The run's first event, where the change at hand may need it.
    pub(crate) fn started_event(
        &mut self,
        shard: &Shard,
        is_needed: bool,
    ) -> Result<Option<Arc<everspan_proto::history::HistoryEvent>>> {
        if !is_needed && !execution::may_repeat(&self.state) {
            return Ok(None);
        }
        if self.started.is_none() {
            self.started = Some(Arc::new(shard.event(self.id(), 1)?));
        }
        Ok(self.started.clone())
    }
}
