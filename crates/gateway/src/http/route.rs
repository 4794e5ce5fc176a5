//! Routes, from the `google.api.http` annotations in the API's descriptors.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, Value};

/// The services that are served.
const SERVICES: [&str; 2] = [
    "temporal.api.workflowservice.v1.WorkflowService",
    "temporal.api.operatorservice.v1.OperatorService",
];
const ANNOTATION: &str = "google.api.http";

/// Where a request's body goes.
#[derive(Debug)]
pub(crate) enum Body {
    /// There is none; what is not in the path is in the query string.
    None,
    /// It is the message.
    Whole,
    /// It is one field; the rest is in the query string.
    Field(FieldDescriptor),
}

#[derive(Debug, PartialEq)]
enum Segment {
    Literal(String),
    /// A field, by its dotted path.
    Field(String),
}

/// One way to call an RPC.
#[derive(Debug)]
pub(crate) struct Route {
    method: &'static str,
    segments: Vec<Segment>,
    /// The body.
    pub(crate) body: Body,
    /// `/service/method`.
    pub(crate) rpc: String,
    /// What is asked.
    pub(crate) input: MessageDescriptor,
    /// What is answered.
    pub(crate) output: MessageDescriptor,
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Found<'r> {
    /// An RPC, and the fields in the path.
    Route(&'r Route, Vec<(&'r str, String)>),
    /// One that wants another method.
    OtherMethod,
    /// Nothing.
    Nothing,
    /// The path is not percent-encoded text.
    Malformed,
}

/// All routes.
#[derive(Debug)]
pub(crate) struct Routes {
    /// By number of segments; of those that match, the first counts.
    by_length: HashMap<usize, Vec<Route>>,
}

impl Routes {
    /// Reads the annotations.
    ///
    /// # Errors
    /// If one is not understood.
    pub(crate) fn new(pool: &DescriptorPool) -> Result<Routes, String> {
        let annotation =
            pool.get_extension_by_name(ANNOTATION).ok_or(format!("no extension {ANNOTATION}"))?;
        let mut all = Vec::new();
        for name in SERVICES {
            let service = pool.get_service_by_name(name).ok_or(format!("no service {name}"))?;
            for method in service.methods() {
                let options = method.options();
                if !options.has_extension(&annotation) {
                    continue;
                }
                let rule = options.get_extension(&annotation);
                let rule = rule.as_message().ok_or("a rule that is no message")?;
                let rpc = format!("/{name}/{}", method.name());
                let rpc = (rpc.as_str(), method.input(), method.output());
                all.push(route(rule, &rpc)?);
                if let Some(Value::List(more)) =
                    rule.get_field_by_name("additional_bindings").as_deref()
                {
                    for rule in more.iter().filter_map(Value::as_message) {
                        all.push(route(rule, &rpc)?);
                    }
                }
            }
        }
        let mut by_length: HashMap<usize, Vec<Route>> = HashMap::new();
        // Where two match, the real server takes the one that was declared last.
        for route in all.into_iter().rev() {
            by_length.entry(route.segments.len()).or_default().push(route);
        }
        Ok(Routes { by_length })
    }

    /// The route of a request; `path` is as it came, percent-encoded. A workflow ID may hold
    /// a slash, encoded.
    pub(crate) fn find(&self, method: &str, path: &str) -> Found<'_> {
        let Some(path) = path.strip_prefix('/') else { return Found::Nothing };
        let mut segments = Vec::new();
        for segment in path.split('/') {
            let Some(segment) = percent_decoded(segment) else { return Found::Malformed };
            segments.push(segment);
        }
        let same_length = self.by_length.get(&segments.len()).map_or(&[][..], Vec::as_slice);
        let mut matching = same_length.iter().filter(|r| r.matches(&segments)).peekable();
        let any = matching.peek().is_some();
        match matching.find(|route| route.method == method) {
            Some(route) => {
                let fields = route.segments.iter().zip(segments);
                let fields = fields.filter_map(|(s, text)| match s {
                    Segment::Field(name) => Some((name.as_str(), text)),
                    Segment::Literal(_) => None,
                });
                Found::Route(route, fields.collect())
            }
            None if any => Found::OtherMethod,
            None => Found::Nothing,
        }
    }
}

impl Route {
    fn matches(&self, segments: &[String]) -> bool {
        self.segments.iter().zip(segments).all(|(mine, theirs)| match mine {
            Segment::Literal(text) => text == theirs,
            Segment::Field(_) => true,
        })
    }

    /// Fields that do not come from the query string: those of the path, and the body.
    pub(crate) fn bound(&self) -> Vec<&str> {
        let path = self.segments.iter().filter_map(|s| match s {
            Segment::Field(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        });
        let body = match &self.body {
            Body::Field(field) => Some(field.name()),
            Body::None | Body::Whole => None,
        };
        path.chain(body).collect()
    }
}

fn route(
    rule: &DynamicMessage,
    (rpc, input, output): &(&str, MessageDescriptor, MessageDescriptor),
) -> Result<Route, String> {
    let text = |name: &str| {
        let value = rule.get_field_by_name(name);
        value.and_then(|v| v.as_str().map(str::to_owned)).filter(|s| !s.is_empty())
    };
    let methods = [
        ("get", "GET"),
        ("put", "PUT"),
        ("post", "POST"),
        ("delete", "DELETE"),
        ("patch", "PATCH"),
    ];
    let (method, template) = methods
        .iter()
        .find_map(|(field, method)| Some((*method, text(field)?)))
        .ok_or(format!("{rpc}: a rule without a pattern"))?;
    if let Some(field) = text("response_body") {
        return Err(format!("{rpc}: response_body {field} is not known"));
    }
    let body = match text("body").as_deref() {
        None => Body::None,
        Some("*") => Body::Whole,
        Some(name) => Body::Field(
            input.get_field_by_name(name).ok_or(format!("{rpc}: no field {name} for the body"))?,
        ),
    };
    let path = template.strip_prefix('/').ok_or(format!("{rpc}: {template} is no path"))?;
    let segments = path.split('/').map(|s| segment(s).ok_or(format!("{rpc}: {template}")));
    Ok(Route {
        method,
        segments: segments.collect::<Result<_, _>>()?,
        body,
        rpc: (*rpc).to_owned(),
        input: input.clone(),
        output: output.clone(),
    })
}

/// A literal or `{field}`; the API has no wildcards, sub-patterns or verbs.
fn segment(text: &str) -> Option<Segment> {
    if let Some(field) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        return (!field.contains(['{', '}', '=', '*'])).then(|| Segment::Field(field.to_owned()));
    }
    (!text.is_empty() && !text.contains(['{', '}', '*', ':']))
        .then(|| Segment::Literal(text.to_owned()))
}

fn percent_decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b => b,
        });
    }
    String::from_utf8(out).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn routes() -> Routes {
        Routes::new(&crate::descriptors::tests::pool()).unwrap()
    }

    fn found(method: &str, path: &str) -> String {
        match routes().find(method, path) {
            Found::Route(route, fields) => {
                let rpc = route.rpc.rsplit('/').next().unwrap();
                let fields: Vec<_> = fields.iter().map(|(n, v)| format!(" {n}={v}")).collect();
                format!("{rpc}{}", fields.concat())
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn every_annotation_is_understood() {
        let all: usize = routes().by_length.values().map(Vec::len).sum();
        assert!(all > 200, "{all}");
    }

    #[test]
    fn both_paths_of_an_rpc() {
        for prefix in ["", "/api/v1"] {
            assert_eq!(
                found("GET", &format!("{prefix}/namespaces/n/workflows/w/history")),
                "GetWorkflowExecutionHistory namespace=n execution.workflow_id=w"
            );
        }
        assert_eq!(found("GET", "/cluster"), "GetClusterInfo");
        assert_eq!(found("GET", "/api/v1/cluster-info"), "GetClusterInfo");
    }

    #[test]
    fn fields_are_decoded_after_the_path_is_split() {
        assert_eq!(
            found("POST", "/namespaces/a%20b/workflows/x%2Fy+z/signal/%C3%A4"),
            "SignalWorkflowExecution namespace=a b workflow_execution.workflow_id=x/y+z signal_name=ä"
        );
        for bad in ["/namespaces/%", "/namespaces/%4", "/namespaces/%zz", "/namespaces/%ff"] {
            assert_eq!(found("GET", bad), "Malformed");
        }
    }

    #[test]
    fn an_empty_segment_is_an_empty_field() {
        assert_eq!(
            found("GET", "/namespaces/n/workflows/"),
            "DescribeWorkflowExecution namespace=n execution.workflow_id="
        );
    }

    #[test]
    fn no_route_or_no_such_method() {
        assert_eq!(found("GET", "/no/such/route/at/all"), "Nothing");
        assert_eq!(found("DELETE", "/namespaces/n/workflows/w/history"), "OtherMethod");
    }

    #[test]
    fn templates() {
        assert_eq!(segment("a-b"), Some(Segment::Literal("a-b".into())));
        assert_eq!(segment("{a.b}"), Some(Segment::Field("a.b".into())));
        for unknown in ["", "*", "**", "{a=*}", "x:verb", "{a"] {
            assert_eq!(segment(unknown), None, "{unknown}");
        }
    }
}
