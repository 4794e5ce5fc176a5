//! Rows of the list index and page tokens, as every release wrote them.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use everspan_types::{
    NamespaceId, Result, RunId, Time,
    golden::{Kind, Rows as GoldenRows},
};
use everspan_visibility::{PageToken, Query, Record, Rows, Value, list, rows};
use uuid::Uuid;

const PREFIX: &[u8] = b"v";
const NAMESPACE: NamespaceId = NamespaceId(Uuid::from_u128(1));

struct Table(BTreeMap<Bytes, Bytes>);

impl Rows for Table {
    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let range = (Bound::Included(start), Bound::Excluded(end));
        let found = self.0.range::<[u8], _>(range).take(limit);
        Ok(found.map(|(k, v)| (k.clone(), v.clone())).collect())
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(key).cloned())
    }
}

fn record(run: u128, close_time: Option<Time>) -> Record {
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
        workflow_id: "order".into(),
        run_id: RunId(Uuid::from_u128(run)),
        first_run_id: RunId(Uuid::from_u128(3)),
        workflow_type: "Order".into(),
        task_queue: "orders".into(),
        status: if close_time.is_some() { 2 } else { 1 },
        start_time: Time::from_millis(1_000),
        execution_time: Time::from_millis(2_000),
        close_time,
        history_length: 11,
        history_size_bytes: 1_234,
        state_transition_count: 7,
        parent_workflow_id: Some("parent".into()),
        parent_run_id: Some("parent-run".into()),
        root_workflow_id: Some("root".into()),
        root_run_id: Some("root-run".into()),
        memo: Some(Bytes::from_static(b"memo")),
        search_attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

fn table(rows: &GoldenRows) -> Table {
    Table(rows.iter().map(|(k, v)| (k.clone().into(), v.clone().into())).collect())
}

fn all(table: &Table, limit: usize) -> Result<everspan_visibility::ListPage> {
    let query = Query::parse("", &|_| None)?;
    list(table, PREFIX, NAMESPACE, &query, None, limit)
}

#[test]
fn golden_list_rows() {
    let sample = vec![record(1, None), record(2, Some(Time::from_millis(3_000)))];
    let rows: GoldenRows = sample
        .iter()
        .flat_map(|r| rows(PREFIX, r))
        .map(|(k, v)| (k.to_vec(), v.to_vec()))
        .collect();
    let kind =
        Kind { manifest_dir: env!("CARGO_MANIFEST_DIR"), name: "list-rows", version: rows[0].1[0] };
    kind.check(&sample, &rows, |rows| all(&table(rows), 10).map(|page| page.records));
}

#[test]
fn golden_page_tokens() {
    let records = [record(1, None), record(2, Some(Time::from_millis(3_000)))];
    let all_rows: GoldenRows = records
        .iter()
        .flat_map(|r| rows(PREFIX, r))
        .map(|(k, v)| (k.to_vec(), v.to_vec()))
        .collect();
    let cursor = all(&table(&all_rows), 1).unwrap().next.unwrap();
    let sample = PageToken { query: 77, cursor };
    let rows = vec![(Vec::new(), sample.to_bytes().to_vec())];
    let kind = Kind {
        manifest_dir: env!("CARGO_MANIFEST_DIR"),
        name: "page-token",
        version: rows[0].1[0],
    };
    kind.check(&sample, &rows, |rows| PageToken::from_bytes(&rows[0].1));
}
