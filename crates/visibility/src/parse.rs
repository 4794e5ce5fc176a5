//! The filter language: a syntax tree to conditions on records, checked against the
//! attributes there are. Refuses what the real server refuses, in its words.

use everspan_types::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::{
    Record,
    ast::{Ast, Literal, Node},
    attribute::{AttributeType, DIVISION, Field, STATUSES, status, status_name},
    eval::{Constant, Expr, Op, Order, Test},
    syntax, time,
};

/// Longest filter, in bytes.
pub const QUERY_BYTES_MAX: usize = 1 << 20;

/// By what a count is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Grouping {
    None,
    Status,
    Division,
}

/// A parsed filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Query {
    pub(crate) filter: Option<Expr>,
    pub(crate) grouping: Grouping,
    /// Whether it names the namespace division, and so may see runs that are in one.
    pub(crate) names_division: bool,
    checksum: u32,
}

impl Query {
    /// Parses a filter; the empty text matches every run. `custom` knows the types of
    /// custom search attributes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` that says what is wrong and where.
    pub fn parse(text: &str, custom: &dyn Fn(&str) -> Option<AttributeType>) -> Result<Query> {
        let invalid = |e: String| Error::invalid(format!("invalid query: {e}"));
        let malformed = |e| invalid(format!("malformed SQL query: {e}"));
        if text.len() > QUERY_BYTES_MAX {
            return Err(malformed(format!("longer than {QUERY_BYTES_MAX} bytes")));
        }
        let statement = syntax::parse(text).map_err(malformed)?;
        let mut reader = Reader { custom, names_division: false };
        let (filter, grouping) = reader.statement(&statement).map_err(invalid)?;
        let names_division = reader.names_division;
        Ok(Query { filter, grouping, names_division, checksum: checksum(text) })
    }

    /// Of conditions that must all hold.
    pub(crate) fn all_of(tests: Vec<Test>) -> Query {
        let filter = Some(Expr::And(tests.into_iter().map(Expr::Test).collect()));
        let checksum = checksum(&format!("{filter:?}"));
        Query { filter, grouping: Grouping::None, names_division: false, checksum }
    }

    /// Whether a record is in the result.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        (self.names_division || !record.search_attributes.contains_key(DIVISION))
            && self.filter.as_ref().is_none_or(|f| f.holds(record))
    }

    /// Whether a count is split by status.
    #[must_use]
    pub fn groups_by_status(&self) -> bool {
        self.grouping == Grouping::Status
    }

    /// A checksum of the text, to tell page tokens of other queries.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        self.checksum
    }
}

/// FNV-1a: needs only to tell apart the queries of one client.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A name in a filter with what it stands for.
struct Named {
    name: String,
    field: Field,
    kind: AttributeType,
}

struct Reader<'a> {
    custom: &'a dyn Fn(&str) -> Option<AttributeType>,
    names_division: bool,
}

type Read<T> = std::result::Result<T, String>;

fn bad<T>(what: impl std::fmt::Display) -> Read<T> {
    Err(format!("invalid expression: {what}"))
}

fn unsupported<T>(what: impl std::fmt::Display) -> Read<T> {
    Err(format!("operation is not supported: {what}"))
}

impl Reader<'_> {
    fn statement(&mut self, s: &syntax::Statement) -> Read<(Option<Expr>, Grouping)> {
        if s.has_limit {
            return unsupported("'LIMIT' clause");
        }
        let filter = s.filter.as_ref().map(|f| self.condition(f, false)).transpose()?;
        let grouping = match &s.group_by[..] {
            [] => Grouping::None,
            [one] => {
                let named = self.name(one)?;
                match &named.field {
                    Field::Status => Grouping::Status,
                    Field::Attribute(name, _) if name == DIVISION => Grouping::Division,
                    _ => {
                        return unsupported(format!(
                            "'GROUP BY' clause is not supported for search attribute {}",
                            named.name
                        ));
                    }
                }
            }
            _ => return unsupported("'GROUP BY' clause supports only a single field"),
        };
        for order in &s.order_by {
            if self.name(order)?.kind == AttributeType::Text {
                return unsupported("unable to sort by search attribute type Text");
            }
        }
        if !s.order_by.is_empty() {
            return unsupported("'ORDER BY' clause");
        }
        Ok((filter, grouping))
    }

    /// Reads a condition, or its negation: NOT is moved down to the comparisons, so that
    /// what remains of SQL's third truth value is that a comparison with nothing fails.
    fn condition(&mut self, ast: &Ast, is_negated: bool) -> Read<Expr> {
        match &ast.node {
            Node::Paren(inner) => self.condition(inner, is_negated),
            Node::Not(inner) => self.condition(inner, !is_negated),
            Node::And(..) | Node::Or(..) => {
                let is_and = matches!(ast.node, Node::And(..));
                let mut parts = Vec::new();
                spine(ast, is_and, &mut parts);
                let parts = parts.into_iter().map(|part| self.condition(part, is_negated));
                let parts = parts.collect::<Read<Vec<_>>>()?;
                Ok(if is_and != is_negated { Expr::And(parts) } else { Expr::Or(parts) })
            }
            Node::Compare(left, operator, right) => {
                let named = self.name(left)?;
                let value = self.value(right, &named)?;
                let (op, inverts) = comparison(&named, operator, value)?;
                Ok(Expr::Test(Test { field: named.field, op, is_negated: inverts != is_negated }))
            }
            Node::Range { left, is_not, from, to } => {
                let named = self.name(left)?;
                use AttributeType as T;
                if matches!(named.kind, T::Text | T::KeywordList | T::Bool) {
                    return bad(format!(
                        "cannot do range condition on search attribute '{}' of type {}",
                        named.name,
                        named.kind.name()
                    ));
                }
                let from = scalar(self.value(from, &named)?)?;
                let to = scalar(self.value(to, &named)?)?;
                let op = Op::Between(from, to);
                Ok(Expr::Test(Test { field: named.field, op, is_negated: is_not != &is_negated }))
            }
            Node::IsNull(inner, is_not) => {
                let field = self.name(inner)?.field;
                let is_negated = *is_not != is_negated;
                Ok(Expr::Test(Test { field, op: Op::IsNull, is_negated }))
            }
            Node::IsOther(inner) => {
                self.name(inner)?;
                bad("'IS' operator can only be used as 'IS NULL' or 'IS NOT NULL'")
            }
            Node::Function => unsupported("function expression"),
            Node::Column(_) => bad("incomplete expression"),
            other => unsupported(format!("expression of type {}", other.type_name())),
        }
    }

    fn name(&mut self, ast: &Ast) -> Read<Named> {
        let Node::Column(parts) = &ast.node else {
            return bad(format!("must be a column name but was {}", ast.node.type_name()));
        };
        let name = parts.join(".").replace('`', "");
        let Some(field) = Field::resolve(&name, self.custom) else {
            let shown = ast.to_string().replace('`', "");
            return Err(format!("invalid search attribute: {shown}"));
        };
        self.names_division |= matches!(&field, Field::Attribute(name, _) if name == DIVISION);
        let kind = field.kind();
        Ok(Named { name, field, kind })
    }

    fn value(&self, ast: &Ast, named: &Named) -> Read<Constant> {
        match &ast.node {
            Node::Value(literal, text) => constant(raw(ast, *literal, text)?, named),
            Node::Bool(b) => fit(Constant::Bool(*b), named),
            Node::Tuple(all) => {
                let all = all.iter().map(|one| self.value(one, named));
                Ok(Constant::Tuple(all.collect::<Read<_>>()?))
            }
            Node::Unary(op, inner) => {
                if !matches!(*op, "+" | "-") {
                    return unsupported(format!("unary operator {}", quoted(op)));
                }
                match &inner.node {
                    Node::Value(literal, _) if *literal != Literal::Text => {}
                    _ => {
                        let shown = quoted(&ast.to_string());
                        return bad(format!("unary operator not supported in {shown}"));
                    }
                }
                match (self.value(inner, named)?, *op) {
                    (Constant::Int(n), "-") => Ok(Constant::Int(n.wrapping_neg())),
                    (Constant::Double(n), "-") => Ok(Constant::Double(-n)),
                    (same @ (Constant::Int(_) | Constant::Double(_)), _) => Ok(same),
                    _ => bad(format!("unary expression {}", quoted(&ast.to_string()))),
                }
            }
            Node::GroupConcat => unsupported("'group_concat'"),
            Node::Function => unsupported("nested func"),
            Node::Column(_) => unsupported(format!(
                "column name on the right side of comparison expression (did you forget to \
                 quote {}?)",
                quoted(&ast.to_string())
            )),
            other => bad(format!("unexpected value type {}", other.type_name())),
        }
    }
}

/// The operands of a chain of one operator, from left to right. Chains lean to the left and
/// are long, so that they are not followed by recursion.
fn spine<'a>(mut ast: &'a Ast, is_and: bool, parts: &mut Vec<&'a Ast>) {
    loop {
        match &ast.node {
            Node::And(left, right) if is_and => (parts.push(right), ast = left).1,
            Node::Or(left, right) if !is_and => (parts.push(right), ast = left).1,
            _ => break,
        }
    }
    parts.push(ast);
    parts.reverse();
}

/// A literal as text or number, whatever it is compared with.
fn raw(ast: &Ast, literal: Literal, text: &str) -> Read<Constant> {
    if literal == Literal::Text {
        return Ok(Constant::Text(text.trim_matches('\'').to_owned()));
    }
    if text.is_empty() {
        return Ok(Constant::Text(String::new()));
    }
    if let Ok(n) = text.parse() {
        return Ok(Constant::Int(n));
    }
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() => Ok(Constant::Double(n)),
        _ => bad(format!("unable to parse value {}", quoted(&ast.to_string()))),
    }
}

fn constant(raw: Constant, named: &Named) -> Read<Constant> {
    let unexpected =
        |name: &str| bad(format!("unexpected value type float64 for search attribute {name}"));
    match (&named.field, raw) {
        (Field::Status, Constant::Text(text)) => match status(&text) {
            Some(n) => Ok(Constant::Status(n, text)),
            None => bad(format!("invalid ExecutionStatus value '{text}'")),
        },
        (Field::Status, Constant::Int(n)) => {
            // Cut to 32 bits first, as the real server does.
            #[allow(clippy::cast_possible_truncation)]
            let cut = n as i32;
            match STATUSES.contains(&cut) {
                true => Ok(Constant::Status(cut, status_name(cut).to_owned())),
                false => bad(format!("invalid ExecutionStatus value {n}")),
            }
        }
        (Field::Status, _) => unexpected("ExecutionStatus"),
        (Field::ExecutionDuration, Constant::Int(n)) => Ok(Constant::Int(n)),
        (Field::ExecutionDuration, Constant::Text(text)) => match time::duration(&text) {
            Some(nanos) => Ok(Constant::Int(nanos)),
            None => bad(format!(
                "invalid duration value for search attribute ExecutionDuration: {text}"
            )),
        },
        (Field::ExecutionDuration, _) => unexpected("ExecutionDuration"),
        (_, raw) => fit(raw, named),
    }
}

/// Fits a value to the type of an attribute.
fn fit(raw: Constant, named: &Named) -> Read<Constant> {
    use AttributeType as T;
    match (named.kind, raw) {
        (T::Int | T::Double, raw @ (Constant::Int(_) | Constant::Double(_)))
        | (T::Bool, raw @ Constant::Bool(_))
        | (T::Keyword | T::KeywordList, raw @ Constant::Text(_)) => Ok(raw),
        (T::Datetime, Constant::Int(nanos)) => Ok(Constant::Time(nanos.div_euclid(1000))),
        (T::Datetime, Constant::Text(text)) => match time::datetime(&text) {
            Some(nanos) => Ok(Constant::Time(crate::eval::micros(nanos))),
            None => bad(format!("unable to parse datetime '{text}'")),
        },
        (T::Text, Constant::Text(text)) if text.trim().is_empty() => {
            bad(format!("no tokens found filtering on Text type search attribute {}", named.name))
        }
        (T::Text, raw @ Constant::Text(_)) => Ok(raw),
        (kind, raw) => {
            let (shown, of) = match &raw {
                Constant::Text(text) => (quoted(text), "string"),
                Constant::Int(n) => (n.to_string(), "int64"),
                Constant::Double(n) => (n.to_string(), "float64"),
                other => (other.to_string(), "bool"),
            };
            bad(format!(
                "invalid value type for search attribute {} of type {}: {shown} (type: {of})",
                named.name,
                kind.name()
            ))
        }
    }
}

/// The operation of an operator, and whether it is the negation of it.
fn comparison(named: &Named, operator: &'static str, value: Constant) -> Read<(Op, bool)> {
    use AttributeType as T;
    let is_supported = match operator {
        "=" | "!=" => true,
        "in" | "not in" => named.kind != T::Text,
        "<" | "<=" | ">" | ">=" => !matches!(named.kind, T::Text | T::KeywordList),
        "starts_with" | "not starts_with" => named.kind == T::Keyword,
        _ => false,
    };
    if !is_supported {
        return unsupported(format!(
            "operator '{}' not supported for {} type search attribute '{}'",
            operator.to_uppercase(),
            named.kind.name(),
            named.name
        ));
    }
    Ok(match operator {
        "in" | "not in" => {
            let Constant::Tuple(all) = value else { return bad("unexpected value type") };
            let nested = |e: String| match named.kind {
                T::KeywordList => e.replacen("value type", "value type in tuple", 1),
                _ => e,
            };
            let all = all.into_iter().map(|c| scalar(c).map_err(nested)).collect::<Read<_>>()?;
            (Op::in_set(all), operator == "not in")
        }
        "starts_with" | "not starts_with" => match value {
            Constant::Text(prefix) => (Op::StartsWith(prefix), operator == "not starts_with"),
            other => {
                return bad(format!(
                    "right-hand side of \"{operator}\" operator must be a literal string \
                     (got: {other})"
                ));
            }
        },
        _ => {
            let value = scalar(value)?;
            match operator {
                "=" => (Op::Compare(Order::Equal, value), false),
                "!=" => (Op::Compare(Order::Equal, value), true),
                "<" => (Op::Compare(Order::Less, value), false),
                "<=" => (Op::Compare(Order::AtMost, value), false),
                ">" => (Op::Compare(Order::More, value), false),
                _ => (Op::Compare(Order::AtLeast, value), false),
            }
        }
    })
}

/// One value, where a list of them makes no sense.
fn scalar(value: Constant) -> Read<Constant> {
    match value {
        Constant::Tuple(all) => {
            let all: Vec<_> = all.iter().map(|one| format!("'{one}'")).collect();
            bad(format!("unexpected value type (expected string, got ({}))", all.join(", ")))
        }
        one => Ok(one),
    }
}

/// As Go quotes a string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() && u32::from(c) < 0x80 => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
