//! Every setting, in one table: its section, key, type, bounds, default, and what it does.
//!
//! A new setting is an entry in [`settings!`] below; the file, the environment, the reference
//! and the checks follow from it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use everspan_types::Limits;
use toml_edit::Value as Toml;

use super::value::{
    ClusterName, ClusterNode, LogFormat, LogLevel, NamespaceName, SearchAttribute, Value,
    check_range,
};

/// Reads one value into its place.
pub(crate) enum Given<'a> {
    /// From the file.
    Toml(&'a Toml),
    /// From the environment.
    Env(&'a str),
}

/// One setting.
pub(crate) struct Setting {
    pub(crate) section: &'static str,
    pub(crate) key: &'static str,
    /// Its documentation, line by line.
    pub(crate) doc: &'static [&'static str],
    pub(crate) range: Option<RangeInclusive<i128>>,
    pub(crate) get: fn(&Config) -> Toml,
    pub(crate) set: fn(&mut Config, Given<'_>, Option<&RangeInclusive<i128>>) -> Result<(), String>,
}

impl Setting {
    /// `section.key`.
    #[cfg(test)]
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// Its environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("EVERSPAN_{}_{}", self.section, self.key).to_ascii_uppercase()
    }

    pub(crate) fn apply(&self, config: &mut Config, given: Given<'_>) -> Result<(), String> {
        (self.set)(config, given, self.range.as_ref())
    }
}

/// A section's name and documentation.
pub(crate) type Section = (&'static str, &'static [&'static str]);

macro_rules! range {
    () => {
        None
    };
    ($range:expr) => {
        Some($range)
    };
}

macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:ident: $Section:ident {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $type:ty = $default:expr $(, in $range:expr)?;
            )*
        }
    )*) => {
        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $Section { $(
                $(#[doc = $doc])*
                pub $key: $type,
            )* }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $($key: $default,)* }
                }
            }
        )*

        /// The settings of a node.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Config { $(
            $(#[doc = $section_doc])*
            pub $section: $Section,
        )* }

        /// All sections, in the order of the reference.
        pub(crate) fn sections() -> Vec<Section> {
            vec![$((stringify!($section), &[$($section_doc),*])),*]
        }

        /// All settings, in the order of the reference.
        pub(crate) fn settings() -> Vec<Setting> {
            vec![$($(Setting {
                section: stringify!($section),
                key: stringify!($key),
                doc: &[$($doc),*],
                range: range!($($range)?),
                get: |config| config.$section.$key.to_toml(),
                set: |config, given, range| {
                    let value = match given {
                        Given::Toml(toml) => <$type>::from_toml(toml)?,
                        Given::Env(text) => <$type>::from_env(text)?,
                    };
                    check_range(&value, range)?;
                    config.$section.$key = value;
                    Ok(())
                },
            },)*)*]
        }
    };
}

const KIB: i128 = 1 << 10;
const MIB: i128 = 1 << 20;
const GIB: i128 = 1 << 30;
const HOUR_MS: i128 = 3_600_000;

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

settings! {
    /// The node itself.
    node: Node {
        /// Where everything is kept. One process at a time; a local disk, not a network one.
        data_dir: PathBuf = PathBuf::from("everspan-data");
        /// How long a stopping node waits for the calls that are under way, in milliseconds.
        shutdown_timeout_ms: Duration = Duration::from_secs(10), in 0..=HOUR_MS;
    }

    /// The gRPC API. There is no authentication yet: whoever reaches the address may do
    /// anything, so that any other than a loopback address is an explicit choice.
    grpc: Grpc {
        /// Where it listens.
        address: SocketAddr = loopback(7233);
        /// Largest message taken, in bytes.
        message_bytes_max: usize = 4 << 20, in 64 * KIB..=128 * MIB;
    }

    /// The HTTP/JSON form of the API, `/metrics`, `/healthz` and `/readyz`.
    http: Http {
        /// Where it listens.
        address: SocketAddr = loopback(7243);
        /// Largest body taken, in bytes.
        body_bytes_max: usize = 4 << 20, in 64 * KIB..=128 * MIB;
    }

    /// The cluster that the node is part of. Without it the node is its own cluster, and its
    /// data directory stays that of a single node.
    cluster: Cluster {
        /// This node's number, unlike that of any other. 0: the node is its own cluster.
        node_id: u64 = 0, in 0..=1_000_000;
        /// What the cluster is called. Nodes of clusters with other names are not spoken to.
        name: ClusterName = ClusterName::default();
        /// Where the node listens to the other nodes. There is no authentication yet: whoever
        /// reaches the address may do anything.
        address: SocketAddr = loopback(7253);
        /// The nodes that found the cluster, as "NODE_ID=HOST:PORT". The numbers are the same on
        /// all nodes, and for ever; the addresses may change. A call is acknowledged once most of
        /// the replicas of a shard have it: take three nodes or five. A node that is none of them
        /// joins the cluster, and is spoken to at its cluster.address.
        nodes: Vec<ClusterNode> = Vec::new();
        /// Changes, in bytes, that are kept in memory for replicas that are away or slow, of all
        /// shards together. What those lack beyond that is copied to them from the start.
        lag_bytes_max: usize = 256 << 20, in MIB..=64 * GIB;
        /// How long a node may be away, in milliseconds, until what it has is copied to others, if
        /// there are enough.
        replace_after_ms: Duration = Duration::from_secs(600), in 1_000..=24 * HOUR_MS;
    }

    /// Log lines, on standard error.
    log: Log {
        /// "pretty" for people, "json" for machines, "auto": pretty on a terminal, else JSON.
        format: LogFormat = LogFormat::Auto;
        /// What is logged: a level (error, warn, info, debug, trace), or a filter such as
        /// "info,everspan_shard=debug".
        level: LogLevel = LogLevel::default();
    }

    /// Threads. 0 means as many as the machine has cores.
    threads: Threads {
        /// Threads that serve gRPC.
        grpc: usize = 0, in 0..=1_024;
        /// Threads that serve HTTP.
        http: usize = 1, in 0..=1_024;
        /// Threads that run shards and task queues.
        shards: usize = 0, in 0..=1_024;
    }

    /// The shards that executions are divided among.
    shards: Shards {
        /// How many. Decided when the data directory is made, and not to be changed after
        /// that. 0: what the data directory has, or 4 for a new one.
        count: u32 = 0, in 0..=1_024;
    }

    /// What is kept on disk, and what in memory on the way there.
    storage: Storage {
        /// Memory for the database's cache, in bytes.
        cache_bytes: u64 = 256 << 20, in MIB..=1024 * GIB;
        /// Longest time between two checkpoints of a shard with changes, in milliseconds.
        /// A restart applies again what the log holds since the last one.
        checkpoint_interval_ms: Duration = Duration::from_secs(2), in 10..=HOUR_MS;
        /// Size of a shard's changes in memory, in bytes, that brings its checkpoint forward.
        checkpoint_bytes: usize = 16 << 20, in 64 * KIB..=64 * GIB;
        /// Size of a shard's changes in memory, in bytes, at which it refuses calls with
        /// RESOURCE_EXHAUSTED until a checkpoint has caught up.
        table_bytes_max: usize = 128 << 20, in MIB..=64 * GIB;
        /// Size of one file of the log, in bytes.
        log_file_bytes: u64 = 64 << 20, in MIB..=4 * GIB;
        /// Size of all files of the log, in bytes, from which old ones are removed.
        log_purge_bytes: u64 = 256 << 20, in MIB..=1024 * GIB;
    }

    /// What is registered when the node starts, if it is not there yet.
    namespaces: Namespaces {
        /// Names of namespaces.
        create: Vec<NamespaceName> =
            NamespaceName::parse("default").into_iter().collect();
    }

    /// Search attributes that the namespaces above have from the start.
    search_attributes: SearchAttributes {
        /// "NAME=TYPE", the types being Text, Keyword, Int, Double, Bool, Datetime and
        /// KeywordList.
        create: Vec<SearchAttribute> = Vec::new();
    }

    /// Bounds on executions and calls. The defaults are the real Temporal server's.
    limits: LimitSettings {
        /// Longest workflow ID, activity ID, timer ID, queue name …, in bytes.
        id_bytes_max: usize = Limits::default().id_length_max, in 1..=64 * KIB;
        /// Largest payload set of a call or command, in bytes.
        blob_bytes_max: usize = Limits::default().blob_size_max, in KIB..=128 * MIB;
        /// Payload size from which a warning is logged, in bytes.
        blob_bytes_warn: usize = Limits::default().blob_size_warn, in KIB..=128 * MIB;
        /// Largest memo, in bytes.
        memo_bytes_max: usize = Limits::default().memo_size_max, in KIB..=128 * MIB;
        /// Memo size from which a warning is logged, in bytes.
        memo_bytes_warn: usize = Limits::default().memo_size_warn, in 16..=128 * MIB;
        /// Event count of a run from which a warning is logged.
        history_events_warn: i64 = Limits::default().history_events_warn, in 1..=100_000_000;
        /// Size of a run's history from which a warning is logged, in bytes.
        history_bytes_warn: i64 = Limits::default().history_bytes_warn, in 1..=64 * GIB;
        /// Most events of a run; at this count the server terminates it.
        history_events_max: i64 = Limits::default().history_events_max, in 16..=100_000_000;
        /// Most bytes of a run's history; at this size the server terminates it.
        history_bytes_max: i64 = Limits::default().history_bytes_max, in KIB..=64 * GIB;
        /// Event count from which workers are told to continue as new.
        suggest_continue_as_new_events: i64 =
            Limits::default().suggest_continue_as_new_events, in 1..=100_000_000;
        /// History size, in bytes, from which workers are told to continue as new.
        suggest_continue_as_new_bytes: i64 =
            Limits::default().suggest_continue_as_new_bytes, in KIB..=64 * GIB;
        /// Most pending activities of a run.
        pending_activities_max: usize = Limits::default().pending_activities_max, in 1..=1_000_000;
        /// Most pending child workflows of a run.
        pending_children_max: usize = Limits::default().pending_children_max, in 1..=1_000_000;
        /// Most signals of a run to other workflows that were not answered yet.
        pending_external_signals_max: usize =
            Limits::default().pending_external_signals_max, in 1..=1_000_000;
        /// Most cancel requests of a run to other workflows that were not answered yet.
        pending_external_cancels_max: usize =
            Limits::default().pending_external_cancels_max, in 1..=1_000_000;
        /// Most signals that a run takes.
        signals_max: i64 = Limits::default().signals_max, in 1..=100_000_000;
        /// Most updates of a run that are not completed at a time.
        updates_in_flight_max: usize = Limits::default().updates_in_flight_max, in 1..=100_000;
        /// Largest sum of a run's updates that are not accepted yet, in bytes.
        updates_in_flight_bytes_max: usize =
            Limits::default().updates_in_flight_bytes_max, in KIB..=GIB;
        /// Most updates that a run accepts.
        updates_max: usize = Limits::default().updates_max, in 1..=100_000;
        /// Update count from which workers are told to continue as new.
        suggest_continue_as_new_updates: usize =
            Limits::default().suggest_continue_as_new_updates, in 1..=100_000;
        /// Most events held back while a workflow task is with a worker.
        buffered_events_max: usize = Limits::default().buffered_events_max, in 1..=1_000_000;
        /// Largest sum of the events held back, in bytes.
        buffered_bytes_max: usize = Limits::default().buffered_bytes_max, in KIB..=128 * MIB;
        /// Size to which an activity's failure is cut that is kept for its next attempt, in
        /// bytes.
        activity_failure_bytes_max: usize =
            Limits::default().activity_failure_bytes_max, in 256..=MIB;
        /// Workflow task timeout when the start names none, in milliseconds.
        workflow_task_timeout_ms_default: Duration =
            Limits::default().workflow_task_timeout_default, in 1..=HOUR_MS;
        /// Longest workflow task timeout taken, in milliseconds.
        workflow_task_timeout_ms_max: Duration =
            Limits::default().workflow_task_timeout_max, in 1..=HOUR_MS;
        /// How long heartbeats may keep a workflow task alive, in milliseconds.
        workflow_task_heartbeat_ms_max: Duration =
            Limits::default().workflow_task_heartbeat_max, in 1..=24 * HOUR_MS;
        /// Largest summary in user metadata, in bytes.
        user_metadata_summary_bytes_max: usize =
            Limits::default().user_metadata_summary_max, in 1..=MIB;
        /// Largest details in user metadata, in bytes.
        user_metadata_details_bytes_max: usize =
            Limits::default().user_metadata_details_max, in 1..=16 * MIB;
        /// Events in a page of history when the caller names no size.
        history_page_events_default: usize =
            Limits::default().history_page_default, in 1..=10_000;
        /// Most executions in a page of a list.
        visibility_page_executions_max: usize =
            Limits::default().visibility_page_max, in 1..=100_000;
        /// Requests a second of each namespace, those that list or count aside; twice as many
        /// in a burst. More are refused with RESOURCE_EXHAUSTED. 0: any number.
        requests_per_second_max: usize =
            Limits::default().requests_per_second_max, in 0..=100_000_000;
        /// Requests a second of each namespace that list or count. 0: any number.
        visibility_requests_per_second_max: usize =
            Limits::default().visibility_requests_per_second_max, in 0..=100_000_000;
        /// Calls of each method that wait at once (polls, queries …), of each namespace. 0: any
        /// number.
        long_polls_max: usize = Limits::default().long_polls_max, in 0..=100_000_000;
        /// Tasks a second of one task queue, whatever its own limit says.
        queue_tasks_per_second_max: usize =
            Limits::default().queue_tasks_per_second_max, in 1..=100_000_000;
    }
}

impl Cluster {
    /// Whether there are other nodes, or may be.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.node_id != 0
    }

    /// The numbers of all nodes, in order.
    #[must_use]
    pub fn node_ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.nodes.iter().map(|node| node.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Where other nodes speak to this one.
    #[must_use]
    pub fn own_address(&self) -> String {
        let own = self.nodes.iter().find(|node| node.id == self.node_id);
        own.map_or_else(|| self.address.to_string(), |node| node.address.clone())
    }

    fn conflict(&self) -> Option<(&'static str, String)> {
        let ids = self.node_ids();
        if !self.is_set() {
            return (!ids.is_empty()).then(|| {
                ("cluster.nodes", "cluster.node_id must say which of them this node is".into())
            });
        }
        if ids.is_empty() {
            let what = "the nodes that found the cluster are needed; this one may be another";
            return Some(("cluster.nodes", what.into()));
        }
        if !ids.contains(&self.node_id) && self.address.ip().is_unspecified() {
            let what = "a node that joins a cluster needs an address that others can reach";
            return Some(("cluster.address", what.into()));
        }
        let twice = ids.windows(2).find(|pair| pair[0] == pair[1]);
        twice.map(|pair| ("cluster.nodes", format!("node {} is there twice", pair[0])))
    }
}

impl Config {
    /// The limits in the form in which the crates take them.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let from = &self.limits;
        // Every field by name: a limit without a setting does not compile.
        Limits {
            id_length_max: from.id_bytes_max,
            blob_size_max: from.blob_bytes_max,
            blob_size_warn: from.blob_bytes_warn,
            memo_size_max: from.memo_bytes_max,
            memo_size_warn: from.memo_bytes_warn,
            history_events_warn: from.history_events_warn,
            history_bytes_warn: from.history_bytes_warn,
            history_events_max: from.history_events_max,
            history_bytes_max: from.history_bytes_max,
            suggest_continue_as_new_events: from.suggest_continue_as_new_events,
            suggest_continue_as_new_bytes: from.suggest_continue_as_new_bytes,
            pending_activities_max: from.pending_activities_max,
            pending_children_max: from.pending_children_max,
            pending_external_signals_max: from.pending_external_signals_max,
            pending_external_cancels_max: from.pending_external_cancels_max,
            signals_max: from.signals_max,
            updates_in_flight_max: from.updates_in_flight_max,
            updates_in_flight_bytes_max: from.updates_in_flight_bytes_max,
            updates_max: from.updates_max,
            suggest_continue_as_new_updates: from.suggest_continue_as_new_updates,
            buffered_events_max: from.buffered_events_max,
            buffered_bytes_max: from.buffered_bytes_max,
            activity_failure_bytes_max: from.activity_failure_bytes_max,
            workflow_task_timeout_default: from.workflow_task_timeout_ms_default,
            workflow_task_timeout_max: from.workflow_task_timeout_ms_max,
            workflow_task_heartbeat_max: from.workflow_task_heartbeat_ms_max,
            user_metadata_summary_max: from.user_metadata_summary_bytes_max,
            user_metadata_details_max: from.user_metadata_details_bytes_max,
            history_page_default: from.history_page_events_default,
            visibility_page_max: from.visibility_page_executions_max,
            requests_per_second_max: from.requests_per_second_max,
            visibility_requests_per_second_max: from.visibility_requests_per_second_max,
            long_polls_max: from.long_polls_max,
            queue_tasks_per_second_max: from.queue_tasks_per_second_max,
        }
    }

    /// What settings must be to each other; gives the setting that is wrong, and why.
    pub(crate) fn conflict(&self) -> Option<(&'static str, String)> {
        let (storage, limits) = (&self.storage, &self.limits);
        let above = |name, value: i128, other: &str, bound: i128| {
            (value > bound).then(|| (name, format!("{value} is more than {other}, {bound}")))
        };
        // The casts are of sizes bounded above.
        above(
            "storage.checkpoint_bytes",
            storage.checkpoint_bytes as i128,
            "storage.table_bytes_max",
            storage.table_bytes_max as i128,
        )
        .or_else(|| {
            above(
                "storage.log_file_bytes",
                i128::from(storage.log_file_bytes),
                "storage.log_purge_bytes",
                i128::from(storage.log_purge_bytes),
            )
        })
        .or_else(|| {
            above(
                "limits.workflow_task_timeout_ms_default",
                limits.workflow_task_timeout_ms_default.as_millis() as i128,
                "limits.workflow_task_timeout_ms_max",
                limits.workflow_task_timeout_ms_max.as_millis() as i128,
            )
        })
        .or_else(|| {
            (self.grpc.address == self.http.address && self.grpc.address.port() != 0)
                .then(|| ("http.address", format!("{} is grpc.address too", self.http.address)))
        })
        .or_else(|| self.cluster.conflict())
    }
}
