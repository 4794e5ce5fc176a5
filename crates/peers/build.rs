//! Generates the stubs of the nodes' own service. Its messages are in `src/messages.rs`: two
//! envelopes around bytes that the crates above understand, too few for a `.proto` file.

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
    };
    let service = Service::builder()
        .name("Peers")
        .package("everspan.peers.v1")
        .method(method("hello", "Hello", "Hello", "Hello").build())
        .method(method("log", "Log", "Envelope", "Envelope").client_streaming().build())
        .method(method("ask", "Ask", "Envelope", "Envelope").build())
        .build();
    Builder::new().compile(&[service]);
}
