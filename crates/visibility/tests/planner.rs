//! What the planner reads off the index against filtering and sorting all records.
#![allow(clippy::unwrap_used)]

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use bytes::Bytes;
use everspan_proto::{
    common::WorkflowExecution,
    filter::{StartTimeFilter, StatusFilter, WorkflowExecutionFilter},
    workflowservice::{
        ListClosedWorkflowExecutionsRequest, ListOpenWorkflowExecutionsRequest,
        list_closed_workflow_executions_request::Filters as Closed,
        list_open_workflow_executions_request::Filters as Open,
    },
};
use everspan_types::{Error, NamespaceId, Result, RunId, Time};
use everspan_visibility::{
    AttributeType, Counts, Cursor, Group, ListPage, PageToken, Query, Record, Rows, Value, change,
    closed_query, count, count_response, list, merge_counts, merge_pages, open_query,
};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, RngSeed},
};
use uuid::Uuid;

const PREFIX: &[u8] = b"v";
const NAMESPACE: NamespaceId = NamespaceId(Uuid::from_u128(7));

#[derive(Default)]
struct Table {
    rows: BTreeMap<Bytes, Bytes>,
    reads: Cell<usize>,
}

impl Rows for Table {
    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        if start >= end {
            return Ok(Vec::new());
        }
        let range = (Bound::Included(start), Bound::Excluded(end));
        let found = self.rows.range::<[u8], _>(range).take(limit);
        let found: Vec<_> = found.map(|(k, v)| (k.clone(), v.clone())).collect();
        self.reads.set(self.reads.get() + found.len());
        Ok(found)
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.reads.set(self.reads.get() + 1);
        Ok(self.rows.get(key).cloned())
    }
}

impl Table {
    fn of(records: &[Record]) -> Table {
        let mut table = Table::default();
        for record in records {
            table.change(None, Some(record));
        }
        table
    }

    fn change(&mut self, old: Option<&Record>, new: Option<&Record>) {
        for (key, value) in change(PREFIX, old, new) {
            match value {
                Some(value) => assert_ne!(self.rows.insert(key, value.clone()), Some(value)),
                None => assert!(self.rows.remove(&key).is_some()),
            }
        }
    }

    fn pages(&self, query: &Query, sizes: &[usize]) -> Vec<Record> {
        let mut all = Vec::new();
        let mut after: Option<Cursor> = None;
        for size in sizes.iter().cycle() {
            let page = list(self, PREFIX, NAMESPACE, query, after.as_ref(), *size).unwrap();
            assert!(page.records.len() == *size || page.next.is_none());
            all.extend(page.records);
            let Some(next) = page.next else { break };
            let token = PageToken { query: query.checksum(), cursor: next };
            after = Some(PageToken::from_bytes(&token.to_bytes()).unwrap().cursor);
        }
        all
    }
}

fn custom(name: &str) -> Option<AttributeType> {
    AttributeType::from_name(name.strip_prefix("My")?)
}

fn parse(text: &str) -> Query {
    Query::parse(text, &custom).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// The order of lists, the long way round.
fn naive(records: &[Record], query: &Query) -> Vec<Record> {
    let micros = |t: Time| t.as_nanos() / 1000;
    let mut all: Vec<_> =
        records.iter().filter(|r| r.namespace == NAMESPACE && query.matches(r)).cloned().collect();
    all.sort_by(|a, b| {
        let close = |r: &Record| r.close_time.map_or(u64::MAX, micros);
        close(b)
            .cmp(&close(a))
            .then(micros(b.start_time).cmp(&micros(a.start_time)))
            .then(a.run_id.to_string().cmp(&b.run_id.to_string()))
    });
    all
}

const IDS: &[&str] = &["a", "ab", "abc", "b", "a\0b", "é", ""];
const TIMES: std::ops::Range<u64> = 0..12;

fn time(n: u64) -> Time {
    // Also times that differ by less than a microsecond.
    Time::from_nanos(1_000_000_000 + n * 400)
}

fn value() -> impl Strategy<Value = (String, Value)> {
    prop_oneof![
        select(IDS).prop_map(|s| ("MyKeyword".into(), Value::Keyword(s.into()))),
        select(IDS).prop_map(|s| ("BuildIds".into(), Value::KeywordList(vec![s.into()]))),
        prop::collection::vec(select(IDS), 1..4).prop_map(|all| (
            "MyKeywordList".into(),
            Value::KeywordList(all.into_iter().map(Into::into).collect())
        )),
        select(vec!["a b", "B c", "a-c"]).prop_map(|s| ("MyText".into(), Value::Text(s.into()))),
        (-2i64..3).prop_map(|n| ("MyInt".into(), Value::Int(n))),
        (-2i32..3).prop_map(|n| ("MyDouble".into(), Value::Double(f64::from(n) / 2.0))),
        any::<bool>().prop_map(|b| ("MyBool".into(), Value::Bool(b))),
        TIMES.prop_map(|n| ("MyDatetime".into(), Value::Datetime(time(n).as_nanos().into()))),
        // Of another type than it has now.
        (-2i64..3).prop_map(|n| ("MyKeyword".into(), Value::Int(n))),
        select(vec!["x", "y"])
            .prop_map(|s| ("TemporalNamespaceDivision".into(), Value::Keyword(s.into()))),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    (
        (any::<u8>(), 0u8..20, select(IDS), select(IDS), select(vec!["q", "r"])),
        (1i32..=8, TIMES, TIMES, TIMES, 0i64..4),
        prop::collection::btree_map("[ab]", Just(()), 0..1),
        prop::collection::vec(value(), 0..4),
        prop::option::of(select(IDS)),
    )
        .prop_map(
            |((run, other, id, kind, queue), (status, start, delay, close, n), _, sa, up)| {
                let is_open = status == 1 || status == 8;
                Record {
                    namespace: if other == 0 { NamespaceId(Uuid::nil()) } else { NAMESPACE },
                    workflow_id: id.into(),
                    run_id: RunId(Uuid::from_u128(u128::from(run))),
                    workflow_type: kind.into(),
                    task_queue: queue.into(),
                    status,
                    start_time: time(start),
                    execution_time: time(start + delay / 3),
                    close_time: (!is_open).then(|| time(start + close)),
                    history_length: n,
                    history_size_bytes: n * 10,
                    state_transition_count: n,
                    parent_workflow_id: up.map(Into::into),
                    search_attributes: sa.into_iter().collect(),
                    ..Record::default()
                }
            },
        )
}

fn records(max: usize) -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(record(), 0..max).prop_map(|mut all| {
        let mut seen = BTreeSet::new();
        all.retain(|r| seen.insert(r.run_id));
        all
    })
}

fn quoted() -> impl Strategy<Value = String> {
    select(IDS).prop_map(|s| format!("'{}'", s.replace('\0', "\\0")))
}

fn test() -> impl Strategy<Value = String> {
    let order = || select(vec!["=", "!=", "<", "<=", ">", ">="]);
    let is_in = || select(vec!["IN", "NOT IN"]);
    let between = || select(vec!["BETWEEN", "NOT BETWEEN"]);
    let keyword =
        || select(vec!["WorkflowId", "WorkflowType", "MyKeyword", "TaskQueue", "ParentWorkflowId"]);
    let at = || TIMES.prop_map(|n| time(n).as_nanos());
    let times = || select(vec!["StartTime", "CloseTime", "ExecutionTime", "MyDatetime"]);
    let numbers = || select(vec!["HistoryLength", "StateTransitionCount", "MyInt", "MyDouble"]);
    let number = || select(vec!["-1", "0", "1", "2", "0.5", "-1.5", "30"]);
    let status = || {
        select(vec!["Running", "Completed", "Failed", "Canceled", "Terminated", "Paused"])
            .prop_map(|s| format!("'{s}'"))
    };
    let list = |item: BoxedStrategy<String>| {
        prop::collection::vec(item, 1..4).prop_map(|all| format!("({})", all.join(", ")))
    };
    prop_oneof![
        4 => (keyword(), order(), quoted()).prop_map(|(f, o, v)| format!("{f} {o} {v}")),
        3 => (keyword(), is_in(), list(quoted().boxed())).prop_map(|(f, o, v)| format!("{f} {o} {v}")),
        3 => (keyword(), select(vec!["STARTS_WITH", "NOT STARTS_WITH"]), quoted())
            .prop_map(|(f, o, v)| format!("{f} {o} {v}")),
        1 => (keyword(), between(), quoted(), quoted()).prop_map(|(f, o, a, b)| format!("{f} {o} {a} AND {b}")),
        2 => (select(vec!["MyKeywordList", "BuildIds"]), is_in(), list(quoted().boxed()))
            .prop_map(|(f, o, v)| format!("{f} {o} {v}")),
        2 => (select(vec!["=", "!="]), quoted()).prop_map(|(o, v)| format!("MyKeywordList {o} {v}")),
        1 => (select(vec!["=", "!="]), select(vec!["'a'", "'c d'", "'B c'"]))
            .prop_map(|(o, v)| format!("MyText {o} {v}")),
        4 => (order(), status()).prop_map(|(o, v)| format!("ExecutionStatus {o} {v}")),
        2 => (is_in(), list(status().boxed())).prop_map(|(o, v)| format!("ExecutionStatus {o} {v}")),
        4 => (times(), order(), at()).prop_map(|(f, o, v)| format!("{f} {o} {v}")),
        2 => (times(), between(), at(), at()).prop_map(|(f, o, a, b)| format!("{f} {o} {a} AND {b}")),
        1 => (times(), is_in(), at(), at()).prop_map(|(f, o, a, b)| format!("{f} {o} ({a}, {b})")),
        2 => (numbers(), order(), number()).prop_map(|(f, o, v)| format!("{f} {o} {v}")),
        1 => (order(), 0u32..5000).prop_map(|(o, v)| format!("ExecutionDuration {o} {v}")),
        1 => (order(), any::<bool>()).prop_map(|(o, v)| format!("MyBool {o} {v}")),
        1 => (order(), any::<u8>()).prop_map(|(o, v)| {
            format!("RunId {o} '{}'", Uuid::from_u128(u128::from(v)))
        }),
        2 => (select(vec!["CloseTime", "MyKeyword", "MyKeywordList", "MyInt", "WorkflowId", "StartTime",
            "HistoryLength", "TemporalNamespaceDivision"]), select(vec!["IS NULL", "IS NOT NULL"]))
            .prop_map(|(f, o)| format!("{f} {o}")),
    ]
}

fn filter() -> impl Strategy<Value = String> {
    let some = test().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} AND {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} OR {b}")),
            inner.clone().prop_map(|a| format!("NOT ({a})")),
        ]
    });
    prop_oneof![1 => Just(String::new()), 15 => some]
}

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(11), ..Config::default() }
}

proptest! {
    #![proptest_config(config(3000))]

    #[test]
    fn pages_are_the_naive_result(
        records in records(60),
        filter in filter(),
        sizes in prop::collection::vec(1usize..9, 1..4),
    ) {
        let query = parse(&filter);
        let table = Table::of(&records);
        let wanted = naive(&records, &query);
        prop_assert_eq!(&table.pages(&query, &sizes), &wanted, "{}", filter);

        let counts = count(&table, PREFIX, NAMESPACE, &query).unwrap();
        prop_assert_eq!(counts.values().sum::<i64>(), wanted.len() as i64, "{}", filter);
        let grouped = parse(&format!("{filter} GROUP BY ExecutionStatus"));
        let mut by_status = Counts::new();
        for r in &wanted {
            *by_status.entry(Some(Group::Status(r.status))).or_default() += 1;
        }
        prop_assert_eq!(count(&table, PREFIX, NAMESPACE, &grouped).unwrap(), by_status);
    }

    #[test]
    fn negation_is_the_other_way_round(record in record(), test in test()) {
        // Both hold only never; neither only where something is missing.
        let (yes, no) = (parse(&test), parse(&format!("NOT {test}")));
        prop_assert!(!(yes.matches(&record) && no.matches(&record)));
    }

    #[test]
    fn changes_leave_the_rows_of_the_last_state(states in prop::collection::vec(
        prop::option::of(record()), 1..6,
    )) {
        let mut table = Table::default();
        let mut last: Option<Record> = None;
        for state in states {
            table.change(last.as_ref(), state.as_ref());
            last = state;
        }
        let wanted = last.iter().flat_map(|r| everspan_visibility::rows(PREFIX, r)).collect();
        prop_assert_eq!(table.rows, wanted);
    }

    #[test]
    fn shards_merge_to_the_whole(
        records in records(60),
        filter in filter(),
        limit in 1usize..9,
        shards in 1usize..4,
    ) {
        let query = parse(&filter);
        let mut parts = vec![Vec::new(); shards];
        for r in &records {
            parts[r.run_id.0.as_bytes()[15] as usize % shards].push(r.clone());
        }
        let tables: Vec<_> = parts.iter().map(|p| Table::of(p)).collect();
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = |t: &Table| {
                list(t, PREFIX, NAMESPACE, &query, after.as_ref(), limit).unwrap()
            };
            let merged = merge_pages(tables.iter().map(page).collect(), limit);
            prop_assert!(merged.records.len() == limit || merged.next.is_none());
            all.extend(merged.records);
            let Some(next) = merged.next else { break };
            after = Some(next);
        }
        let wanted = naive(&records, &query);
        prop_assert_eq!(all, wanted.clone());
        let counts = tables.iter().map(|t| count(t, PREFIX, NAMESPACE, &query).unwrap());
        let sum = merge_counts(counts.collect());
        prop_assert_eq!(sum.values().sum::<i64>(), wanted.len() as i64);
    }

    /// Runs that stay where they are, are listed once while others close between pages.
    #[test]
    fn pages_are_exact_while_runs_close(
        records in records(60),
        closing in prop::collection::vec((any::<prop::sample::Index>(), TIMES), 1..20),
        size in 1usize..5,
    ) {
        let query = parse("");
        let mut records = records;
        records.retain(|r| r.namespace == NAMESPACE);
        let mut table = Table::of(&records);
        let mut moved = BTreeSet::new();
        let mut seen = Vec::new();
        let mut after = None;
        let mut closing = closing.into_iter();
        loop {
            let page = list(&table, PREFIX, NAMESPACE, &query, after.as_ref(), size).unwrap();
            seen.extend(page.records.iter().map(|r| r.run_id));
            if let Some((index, at)) = closing.next()
                && !records.is_empty()
            {
                let at_index = index.index(records.len());
                let old = records[at_index].clone();
                if old.close_time.is_none() {
                    let new = Record { status: 2, close_time: Some(time(at + 12)), ..old.clone() };
                    table.change(Some(&old), Some(&new));
                    moved.insert(old.run_id);
                    records[at_index] = new;
                }
            }
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        for r in naive(&records, &query).iter().filter(|r| !moved.contains(&r.run_id)) {
            prop_assert_eq!(seen.iter().filter(|id| **id == r.run_id).count(), 1);
        }
    }
}

/// A thousand runs, ten of them open.
fn many() -> Vec<Record> {
    let record = |n: u32| Record {
        namespace: NAMESPACE,
        workflow_id: format!("w{n}"),
        run_id: RunId(Uuid::from_u128(u128::from(n))),
        workflow_type: format!("t{}", n % 10),
        status: if n.is_multiple_of(100) { 1 } else { 2 },
        start_time: Time::from_millis(u64::from(n)),
        close_time: (!n.is_multiple_of(100)).then(|| Time::from_millis(u64::from(n + 1))),
        search_attributes: [("MyKeyword".to_owned(), Value::Keyword(format!("k{}", n % 50)))]
            .into(),
        ..Record::default()
    };
    (0..1000).map(record).collect()
}

#[test]
fn few_rows_are_read() {
    let table = Table::of(&many());
    for (filter, results, reads_max) in [
        ("WorkflowId = 'w7'", 1, 2),
        ("WorkflowId IN ('w7', 'w8', 'nope')", 2, 4),
        ("WorkflowId = 'w7' OR WorkflowId = 'w8'", 2, 4),
        ("WorkflowId STARTS_WITH 'w99'", 11, 22),
        ("WorkflowId STARTS_WITH 'w99' AND MyKeyword = 'k41'", 1, 40),
        ("RunId = '00000000-0000-0000-0000-000000000007'", 1, 2),
        ("RunId = 'nonsense'", 0, 0),
        ("MyKeyword = 'k3'", 20, 40),
        ("ExecutionStatus = 'Running'", 10, 10),
        ("ExecutionStatus = 'Running' AND WorkflowType = 't0'", 10, 20),
        ("ExecutionStatus = 'Running' AND WorkflowType = 't1'", 0, 0),
        ("ExecutionStatus = 'Failed'", 0, 0),
        ("ExecutionStatus IN ('Running', 'Failed')", 10, 20),
        ("ExecutionStatus = 'Running' OR ExecutionStatus = 'Failed'", 10, 20),
        ("ExecutionStatus = 'Running' OR WorkflowId = 'w7'", 11, 22),
        ("CloseTime IS NULL", 10, 10),
        ("CloseTime > '1970-01-01T00:00:00.995Z'", 5, 6),
        ("StartTime >= '1970-01-01T00:00:00.995Z'", 5, 6),
        ("StartTime < '1970-01-01T00:00:00.1Z' AND ExecutionStatus = 'Running'", 1, 2),
        ("StartTime < '1960-01-01T00:00:00Z'", 0, 0),
    ] {
        table.reads.set(0);
        let found = table.pages(&parse(filter), &[100]);
        assert_eq!(found.len(), results, "{filter}");
        let reads = table.reads.get();
        assert!(reads <= reads_max, "{filter}: {reads} reads");
    }
    // A page reads little more than it shows, whatever matches.
    for filter in ["", "ExecutionStatus = 'Completed'", "WorkflowType = 't3'", "MyKeyword != 'x'"] {
        table.reads.set(0);
        let page = list(&table, PREFIX, NAMESPACE, &parse(filter), None, 10).unwrap();
        assert_eq!(page.records.len(), 10);
        assert!(table.reads.get() <= 30, "{filter}: {} reads", table.reads.get());
    }
}

#[test]
fn counts_in_the_apis_form() {
    let mut records = many();
    records[3].search_attributes =
        [("TemporalNamespaceDivision".to_owned(), Value::Keyword("x".into()))].into();
    let table = Table::of(&records);
    let response =
        |filter: &str| count_response(count(&table, PREFIX, NAMESPACE, &parse(filter)).unwrap());
    let all = response("");
    assert_eq!((all.count, all.groups.len()), (999, 0));
    let shown = |filter: &str| -> Vec<(String, i64)> {
        let groups = response(filter).groups.into_iter();
        let data = |p: &everspan_proto::common::Payload| String::from_utf8_lossy(&p.data).into();
        groups.map(|g| (data(&g.group_values[0]), g.count)).collect()
    };
    let statuses = [("\"Running\"".to_owned(), 10), ("\"Completed\"".to_owned(), 989)];
    assert_eq!(shown("GROUP BY ExecutionStatus"), statuses);
    assert_eq!(shown("WorkflowType != 'x' GROUP BY ExecutionStatus"), statuses);
    let divisions = [("null".to_owned(), 999), ("\"x\"".to_owned(), 1)];
    assert_eq!(shown("GROUP BY TemporalNamespaceDivision"), divisions);
    let none = response("WorkflowId = 'none' GROUP BY ExecutionStatus");
    assert_eq!((none.count, none.groups.len()), (0, 0));
}

#[test]
fn divisions_are_hidden_unless_named() {
    let mut records = many();
    records.truncate(2);
    records[1].search_attributes =
        [("TemporalNamespaceDivision".to_owned(), Value::Keyword("x".into()))].into();
    let table = Table::of(&records);
    for (filter, results) in [
        ("", 1),
        ("WorkflowId = 'w1'", 0),
        ("TemporalNamespaceDivision = 'x'", 1),
        ("NamespaceDivision = 'x'", 1),
        ("WorkflowId = 'w1' AND TemporalNamespaceDivision IS NOT NULL", 1),
        ("TemporalNamespaceDivision IS NULL OR TemporalNamespaceDivision IS NOT NULL", 2),
    ] {
        assert_eq!(table.pages(&parse(filter), &[10]).len(), results, "{filter}");
    }
}

#[test]
fn older_lists() {
    let records = many();
    let timestamp = |millis: i64| prost_types::Timestamp {
        seconds: millis.div_euclid(1000),
        nanos: i32::try_from(millis.rem_euclid(1000)).unwrap() * 1_000_000,
    };
    let range = |from: Option<i64>, to: Option<i64>| {
        Some(StartTimeFilter { earliest_time: from.map(timestamp), latest_time: to.map(timestamp) })
    };
    let execution = |id: &str| WorkflowExecutionFilter {
        workflow_id: id.into(),
        run_id: String::from("not looked at"),
    };
    let open = |start_time_filter, filters| {
        let request =
            ListOpenWorkflowExecutionsRequest { start_time_filter, filters, ..Default::default() };
        open_query(&request).map(|q| naive(&records, &q).len())
    };
    assert_eq!(open(None, None), Ok(10));
    assert_eq!(open(range(Some(100), Some(300)), None), Ok(3));
    assert_eq!(open(range(Some(100), None), None), Ok(9));
    assert_eq!(open(range(None, Some(99)), None), Ok(1));
    assert_eq!(open(range(Some(-62_135_596_800_000), None), None), Ok(10));
    assert_eq!(open(None, Some(Open::ExecutionFilter(execution("w100")))), Ok(1));
    let turned = open(range(Some(2), Some(1)), None);
    let message = "EarliestTime in StartTimeFilter should not be larger than LatestTime.";
    assert_eq!(turned, Err(Error::invalid(message)));

    let closed = |start_time_filter, filters| {
        let request = ListClosedWorkflowExecutionsRequest {
            start_time_filter,
            filters,
            ..Default::default()
        };
        closed_query(&request).map(|q| naive(&records, &q).len())
    };
    assert_eq!(closed(None, None), Ok(990));
    assert_eq!(closed(range(Some(2), Some(4)), None), Ok(3));
    assert_eq!(closed(None, Some(Closed::StatusFilter(StatusFilter { status: 2 }))), Ok(990));
    assert_eq!(closed(None, Some(Closed::StatusFilter(StatusFilter { status: 3 }))), Ok(0));
    assert!(closed(None, Some(Closed::StatusFilter(StatusFilter { status: 1 }))).is_err());
}

#[test]
fn tokens_and_pages_of_others() {
    for raw in [&b""[..], b"x", b"{\"CloseTime\":1}", &[1; 80]] {
        let message = "unable to deserialize page token";
        assert_eq!(PageToken::from_bytes(raw), Err(Error::invalid(message)));
    }
    assert_eq!(merge_pages(vec![], 3), ListPage::default());
}

#[test]
fn infos_are_complete() {
    let record = Record {
        workflow_id: "w".into(),
        run_id: RunId(Uuid::from_u128(5)),
        workflow_type: "t".into(),
        task_queue: "q".into(),
        status: 5,
        start_time: Time::from_nanos(1_000_001_999),
        execution_time: Time::from_nanos(3_000_000_000),
        close_time: Some(Time::from_nanos(2_500_000_000)),
        history_length: 3,
        history_size_bytes: 682,
        state_transition_count: 2,
        parent_workflow_id: Some("p".into()),
        parent_run_id: Some("pr".into()),
        root_workflow_id: Some("r".into()),
        root_run_id: Some("rr".into()),
        search_attributes: [("X".to_owned(), Value::Int(1))].into(),
        ..Record::default()
    };
    let execution = |workflow_id: &str, run_id: &str| {
        Some(WorkflowExecution { workflow_id: workflow_id.into(), run_id: run_id.into() })
    };
    let info = Record::from_bytes(&record.to_bytes()).unwrap().to_info();
    assert_eq!(info.start_time, Some(prost_types::Timestamp { seconds: 1, nanos: 1_000 }));
    let early = prost_types::Duration { seconds: 0, nanos: -500_000_000 };
    assert_eq!(info.execution_duration, Some(early));
    assert_eq!(info.parent_execution, execution("p", "pr"));
    assert_eq!(info.root_execution, execution("r", "rr"));
    assert_eq!(info.history_length, 3);
    assert_eq!(info.search_attributes.unwrap().indexed_fields["X"].data.as_ref(), b"1");

    let open = Record { close_time: None, status: 1, parent_workflow_id: None, ..record };
    let info = open.to_info();
    assert_eq!((info.close_time, info.execution_duration), (None, None));
    assert_eq!((info.history_length, info.history_size_bytes), (0, 0));
    assert_eq!(info.parent_execution, None);
    assert_eq!(info.memo, Some(Default::default()));
}
