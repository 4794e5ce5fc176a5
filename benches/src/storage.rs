//! Checkpoints to the database and writes of the log, by themselves.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use everspan_replication::{Config, Event, Node};
use everspan_storage::{Batch, SledOptions, SledStore, Store, Table};
use everspan_types::ShardId;

use crate::{Result, report::mib};

/// Operations in one write of a checkpoint: the server's.
const CHECKPOINT_BATCH: usize = 1_000;
/// Groups among which entries are spread.
const GROUPS: u64 = 4;

/// How much is written.
#[derive(Clone, Debug, Args)]
pub(crate) struct Storage {
    /// Rows of the database, and entries of the log
    #[arg(short, default_value_t = 50_000)]
    n: usize,
    /// Bytes of each
    #[arg(long, default_value_t = 600)]
    size: usize,
    /// Where files are made [default: beside this program]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Storage {
    pub(crate) fn run(&self) -> Result {
        let own = std::env::current_exe()?;
        let beside = own.parent().map(PathBuf::from).unwrap_or_default();
        let dir = self.dir.clone().unwrap_or(beside);
        let dir = tempfile::Builder::new().prefix("everspan-bench-").tempdir_in(dir)?;
        self.checkpoints(&dir.path().join("store"))?;
        for batch in [1, 8, 64] {
            self.log(&dir.path().join(format!("log-{batch}")), batch)?;
        }
        Ok(())
    }

    /// Fills a shard's table and writes it out, then overwrites and deletes the same rows.
    fn checkpoints(&self, dir: &std::path::Path) -> Result {
        let options = SledOptions { cache_bytes: 256 << 20 };
        let store: Arc<dyn Store> = Arc::new(SledStore::open(dir, &options)?);
        let mut table = Table::open(ShardId(1), store.clone())?;
        let keys: Vec<Bytes> =
            (0..self.n).map(|_| Bytes::copy_from_slice(uuid::Uuid::now_v7().as_bytes())).collect();
        let value = |fill: u8| Some(Bytes::from(vec![fill; self.size]));
        let mut index = 0;
        for (what, value) in [("insert", value(1)), ("overwrite", value(2)), ("delete", None)] {
            for key in &keys {
                index += 1;
                table.apply(index, Batch { ops: vec![(key.clone(), value.clone())] });
            }
            let Some(checkpoint) = table.begin_checkpoint() else {
                return Err("there is nothing to write".into());
            };
            let began = Instant::now();
            checkpoint.write(&*store, CHECKPOINT_BATCH)?;
            let took = began.elapsed();
            table.end_checkpoint(true);
            println!(
                "checkpoint, {what:9} {} rows of {} bytes: {:6.1} us each, disk {:.0} MiB",
                self.n,
                self.size,
                each_us(took, self.n),
                mib(store.size_on_disk()),
            );
        }
        Ok(())
    }

    /// Proposes `batch` entries at a time and waits for the write that commits them.
    fn log(&self, dir: &std::path::Path, batch: usize) -> Result {
        let mut node = Node::open(&Config::new(dir))?;
        for group in 0..GROUPS {
            node.add_group(group, 0)?;
        }
        node.poll()?;
        let data = Bytes::from(vec![7; self.size]);
        let rounds = (self.n / batch / 4).max(1);
        let mut committed = 0;
        let began = Instant::now();
        for round in 0..rounds {
            for at in 0..batch {
                let seq = (round * batch + at) as u64;
                node.propose(seq % GROUPS, seq, data.clone())?;
            }
            let told = node.poll()?;
            let is_commit = |e: &Event| matches!(e, Event::Committed { seq: Some(_), .. });
            committed += told.iter().filter(|(_, event)| is_commit(event)).count();
        }
        let took = began.elapsed();
        println!(
            "log, {batch:2} entries of {} bytes a write: {:6.1} us each, {:6.1} us a write",
            self.size,
            each_us(took, committed),
            each_us(took, rounds),
        );
        Ok(())
    }
}

fn each_us(took: Duration, n: usize) -> f64 {
    took.as_secs_f64() * 1e6 / n.max(1) as f64
}
