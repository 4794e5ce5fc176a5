//! Generates the stubs of the admin service; its messages are in `src/messages.rs`.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let method = |name: &str, route: &str, input: &str, output: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("crate::messages::{input}"))
            .output_type(format!("crate::messages::{output}"))
            .codec_path("tonic_prost::ProstCodec")
            .build()
    };
    let service = Service::builder()
        .name("Admin")
        .package("everspan.admin.v1")
        .method(method("get_cluster", "GetCluster", "GetClusterRequest", "Cluster"))
        .method(method("drain_node", "DrainNode", "DrainNodeRequest", "Done"))
        .method(method("remove_node", "RemoveNode", "RemoveNodeRequest", "Done"))
        .method(method("transfer_leader", "TransferLeader", "TransferLeaderRequest", "Done"))
        .build();
    Builder::new().compile(&[service]);
}
