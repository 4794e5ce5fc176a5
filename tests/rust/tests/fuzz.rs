//! The fuzz targets' functions, fed with made up and with damaged bytes: what CI runs of them.
//! `fuzz/README.md` says how to run them for longer.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use everspan_tests::fuzz;
use proptest::{prelude::*, sample::select};

/// One change to some bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    Put(usize, u8),
    Remove(usize, usize),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize),
    Cut(usize),
}

impl Damage {
    fn to(&self, bytes: &mut Vec<u8>) {
        let place = |at: usize, bytes: &[u8]| at % (bytes.len() + 1);
        match self {
            Damage::Flip(at, bit) => {
                if let Some(n) = at.checked_rem(bytes.len()) {
                    bytes[n] ^= 1 << bit;
                }
            }
            Damage::Put(at, byte) => {
                if let Some(n) = at.checked_rem(bytes.len()) {
                    bytes[n] = *byte;
                }
            }
            Damage::Remove(at, length) => {
                let at = place(*at, bytes);
                let end = (at + length % 16).min(bytes.len());
                bytes.drain(at..end);
            }
            Damage::Insert(at, new) => {
                let at = place(*at, bytes);
                bytes.splice(at..at, new.iter().copied());
            }
            Damage::Repeat(at, length) => {
                let at = place(*at, bytes);
                let end = (at + length % 64).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            Damage::Cut(at) => bytes.truncate(place(*at, bytes)),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    // Bytes with which lengths and numbers get large or negative.
    let byte = prop_oneof![any::<u8>(), select(&[0u8, 1, 0x7F, 0x80, 250, 251, 252, 253, 255][..])];
    prop_oneof![
        (any::<usize>(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (any::<usize>(), byte).prop_map(|(at, byte)| Damage::Put(at, byte)),
        (any::<usize>(), any::<usize>()).prop_map(|(at, n)| Damage::Remove(at, n)),
        (any::<usize>(), prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(at, new)| Damage::Insert(at, new)),
        (any::<usize>(), any::<usize>()).prop_map(|(at, n)| Damage::Repeat(at, n)),
        any::<usize>().prop_map(Damage::Cut),
    ]
}

/// Made up bytes, or one of `seeds` with some damage, or none.
fn bytes(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damaged =
        (select(seeds), prop::collection::vec(damage(), 0..6)).prop_map(|(mut seed, all)| {
            all.iter().for_each(|one| one.to(&mut seed));
            seed
        });
    prop_oneof![1 => any::<Vec<u8>>(), 6 => damaged]
}

/// The values in all golden files, as they are and without their headers.
fn golden() -> Vec<Vec<u8>> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates");
    let mut all = Vec::new();
    for entry in fs::read_dir(crates).unwrap() {
        let Ok(files) = fs::read_dir(entry.unwrap().path().join("tests/golden")) else { continue };
        for file in files {
            let Ok(text) = fs::read_to_string(file.unwrap().path()) else { continue };
            for (_, value) in text.lines().filter_map(|line| line.split_once(' ')) {
                let digits = value.as_bytes().chunks(2);
                let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok();
                // Whole logs are too much of a mouthful.
                let Some(raw) = digits.map(pair).collect::<Option<Vec<u8>>>() else { continue };
                if raw.len() < 4_096 {
                    all.push(raw.get(5..).unwrap_or_default().to_vec());
                    all.push(raw);
                }
            }
        }
    }
    assert!(all.len() > 10, "there are golden files");
    all
}

fn lines(text: &str) -> Vec<Vec<u8>> {
    text.lines().filter(|line| !line.is_empty()).map(|line| line.as_bytes().to_vec()).collect()
}

const QUERIES: &str = r#"
WorkflowType = 'Order' AND ExecutionStatus = 'Running'
StartTime BETWEEN '2024-01-01T00:00:00Z' AND '2024-02-01T00:00:00Z' OR Int > -7
Keyword IN ('red', 'green') AND NOT (Bool = true) AND Double >= 0.5e3
WorkflowId STARTS_WITH 'ord' AND List = "a" AND Text = 'words'
CloseTime IS NULL AND ExecutionDuration > '1h' AND `Keyword` != 'x' ORDER BY StartTime DESC
ExecutionStatus = 'Running' GROUP BY ExecutionStatus
Datetime < 1700000000000000000 and RunId is not null
"#;

/// `|` stands for the end of the first line.
const REQUESTS: &str = r#"
POST /api/v1/namespaces/default/workflows/w application/json 5S|{"workflowType":{"name":"W"},"taskQueue":{"name":"q"},"input":["x",{"a":[1,2.5e3,null]}],"workflowRunTimeout":"1.5s"}
POST /namespaces/n/workflows/a%2Fb/signal/s application/json+no-payload-shorthand|{"input":{"payloads":[{"metadata":{"encoding":"anNvbi9wbGFpbg=="},"data":"IjEi"}]}}
GET /api/v1/namespaces/default/workflows?query=WorkflowType%3D%27x%27&pageSize=3&nextPageToken=AAEC
GET /namespaces/n/workflows/w/history?execution.runId=1&waitNewEvent=true&pretty
POST /cluster/namespaces|{"namespace":"n","workflowExecutionRetentionPeriod":"86400s","data":{"k":"v"}}
POST /namespaces/n/workflows/w/query/q|{"query":{"queryArgs":[{"_protoMessageType":"temporal.api.common.v1.WorkflowType","name":"x"}]}}
"#;

fn requests() -> Vec<Vec<u8>> {
    lines(REQUESTS)
        .into_iter()
        .map(|line| line.iter().map(|b| if *b == b'|' { b'\n' } else { *b }).collect())
        .collect()
}

proptest! {
    #[test]
    fn tokens(raw in bytes(golden())) {
        fuzz::tokens(&raw);
    }

    #[test]
    fn stored(raw in bytes(golden())) {
        fuzz::stored(&raw);
    }

    #[test]
    fn queries(raw in bytes(lines(QUERIES))) {
        fuzz::query(&raw);
    }

    #[test]
    fn http(raw in bytes(requests())) {
        fuzz::http(&raw);
    }
}

#[test]
fn a_deep_filter_and_a_deep_body_are_refused() {
    for depth in [100, 10_000, 300_000] {
        fuzz::query(format!("{}Int = 1{}", "(".repeat(depth), ")".repeat(depth)).as_bytes());
        fuzz::query("NOT ".repeat(depth).as_bytes());
        fuzz::query(format!("Int = 1{}", " AND Int = 1".repeat(depth / 2)).as_bytes());
        let path = "POST /namespaces/n/workflows/w\n";
        fuzz::http(format!("{path}{{\"input\":{}", "[".repeat(depth)).as_bytes());
        fuzz::http(format!("{path}{}", "{\"memo\":".repeat(depth)).as_bytes());
    }
}
