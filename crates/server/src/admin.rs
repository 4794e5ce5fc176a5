//! What the cluster answers an operator: the admin service.

use std::collections::{BTreeMap, BTreeSet};

use everspan_admin::{
    Admin, Cluster, Done, DrainNodeRequest, GetClusterRequest, Node, RemoveNodeRequest, Shard,
    TransferLeaderRequest,
};
use everspan_meta::MemberState;
use everspan_shard::ReplicaStanding;
use everspan_types::{Error, ShardId};
use tonic::{Request, Response, Status};

use crate::placement::{Placement, leader};

/// The service, on one node.
#[derive(Clone, Debug)]
pub(crate) struct AdminService {
    /// The cluster's name.
    pub(crate) name: String,
    pub(crate) placement: Placement,
}

fn status(error: Error) -> Status {
    match error {
        Error::NotFound(what) => Status::not_found(what),
        Error::FailedPrecondition(what) => Status::failed_precondition(what),
        Error::Unavailable(what) => Status::unavailable(what),
        other => Status::internal(other.to_string()),
    }
}

impl AdminService {
    fn nodes(&self, standings: &BTreeMap<u64, Vec<ReplicaStanding>>) -> Vec<Node> {
        let Placement { meta, peers, founders, .. } = &self.placement;
        let (snapshot, view) = (meta.snapshot(), peers.view());
        let (voters, _) = snapshot.meta_members(founders);
        let node = |(id, state): (u64, MemberState)| {
            let own = standings.get(&id).map_or(&[][..], Vec::as_slice);
            let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            Node {
                id,
                address: snapshot.members.get(&id).map(|m| m.address.clone()).unwrap_or_default(),
                state: match state {
                    MemberState::Up => "up",
                    MemberState::Draining => "draining",
                    MemberState::Removed => "removed",
                }
                .to_owned(),
                is_there: view.has(id),
                replicas: count(own.len()),
                leads: count(own.iter().filter(|s| s.leader == id).count()),
                is_meta_voter: voters.contains(&id),
            }
        };
        snapshot.states(founders).into_iter().map(node).collect()
    }

    fn shard(&self, id: ShardId, standings: &BTreeMap<u64, Vec<ReplicaStanding>>) -> Shard {
        let wanted = self.placement.routes.wanted(id);
        let list = |nodes: &BTreeSet<u64>| nodes.iter().copied().collect();
        let Some((leader, standing)) = leader(standings, id) else {
            return Shard { id: id.0, wanted, ..Shard::default() };
        };
        let voters: Vec<u64> = list(&standing.voters);
        let is_as_wanted = standing.voters == wanted.iter().copied().collect();
        Shard {
            id: id.0,
            leader,
            wanted,
            voters,
            learners: list(&standing.learners),
            close: list(&standing.close),
            is_settled: standing.is_settled && is_as_wanted,
            term: standing.term,
            committed: standing.committed,
        }
    }

    /// The nodes with replicas of shards that are still where they were founded.
    fn founding(&self) -> Vec<u64> {
        let routes = &self.placement.routes;
        let snapshot = self.placement.meta.snapshot();
        let founded = routes.shards().filter(|id| !snapshot.placements.contains_key(id));
        let nodes: BTreeSet<u64> = founded.flat_map(|id| routes.founding(id)).collect();
        nodes.into_iter().collect()
    }

    async fn set_member(&self, node: u64, state: MemberState) -> Result<Response<Done>, Status> {
        let founding = self.founding();
        let done = self.placement.meta.set_member(node, state, &founding).await;
        done.map_err(status)?;
        Ok(Response::new(Done {}))
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn get_cluster(
        &self,
        _: Request<GetClusterRequest>,
    ) -> Result<Response<Cluster>, Status> {
        let Placement { meta, routes, .. } = &self.placement;
        let standings = self.placement.standings().await;
        Ok(Response::new(Cluster {
            id: meta.snapshot().cluster_id.to_string(),
            name: self.name.clone(),
            meta_leader: meta.leader(),
            nodes: self.nodes(&standings),
            shards: routes.shards().map(|id| self.shard(id, &standings)).collect(),
        }))
    }

    async fn drain_node(
        &self,
        request: Request<DrainNodeRequest>,
    ) -> Result<Response<Done>, Status> {
        let DrainNodeRequest { node, undo } = request.into_inner();
        let state = if undo { MemberState::Up } else { MemberState::Draining };
        self.set_member(node, state).await
    }

    async fn remove_node(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<Done>, Status> {
        let RemoveNodeRequest { node } = request.into_inner();
        let standings = self.placement.standings().await;
        for id in self.placement.routes.shards() {
            // The others count on it until the shard has moved.
            if leader(&standings, id).is_some_and(|(_, s)| s.voters.contains(&node)) {
                return Err(Status::failed_precondition(format!(
                    "node {node} has a replica of shard {id}: drain it first, and wait until it \
                     has none"
                )));
            }
        }
        self.set_member(node, MemberState::Removed).await
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<Done>, Status> {
        let TransferLeaderRequest { shard, node } = request.into_inner();
        let id = ShardId(shard);
        let facts = self.placement.facts(&self.placement.standings().await);
        let facts = facts.get(&id);
        let facts = facts.ok_or_else(|| Status::not_found(format!("there is no shard {shard}")))?;
        if facts.leader == node {
            return Ok(Response::new(Done {}));
        }
        if facts.leader == 0 {
            return Err(Status::unavailable(format!("shard {shard} has no leader now")));
        }
        if !facts.wanted.contains(&node) || !facts.close.contains(&node) {
            return Err(Status::failed_precondition(format!(
                "node {node} cannot lead shard {shard} now: those that can are {:?}",
                facts.close
            )));
        }
        self.placement.shards.transfer(id, facts.leader, node).await.map_err(status)?;
        Ok(Response::new(Done {}))
    }
}
