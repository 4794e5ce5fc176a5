//! Rows of the meta group, as every release wrote them.

#![allow(clippy::unwrap_used)]

use everspan_meta::{AttributeTypes, Meta};
use everspan_proto::{enums::IndexedValueType, workflowservice as api};
use everspan_types::{
    NamespaceId, ShardId,
    golden::{Kind, Rows},
};
use uuid::Uuid;

#[test]
fn golden_meta_rows() {
    let mut meta = Meta::default();
    let mut ops = meta.found(Uuid::from_u128(1)).ops;
    let request = api::RegisterNamespaceRequest {
        namespace: "billing".into(),
        description: "for people".into(),
        owner_email: "owner@example.com".into(),
        data: [("team".to_owned(), "blue".to_owned())].into(),
        workflow_execution_retention_period: Some(prost_types::Duration {
            seconds: 86_400,
            nanos: 0,
        }),
        ..Default::default()
    };
    ops.extend(meta.register(NamespaceId(Uuid::from_u128(2)), &request).unwrap().ops);
    let attributes: AttributeTypes =
        [("CustomerId".to_owned(), IndexedValueType::Keyword as i32)].into();
    ops.extend(meta.join(3, Uuid::from_u128(4), "10.0.0.3:7253").unwrap().ops);
    ops.extend(meta.add_attributes(&attributes, &|_| false).unwrap().ops);
    ops.extend(meta.place(ShardId(2), &[1, 2, 3], &[2, 3, 4]).unwrap().ops);
    let rows: Rows = ops.into_iter().map(|(k, v)| (k.to_vec(), v.unwrap().to_vec())).collect();
    let sample = format!("{:?}", meta.snapshot());
    let kind =
        Kind { manifest_dir: env!("CARGO_MANIFEST_DIR"), name: "meta-rows", version: rows[0].1[0] };
    kind.check(&sample, &rows, |rows| {
        let rows: Vec<_> = rows.iter().map(|(k, v)| (k.clone().into(), v.clone().into())).collect();
        Meta::load(&rows).map(|meta| format!("{:?}", meta.snapshot()))
    });
}
