#![allow(clippy::unwrap_used)]

use std::{path::Path, time::Duration};

use super::*;

const NONE: [(String, String); 0] = [];

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// Loads a file with this text.
fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("e.toml");
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file), env(environment))
        .map_err(|e| e.to_string().replace(&file.display().to_string(), "e.toml"))
}

fn error(text: &str) -> String {
    load(text, &[]).unwrap_err()
}

#[test]
fn file_overrides_defaults_and_environment_overrides_file() {
    let text = "[grpc]\naddress = '0.0.0.0:1'\n[storage]\ncheckpoint_interval_ms = 500\n\
                cache_bytes = 2_000_000\n[limits]\nsignals_max = 5\n\
                [namespaces]\ncreate = ['a', 'b']\n";
    let environment = [
        ("EVERSPAN_STORAGE_CACHE_BYTES", "3000000"),
        ("EVERSPAN_SEARCH_ATTRIBUTES_CREATE", "A=Int, B=keywordlist"),
    ];
    let config = load(text, &environment).unwrap();
    assert_eq!(config.grpc.address.to_string(), "0.0.0.0:1");
    assert_eq!(config.storage.checkpoint_interval_ms, Duration::from_millis(500));
    assert_eq!(config.storage.cache_bytes, 3_000_000);
    assert_eq!(config.limits().signals_max, 5);
    let names: Vec<&str> = config.namespaces.create.iter().map(NamespaceName::as_str).collect();
    assert_eq!(names, ["a", "b"]);
    let attributes: Vec<String> =
        config.search_attributes.create.iter().map(ToString::to_string).collect();
    assert_eq!(attributes, ["A=Int", "B=KeywordList"]);
    assert_eq!(config.http, Http::default());
}

#[test]
fn errors_name_key_and_line() {
    let cases = [
        ("no_such = 1\n", "e.toml:1: unknown section or key `no_such`"),
        ("\n[storge]\n", "e.toml:2: unknown section or key `storge`; did you mean `storage`?"),
        (
            "[storage]\n# a comment\ncache_byte = 5\n",
            "e.toml:3: unknown key `storage.cache_byte`; did you mean `cache_bytes`?",
        ),
        (
            "[storage]\n\ncache_bytes = 'much'\n",
            "e.toml:3: `storage.cache_bytes`: expected an integer, found string",
        ),
        (
            "[storage]\ncheckpoint_interval_ms = 0\n",
            "e.toml:2: `storage.checkpoint_interval_ms`: 0 is not from 10 to 3600000",
        ),
        (
            "grpc.address = 'localhost'\n",
            "e.toml:1: `grpc.address`: \"localhost\" is not an address such as 127.0.0.1:7233",
        ),
        ("[log]\nlevel = 'loud'\n", "e.toml:2: `log.level`: \"loud\" is not a level"),
        ("[log]\nformat = 'xml'\n", "e.toml:2: `log.format`: \"xml\" is not auto"),
        ("storage = 5\n", "e.toml:1: `storage` is a section"),
        ("[storage.cache_bytes]\n", "e.toml:1: `storage.cache_bytes` is a key"),
        (
            "[search_attributes]\ncreate = ['A=Nope']\n",
            "e.toml:2: `search_attributes.create`: type \"Nope\" is not one of Text",
        ),
        (
            "[grpc]\naddress = '127.0.0.1:9'\n[http]\naddress = '127.0.0.1:9'\n",
            "e.toml:4: http.address: 127.0.0.1:9 is grpc.address too",
        ),
    ];
    for (text, expected) in cases {
        let found = error(text);
        assert!(found.starts_with(expected), "{text:?}\n{found}\n{expected}");
    }
    assert!(error("[log]\n\nport = [\n").starts_with("e.toml:"));
    assert!(error("[grpc]\n[grpc]\n").starts_with("e.toml:2: "), "{}", error("[grpc]\n[grpc]\n"));
}

#[test]
fn a_missing_file_is_named() {
    let missing = Path::new("/nowhere/everspan.toml");
    let error = Config::load(Some(missing), NONE).unwrap_err().to_string();
    assert!(error.contains("/nowhere/everspan.toml"), "{error}");
}

#[test]
fn a_bad_variable_is_named_and_a_foreign_one_left_alone() {
    let bad = |pairs: &[(&str, &str)]| Config::load(None, env(pairs)).unwrap_err().to_string();
    assert_eq!(
        bad(&[("EVERSPAN_STORAGE_CACHE_BYTES", "1 GB")]),
        "environment variable EVERSPAN_STORAGE_CACHE_BYTES: expected an integer, found \"1 GB\""
    );
    assert_eq!(
        bad(&[("EVERSPAN_STORAGE_CASHE_BYTES", "1")]),
        "environment variable EVERSPAN_STORAGE_CASHE_BYTES: there is no such setting; \
         did you mean `EVERSPAN_STORAGE_CACHE_BYTES`?"
    );
    assert_eq!(Config::load(None, env(&[("EVERSPAN_BIN", "x")])).unwrap(), Config::default());
}

#[test]
fn every_setting_can_be_set_by_file_and_by_environment() {
    let defaults = Config::default();
    for setting in settings() {
        let value = (setting.get)(&defaults);
        let text = format!("[{}]\n{} = {value}\n", setting.section, setting.key);
        assert_eq!(load(&text, &[]), Ok(Config::default()), "{}", setting.name());
        let plain = match &value {
            toml_edit::Value::String(s) => s.value().clone(),
            toml_edit::Value::Array(items) => {
                items.iter().filter_map(|i| i.as_str()).collect::<Vec<_>>().join(",")
            }
            other => other.to_string().trim().to_owned(),
        };
        let variable = setting.variable();
        let set = Config::load(None, env(&[(variable.as_str(), plain.as_str())]));
        assert_eq!(set, Ok(Config::default()), "{variable}");
    }
}

#[test]
fn units_are_in_the_names() {
    let defaults = Config::default();
    for setting in settings() {
        let doc = setting.doc.join(" ");
        let has = |unit: &str| setting.key.split('_').any(|word| word == unit);
        assert_eq!(doc.contains("milliseconds"), has("ms"), "{}", setting.name());
        assert_eq!(doc.to_lowercase().contains("bytes"), has("bytes"), "{}", setting.name());
        let is_number = (setting.get)(&defaults).is_integer();
        assert_eq!(is_number, setting.range.is_some(), "{} has no bounds", setting.name());
    }
}

#[test]
fn the_reference_is_valid_and_says_the_defaults() {
    assert_eq!(load(&reference(), &[]), Ok(Config::default()));
    let uncommented: String = reference()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_eq!(load(&uncommented, &[]), Ok(Config::default()));
    for setting in settings() {
        assert!(uncommented.contains(&format!("\n{} = ", setting.key)), "{}", setting.name());
    }
}
