//! Namespaces and search attributes.

use everspan_meta::AttributeTypes;
use everspan_proto::{
    enums::IndexedValueType, operatorservice as operator, workflowservice as api,
};
use everspan_types::{Error, NamespaceId, Result};
use uuid::Uuid;

use super::{Cx, Frontend};

/// Namespaces in a page when the caller names no size.
const PAGE_DEFAULT: usize = 100;

impl Frontend {
    pub(crate) async fn register_namespace(
        &self,
        _: Cx,
        r: api::RegisterNamespaceRequest,
    ) -> Result<api::RegisterNamespaceResponse> {
        self.inner.meta.register(&r).await?;
        Ok(api::RegisterNamespaceResponse::default())
    }

    pub(crate) async fn describe_namespace(
        &self,
        _: Cx,
        r: api::DescribeNamespaceRequest,
    ) -> Result<api::DescribeNamespaceResponse> {
        if !r.id.is_empty() && !r.namespace.is_empty() {
            return Err(Error::invalid(
                "GetNamespace operation failed. Both ID and Name specified in request.",
            ));
        }
        let snapshot = self.inner.meta.snapshot();
        if r.id.is_empty() {
            return Ok(snapshot.namespace(&r.namespace)?.describe());
        }
        let missing = || Error::NamespaceNotFound(r.id.clone());
        let id = Uuid::parse_str(&r.id).map_err(|_| missing())?;
        Ok(snapshot.by_id.get(&NamespaceId(id)).ok_or_else(missing)?.describe())
    }

    pub(crate) async fn list_namespaces(
        &self,
        _: Cx,
        r: api::ListNamespacesRequest,
    ) -> Result<api::ListNamespacesResponse> {
        let size = usize::try_from(r.page_size).ok().filter(|n| *n > 0).unwrap_or(PAGE_DEFAULT);
        let after = std::str::from_utf8(&r.next_page_token)
            .map_err(|_| Error::invalid("Invalid NextPageToken."))?;
        let snapshot = self.inner.meta.snapshot();
        let mut rest = snapshot.by_name.iter().filter(|(name, _)| name.as_str() > after);
        let page: Vec<_> = rest.by_ref().take(size).collect();
        let next = match (page.last(), rest.next()) {
            (Some((name, _)), Some(_)) => (*name).clone().into_bytes(),
            _ => Vec::new(),
        };
        Ok(api::ListNamespacesResponse {
            namespaces: page.into_iter().map(|(_, n)| n.describe()).collect(),
            next_page_token: next.into(),
        })
    }

    pub(crate) async fn update_namespace(
        &self,
        _: Cx,
        r: api::UpdateNamespaceRequest,
    ) -> Result<api::UpdateNamespaceResponse> {
        Ok(self.inner.meta.update(&r).await?.updated_response())
    }

    pub(crate) async fn deprecate_namespace(
        &self,
        _: Cx,
        r: api::DeprecateNamespaceRequest,
    ) -> Result<api::DeprecateNamespaceResponse> {
        self.inner.meta.deprecate(&r.namespace).await?;
        Ok(api::DeprecateNamespaceResponse::default())
    }

    pub(crate) async fn get_search_attributes(
        &self,
        _: Cx,
        _: api::GetSearchAttributesRequest,
    ) -> Result<api::GetSearchAttributesResponse> {
        let mut keys: std::collections::HashMap<String, i32> =
            self.inner.meta.snapshot().attributes.clone().into_iter().collect();
        keys.extend(system_attributes());
        Ok(api::GetSearchAttributesResponse { keys })
    }

    pub(crate) async fn add_search_attributes(
        &self,
        _: Cx,
        r: operator::AddSearchAttributesRequest,
    ) -> Result<operator::AddSearchAttributesResponse> {
        if !r.namespace.is_empty() {
            self.namespace(&r.namespace)?;
        }
        let new: AttributeTypes = r.search_attributes.into_iter().collect();
        self.inner.meta.add_attributes(&new).await?;
        Ok(operator::AddSearchAttributesResponse::default())
    }

    pub(crate) async fn remove_search_attributes(
        &self,
        _: Cx,
        r: operator::RemoveSearchAttributesRequest,
    ) -> Result<operator::RemoveSearchAttributesResponse> {
        self.inner.meta.remove_attributes(&r.search_attributes).await?;
        Ok(operator::RemoveSearchAttributesResponse::default())
    }

    pub(crate) async fn list_search_attributes(
        &self,
        _: Cx,
        r: operator::ListSearchAttributesRequest,
    ) -> Result<operator::ListSearchAttributesResponse> {
        if !r.namespace.is_empty() {
            self.namespace(&r.namespace)?;
        }
        Ok(operator::ListSearchAttributesResponse {
            custom_attributes: self.inner.meta.snapshot().attributes.clone().into_iter().collect(),
            system_attributes: system_attributes().collect(),
            ..Default::default()
        })
    }
}

fn system_attributes() -> impl Iterator<Item = (String, i32)> {
    everspan_visibility::system_attributes().map(|(name, kind)| {
        let kind = match kind {
            everspan_visibility::AttributeType::Keyword => IndexedValueType::Keyword,
            everspan_visibility::AttributeType::Text => IndexedValueType::Text,
            everspan_visibility::AttributeType::KeywordList => IndexedValueType::KeywordList,
            everspan_visibility::AttributeType::Int => IndexedValueType::Int,
            everspan_visibility::AttributeType::Double => IndexedValueType::Double,
            everspan_visibility::AttributeType::Bool => IndexedValueType::Bool,
            everspan_visibility::AttributeType::Datetime => IndexedValueType::Datetime,
        };
        (name.to_owned(), kind as i32)
    })
}
