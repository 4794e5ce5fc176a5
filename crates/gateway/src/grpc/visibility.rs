//! Lists and counts.

use std::sync::Arc;

use bytes::Bytes;
use everspan_proto::{
    common::Payload,
    enums::WorkflowExecutionStatus,
    filter::StartTimeFilter,
    workflow::WorkflowExecutionInfo,
    workflowservice::{
        self as api, count_workflow_executions_response::AggregationGroup,
        list_closed_workflow_executions_request::Filters as Closed,
        list_open_workflow_executions_request::Filters as Open,
    },
};
use everspan_types::{Error, Result, Time};
use everspan_visibility::{AttributeType, PageToken, Query};

use super::{Cx, Frontend};

impl Frontend {
    fn parse(&self, text: &str) -> Result<Query> {
        let snapshot = self.inner.meta.snapshot().clone();
        Query::parse(text, &move |name| {
            let kind = crate::validate::type_name(*snapshot.attributes.get(name)?)?;
            AttributeType::from_name(&kind)
        })
    }

    async fn page(
        &self,
        namespace: &str,
        query: &str,
        size: i32,
        token: &[u8],
    ) -> Result<(Vec<WorkflowExecutionInfo>, Bytes)> {
        let namespace = self.namespace(namespace)?;
        let max = self.limits().visibility_page_max;
        let size = usize::try_from(size).ok().filter(|n| *n > 0).unwrap_or(max).min(max);
        let query = self.parse(query)?;
        let checksum = query.checksum();
        let after = if token.is_empty() {
            None
        } else {
            let token = PageToken::from_bytes(token)?;
            if token.query != checksum {
                return Err(Error::invalid("the page token is of another query"));
            }
            Some(token.cursor)
        };
        let page = self.inner.shards.list(namespace.id, Arc::new(query), after, size).await?;
        let next = page.next.map(|cursor| PageToken { query: checksum, cursor }.to_bytes());
        let infos = page.records.iter().map(everspan_visibility::Record::to_info).collect();
        Ok((infos, next.unwrap_or_default()))
    }

    pub(crate) async fn list_workflow_executions(
        &self,
        _: Cx,
        r: api::ListWorkflowExecutionsRequest,
    ) -> Result<api::ListWorkflowExecutionsResponse> {
        let (executions, next_page_token) =
            self.page(&r.namespace, &r.query, r.page_size, &r.next_page_token).await?;
        Ok(api::ListWorkflowExecutionsResponse { executions, next_page_token })
    }

    pub(crate) async fn scan_workflow_executions(
        &self,
        _: Cx,
        r: api::ScanWorkflowExecutionsRequest,
    ) -> Result<api::ScanWorkflowExecutionsResponse> {
        let (executions, next_page_token) =
            self.page(&r.namespace, &r.query, r.page_size, &r.next_page_token).await?;
        Ok(api::ScanWorkflowExecutionsResponse { executions, next_page_token })
    }

    pub(crate) async fn list_open_workflow_executions(
        &self,
        _: Cx,
        r: api::ListOpenWorkflowExecutionsRequest,
    ) -> Result<api::ListOpenWorkflowExecutionsResponse> {
        let mut parts = vec!["ExecutionStatus = 'Running'".to_owned()];
        parts.extend(time_range("StartTime", r.start_time_filter.as_ref())?);
        match &r.filters {
            Some(Open::ExecutionFilter(f)) => parts.extend(execution(&f.workflow_id, &f.run_id)),
            Some(Open::TypeFilter(f)) => parts.push(format!("WorkflowType = {}", quote(&f.name))),
            None => {}
        }
        let query = parts.join(" AND ");
        let (executions, next_page_token) =
            self.page(&r.namespace, &query, r.maximum_page_size, &r.next_page_token).await?;
        Ok(api::ListOpenWorkflowExecutionsResponse { executions, next_page_token })
    }

    pub(crate) async fn list_closed_workflow_executions(
        &self,
        _: Cx,
        r: api::ListClosedWorkflowExecutionsRequest,
    ) -> Result<api::ListClosedWorkflowExecutionsResponse> {
        let mut parts = vec!["ExecutionStatus != 'Running'".to_owned()];
        parts.extend(time_range("CloseTime", r.start_time_filter.as_ref())?);
        match &r.filters {
            Some(Closed::ExecutionFilter(f)) => parts.extend(execution(&f.workflow_id, &f.run_id)),
            Some(Closed::TypeFilter(f)) => parts.push(format!("WorkflowType = {}", quote(&f.name))),
            Some(Closed::StatusFilter(f)) => {
                if f.status() == WorkflowExecutionStatus::Running
                    || f.status() == WorkflowExecutionStatus::Unspecified
                {
                    return Err(Error::invalid(
                        "StatusFilter must be specified and must be not Running.",
                    ));
                }
                parts.push(format!("ExecutionStatus = {}", f.status));
            }
            None => {}
        }
        let query = parts.join(" AND ");
        let (executions, next_page_token) =
            self.page(&r.namespace, &query, r.maximum_page_size, &r.next_page_token).await?;
        Ok(api::ListClosedWorkflowExecutionsResponse { executions, next_page_token })
    }

    pub(crate) async fn count_workflow_executions(
        &self,
        _: Cx,
        r: api::CountWorkflowExecutionsRequest,
    ) -> Result<api::CountWorkflowExecutionsResponse> {
        let namespace = self.namespace(&r.namespace)?;
        let query = Arc::new(self.parse(&r.query)?);
        let counts = self.inner.shards.count(namespace.id, query.clone()).await?;
        let count = counts.values().sum();
        if !query.groups_by_status() {
            return Ok(api::CountWorkflowExecutionsResponse { count, groups: Vec::new() });
        }
        let groups = counts.into_iter().filter_map(|(group, count)| {
            let name = group?;
            let value = Payload {
                metadata: [
                    ("encoding".to_owned(), Bytes::from_static(b"json/plain")),
                    ("type".to_owned(), Bytes::from_static(b"Keyword")),
                ]
                .into(),
                data: format!("\"{name}\"").into(),
                ..Payload::default()
            };
            Some(AggregationGroup { group_values: vec![value], count })
        });
        Ok(api::CountWorkflowExecutionsResponse { count, groups: groups.collect() })
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn execution(workflow_id: &str, run_id: &str) -> Vec<String> {
    let mut parts = vec![format!("WorkflowId = {}", quote(workflow_id))];
    if !run_id.is_empty() {
        parts.push(format!("RunId = {}", quote(run_id)));
    }
    parts
}

fn time_range(field: &str, filter: Option<&StartTimeFilter>) -> Result<Vec<String>> {
    let Some(f) = filter else { return Ok(Vec::new()) };
    let nanos = |t: &Option<prost_types::Timestamp>| {
        t.as_ref().map(|t| Time::from_proto(t).as_nanos().min(i64::MAX as u64))
    };
    let (from, to) = (nanos(&f.earliest_time), nanos(&f.latest_time));
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(Error::invalid(
            "EarliestTime in StartTimeFilter should not be larger than LatestTime.",
        ));
    }
    let parts = [from.map(|n| format!("{field} >= {n}")), to.map(|n| format!("{field} <= {n}"))];
    Ok(parts.into_iter().flatten().collect())
}
