//! The configuration: a table of settings, a TOML file, the environment.
//!
//! Defaults, then the file, then the environment (`EVERSPAN_SECTION_KEY`), then flags; the
//! later one wins. [`settings`] has the table; everything else here follows from it.

mod reference;
mod settings;
mod value;

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use toml_edit::{Document, Item, TableLike};

pub use reference::{reference, to_toml};
pub use settings::{
    Cluster, Config, Grpc, Http, LimitSettings, Log, Namespaces, Node, SearchAttributes, Shards,
    Storage, Threads,
};
use settings::{Given, Setting, sections, settings};
pub use value::{ClusterName, ClusterNode, LogFormat, LogLevel, NamespaceName, SearchAttribute};

/// Shards of a new data directory when nothing else is said.
pub const SHARDS_DEFAULT: u32 = 4;

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// Something in the file is not taken.
    #[error("{}:{line}: {message}", file.display())]
    InFile {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Names the key, and says what is wrong with it.
        message: String,
    },
    /// A variable of the environment is not taken.
    #[error("environment variable {variable}: {message}")]
    InEnvironment {
        /// The variable.
        variable: String,
        /// What is wrong with it.
        message: String,
    },
    /// Settings that contradict each other, one of them from a flag or left at its default.
    #[error("{key}: {message}")]
    Conflict {
        /// The setting.
        key: String,
        /// What is wrong with it.
        message: String,
    },
}

impl Config {
    /// Reads a file (if one is given) and then the environment over the defaults.
    ///
    /// # Errors
    /// At the first thing that is not taken; see [`Error`].
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let mut config = Config::default();
        let mut text = String::new();
        if let Some(file) = file {
            text = std::fs::read_to_string(file)
                .map_err(|e| Error::Unreadable { file: file.to_owned(), reason: e.to_string() })?;
            config.apply_file(file, &text)?;
        }
        config.apply_environment(environment)?;
        if let Some((key, message)) = config.conflict() {
            return Err(match file.and_then(|file| Some((file, line_of(&text, key)?))) {
                Some((file, line)) => {
                    let message = format!("{key}: {message}");
                    Error::InFile { file: file.to_owned(), line, message }
                }
                None => Error::Conflict { key: key.to_owned(), message },
            });
        }
        Ok(config)
    }

    /// Checks what flags may have brought into contradiction.
    ///
    /// # Errors
    /// [`Error::Conflict`].
    pub fn check(&self) -> Result<(), Error> {
        match self.conflict() {
            Some((key, message)) => Err(Error::Conflict { key: key.to_owned(), message }),
            None => Ok(()),
        }
    }

    fn apply_file(&mut self, file: &Path, text: &str) -> Result<(), Error> {
        let at = |span: Option<Range<usize>>, message: String| Error::InFile {
            file: file.to_owned(),
            line: line_at(text, span.map_or(0, |span| span.start)),
            message,
        };
        let document = Document::parse(text.to_owned())
            .map_err(|e| at(e.span(), e.message().trim().replace('\n', ", ")))?;
        let all = settings();
        let known_sections: Vec<&str> = sections().iter().map(|(name, _)| *name).collect();
        for (section, item) in document.as_table().iter() {
            let span = key_span(document.as_table(), section).or_else(|| item.span());
            if !known_sections.contains(&section) {
                let near = nearest(section, known_sections.iter().copied());
                return Err(at(span, format!("unknown section or key `{section}`{near}")));
            }
            let Some(table) = item.as_table_like() else {
                return Err(at(
                    span,
                    format!("`{section}` is a section: write [{section}] and keys under it"),
                ));
            };
            for (key, item) in table.iter() {
                let span = key_span(table, key).or_else(|| item.span());
                let setting = all.iter().find(|s| s.section == section && s.key == key);
                let Some(setting) = setting else {
                    let keys = all.iter().filter(|s| s.section == section).map(|s| s.key);
                    let near = nearest(key, keys);
                    return Err(at(span, format!("unknown key `{section}.{key}`{near}")));
                };
                let Item::Value(value) = item else {
                    return Err(at(span, format!("`{section}.{key}` is a key, not a section")));
                };
                setting
                    .apply(self, Given::Toml(value))
                    .map_err(|e| at(value.span().or(span), format!("`{section}.{key}`: {e}")))?;
            }
        }
        Ok(())
    }

    fn apply_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), Error> {
        let all = settings();
        let mut given: Vec<(String, String)> = environment
            .into_iter()
            .filter(|(variable, _)| variable.starts_with("EVERSPAN_"))
            .collect();
        // The first error of several is the same every time.
        given.sort();
        for (variable, text) in given {
            let wrong = |message| Error::InEnvironment { variable: variable.clone(), message };
            if let Some(setting) = all.iter().find(|s| s.variable() == variable) {
                setting.apply(self, Given::Env(&text)).map_err(wrong)?;
            } else if is_setting(&variable) {
                let names: Vec<String> = all.iter().map(Setting::variable).collect();
                let near = nearest(&variable, names.iter().map(String::as_str));
                return Err(wrong(format!("there is no such setting{near}")));
            }
        }
        Ok(())
    }
}

/// Whether a variable looks like a setting: others that begin with `EVERSPAN_` may belong to
/// tests and scripts.
#[must_use]
pub fn is_setting(variable: &str) -> bool {
    sections().iter().any(|(section, _)| {
        variable
            .strip_prefix("EVERSPAN_")
            .and_then(|rest| rest.strip_prefix(&section.to_ascii_uppercase()))
            .is_some_and(|rest| rest.starts_with('_'))
    })
}

fn key_span(table: &dyn TableLike, key: &str) -> Option<Range<usize>> {
    table.get_key_value(key).and_then(|(key, _)| key.span())
}

/// The line of a byte, from 1.
fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The line in which `section.key` is set.
fn line_of(text: &str, name: &str) -> Option<usize> {
    let document = Document::parse(text).ok()?;
    let (section, key) = name.split_once('.')?;
    let table = document.as_table().get(section)?.as_table_like()?;
    Some(line_at(text, key_span(table, key)?.start))
}

/// "; did you mean X?" if something known is close to what was written.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= candidate.len())
        .min()
        .map_or_else(String::new, |(_, candidate)| format!("; did you mean `{candidate}`?"))
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
