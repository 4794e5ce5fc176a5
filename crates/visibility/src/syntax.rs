//! Tokens to a syntax tree: the WHERE, GROUP BY, ORDER BY and LIMIT of a statement in the
//! real server's grammar, also where it allows what no filter may contain, so that the
//! errors are the same.

use crate::{
    ast::{Ast, Literal, Node, Parsed, above, both, checked, leaf},
    keyword::Class,
    lex::{Kind, Lexer, Token},
};

/// Most parentheses, NOTs and signs around an expression.
const NESTING_MAX: usize = 200;
/// A parsed statement.
#[derive(Debug, Default)]
pub(crate) struct Statement {
    pub(crate) filter: Option<Ast>,
    pub(crate) group_by: Vec<Ast>,
    pub(crate) order_by: Vec<Ast>,
    pub(crate) has_limit: bool,
}

/// Parses a filter.
pub(crate) fn parse(text: &str) -> Result<Statement, String> {
    const SELECT: usize = "select * from table1 ".len();
    const WHERE: usize = "where ".len();
    let text = text.trim();
    let starts = |s: &str| text.get(..s.len()).is_some_and(|t| t.eq_ignore_ascii_case(s));
    let has_filter = !text.is_empty() && !starts("order by") && !starts("group by");
    let offset = SELECT + if has_filter { WHERE } else { 0 };
    let mut lexer = Lexer::new(text, offset);
    let token = lexer.next();
    Parser { lexer, token, nesting: 0 }.statement(has_filter)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The token looked at; nothing after it was read.
    token: Token,
    nesting: usize,
}

impl Parser<'_> {
    fn statement(&mut self, has_filter: bool) -> Result<Statement, String> {
        let mut s = Statement::default();
        if has_filter {
            s.filter = Some(self.expression(OR)?);
        }
        if self.take("group") {
            self.expect("by")?;
            s.group_by = self.expressions()?;
        }
        if self.take("having") {
            self.expression(OR)?;
        }
        if self.take("order") {
            self.expect("by")?;
            loop {
                s.order_by.push(self.expression(OR)?);
                if !self.take("asc") {
                    self.take("desc");
                }
                if !self.take_symbol(",") {
                    break;
                }
            }
        }
        if self.take("limit") {
            s.has_limit = true;
            self.expression(OR)?;
            if self.take_symbol(",") || self.take("offset") {
                self.expression(OR)?;
            }
        }
        if self.take("for") {
            self.expect("update")?;
        } else if self.take("lock") {
            for word in ["in", "share", "mode"] {
                self.expect(word)?;
            }
        }
        if self.take("union") {
            return Err(self.syntax());
        }
        self.take_symbol(";");
        if self.token.kind == Kind::End { Ok(s) } else { Err(self.syntax()) }
    }

    fn expressions(&mut self) -> Result<Vec<Ast>, String> {
        let mut all = vec![self.expression(OR)?];
        while self.take_symbol(",") {
            all.push(self.expression(OR)?);
        }
        Ok(all)
    }

    /// An expression of operators that bind at least as tightly as `level`.
    fn expression(&mut self, level: u8) -> Parsed {
        let mut left = if self.is("not") {
            self.enter()?;
            self.advance();
            let inner = self.expression(NOT)?;
            self.leave();
            above(inner, Node::Not)?
        } else {
            self.condition()?
        };
        loop {
            if self.take("is") {
                left = self.is_suffix(left)?;
            } else if level <= AND && self.take("and") {
                let right = self.expression(NOT)?;
                left = both(left, right, Node::And)?;
            } else if level <= OR && self.take("or") {
                let right = self.expression(AND)?;
                left = both(left, right, Node::Or)?;
            } else {
                return Ok(left);
            }
        }
    }

    fn is_suffix(&mut self, left: Ast) -> Parsed {
        let is_not = self.take("not");
        if self.take("null") {
            above(left, |l| Node::IsNull(l, is_not))
        } else if self.take("true") || self.take("false") {
            above(left, Node::IsOther)
        } else {
            Err(self.syntax())
        }
    }

    fn condition(&mut self) -> Parsed {
        if self.take("exists") {
            if !self.is_symbol("(") {
                return Err(self.syntax());
            }
            self.enter()?;
            self.advance();
            if !self.is("select") {
                return Err(self.syntax());
            }
            self.skip_to_close()?;
            return Ok(leaf(Node::Other("*sqlparser.ExistsExpr")));
        }
        if self.take("default") {
            if self.is_symbol("(") {
                self.enter()?;
                self.advance();
                if self.token.kind != Kind::Name {
                    return Err(self.syntax());
                }
                self.advance();
                self.close()?;
            }
            return Ok(leaf(Node::Other("*sqlparser.Default")));
        }
        let left = self.value(0)?;
        if let Kind::Symbol(op @ ("=" | "!=" | "<" | "<=" | ">" | ">=" | "<=>")) = self.token.kind {
            self.advance();
            let right = self.value(0)?;
            return both(left, right, |l, r| Node::Compare(l, op, r));
        }
        let is_not = self.take("not");
        let op = |plain, negated| if is_not { negated } else { plain };
        if self.take("in") {
            let right = self.in_list()?;
            return both(left, right, |l, r| Node::Compare(l, op("in", "not in"), r));
        }
        if self.take("between") {
            let from = self.value(0)?;
            self.expect("and")?;
            let to = self.value(0)?;
            let height = left.height.max(from.height).max(to.height) + 1;
            let (left, from, to) = (Box::new(left), Box::new(from), Box::new(to));
            return checked(Node::Range { left, is_not, from, to }, height);
        }
        let op = if self.take("like") {
            op("like", "not like")
        } else if self.take("regexp") {
            op("regexp", "not regexp")
        } else if self.take("starts_with") {
            op("starts_with", "not starts_with")
        } else if is_not {
            return Err(self.syntax());
        } else {
            return Ok(left);
        };
        let right = self.value(0)?;
        if op.ends_with("like") && self.take("escape") {
            self.value(0)?;
        }
        both(left, right, |l, r| Node::Compare(l, op, r))
    }

    fn in_list(&mut self) -> Parsed {
        if self.token.kind == Kind::ListArgument {
            self.advance();
            return Ok(leaf(Node::Other("sqlparser.ListArg")));
        }
        if !self.is_symbol("(") {
            return Err(self.syntax());
        }
        self.parenthesised(|all| {
            let height = all.iter().map(|a| a.height).max().unwrap_or(0) + 2;
            checked(Node::Tuple(all), height)
        })
    }

    /// What is in parentheses: a subquery, or a list that `make` turns into a node.
    fn parenthesised(&mut self, make: impl FnOnce(Vec<Ast>) -> Parsed) -> Parsed {
        self.enter()?;
        self.advance();
        if self.is("select") {
            self.skip_to_close()?;
            return Ok(leaf(Node::Other("*sqlparser.Subquery")));
        }
        let all = self.expressions()?;
        self.close()?;
        make(all)
    }

    /// A value of operators that bind at least as tightly as `level`.
    fn value(&mut self, level: u8) -> Parsed {
        let mut left = self.primary()?;
        loop {
            let priority = match &self.token.kind {
                Kind::Symbol("|") => 1,
                Kind::Symbol("&") => 2,
                Kind::Symbol("<<" | ">>") => 3,
                Kind::Symbol("+" | "-") => 4,
                Kind::Symbol("*" | "/" | "%") | Kind::Keyword(_, "div" | "mod") => 5,
                Kind::Symbol("^") => 6,
                Kind::Keyword(_, "collate") => COLLATE,
                _ => return Ok(left),
            };
            if priority < level {
                return Ok(left);
            }
            self.advance();
            let (name, right) = if priority == COLLATE {
                if !matches!(self.token.kind, Kind::Name | Kind::Text) {
                    return Err(self.syntax());
                }
                self.advance();
                ("*sqlparser.CollateExpr", 0)
            } else {
                ("*sqlparser.BinaryExpr", self.value(priority + 1)?.height)
            };
            left = checked(Node::Other(name), left.height.max(right) + 1)?;
        }
    }

    fn primary(&mut self) -> Parsed {
        let literal = match self.token.kind {
            Kind::Text => Some(Literal::Text),
            Kind::Integral => Some(Literal::Int),
            Kind::Float => Some(Literal::Float),
            Kind::HexNumber => Some(Literal::HexNumber),
            Kind::Hex => Some(Literal::Hex),
            Kind::Bits => Some(Literal::Bits),
            Kind::Argument => Some(Literal::Argument),
            _ => None,
        };
        if let Some(literal) = literal {
            return Ok(leaf(Node::Value(literal, self.advance().text)));
        }
        match self.token.kind {
            Kind::Symbol("(") => self.parenthesised(|mut all| {
                let height = all.iter().map(|a| a.height).max().unwrap_or(0);
                match (all.pop(), all.is_empty()) {
                    (Some(one), true) => checked(Node::Paren(Box::new(one)), height + 1),
                    (last, _) => {
                        all.extend(last);
                        checked(Node::Tuple(all), height + 2)
                    }
                }
            }),
            Kind::Symbol("+") => self.unary("+"),
            Kind::Symbol("-") => self.unary("-"),
            Kind::Symbol("~") => self.unary("~"),
            Kind::Symbol("!") => self.unary("!"),
            Kind::Keyword(_, "binary") => self.unary("binary "),
            Kind::Keyword(_, "_binary") => self.unary("_binary "),
            Kind::Name | Kind::Keyword(Class::Soft, _) => self.column(),
            Kind::Keyword(_, word) => self.keyword(word),
            _ => Err(self.syntax()),
        }
    }

    fn unary(&mut self, op: &'static str) -> Parsed {
        self.enter()?;
        self.advance();
        let inner = self.value(COLLATE - 1)?;
        self.leave();
        match (op, inner.node) {
            // A sign is part of a whole number.
            ("+", node @ Node::Value(Literal::Int, _)) => Ok(leaf(node)),
            ("-", Node::Value(Literal::Int, digits)) => {
                let digits = match digits.strip_prefix('-') {
                    Some(positive) => positive.to_owned(),
                    None => format!("-{digits}"),
                };
                Ok(leaf(Node::Value(Literal::Int, digits)))
            }
            (_, node) => above(Ast { node, height: inner.height }, |i| Node::Unary(op, i)),
        }
    }

    /// A column's name, or a function's call.
    fn column(&mut self) -> Parsed {
        let mut parts = vec![self.advance().raw];
        while parts.len() < 3 && self.take_symbol(".") {
            match self.token.kind {
                Kind::Name | Kind::Keyword(Class::Soft | Class::Reserved, _) => {
                    parts.push(self.advance().raw);
                }
                _ => return Err(self.syntax()),
            }
        }
        if parts.len() < 3 && self.is_symbol("(") {
            self.enter()?;
            self.advance();
            self.skip_to_close()?;
            return Ok(leaf(Node::Function));
        }
        if self.take_symbol("->") || self.take_symbol("->>") {
            return match self.token.kind {
                Kind::Text
                | Kind::Integral
                | Kind::Float
                | Kind::HexNumber
                | Kind::Hex
                | Kind::Bits
                | Kind::Argument
                | Kind::Keyword(_, "null") => {
                    self.advance();
                    Ok(Ast { node: Node::Other("*sqlparser.BinaryExpr"), height: 3 })
                }
                _ => Err(self.syntax()),
            };
        }
        Ok(Ast { node: Node::Column(parts), height: 2 })
    }

    /// A value that begins with a reserved word.
    fn keyword(&mut self, word: &'static str) -> Parsed {
        let call = match word {
            "null" => Node::Null,
            "true" => Node::Bool(true),
            "false" => Node::Bool(false),
            "case" => return self.case(),
            "interval" => {
                self.enter()?;
                self.advance();
                self.value(0)?;
                self.leave();
                if !matches!(self.token.kind, Kind::Name | Kind::Keyword(Class::Soft, _)) {
                    return Err(self.syntax());
                }
                Node::Other("*sqlparser.IntervalExpr")
            }
            "current_timestamp" | "utc_timestamp" | "utc_time" | "utc_date" | "localtime"
            | "localtimestamp" | "current_date" | "current_time" => {
                self.advance();
                if self.is_symbol("(") {
                    self.enter()?;
                    self.advance();
                    self.close()?;
                }
                return Ok(leaf(Node::Function));
            }
            "left" | "right" | "if" | "database" | "mod" | "replace" => Node::Function,
            "group_concat" => Node::GroupConcat,
            "convert" | "cast" => Node::Other("*sqlparser.ConvertExpr"),
            "substr" | "substring" => Node::Other("*sqlparser.SubstrExpr"),
            "values" => Node::Other("*sqlparser.ValuesFuncExpr"),
            "match" => Node::Other("*sqlparser.MatchExpr"),
            _ => return Err(self.syntax()),
        };
        self.advance();
        if matches!(word, "null" | "true" | "false" | "interval") {
            return Ok(leaf(call));
        }
        self.arguments()?;
        if word == "match" {
            self.expect("against")?;
            self.arguments()?;
        }
        Ok(leaf(call))
    }

    fn case(&mut self) -> Parsed {
        // Not nested in the real grammar's count, but as deep on our stack.
        self.enter()?;
        self.advance();
        if !self.is("when") {
            self.expression(OR)?;
        }
        self.expect("when")?;
        loop {
            self.expression(OR)?;
            self.expect("then")?;
            self.expression(OR)?;
            if !self.take("when") {
                break;
            }
        }
        if self.take("else") {
            self.expression(OR)?;
        }
        self.expect("end")?;
        self.leave();
        Ok(leaf(Node::Other("*sqlparser.CaseExpr")))
    }

    /// A call's arguments, unread: no filter may contain one.
    fn arguments(&mut self) -> Result<(), String> {
        if !self.is_symbol("(") {
            return Err(self.syntax());
        }
        self.enter()?;
        self.advance();
        self.skip_to_close()
    }

    fn skip_to_close(&mut self) -> Result<(), String> {
        let outer = self.nesting;
        loop {
            match self.token.kind {
                Kind::End | Kind::Error => return Err(self.syntax()),
                Kind::Symbol("(") => {
                    self.enter()?;
                    self.advance();
                }
                Kind::Symbol(")") => {
                    let is_last = self.nesting == outer;
                    self.close()?;
                    if is_last {
                        return Ok(());
                    }
                }
                _ => {
                    self.advance();
                }
            }
        }
    }

    fn advance(&mut self) -> Token {
        let next = self.lexer.next();
        std::mem::replace(&mut self.token, next)
    }

    fn is(&self, word: &str) -> bool {
        matches!(self.token.kind, Kind::Keyword(_, known) if known == word)
    }

    fn take(&mut self, word: &str) -> bool {
        let is = self.is(word);
        if is {
            self.advance();
        }
        is
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        if self.take(word) { Ok(()) } else { Err(self.syntax()) }
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.token.kind, Kind::Symbol(s) if s == symbol)
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let is = self.is_symbol(symbol);
        if is {
            self.advance();
        }
        is
    }

    fn close(&mut self) -> Result<(), String> {
        if !self.take_symbol(")") {
            return Err(self.syntax());
        }
        self.leave();
        Ok(())
    }

    /// Counts a level of nesting at the token looked at.
    fn enter(&mut self) -> Result<(), String> {
        self.nesting += 1;
        if self.nesting < NESTING_MAX {
            Ok(())
        } else {
            Err(self.error("max nesting level reached"))
        }
    }

    fn leave(&mut self) {
        self.nesting -= 1;
    }

    fn syntax(&self) -> String {
        self.error("syntax error")
    }

    fn error(&self, what: &str) -> String {
        let position = self.lexer.position();
        match self.token.text.as_str() {
            "" => format!("{what} at position {position}"),
            near => format!("{what} at position {position} near '{near}'"),
        }
    }
}

const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const COLLATE: u8 = 8;
