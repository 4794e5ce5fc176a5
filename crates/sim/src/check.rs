//! The checker: knows the API's promises and nothing of how they are kept. It reads what
//! clients and workers saw, and the histories that are there at the end.

use std::collections::{BTreeMap, BTreeSet};

use everspan_execution::{convert::duration, fold};
use everspan_proto::{
    enums::EventType::{self, WorkflowExecutionPaused},
    history::{HistoryEvent, history_event::Attributes},
};

use crate::{
    check_messages,
    histories::{Histories, Run, closes_activity, closing, time},
    record::{Op, Record},
    workload::Promise,
};

/// All that is wrong.
pub(crate) fn check(record: &Record, histories: &Histories) -> Vec<String> {
    let mut wrong = Vec::new();
    promises(record, histories, &mut wrong);
    let ops: BTreeMap<&str, &Op> = record.ops.iter().map(|op| (op.name.as_str(), op)).collect();
    for run in histories.runs.values() {
        let mut complain = |what: String| wrong.push(format!("run {}: {what}", run.id));
        shape(run, &mut complain);
        workflow_tasks(run, &mut complain);
        activities(run, &mut complain);
        timers(run, record, &mut complain);
        causes(run, &ops, &mut complain);
        for event in &run.events {
            if !record.is_as_seen(&run.id, event) {
                complain(format!("event {} is not what was shown before", event.event_id));
            }
        }
        folded(run, &mut complain);
    }
    for (run, event) in record.seen.keys() {
        let is_there = histories
            .runs
            .get(run)
            .is_some_and(|r| r.events.last().is_some_and(|last| last.event_id >= *event));
        if !is_there && !is_deleted(record, histories, run) {
            wrong.push(format!("event {event} of run {run} was shown and is gone"));
        }
    }
    check_messages::check(record, histories, &mut wrong);
    one_open_run(histories, &mut wrong);
    once(histories, &mut wrong);
    wrong
}

/// Whether a run may be gone.
fn is_deleted(record: &Record, histories: &Histories, run: &str) -> bool {
    !histories.runs.contains_key(run)
        && record
            .known_runs
            .iter()
            .any(|(id, runs)| histories.deleted.contains(id) && runs.iter().any(|r| r == run))
}

/// Every acknowledged call is in a history.
fn promises(record: &Record, histories: &Histories, wrong: &mut Vec<String>) {
    for op in &record.ops {
        let is_promised = !histories.deleted.contains(&op.request.workflow_id);
        for (at, reply) in op.acknowledged() {
            let promise = Promise { op, at, reply, histories };
            if is_promised && let Err(what) = (op.kind.check)(&promise) {
                let (name, kind, workflow_id) = (&op.name, op.kind.name, &op.request.workflow_id);
                wrong.push(format!("{name} ({kind} of {workflow_id}) was acknowledged: {what}"));
            }
        }
        for left in &op.left {
            if let Err(everspan_types::Error::AlreadyStarted { run_id, .. }) = &left.result
                && !histories.runs.contains_key(run_id)
                && is_promised
            {
                wrong.push(format!("{} was told of run {run_id}, which does not exist", op.name));
            }
            if let Err(everspan_types::Error::Internal(what)) = &left.result {
                wrong.push(format!("{} got an internal error: {what}", op.name));
            }
        }
    }
}

/// Event IDs ascend from 1; a run starts once, at its beginning, and closes once, at its end.
fn shape(run: &Run, complain: &mut dyn FnMut(String)) {
    for (event, expected) in run.events.iter().zip(1..) {
        if event.event_id != expected {
            complain(format!("event {} stands where {expected} should", event.event_id));
        }
        let is_first = event.event_type() == EventType::WorkflowExecutionStarted;
        if is_first != (expected == 1) {
            complain(format!("event {expected} is {:?}", event.event_type()));
        }
    }
    let closes: Vec<i64> = run
        .events
        .iter()
        .filter(|e| closing(e.event_type()).is_some())
        .map(|e| e.event_id)
        .collect();
    let last = run.events.last().map_or(0, |e| e.event_id);
    match closes[..] {
        [] => complain("it is still open".into()),
        [close] if close == last => {}
        _ => complain(format!("it closes at {closes:?}, and ends at {last}")),
    }
    let asked = run
        .events
        .iter()
        .filter(|e| e.event_type() == EventType::WorkflowExecutionCancelRequested)
        .count();
    if asked > 1 {
        complain(format!("it was asked to cancel {asked} times"));
    }
}

/// Workflow tasks follow each other: scheduled, started, ended.
fn workflow_tasks(run: &Run, complain: &mut dyn FnMut(String)) {
    let (mut scheduled, mut started) = (0, 0);
    for event in &run.events {
        let id = event.event_id;
        let is_right = match &event.attributes {
            Some(Attributes::WorkflowTaskScheduledEventAttributes(_)) => {
                let is_right = scheduled == 0 && started == 0;
                scheduled = id;
                is_right
            }
            Some(Attributes::WorkflowTaskStartedEventAttributes(a)) => {
                let is_right = scheduled != 0 && a.scheduled_event_id == scheduled && started == 0;
                started = id;
                is_right
            }
            Some(Attributes::WorkflowTaskCompletedEventAttributes(a)) => {
                let is_right = (a.scheduled_event_id, a.started_event_id) == (scheduled, started)
                    && started != 0;
                (scheduled, started) = (0, 0);
                is_right
            }
            Some(Attributes::WorkflowTaskFailedEventAttributes(a)) => {
                // A pause takes a task back that waits for a worker.
                let is_taken_back = run
                    .events
                    .iter()
                    .any(|e| e.event_id == id + 1 && e.event_type() == WorkflowExecutionPaused);
                let is_right = (a.scheduled_event_id, a.started_event_id) == (scheduled, started)
                    && (started != 0 || is_taken_back && scheduled != 0);
                (scheduled, started) = (0, 0);
                is_right
            }
            Some(Attributes::WorkflowTaskTimedOutEventAttributes(a)) => {
                let is_right = (a.scheduled_event_id, a.started_event_id) == (scheduled, started)
                    && scheduled != 0;
                (scheduled, started) = (0, 0);
                is_right
            }
            _ => true,
        };
        if !is_right {
            complain(format!("event {id}, {:?}, does not follow", event.event_type()));
        }
    }
}

/// Each activity is scheduled, perhaps started, and closed at most once.
fn activities(run: &Run, complain: &mut dyn FnMut(String)) {
    let mut open: BTreeMap<i64, Option<i64>> = BTreeMap::new();
    for event in &run.events {
        match &event.attributes {
            Some(Attributes::ActivityTaskScheduledEventAttributes(_)) => {
                open.insert(event.event_id, None);
            }
            Some(Attributes::ActivityTaskStartedEventAttributes(a)) => {
                match open.get_mut(&a.scheduled_event_id) {
                    Some(started @ None) => *started = Some(event.event_id),
                    _ => complain(format!("event {} starts no activity", event.event_id)),
                }
            }
            _ => {}
        }
        if let Some((scheduled, started)) = closes_activity(event) {
            let expected = open.remove(&scheduled).map(Option::unwrap_or_default);
            if expected != Some(started) {
                complain(format!(
                    "event {} closes activity {scheduled}, started by {started}; that is {expected:?}",
                    event.event_id
                ));
            }
        }
    }
}

/// Timers fire once and not early, neither by the times in history nor by the node's clock.
fn timers(run: &Run, record: &Record, complain: &mut dyn FnMut(String)) {
    let mut running: BTreeMap<i64, &HistoryEvent> = BTreeMap::new();
    for event in &run.events {
        match &event.attributes {
            Some(Attributes::TimerStartedEventAttributes(_)) => {
                running.insert(event.event_id, event);
            }
            Some(Attributes::TimerCanceledEventAttributes(a))
                if running.remove(&a.started_event_id).is_none() =>
            {
                complain(format!("event {} cancels no timer", event.event_id));
            }
            Some(Attributes::TimerFiredEventAttributes(a)) => {
                let Some(begun) = running.remove(&a.started_event_id) else {
                    complain(format!("event {} fires no timer", event.event_id));
                    continue;
                };
                let Some(Attributes::TimerStartedEventAttributes(b)) = &begun.attributes else {
                    continue;
                };
                let due = time(begun) + duration(b.start_to_fire_timeout.as_ref());
                if time(event) < due {
                    complain(format!(
                        "timer {} fired at {:?}, due {due:?}",
                        a.timer_id,
                        time(event)
                    ));
                }
                let seen = record.seen.get(&(run.id.clone(), event.event_id));
                if let Some(seen) = seen.filter(|s| s.node_time < due) {
                    let at = seen.node_time;
                    complain(format!(
                        "timer {} was seen to fire at {at:?}, due {due:?}",
                        a.timer_id
                    ));
                }
            }
            _ => {}
        }
    }
}

/// Every event that a call causes has a call that was made, of this workflow.
fn causes(run: &Run, ops: &BTreeMap<&str, &Op>, complain: &mut dyn FnMut(String)) {
    for event in &run.events {
        let by = match &event.attributes {
            Some(Attributes::WorkflowExecutionStartedEventAttributes(a)) if run.is_first() => {
                &a.identity
            }
            // What another execution did is asked for in its history: see `check_messages`.
            Some(Attributes::WorkflowExecutionSignaledEventAttributes(a))
                if a.external_workflow_execution.is_none() =>
            {
                &a.identity
            }
            Some(Attributes::WorkflowExecutionCancelRequestedEventAttributes(a))
                if a.external_workflow_execution.is_none() =>
            {
                &a.identity
            }
            Some(Attributes::WorkflowTaskCompletedEventAttributes(a)) => &a.identity,
            Some(Attributes::ActivityTaskCompletedEventAttributes(a)) => &a.identity,
            _ => continue,
        };
        // A reset takes over what another execution said without saying who it was.
        let is_taken_over = run.copied_up_to > 0 && !by.starts_with("op");
        let is_caused = ops
            .get(by.as_str())
            .is_some_and(|op| op.first_sent.is_some() && op.request.workflow_id == run.workflow_id);
        if !is_caused && !is_taken_over {
            complain(format!("event {} was caused by nobody ({by})", event.event_id));
        }
    }
}

/// The events fold to the stored state.
fn folded(run: &Run, complain: &mut dyn FnMut(String)) {
    let held = run.state.buffered.values().map(|b| &b.0);
    let read = fold::replay(&run.events, held);
    let (folded, stored) = (fold::durable(&read), fold::durable(&run.state));
    if folded != stored {
        complain(format!("history folds to {folded:?}, and stored is {stored:?}"));
    }
}

/// No two runs of a workflow ID are open at a time.
fn one_open_run(histories: &Histories, wrong: &mut Vec<String>) {
    let ids: BTreeSet<&String> = histories.runs.values().map(|r| &r.workflow_id).collect();
    for id in ids {
        let mut runs: Vec<&Run> = histories.of(id).collect();
        // A run that takes another's place starts in the instant in which that one ends.
        runs.sort_by_key(|r| (r.started_at, r.closed_at));
        for pair in runs.windows(2) {
            if pair[0].closed_at.is_none_or(|closed| closed > pair[1].started_at) {
                wrong.push(format!(
                    "workflow {id} had two open runs: {} from {:?} to {:?}, {} from {:?}",
                    pair[0].id,
                    pair[0].started_at,
                    pair[0].closed_at,
                    pair[1].id,
                    pair[1].started_at
                ));
            }
        }
    }
}

/// What is asked once, by one request ID, happens once.
fn once(histories: &Histories, wrong: &mut Vec<String>) {
    let mut starts: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    let mut completions: BTreeSet<&str> = BTreeSet::new();
    for run in histories.runs.values() {
        if run.is_first() {
            starts.entry(&run.started_by).or_default().push(run);
        }
        let mut signals = BTreeSet::new();
        for signal in &run.signals {
            if !signals.insert(signal) {
                wrong.push(format!("run {} has signal {signal} twice", run.id));
            }
        }
        for event in run.own_events() {
            if let Some(Attributes::WorkflowTaskCompletedEventAttributes(a)) = &event.attributes
                && !completions.insert(&a.identity)
            {
                wrong.push(format!("{} completed two workflow tasks", a.identity));
            }
        }
    }
    for (name, mut runs) in starts {
        runs.sort_by_key(|r| (r.started_at, r.closed_at));
        for pair in runs.windows(2) {
            // The request ID is the latest run's: another run in between makes it forgotten,
            // here as with the real server. A signal-with-start is not held to it.
            let is_forgotten = histories.deleted.contains(&pair[0].workflow_id)
                || pair[0].signals.iter().any(|s| s == name)
                || histories.of(&pair[0].workflow_id).any(|r| {
                    r.id != pair[0].id
                        && r.id != pair[1].id
                        && r.started_at >= pair[0].started_at
                        && r.started_at <= pair[1].started_at
                });
            if !is_forgotten {
                wrong.push(format!("{name} started runs {} and {}", pair[0].id, pair[1].id));
            }
        }
    }
}
