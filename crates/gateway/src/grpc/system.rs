//! What the server says of itself.

use everspan_proto::{
    version::VersionInfo,
    workflowservice::{self as api, get_system_info_response::Capabilities},
};
use everspan_types::Result;

use super::{Cx, Frontend};

/// The API's server version that this release behaves like; SDKs compare it.
const SERVER_VERSION: &str = "1.32.0";

impl Frontend {
    pub(crate) async fn get_system_info(
        &self,
        _: Cx,
        _: api::GetSystemInfoRequest,
    ) -> Result<api::GetSystemInfoResponse> {
        Ok(api::GetSystemInfoResponse {
            server_version: SERVER_VERSION.into(),
            capabilities: Some(Capabilities {
                signal_and_query_header: true,
                internal_error_differentiation: true,
                activity_failure_include_heartbeat: true,
                encoded_failure_attributes: true,
                upsert_memo: true,
                sdk_metadata: true,
                count_group_by_execution_status: true,
                eager_workflow_start: true,
                ..Capabilities::default()
            }),
        })
    }

    pub(crate) async fn get_cluster_info(
        &self,
        _: Cx,
        _: api::GetClusterInfoRequest,
    ) -> Result<api::GetClusterInfoResponse> {
        let clients = [
            ("temporal-cli", "<2.0.0"),
            ("temporal-go", "<2.0.0"),
            ("temporal-java", "<2.0.0"),
            ("temporal-php", "<2.0.0"),
            ("temporal-server", "<2.0.0"),
            ("temporal-typescript", "<2.0.0"),
            ("temporal-ui", "<3.0.0"),
        ];
        Ok(api::GetClusterInfoResponse {
            supported_clients: clients
                .into_iter()
                .map(|(name, range)| (name.to_owned(), range.to_owned()))
                .collect(),
            server_version: SERVER_VERSION.into(),
            cluster_id: self.inner.meta.snapshot().cluster_id.to_string(),
            version_info: Some(VersionInfo::default()),
            cluster_name: "active".into(),
            history_shard_count: i32::try_from(self.inner.shard_count).unwrap_or(i32::MAX),
            persistence_store: "everspan".into(),
            visibility_store: "everspan".into(),
            initial_failover_version: 1,
            failover_version_increment: 10,
        })
    }
}
