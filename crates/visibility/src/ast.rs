//! The syntax tree of a filter, and how errors show it.

use std::fmt;

use crate::keyword::{Class, classify};

/// Deepest tree, so that nothing that walks it runs out of stack.
const DEPTH_MAX: u16 = 1000;
/// Levels of the tree above a filter.
const ROOT_DEPTH: u16 = 2;

/// An expression and the height of its tree.
#[derive(Clone, Debug)]
pub(crate) struct Ast {
    pub(crate) node: Node,
    pub(crate) height: u16,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Literal {
    Text,
    Int,
    Float,
    HexNumber,
    Hex,
    Bits,
    Argument,
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    And(Box<Ast>, Box<Ast>),
    Or(Box<Ast>, Box<Ast>),
    Not(Box<Ast>),
    Paren(Box<Ast>),
    Compare(Box<Ast>, &'static str, Box<Ast>),
    Range {
        left: Box<Ast>,
        is_not: bool,
        from: Box<Ast>,
        to: Box<Ast>,
    },
    IsNull(Box<Ast>, bool),
    /// `IS TRUE` and its like.
    IsOther(#[allow(dead_code, reason = "drops the operand with the node")] Box<Ast>),
    Column(Vec<String>),
    Value(Literal, String),
    Bool(bool),
    Null,
    Tuple(Vec<Ast>),
    Unary(&'static str, Box<Ast>),
    Function,
    GroupConcat,
    /// What no filter may contain, by the name that errors give it.
    Other(&'static str),
}

pub(crate) type Parsed = Result<Ast, String>;

pub(crate) fn leaf(node: Node) -> Ast {
    Ast { node, height: 0 }
}

pub(crate) fn above(inner: Ast, node: impl FnOnce(Box<Ast>) -> Node) -> Parsed {
    let height = inner.height + 1;
    checked(node(Box::new(inner)), height)
}

pub(crate) fn both(left: Ast, right: Ast, node: impl FnOnce(Box<Ast>, Box<Ast>) -> Node) -> Parsed {
    let height = left.height.max(right.height) + 1;
    checked(node(Box::new(left), Box::new(right)), height)
}

pub(crate) fn checked(node: Node, height: u16) -> Parsed {
    if height + ROOT_DEPTH >= DEPTH_MAX {
        return Err("max ast depth reached".into());
    }
    Ok(Ast { node, height })
}

impl Node {
    /// The name that errors give to the kind of an expression.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Node::And(..) => "*sqlparser.AndExpr",
            Node::Or(..) => "*sqlparser.OrExpr",
            Node::Not(_) => "*sqlparser.NotExpr",
            Node::Paren(_) => "*sqlparser.ParenExpr",
            Node::Compare(..) => "*sqlparser.ComparisonExpr",
            Node::Range { .. } => "*sqlparser.RangeCond",
            Node::IsNull(..) | Node::IsOther(_) => "*sqlparser.IsExpr",
            Node::Column(_) => "*sqlparser.ColName",
            Node::Value(..) => "*sqlparser.SQLVal",
            Node::Bool(_) => "sqlparser.BoolVal",
            Node::Null => "*sqlparser.NullVal",
            Node::Tuple(_) => "sqlparser.ValTuple",
            Node::Unary(..) => "*sqlparser.UnaryExpr",
            Node::Function => "*sqlparser.FuncExpr",
            Node::GroupConcat => "*sqlparser.GroupConcatExpr",
            Node::Other(name) => name,
        }
    }
}

/// An expression as errors show it.
impl fmt::Display for Ast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Node::Column(parts) => {
                for (i, part) in parts.iter().enumerate() {
                    let dot = if i == 0 { "" } else { "." };
                    let is_variable = part.starts_with("@@");
                    let is_plain = part.char_indices().all(|(i, c)| {
                        c.is_ascii_alphabetic()
                            || matches!(c, '_' | '@')
                            || i > 0 && c.is_ascii_digit()
                            || is_variable && matches!(c, '.' | '\'' | '"' | '`')
                    });
                    let lower = part.to_ascii_lowercase();
                    match classify(&lower).0 {
                        Class::Name if is_plain => write!(f, "{dot}{part}")?,
                        Class::Name => write!(f, "{dot}`{}`", part.replace('`', "``"))?,
                        _ => write!(f, "{dot}`{lower}`")?,
                    }
                }
                Ok(())
            }
            Node::Value(Literal::Text, text) => write_text(f, text),
            Node::Value(Literal::Hex, digits) => write!(f, "X'{digits}'"),
            Node::Value(Literal::Bits, digits) => write!(f, "B'{digits}'"),
            Node::Value(_, text) => f.write_str(text),
            Node::Bool(b) => write!(f, "{b}"),
            Node::Null => f.write_str("null"),
            Node::Paren(inner) => write!(f, "({inner})"),
            Node::Tuple(all) => {
                for (i, one) in all.iter().enumerate() {
                    write!(f, "{}{one}", if i == 0 { "(" } else { ", " })?;
                }
                f.write_str(")")
            }
            Node::Unary(op, inner) => match inner.node {
                Node::Unary(..) => write!(f, "{op} {inner}"),
                _ => write!(f, "{op}{inner}"),
            },
            _ => f.write_str("…"),
        }
    }
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\0' => out.push_str("\\0"),
            '\'' | '"' | '\\' => out.extend(['\\', c]),
            '\u{8}' => out.push_str("\\b"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{1a}' => out.push_str("\\Z"),
            other => out.push(other),
        }
    }
    out.push('\'');
    f.write_str(&out)
}
