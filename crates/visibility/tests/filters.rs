//! The filter language against answers recorded from the real server.
#![allow(clippy::unwrap_used)]

use everspan_types::Error;
use everspan_visibility::{AttributeType, Query};

fn custom(name: &str) -> Option<AttributeType> {
    Some(match name {
        "Cust" => AttributeType::Keyword,
        "Txt" => AttributeType::Text,
        "Num" => AttributeType::Int,
        "Dbl" => AttributeType::Double,
        "Flag" => AttributeType::Bool,
        "When" => AttributeType::Datetime,
        "Tags" => AttributeType::KeywordList,
        _ => return None,
    })
}

fn answer(text: &str) -> String {
    match Query::parse(text, &custom) {
        Ok(_) => "ok".into(),
        Err(Error::InvalidArgument(e)) => e.strip_prefix("invalid query: ").unwrap().into(),
        Err(other) => panic!("{text}: {other:?}"),
    }
}

#[test]
fn answers_are_the_real_servers() {
    let mut wrong = Vec::new();
    let mut lines = include_str!("filters.txt").lines().filter(|l| !l.starts_with('#'));
    while let (Some(query), Some(expected)) = (lines.next(), lines.next()) {
        let query = query.strip_prefix('|').unwrap().strip_suffix('|').unwrap();
        let text = query
            .replace("\\\\", "\u{1}")
            .replace("\\n", "\n")
            .replace("\\t", "\t")
            .replace('\u{1}', "\\");
        let got = answer(&text);
        if got != expected.trim_start() {
            wrong.push(format!("{query}\n  wanted {}\n  got    {got}", expected.trim_start()));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Limits of the real server that no line of a file can show.
#[test]
fn nesting_and_depth_are_bounded() {
    let nested = |n: usize| format!("{}WorkflowId = 'a'{}", "(".repeat(n), ")".repeat(n));
    assert_eq!(answer(&nested(199)), "ok");
    assert_eq!(
        answer(&nested(200)),
        "malformed SQL query: max nesting level reached at position 228"
    );
    assert!(answer(&nested(100_000)).contains("max nesting level reached"));
    assert_eq!(answer(&format!("{} WorkflowId = 'a'", "NOT ".repeat(199))), "ok");
    assert!(answer(&"NOT ".repeat(100_000)).contains("max nesting level reached"));
    assert!(answer(&format!("Num = {}", "- ".repeat(100_000))).contains("max nesting"));
    assert!(answer(&"case when ".repeat(50_000)).contains("max nesting"));
    assert!(answer(&format!("a{}", "(".repeat(100_000))).contains("max nesting"));
    for word in [" AND ", " OR "] {
        assert_eq!(answer(&vec!["WorkflowId = 'a'"; 995].join(word)), "ok");
        let too_deep = "malformed SQL query: max ast depth reached";
        assert_eq!(answer(&vec!["WorkflowId = 'a'"; 996].join(word)), too_deep);
        assert_eq!(answer(&vec!["WorkflowId = 'a'"; 30_000].join(word)), too_deep);
    }
    assert!(answer(&format!("Num{}", " IS NULL".repeat(50_000))).contains("max ast depth"));
    assert!(answer(&format!("Num{}", " + 1".repeat(100_000))).contains("max ast depth"));
    let many = vec!["'a'"; 100_000].join(",");
    assert_eq!(answer(&format!("WorkflowId IN ({many})")), "ok");
    assert!(answer(&" ".repeat(everspan_visibility::QUERY_BYTES_MAX + 1)).contains("longer than"));
}

/// The deepest filters fit into a small thread's stack, when read, evaluated and dropped.
#[test]
fn deep_filters_need_little_stack() {
    let deep = || {
        let open = "NOT (Num = 1 AND (Num = 2 OR ".repeat(60);
        let text = format!("{open}Num = 3{}", "))".repeat(60));
        let query = Query::parse(&text, &custom).unwrap();
        let _ = query.matches(&everspan_visibility::Record::default());
        let nested = format!("{}Num = 1{}", "(".repeat(199), ")".repeat(199));
        Query::parse(&nested, &custom).unwrap();
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(deep).unwrap().join().unwrap();
}

#[test]
fn system_attributes_come_before_custom_ones() {
    let query = Query::parse("ScheduleId = 1", &|name| {
        (name == "ScheduleId").then_some(AttributeType::Int)
    });
    assert!(query.is_ok());
    let query = Query::parse("StartTime = 1", &|_| Some(AttributeType::Text));
    assert!(query.is_ok());
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: 2000,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(7),
        ..Default::default()
    })]

    #[test]
    fn any_text_is_answered(text in "\\PC*") {
        let _ = answer(&text);
    }

    #[test]
    fn any_tokens_are_answered(parts in proptest::collection::vec(
        proptest::sample::select(vec![
            "WorkflowId", "Num", "Txt", "Tags", "When", "Flag", "StartTime", "ExecutionStatus",
            "ExecutionDuration", "nope", "=", "!=", "<", ">=", "<=>", "(", ")", ",", "AND", "OR",
            "NOT", "IN", "BETWEEN", "IS", "NULL", "STARTS_WITH", "LIKE", "'a'", "\"b", "''", "`",
            "1", "1.5", "-", "+", "~", "!", "0x1", "x'1'", "1e", "true", "ORDER BY", "GROUP BY",
            "LIMIT", "case", "when", "select", "union", ";", "--", "/*", "*/", "@", ":a", "?",
            "'2024-01-01T00:00:00Z'", "'1h'", "'Running'", "ü", "\0", ".", "->", "div", "\\",
        ]), 0..24)) {
        let _ = answer(&parts.join(" "));
        let _ = answer(&parts.concat());
    }
}
