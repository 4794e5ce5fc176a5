//! Text to tokens. Positions are those that the real server names in its errors: it parses
//! the filter as the WHERE clause of a statement, so that they count from that one's start.

use crate::keyword::{Class, classify};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    End,
    Error,
    /// A name, in backticks or not.
    Name,
    /// A keyword, in lower case.
    Keyword(Class, &'static str),
    Text,
    Integral,
    Float,
    HexNumber,
    Hex,
    Bits,
    Argument,
    ListArgument,
    Symbol(&'static str),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// The value; what an error shows as being near. Empty for symbols.
    pub(crate) text: String,
    /// As it was written, for names that are keywords.
    pub(crate) raw: String,
}

pub(crate) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    /// Bytes of the statement before the filter.
    offset: usize,
    arguments: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str, offset: usize) -> Self {
        Self { text: text.as_bytes(), at: 0, offset, arguments: 0 }
    }

    /// Where an error about the token just read is reported: one past its end.
    pub(crate) fn position(&self) -> usize {
        self.offset + self.at + 1
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take_if(&mut self, c: u8) -> bool {
        let is = self.peek() == Some(c);
        self.at += usize::from(is);
        is
    }

    fn take_while(&mut self, keep: impl Fn(u8) -> bool) -> &'a [u8] {
        let start = self.at;
        while self.peek().is_some_and(&keep) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// The next token that is not a comment.
    pub(crate) fn next(&mut self) -> Token {
        loop {
            if let Some((kind, text)) = self.scan() {
                let text = String::from_utf8_lossy(&text).into_owned();
                return match kind {
                    Kind::Keyword(..) => Token { kind, text: text.to_ascii_lowercase(), raw: text },
                    kind => Token { kind, raw: text.clone(), text },
                };
            }
        }
    }

    /// A token, or nothing for a comment.
    fn scan(&mut self) -> Option<(Kind, Vec<u8>)> {
        // A zero byte reads as "nothing read yet".
        self.take_if(0);
        self.take_while(|c| matches!(c, b' ' | b'\n' | b'\r' | b'\t'));
        let Some(c) = self.peek() else { return Some((Kind::End, vec![])) };
        if is_letter(c) {
            return Some(self.word());
        }
        if c.is_ascii_digit() {
            return Some(self.number(false));
        }
        self.at += 1;
        let symbol = |s| Some((Kind::Symbol(s), vec![]));
        let reserved = |s| Some((Kind::Keyword(Class::Reserved, s), vec![]));
        match c {
            b':' => Some(self.argument()),
            b'=' => symbol("="),
            b',' => symbol(","),
            b';' => symbol(";"),
            b'(' => symbol("("),
            b')' => symbol(")"),
            b'+' => symbol("+"),
            b'*' => symbol("*"),
            b'%' => symbol("%"),
            b'^' => symbol("^"),
            b'~' => symbol("~"),
            b'&' if self.take_if(b'&') => reserved("and"),
            b'&' => symbol("&"),
            b'|' if self.take_if(b'|') => reserved("or"),
            b'|' => symbol("|"),
            b'?' => {
                self.arguments += 1;
                Some((Kind::Argument, format!(":v{}", self.arguments).into_bytes()))
            }
            b'.' if self.peek().is_some_and(|c| c.is_ascii_digit()) => Some(self.number(true)),
            b'.' => symbol("."),
            b'/' if self.take_if(b'/') => self.line_comment(),
            b'/' if self.take_if(b'*') => self.block_comment(),
            b'/' => symbol("/"),
            b'#' => self.line_comment(),
            b'-' if self.take_if(b'-') => self.line_comment(),
            b'-' if self.take_if(b'>') => symbol(if self.take_if(b'>') { "->>" } else { "->" }),
            b'-' => symbol("-"),
            b'<' if self.take_if(b'>') => symbol("!="),
            b'<' if self.take_if(b'<') => symbol("<<"),
            b'<' if self.take_if(b'=') => symbol(if self.take_if(b'>') { "<=>" } else { "<=" }),
            b'<' => symbol("<"),
            b'>' if self.take_if(b'=') => symbol(">="),
            b'>' if self.take_if(b'>') => symbol(">>"),
            b'>' => symbol(">"),
            b'!' if self.take_if(b'=') => symbol("!="),
            b'!' => symbol("!"),
            b'\'' | b'"' => Some(self.string(c)),
            b'`' => Some(self.quoted_name()),
            other => Some((Kind::Error, vec![other])),
        }
    }

    fn word(&mut self) -> (Kind, Vec<u8>) {
        let first = self.peek().unwrap_or_default();
        self.at += 1;
        if matches!(first, b'x' | b'X') && self.take_if(b'\'') {
            let digits = self.take_while(|c| c.is_ascii_hexdigit()).to_vec();
            let is_whole = self.take_if(b'\'') && digits.len().is_multiple_of(2);
            return (if is_whole { Kind::Hex } else { Kind::Error }, digits);
        }
        if matches!(first, b'b' | b'B') && self.take_if(b'\'') {
            let digits = self.take_while(|c| matches!(c, b'0' | b'1')).to_vec();
            return (if self.take_if(b'\'') { Kind::Bits } else { Kind::Error }, digits);
        }
        let is_variable = first == b'@' && self.peek() == Some(b'@');
        let mut word = vec![first];
        word.extend(self.take_while(|c| {
            is_letter(c)
                || c.is_ascii_digit()
                || is_variable && matches!(c, b'.' | b'\'' | b'"' | b'`')
        }));
        let lower = String::from_utf8_lossy(&word).to_ascii_lowercase();
        match classify(&lower) {
            (Class::Name, _) => (Kind::Name, word),
            (class, known) => (Kind::Keyword(class, known), word),
        }
    }

    fn number(&mut self, is_fraction: bool) -> (Kind, Vec<u8>) {
        let start = self.at - usize::from(is_fraction);
        let mut kind = if is_fraction { Kind::Float } else { Kind::Integral };
        let is_zero = !is_fraction && self.take_if(b'0');
        if is_zero && (self.take_if(b'x') || self.take_if(b'X')) {
            kind = Kind::HexNumber;
            self.take_while(|c| c.is_ascii_hexdigit());
        } else {
            self.take_while(|c| c.is_ascii_digit());
            if !is_fraction && self.take_if(b'.') {
                kind = Kind::Float;
                self.take_while(|c| c.is_ascii_digit());
            }
            if self.take_if(b'e') || self.take_if(b'E') {
                kind = Kind::Float;
                if !self.take_if(b'+') {
                    self.take_if(b'-');
                }
                self.take_while(|c| c.is_ascii_digit());
            }
        }
        // A letter cannot follow a number at once.
        if self.peek().is_some_and(is_letter) {
            kind = Kind::Error;
        }
        (kind, self.text[start..self.at].to_vec())
    }

    fn string(&mut self, delimiter: u8) -> (Kind, Vec<u8>) {
        let mut value = Vec::new();
        loop {
            let Some(c) = self.peek() else { return (Kind::Error, value) };
            self.at += 1;
            if c == b'\\' {
                let Some(escaped) = self.peek() else { return (Kind::Error, value) };
                value.push(match escaped {
                    b'0' => 0,
                    b'b' => 8,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'Z' => 26,
                    other => other,
                });
                self.at += 1;
            } else if c != delimiter {
                value.push(c);
            } else if self.take_if(delimiter) {
                value.push(delimiter);
            } else {
                return (Kind::Text, value);
            }
        }
    }

    fn quoted_name(&mut self) -> (Kind, Vec<u8>) {
        let mut name = Vec::new();
        loop {
            let Some(c) = self.peek() else { return (Kind::Error, name) };
            self.at += 1;
            if c != b'`' {
                name.push(c);
            } else if self.take_if(b'`') {
                name.push(b'`');
            } else {
                let kind = if name.is_empty() { Kind::Error } else { Kind::Name };
                return (kind, name);
            }
        }
    }

    fn argument(&mut self) -> (Kind, Vec<u8>) {
        let start = self.at - 1;
        let is_list = self.take_if(b':');
        if !self.peek().is_some_and(is_letter) {
            return (Kind::Error, self.text[start..self.at].to_vec());
        }
        self.take_while(|c| is_letter(c) || c.is_ascii_digit() || c == b'.');
        let kind = if is_list { Kind::ListArgument } else { Kind::Argument };
        (kind, self.text[start..self.at].to_vec())
    }

    fn line_comment(&mut self) -> Option<(Kind, Vec<u8>)> {
        self.take_while(|c| c != b'\n');
        self.take_if(b'\n');
        None
    }

    fn block_comment(&mut self) -> Option<(Kind, Vec<u8>)> {
        let start = self.at - 2;
        loop {
            if self.take_if(b'*') {
                if self.take_if(b'/') {
                    return None;
                }
            } else if self.peek().is_some() {
                self.at += 1;
            } else {
                return Some((Kind::Error, self.text[start..].to_vec()));
            }
        }
    }
}

fn is_letter(c: u8) -> bool {
    c.is_ascii_alphabetic() || c == b'_' || c == b'@'
}
