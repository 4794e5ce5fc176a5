//! How the values of settings are read from TOML and from the environment, and written.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use everspan_proto::enums::IndexedValueType;
use toml_edit::{Array, Value as Toml};

/// A type that a setting can have.
pub(crate) trait Value: Sized {
    /// What is expected, for messages and the reference: "an integer", "a path" …
    const EXPECTED: &'static str;
    /// From the file.
    fn from_toml(value: &Toml) -> Result<Self, String>;
    /// From an environment variable.
    fn from_env(text: &str) -> Result<Self, String>;
    /// As it would stand in the file.
    fn to_toml(&self) -> Toml;
    /// The number that a range bounds.
    fn number(&self) -> Option<i128> {
        None
    }
}

/// Refuses a number outside of its range.
pub(crate) fn check_range<V: Value>(
    value: &V,
    range: Option<&RangeInclusive<i128>>,
) -> Result<(), String> {
    match (value.number(), range) {
        (Some(number), Some(range)) if !range.contains(&number) => {
            Err(format!("{number} is not from {} to {}", range.start(), range.end()))
        }
        _ => Ok(()),
    }
}

fn wrong<V: Value>(found: &Toml) -> String {
    format!("expected {}, found {}", V::EXPECTED, found.type_name())
}

fn as_text<V: Value>(value: &Toml) -> Result<&str, String> {
    value.as_str().ok_or_else(|| wrong::<V>(value))
}

macro_rules! integers {
    ($($t:ty),*) => { $(
        impl Value for $t {
            const EXPECTED: &'static str = "an integer";
            fn from_toml(value: &Toml) -> Result<Self, String> {
                let number = value.as_integer().ok_or_else(|| wrong::<Self>(value))?;
                Self::try_from(number).map_err(|_| format!("{number} is out of range"))
            }
            fn from_env(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("expected {}, found {text:?}", Self::EXPECTED))
            }
            fn to_toml(&self) -> Toml {
                // Defaults are far below the largest integer of TOML.
                i64::try_from(*self).unwrap_or(i64::MAX).into()
            }
            fn number(&self) -> Option<i128> {
                i128::try_from(*self).ok()
            }
        }
    )* };
}
integers!(i64, u32, u64, usize);

/// A duration, in the file a number of milliseconds; its key ends in `_ms` or has `_ms_` in it.
impl Value for Duration {
    const EXPECTED: &'static str = "an integer of milliseconds";
    fn from_toml(value: &Toml) -> Result<Self, String> {
        let number = value.as_integer().ok_or_else(|| wrong::<Self>(value))?;
        let ms = u64::try_from(number).map_err(|_| format!("{number} is negative"))?;
        Ok(Duration::from_millis(ms))
    }
    fn from_env(text: &str) -> Result<Self, String> {
        u64::from_env(text).map(Duration::from_millis)
    }
    fn to_toml(&self) -> Toml {
        i64::try_from(self.as_millis()).unwrap_or(i64::MAX).into()
    }
    fn number(&self) -> Option<i128> {
        i128::try_from(self.as_millis()).ok()
    }
}

/// Types whose TOML form is one string.
macro_rules! strings {
    ($($t:ty, $expected:literal, $parse:expr, $show:expr;)*) => { $(
        impl Value for $t {
            const EXPECTED: &'static str = $expected;
            fn from_toml(value: &Toml) -> Result<Self, String> {
                Self::from_env(as_text::<Self>(value)?)
            }
            fn from_env(text: &str) -> Result<Self, String> {
                let parse: fn(&str) -> Result<Self, String> = $parse;
                parse(text)
            }
            fn to_toml(&self) -> Toml {
                let show: fn(&Self) -> String = $show;
                show(self).into()
            }
        }
    )* };
}
strings! {
    PathBuf, "a path",
        |text| if text.is_empty() { Err("an empty path".into()) } else { Ok(text.into()) },
        |path| path.to_string_lossy().into_owned();
    SocketAddr, "an address such as \"127.0.0.1:7233\"",
        |text| text.parse().map_err(|_| format!("{text:?} is not an address such as 127.0.0.1:7233")),
        ToString::to_string;
    LogFormat, "\"auto\", \"pretty\" or \"json\"",
        |text| <LogFormat as clap::ValueEnum>::from_str(text, false)
            .map_err(|_| format!("{text:?} is not auto, pretty or json")),
        |format| match format {
            LogFormat::Auto => "auto",
            LogFormat::Pretty => "pretty",
            LogFormat::Json => "json",
        }.into();
    LogLevel, "a log filter such as \"info\" or \"info,everspan_shard=debug\"", LogLevel::parse, |level| level.0.clone();
    NamespaceName, "a namespace's name", NamespaceName::parse, |name| name.0.clone();
    ClusterName, "a cluster's name", ClusterName::parse, |name| name.0.clone();
    ClusterNode, "NODE_ID=HOST:PORT", ClusterNode::parse, ToString::to_string;
    SearchAttribute, "NAME=TYPE", SearchAttribute::parse, ToString::to_string;
}

/// A list: an array of strings in the file, commas between its items in the environment.
impl<V: Value> Value for Vec<V> {
    const EXPECTED: &'static str = "an array of strings";
    fn from_toml(value: &Toml) -> Result<Self, String> {
        let array = value.as_array().ok_or_else(|| wrong::<Self>(value))?;
        array.iter().map(V::from_toml).collect()
    }
    fn from_env(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(V::from_env).collect()
    }
    fn to_toml(&self) -> Toml {
        self.iter().map(V::to_toml).collect::<Array>().into()
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Which log lines are written: a `tracing` filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    const LEVELS: [&'static str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    /// Reads a filter: a level, or `target=level` pairs with commas between them.
    ///
    /// # Errors
    /// If it is none. A bare word that is no level is refused, though the filter's language
    /// would take it for a target: it is a mistyped level nearly always.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_level = |word: &str| Self::LEVELS.contains(&word.to_ascii_lowercase().as_str());
        for directive in text.split(',').map(str::trim) {
            if !directive.contains('=') && !is_level(directive) {
                return Err(format!(
                    "{directive:?} is not a level; levels are {}",
                    Self::LEVELS.join(", ")
                ));
            }
        }
        tracing_subscriber::EnvFilter::try_new(text)
            .map_err(|e| format!("{text:?} is not a log filter: {e}"))?;
        Ok(Self(text.to_owned()))
    }

    /// The filter.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".into())
    }
}

/// A namespace's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceName(String);

impl NamespaceName {
    /// Checks a name.
    ///
    /// # Errors
    /// If it is empty; what else a name may not be, registration says.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("an empty namespace name".into());
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A cluster's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterName(String);

impl ClusterName {
    /// Checks a name.
    ///
    /// # Errors
    /// If it is empty, or not of letters, digits, `-`, `_` and `.`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if text.is_empty() || !text.chars().all(is_fine) {
            return Err(format!("{text:?} is not of letters, digits, '-', '_' and '.'"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ClusterName {
    fn default() -> Self {
        Self("everspan".into())
    }
}

/// A node of the cluster, and where it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its number.
    pub id: u64,
    /// `HOST:PORT`.
    pub address: String,
}

impl ClusterNode {
    /// Reads `NODE_ID=HOST:PORT`.
    ///
    /// # Errors
    /// If it has another form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not NODE_ID=HOST:PORT, such as 1=10.0.0.1:7253");
        let (id, address) = text.split_once('=').ok_or_else(bad)?;
        let (host, port) = address.trim().rsplit_once(':').ok_or_else(bad)?;
        let id: u64 = id.trim().parse().map_err(|_| bad())?;
        if id == 0 || id > 1_000_000 || host.is_empty() || port.parse::<u16>().is_err() {
            return Err(bad());
        }
        Ok(Self { id, address: address.trim().to_owned() })
    }
}

impl std::fmt::Display for ClusterNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.id, self.address)
    }
}

/// A search attribute to register in the namespaces that are made at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchAttribute {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: IndexedValueType,
}

const KINDS: [(&str, IndexedValueType); 7] = [
    ("Text", IndexedValueType::Text),
    ("Keyword", IndexedValueType::Keyword),
    ("Int", IndexedValueType::Int),
    ("Double", IndexedValueType::Double),
    ("Bool", IndexedValueType::Bool),
    ("Datetime", IndexedValueType::Datetime),
    ("KeywordList", IndexedValueType::KeywordList),
];

impl SearchAttribute {
    /// Reads `NAME=TYPE`; the type's case does not matter.
    ///
    /// # Errors
    /// If it has another form or the type is unknown.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, kind) =
            text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=TYPE"))?;
        let (name, kind) = (name.trim(), kind.trim());
        if name.is_empty() {
            return Err(format!("{text:?} has no name"));
        }
        let known = KINDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(kind));
        let Some((_, kind)) = known else {
            let words: Vec<&str> = KINDS.iter().map(|(word, _)| *word).collect();
            return Err(format!("type {kind:?} is not one of {}", words.join(", ")));
        };
        Ok(Self { name: name.to_owned(), kind: *kind })
    }
}

impl std::fmt::Display for SearchAttribute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = KINDS.iter().find(|(_, kind)| *kind == self.kind).map_or("?", |(word, _)| word);
        write!(f, "{}={word}", self.name)
    }
}
