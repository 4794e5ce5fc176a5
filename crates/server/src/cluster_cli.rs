//! `everspan cluster`: the admin service, for people.

use std::{io::Write, time::Duration};

use everspan_admin::{
    AdminClient, Cluster, DrainNodeRequest, GetClusterRequest, Node, RemoveNodeRequest, Shard,
    TransferLeaderRequest,
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::cli::{ClusterArgs, ClusterCommand};

/// How long a node may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How often a command that waits looks again.
const LOOK: Duration = Duration::from_secs(1);

/// Does what the command line says.
///
/// # Errors
/// What is to be told.
pub(crate) fn run(args: &ClusterArgs) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| e.to_string())?.block_on(command(args))
}

async fn command(args: &ClusterArgs) -> Result<(), String> {
    let address = &args.address;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|e| format!("{address} is no address of a node: {e}"))?
        .timeout(ANSWER_MAX);
    let channel = endpoint.connect().await;
    let channel = channel.map_err(|_| {
        format!("nothing answers at {address}: --address says where a node serves gRPC")
    })?;
    let mut client = AdminClient::new(channel);
    match &args.command {
        ClusterCommand::Status => {
            let cluster = look(&mut client).await?;
            show(args, &cluster, || status(&cluster))
        }
        ClusterCommand::Nodes => {
            let cluster = look(&mut client).await?;
            show(args, &cluster.nodes, || nodes(&cluster))
        }
        ClusterCommand::Shards => {
            let cluster = look(&mut client).await?;
            show(args, &cluster.shards, || shards(&cluster))
        }
        ClusterCommand::Drain { node, undo, no_wait } => {
            let request = DrainNodeRequest { node: *node, undo: *undo };
            client.drain_node(request).await.map_err(told)?;
            if !undo && !no_wait {
                drained(&mut client, *node).await?;
            }
            Ok(())
        }
        ClusterCommand::RemoveNode { node } => {
            let done = client.remove_node(RemoveNodeRequest { node: *node }).await;
            done.map(drop).map_err(told)
        }
        ClusterCommand::TransferLeader { shard, node } => {
            let request = TransferLeaderRequest { shard: *shard, node: *node };
            client.transfer_leader(request).await.map(drop).map_err(told)
        }
    }
}

fn told(status: Status) -> String {
    match status.code() {
        Code::Unimplemented => "this node is no part of a cluster".into(),
        _ => status.message().to_owned(),
    }
}

async fn look(client: &mut AdminClient<Channel>) -> Result<Cluster, String> {
    let cluster = client.get_cluster(GetClusterRequest {}).await;
    cluster.map(tonic::Response::into_inner).map_err(told)
}

/// Waits until a node has nothing, and says how far it is.
async fn drained(client: &mut AdminClient<Channel>, node: u64) -> Result<(), String> {
    let mut said = String::new();
    loop {
        let cluster = look(client).await?;
        let wanted = cluster.shards.iter().filter(|s| s.wanted.contains(&node)).count();
        let found = cluster.nodes.iter().find(|n| n.id == node);
        let (replicas, leads) = found.map_or((0, 0), |n| (n.replicas, n.leads));
        if wanted == 0 && replicas == 0 {
            return say(&format!("node {node} has no replicas: it may be stopped and removed\n"));
        }
        let spare = |n: &&Node| n.id != node && n.is_there && n.state == "up";
        let needs = cluster.shards.iter().map(|s| s.wanted.len()).max().unwrap_or(0);
        if cluster.nodes.iter().filter(spare).count() < needs {
            return Err(format!(
                "node {node} leads {leads} shards and keeps {wanted} replicas, since there are too \
                 few other nodes for {needs} replicas of each shard: add one, and it goes on by \
                 itself"
            ));
        }
        let line = format!("node {node}: {replicas} replicas, {leads} leaders left\n");
        if line != said {
            say(&line)?;
            said = line;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    // A closed pipe is the reader's choice.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(())
}

fn show(
    args: &ClusterArgs,
    value: &impl serde::Serialize,
    table: impl FnOnce() -> String,
) -> Result<(), String> {
    if !args.json {
        return say(&table());
    }
    let text = serde_json::to_string_pretty(value).map_err(|e| e.to_string())?;
    say(&format!("{text}\n"))
}

/// Lines of cells, each column as wide as it has to be.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).into()
}

fn list(nodes: &[u64]) -> String {
    nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

fn status(cluster: &Cluster) -> String {
    let count = |what: &dyn Fn(&Shard) -> bool| cluster.shards.iter().filter(|s| what(s)).count();
    let members = || cluster.nodes.iter().filter(|n| n.state != "removed");
    let there = members().filter(|n| n.is_there).count();
    let led = count(&|s| s.leader != 0);
    let moving = count(&|s| s.leader != 0 && !s.is_settled);
    // A leader that is alone with its entries does not survive another loss.
    let weak = count(&|s| s.leader != 0 && s.close.len() < s.wanted.len());
    let of = cluster.shards.len();
    table(&[
        cells(["cluster", &format!("{} ({})", cluster.name, cluster.id)]),
        cells(["nodes", &format!("{there} of {} are there", members().count())]),
        cells(["shards", &format!("{led} of {of} are led, {moving} move, {weak} lack a replica")]),
        cells([
            "meta group",
            &match cluster.meta_leader {
                0 => "nobody leads it".to_owned(),
                leader => format!("led by node {leader}"),
            },
        ]),
    ])
}

fn nodes(cluster: &Cluster) -> String {
    let mut rows = vec![cells(["NODE", "ADDRESS", "STATE", "THERE", "REPLICAS", "LEADS", "META"])];
    rows.extend(cluster.nodes.iter().map(|n| {
        cells([
            &n.id.to_string(),
            &n.address,
            &n.state,
            if n.is_there { "yes" } else { "no" },
            &n.replicas.to_string(),
            &n.leads.to_string(),
            match n.id {
                id if id == cluster.meta_leader => "leads",
                _ if n.is_meta_voter => "votes",
                _ => "follows",
            },
        ])
    }));
    table(&rows)
}

fn shards(cluster: &Cluster) -> String {
    let mut rows = vec![cells([
        "SHARD",
        "LEADER",
        "PLACED ON",
        "VOTE",
        "LEARN",
        "CLOSE",
        "TERM",
        "COMMITTED",
        "MOVES",
    ])];
    rows.extend(cluster.shards.iter().map(|s| {
        cells([
            &s.id.to_string(),
            &if s.leader == 0 { "none".to_owned() } else { s.leader.to_string() },
            &list(&s.wanted),
            &list(&s.voters),
            &list(&s.learners),
            &list(&s.close),
            &s.term.to_string(),
            &s.committed.to_string(),
            if s.is_settled { "no" } else { "yes" },
        ])
    }));
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let shard = |id| Shard { id, leader: 2, wanted: vec![1, 2, 3], ..Shard::default() };
        let cluster = Cluster {
            nodes: vec![Node { id: 1, state: "up".into(), is_there: true, ..Node::default() }],
            shards: vec![shard(1), shard(10)],
            ..Cluster::default()
        };
        let text = shards(&cluster);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let at = |line: &str| line.find('2').unwrap_or(0);
        assert_eq!(at(lines[1]), at(lines[2]));
        assert!(status(&cluster).contains("2 of 2 are led, 2 move, 2 lack a replica"));
        assert!(nodes(&cluster).contains("follows"));
    }
}
