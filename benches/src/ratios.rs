//! Figures divided by one another: what holds on any machine.

use crate::{
    Result, Run,
    load::Scenario,
    report::Report,
    server::{Place, Server},
};

/// Calls of a worker and a client for one echo: start, three polls, three answers.
const ECHO_CALLS: f64 = 7.0;

async fn measure(run: &Run, scenario: Scenario, place: Place, shards: u32) -> Result<Report> {
    let server = Server::start(&run.server, place, shards)?;
    let report = run.load(scenario).run(&server).await?;
    let place = if place == Place::Disk { "disk" } else { "memory" };
    println!("[{place}, {shards} shards] {report}");
    Ok(report)
}

/// Makes the runs one after the other, and prints what follows.
pub(crate) async fn print(run: &Run) -> Result {
    let many = run.server.shards;
    let bare = measure(run, Scenario::Bare, Place::Disk, many).await?;
    let echo = measure(run, Scenario::Echo, Place::Disk, many).await?;
    let echo_memory = measure(run, Scenario::Echo, Place::Memory, many).await?;
    let echo_one = measure(run, Scenario::Echo, Place::Disk, 1).await?;
    let three = Server::start_nodes(&run.server, Place::Disk, many, 3)?;
    let echo_three = run.load(Scenario::Echo).run(&three).await?;
    println!("[disk, {many} shards, 3 nodes] {echo_three}");
    drop(three);
    let timer = measure(run, Scenario::Timer, Place::Disk, many).await?;
    let signal = measure(run, Scenario::Signal, Place::Disk, many).await?;
    println!();
    let line = |what: &str, value: f64| println!("{value:8.2}  {what}");
    line("CPU of an echo / CPU of a bare call", echo.cpu_ms() / bare.cpu_ms());
    line(
        "CPU of an echo / CPU of the 7 calls it is made of, were they bare",
        echo.cpu_ms() / (bare.cpu_ms() * ECHO_CALLS),
    );
    line("CPU of a workflow with a timer / CPU of an echo", timer.cpu_ms() / echo.cpu_ms());
    line("CPU of a signal / CPU of a bare call", signal.cpu_ms() / bare.cpu_ms());
    line("echoes a second, disk / memory", echo.per_second() / echo_memory.per_second());
    line("CPU of an echo, disk / memory", echo.cpu_ms() / echo_memory.cpu_ms());
    line(
        &format!("echoes a second, {many} shards / 1 shard"),
        echo.per_second() / echo_one.per_second(),
    );
    line(&format!("CPU of an echo, {many} shards / 1 shard"), echo.cpu_ms() / echo_one.cpu_ms());
    line("CPU of an echo, 3 nodes together / 1 node", echo_three.cpu_ms() / echo.cpu_ms());
    line("echoes a second, 3 nodes / 1 node", echo_three.per_second() / echo.per_second());
    Ok(())
}
