//! What breaks: a table of faults. A new one is a row with a function that strikes.

use crate::{sched::Event, world::World};

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) weight: u32,
    pub(crate) strike: fn(&mut World),
}

/// What breaks.
pub(crate) const FAULTS: &[Fault] = &[
    Fault { name: "crash", weight: 20, strike: World::power_off },
    Fault { name: "crash while the log is written", weight: 25, strike: crash_in_log },
    Fault { name: "crash in a checkpoint", weight: 20, strike: crash_in_checkpoint },
    Fault { name: "disk full", weight: 10, strike: disk_full },
    Fault { name: "writes fail", weight: 10, strike: writes_fail },
    Fault { name: "a sync fails", weight: 5, strike: sync_fails },
    Fault { name: "checkpoints fail", weight: 10, strike: checkpoints_fail },
    Fault { name: "a proposal finds no room", weight: 15, strike: proposal_dropped },
    Fault { name: "the clock jumps", weight: 8, strike: clock_jumps },
    Fault { name: "a worker restarts", weight: 12, strike: worker_restarts },
];

/// The power goes at the first refusal, or a little later if there is none.
fn dies_soon(world: &mut World) {
    (world.machine.dies_on_error, world.machine.is_broken) = (true, true);
    let (life, wait) = (world.machine.life, world.sched.rng.millis(1, 2_000));
    world.sched.after(wait, Event::PowerOff(life));
}

fn mend_later(world: &mut World) {
    world.machine.is_broken = true;
    let wait = world.sched.rng.millis(10, 8_000);
    world.sched.after(wait, Event::Mend);
}

fn crash_in_log(world: &mut World) {
    let operations = world.sched.rng.below(6) as u64;
    world.machine.fs.stop_after(operations);
    dies_soon(world);
}

fn crash_in_checkpoint(world: &mut World) {
    let writes = world.sched.rng.below(12) as u64;
    world.machine.store.fail_after(writes);
    dies_soon(world);
}

fn disk_full(world: &mut World) {
    let used: usize = world.machine.fs.files().iter().map(|(_, size)| size).sum();
    let free = world.sched.rng.below(4 << 10);
    world.machine.fs.set_capacity(Some((used + free) as u64));
    mend_later(world);
}

fn writes_fail(world: &mut World) {
    let errno = if world.sched.rng.chance(50) { 5 } else { 30 };
    world.machine.fs.fail_writes(Some(errno));
    mend_later(world);
}

/// Nothing is written after it until the process begins anew.
fn sync_fails(world: &mut World) {
    world.machine.fs.fail_syncs(Some(5));
    world.machine.is_broken = true;
}

fn checkpoints_fail(world: &mut World) {
    let writes = world.sched.rng.below(8) as u64;
    world.machine.store.fail_after(writes);
    mend_later(world);
}

/// The group is fenced, and its shard begins anew from what is committed.
fn proposal_dropped(world: &mut World) {
    if let Some(up) = &mut world.machine.up {
        up.drops_proposal = true;
    }
}

fn clock_jumps(world: &mut World) {
    world.machine.clock_ahead += world.sched.rng.millis(1, 60_000);
    world.record.clock_ahead = world.machine.clock_ahead;
}

fn worker_restarts(world: &mut World) {
    let worker = world.sched.rng.below(world.workers.workers.len());
    world.workers.restart(worker);
}
