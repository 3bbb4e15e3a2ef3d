//! The parser's position in the text, and the basic steps that all other parsing functions use.

use super::lexer::{Kind, Lexer, Token, unescape};
use super::{Result, SyntaxError};
use std::collections::HashMap;

/// How deep blocks, parentheses and braces may nest; deeper text is refused before it can exhaust the stack.
const MAX_DEPTH: u32 = 256;

pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    pub token: Token<'a>,
    depth: u32,
    /// For each open scope, innermost last: the bytes from one element of a variable to the next if it is an array of
    /// one dimension. `array[4]` outside of brackets needs it.
    pub strides: Vec<HashMap<&'a str, Option<u64>>>,
}

impl<'a> Parser<'a> {
    pub fn new(text: &'a str) -> Result<Self> {
        let mut lexer = Lexer::new(text)?;
        let token = lexer.next()?;
        Ok(Self { lexer, token, depth: 0, strides: vec![HashMap::new()] })
    }

    /// Takes the current token.
    pub fn bump(&mut self) -> Result<Token<'a>> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    pub fn at(&self, punct: &str) -> bool {
        self.token.is(Kind::Punct, punct)
    }

    /// Takes `punct` if it comes next.
    pub fn eat(&mut self, punct: &str) -> Result<bool> {
        let found = self.at(punct);
        if found {
            self.bump()?;
        }
        Ok(found)
    }

    pub fn expect(&mut self, punct: &str) -> Result<()> {
        if self.eat(punct)? { Ok(()) } else { Err(self.unexpected(&format!("`{punct}`"))) }
    }

    /// Takes a token of this kind; `what` is what the message calls it.
    pub fn take(&mut self, kind: Kind, what: &str) -> Result<Token<'a>> {
        if self.token.kind == kind { self.bump() } else { Err(self.unexpected(what)) }
    }

    pub fn name(&mut self) -> Result<Token<'a>> {
        self.take(Kind::Word, "a name")
    }

    pub fn names(&mut self) -> Result<Vec<String>> {
        self.separated(|parser| Ok(parser.name()?.text.to_owned()))
    }

    pub fn string(&mut self) -> Result<String> {
        unescape(self.take(Kind::Text, "a string")?)
    }

    /// The error of finding anything but `expected` here.
    pub fn unexpected(&self, expected: &str) -> SyntaxError {
        SyntaxError::new(self.token.position, format!("expected {expected}, found {}", self.token))
    }

    /// `item`, or several with commas between them.
    pub fn separated<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.eat(",")? {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// `(item, item)`, which may be empty.
    pub fn parenthesised<T>(&mut self, item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.expect("(")?;
        let items = if self.at(")") { Vec::new() } else { self.separated(item)? };
        self.expect(")")?;
        Ok(items)
    }

    /// Runs `inner` one level deeper.
    pub fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} levels deep");
            return Err(SyntaxError::new(self.token.position, message));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Runs `inner` in a new scope of names.
    pub fn scoped<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.strides.push(HashMap::new());
        let result = inner(self);
        self.strides.pop();
        result
    }
}
