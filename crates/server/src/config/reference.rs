//! The commented reference of every setting: `config/everspan.toml`.

use std::fmt::Write;

use super::settings::{Config, sections, settings};

const HEAD: &str = "\
# Every setting of Everspan, with its default. `everspan server --config FILE` reads a file
# of this form; what is not in it has the value shown here.
#
# Each setting can be given by the environment as well, which wins over the file: the variable
# is EVERSPAN_SECTION_KEY, for example EVERSPAN_STORAGE_CACHE_BYTES; lists have commas between
# their items there. An unknown key or a bad value is an error, and nothing starts.
#
# This file is written by `cargo xtask config`, or `everspan config`, from
# crates/server/src/config/settings.rs.
";

/// The text of `config/everspan.toml`: valid TOML with every key commented out.
#[must_use]
pub fn reference() -> String {
    let defaults = Config::default();
    let all = settings();
    let mut out = HEAD.to_owned();
    for (section, doc) in sections() {
        out.push('\n');
        comment(&mut out, doc);
        let _ = writeln!(out, "[{section}]");
        for setting in all.iter().filter(|s| s.section == section) {
            out.push('\n');
            comment(&mut out, setting.doc);
            if let Some(range) = &setting.range {
                let _ = writeln!(out, "# From {} to {}.", range.start(), range.end());
            }
            let _ = writeln!(out, "# {}", setting.variable());
            let _ = writeln!(out, "#{} = {}", setting.key, (setting.get)(&defaults));
        }
    }
    out
}

/// A configuration as a file: what is not the default.
#[must_use]
pub fn to_toml(config: &Config) -> String {
    let (defaults, all) = (Config::default(), settings());
    let mut out = String::new();
    for (section, _) in sections() {
        let given = all.iter().filter(|s| s.section == section);
        let given: Vec<String> = given
            .map(|s| (s.key, (s.get)(config).to_string(), (s.get)(&defaults).to_string()))
            .filter(|(_, value, default)| value != default)
            .map(|(key, value, _)| format!("{key} = {value}\n"))
            .collect();
        if !given.is_empty() {
            let _ = write!(out, "\n[{section}]\n{}", given.concat());
        }
    }
    out
}

fn comment(out: &mut String, doc: &[&str]) {
    for line in doc {
        let _ = writeln!(out, "# {}", line.trim());
    }
}
