//! What must hold of any bytes that come from outside or from disk: nothing panics, and what is
//! wrong is answered as the caller's fault.
//!
//! Each function takes what a fuzzer makes up. Records carry a checksum that no fuzzer guesses,
//! so that what it makes up is tried twice: as it is, and as the body of a record whose
//! checksum is right, which is what a forger of tokens sends.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use everspan_broker::{BacklogAsk, Place};
use everspan_execution::State;
use everspan_gateway::Transcoder;
use everspan_meta::Meta;
use everspan_proto::{
    common::{WorkflowExecution, WorkflowType},
    taskqueue::TaskQueue,
    workflowservice as api,
};
use everspan_shard::{
    CallId, Effect, Outbox, Run, Shard, ShardMap,
    call::{Call, ShardCall},
};
use everspan_storage::{Batch, MemStore, Table};
use everspan_types::{
    Error, Limits, NamespaceId, QueryToken, QueueKey, RunId, ShardId, TaskKind, TaskToken, Time,
};
use everspan_visibility::{AttributeType, PageToken, Query, Record, Value, list, rows};
use uuid::Uuid;

const NAMESPACE: NamespaceId = NamespaceId(Uuid::from_u128(1));
const RUN: RunId = RunId(Uuid::from_u128(2));
const WORKFLOW: &str = "order";
const NOW: Time = Time::from_millis(1_000_000);

/// `body` as a record of version 1 with the right checksum: what `everspan_types::encode` and
/// `Batch::encode` put before a body.
#[must_use]
pub fn sealed(body: &[u8]) -> Vec<u8> {
    let mut record = vec![1];
    record.extend(crc32fast::hash(body).to_le_bytes());
    record.extend(body);
    record
}

/// Refused in a way that tells the caller, not us.
fn is_callers(error: &Error) {
    assert!(
        !matches!(error, Error::Internal(_) | Error::Unavailable(_)),
        "the caller's fault told as ours: {error:?}"
    );
}

fn invalid(error: &Error) {
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
}

/// Tokens of tasks, queries, histories and lists.
pub fn tokens(raw: &[u8]) {
    for raw in [raw.to_vec(), sealed(raw)] {
        match TaskToken::from_bytes(&raw) {
            Ok(token) => assert_eq!(TaskToken::from_bytes(&token.to_bytes()), Ok(token)),
            Err(error) => invalid(&error),
        }
        match QueryToken::from_bytes(&raw) {
            Ok(token) => assert_eq!(QueryToken::from_bytes(&token.to_bytes()), Ok(token)),
            Err(error) => invalid(&error),
        }
        match PageToken::from_bytes(&raw) {
            Ok(token) => {
                assert_eq!(PageToken::from_bytes(&token.to_bytes()), Ok(token.clone()));
                read_list(&Listed::of(&[record()]), Some(&token), "");
            }
            Err(error) => invalid(&error),
        }
        forged(&raw);
    }
}

/// Every call that takes a token, on an open run.
fn forged(raw: &[u8]) {
    let token = || Bytes::copy_from_slice(raw);
    let execution =
        || Some(WorkflowExecution { workflow_id: WORKFLOW.into(), run_id: RUN.to_string() });
    let calls = [
        api::RespondWorkflowTaskCompletedRequest { task_token: token(), ..Default::default() }
            .into_call(),
        api::RespondWorkflowTaskFailedRequest { task_token: token(), ..Default::default() }
            .into_call(),
        api::RecordActivityTaskHeartbeatRequest { task_token: token(), ..Default::default() }
            .into_call(),
        api::RespondActivityTaskCompletedRequest { task_token: token(), ..Default::default() }
            .into_call(),
        api::RespondActivityTaskFailedRequest { task_token: token(), ..Default::default() }
            .into_call(),
        api::RespondActivityTaskCanceledRequest { task_token: token(), ..Default::default() }
            .into_call(),
        api::RespondQueryTaskCompletedRequest { task_token: token(), ..Default::default() }
            .into_call(),
        api::GetWorkflowExecutionHistoryRequest {
            execution: execution(),
            next_page_token: token(),
            ..Default::default()
        }
        .into_call(),
        api::GetWorkflowExecutionHistoryRequest {
            execution: execution(),
            next_page_token: token(),
            wait_new_event: true,
            ..Default::default()
        }
        .into_call(),
        api::GetWorkflowExecutionHistoryReverseRequest {
            execution: execution(),
            next_page_token: token(),
            ..Default::default()
        }
        .into_call(),
    ];
    let (mut shard, mut run) = open_run();
    for call in calls {
        if let Err(error) = shard.route(NAMESPACE, WORKFLOW, &call) {
            is_callers(&error);
            continue;
        }
        let outcome = run.handle(&mut shard, NOW, CallId(2), call, Time::MAX);
        for effect in &outcome.effects {
            if let Effect::Reply(_, Err(error)) = effect {
                is_callers(error);
            }
        }
    }
}

/// A shard with one run that has just been started.
fn open_run() -> (Shard, Run) {
    let mut shard = shard_with(&[]);
    let start = api::StartWorkflowExecutionRequest {
        workflow_id: WORKFLOW.into(),
        request_id: "start".into(),
        workflow_type: Some(WorkflowType { name: "Order".into() }),
        task_queue: Some(TaskQueue { name: "orders".into(), ..TaskQueue::default() }),
        ..Default::default()
    };
    let started = shard.start(NOW, CallId(1), NAMESPACE, RUN, &start.into_call(), NOW);
    let Ok((run, outcome)) = started else { panic!("a plain start is refused") };
    shard.table.stage(2, outcome.batch);
    shard.table.commit(2, 2);
    (shard, run)
}

fn shard_with(rows: &[(Vec<u8>, Vec<u8>)]) -> Shard {
    let id = ShardId(1);
    let Ok(mut table) = Table::open(id, Arc::new(MemStore::default())) else {
        panic!("an empty table does not open")
    };
    let mut batch = Batch::default();
    for (key, value) in rows {
        batch.put(key.clone(), value.clone());
    }
    table.stage(1, batch);
    table.commit(1, 1);
    Shard::new(id, table, Arc::new(Limits::default()), ShardMap { count: 1 })
}

/// Rows and log entries as a broken disk may give them back.
pub fn stored(raw: &[u8]) {
    // What is made up serves as a value, and as a key with a value.
    let (key, value) = raw.split_at(raw.first().map_or(0, |n| usize::from(*n)).min(raw.len()));
    for value in [value.to_vec(), sealed(value)] {
        if let Ok(batch) = Batch::decode(&value.clone().into()) {
            assert_eq!(Batch::decode(&batch.encode()), Ok(batch));
        }
        let _ = State::from_rows([(key, value.as_slice())]);
        // Kinds of rows of a run, those to come included.
        for kind in 0..16u8 {
            let mut row = vec![kind];
            row.extend(key.get(1..).unwrap_or_default());
            let _ = State::from_rows([(row.as_slice(), value.as_slice())]);
        }
        for kind in *b"cnsx" {
            let mut row = vec![kind];
            row.extend(key);
            let _ = Meta::load(&[(row.into(), value.clone().into())]);
        }
        if let Ok(record) = Record::from_bytes(&value) {
            let _ = record.to_info();
            let _ = rows(b"v", &record);
        }
        shard_rows(key, &value);
    }
}

/// One damaged row of each kind in a shard, and all that reads them.
fn shard_rows(key: &[u8], value: &[u8]) {
    let queue = QueueKey { namespace: NAMESPACE, kind: TaskKind::Activity, name: "q".into() };
    let with = |kind: u8, parts: &[&[u8]]| {
        let mut row = vec![kind];
        parts.iter().for_each(|part| row.extend(*part));
        (row, value.to_vec())
    };
    let (namespace, run) = (NAMESPACE.0.as_bytes(), RUN.0.as_bytes());
    let one = 1u64.to_be_bytes();
    let mut shard = shard_with(&[
        with(b'c', &[namespace, WORKFLOW.as_bytes()]),
        with(b'r', &[run, &[0]]),
        with(b'r', &[run, key]),
        with(b'h', &[run, &one]),
        with(b'h', &[run, key]),
        with(b't', &[key]),
        with(b'q', &[namespace, &[1], &one, b"q", key]),
        with(b'v', &[namespace, b"p", key]),
        with(b'v', &[namespace, b"i", key]),
        with(b'o', &[key]),
        with(b'O', &[]),
        with(b'i', &[&1u32.to_be_bytes()]),
    ]);
    let describe = api::DescribeWorkflowExecutionRequest::default().into_call();
    let _ = shard.route(NAMESPACE, WORKFLOW, &describe);
    let start: Call = api::StartWorkflowExecutionRequest::default().into_call();
    let _ = shard.route(NAMESPACE, WORKFLOW, &start);
    let _ = shard.load_any(RUN);
    let _ = shard.events(RUN, 1..i64::MAX, 100);
    let ask = BacklogAsk {
        queue,
        lanes: Vec::new(),
        survey: Some(Place::FIRST),
        limit: 10,
        lane_limit: 5,
    };
    let _ = shard.backlog(&ask);
    let _ = shard.load_sent();
    let _ = shard.taken(ShardId(1));
    if let Ok(mut outbox) = Outbox::load(&shard) {
        for to in outbox.lanes() {
            let _ = outbox.next(&shard, to);
        }
    }
    let _ = shard.load_wakes(NOW);
    let _ = shard.take_due(NOW, 10);
    let Ok(all) = Query::parse("", &|_| None) else { panic!("the empty filter is refused") };
    let _ = shard.list(NAMESPACE, &all, None, 10);
    let _ = shard.count(NAMESPACE, &all);
}

fn record() -> Record {
    let attributes = [
        ("Bool", Value::Bool(true)),
        ("Datetime", Value::Datetime(-5)),
        ("Double", Value::Double(0.5)),
        ("Int", Value::Int(-7)),
        ("Keyword", Value::Keyword("red".into())),
        ("List", Value::KeywordList(vec!["b".into(), "a".into()])),
        ("Text", Value::Text("some words".into())),
    ];
    Record {
        namespace: NAMESPACE,
        workflow_id: WORKFLOW.into(),
        run_id: RUN,
        workflow_type: "Order".into(),
        status: 1,
        start_time: NOW,
        search_attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
        ..Record::default()
    }
}

/// Rows of a list index.
struct Listed(BTreeMap<Bytes, Bytes>);

impl Listed {
    fn of(records: &[Record]) -> Self {
        Self(records.iter().flat_map(|record| rows(b"v", record)).collect())
    }
}

impl everspan_visibility::Rows for Listed {
    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, Error> {
        if start >= end {
            return Ok(Vec::new());
        }
        let range = (Bound::Included(start), Bound::Excluded(end));
        let found = self.0.range::<[u8], _>(range).take(limit);
        Ok(found.map(|(k, v)| (k.clone(), v.clone())).collect())
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.0.get(key).cloned())
    }
}

fn attribute_type(name: &str) -> Option<AttributeType> {
    Some(match name {
        "Bool" => AttributeType::Bool,
        "Datetime" => AttributeType::Datetime,
        "Double" => AttributeType::Double,
        "Int" => AttributeType::Int,
        "Keyword" => AttributeType::Keyword,
        "List" => AttributeType::KeywordList,
        "Text" => AttributeType::Text,
        _ => return None,
    })
}

fn read_list(listed: &Listed, token: Option<&PageToken>, text: &str) {
    let query = match Query::parse(text, &attribute_type) {
        Ok(query) => query,
        Err(error) => return invalid(&error),
    };
    let matches = query.matches(&record());
    let page = list(listed, b"v", NAMESPACE, &query, token.map(|t| &t.cursor), 10);
    if let (None, Ok(page)) = (token, page) {
        // The planner and the filter are of one mind.
        assert_eq!(page.records.len(), usize::from(matches), "{text}");
    }
    let _ = everspan_visibility::count(listed, b"v", NAMESPACE, &query);
}

/// Filters of lists.
pub fn query(raw: &[u8]) {
    read_list(&Listed::of(&[record()]), None, &String::from_utf8_lossy(raw));
}

/// HTTP requests: a line with method, path, content type and timeout, then the body.
pub fn http(raw: &[u8]) {
    static TRANSCODER: LazyLock<Transcoder> = LazyLock::new(|| match Transcoder::new() {
        Ok(transcoder) => transcoder,
        Err(error) => panic!("{error}"),
    });
    let line = raw.iter().position(|b| *b == b'\n').unwrap_or(raw.len());
    let (head, body) = raw.split_at(line);
    let head = String::from_utf8_lossy(head);
    let mut words = head.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (method, uri, content_type, timeout) = (word(), word(), word(), word());
    let timeout = Some(timeout).filter(|t| !t.is_empty());
    let body = Bytes::copy_from_slice(body);
    let (status, text) = TRANSCODER.answer(method, uri, content_type, timeout, body);
    // 501 is "Method Not Allowed", as the real server has it.
    assert!(status == 200 || (400..500).contains(&status) || status == 501, "{status}: {head}");
    assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok(), "{status}: no JSON");
}
