//! Variables: `.shared .align 16 .b8 tile[1024];`, `.reg .b32 %r<10>, x;`, parameters.

use super::cursor::Parser;
use super::lexer::{Kind, Token};
use super::{Result, SyntaxError};
use crate::ast::{Linkage, Space, Type, Variable};

/// The part of a declaration before its names.
struct Head {
    linkage: Linkage,
    space: Space,
    managed: bool,
    align: Option<u32>,
    vector: u32,
    ty: Type,
}

impl<'a> Parser<'a> {
    /// The rest of a declaration whose space has been taken, through its `;`.
    pub fn declarations(&mut self, linkage: Linkage, space: Space) -> Result<Vec<Variable>> {
        let head = self.head(linkage, space)?;
        let variables = self.separated(|parser| parser.declarator(&head))?;
        self.expect(";")?;
        Ok(variables)
    }

    /// `.param .u64 .ptr .global .align 16 name`, `.param .align 8 .b8 name[40]`, `.reg .b32 name`
    pub fn parameter(&mut self) -> Result<Variable> {
        let token = self.take(Kind::Dotted, "`.param` or `.reg`")?;
        let space = match token.text {
            "param" => Space::Param,
            "reg" => Space::Reg,
            _ => return Err(SyntaxError::new(token.position, format!("expected `.param` or `.reg`, found {token}"))),
        };
        let head = self.head(Linkage::Internal, space)?;
        if self.token.is(Kind::Dotted, "ptr") {
            self.bump()?;
            self.skip_pointee()?;
        }
        self.declarator(&head)
    }

    /// The space and alignment that a `.ptr` parameter promises of its pointee: a hint to ptxas.
    fn skip_pointee(&mut self) -> Result<()> {
        if self.token.kind == Kind::Dotted && matches!(self.token.text, "global" | "const" | "local" | "shared") {
            self.bump()?;
        }
        if self.token.is(Kind::Dotted, "align") {
            self.bump()?;
            self.alignment()?;
        }
        Ok(())
    }

    fn head(&mut self, linkage: Linkage, space: Space) -> Result<Head> {
        let mut head = Head { linkage, space, managed: false, align: None, vector: 1, ty: Type::B8 };
        loop {
            let token = self.take(Kind::Dotted, "a type")?;
            match token.text {
                "attribute" => head.managed |= self.attribute()?,
                "align" if head.align.is_none() && head.vector == 1 => head.align = Some(self.alignment()?),
                "v2" if head.vector == 1 => head.vector = 2,
                "v4" if head.vector == 1 => head.vector = 4,
                name => {
                    let unknown = || SyntaxError::new(token.position, format!("expected a type, found {token}"));
                    head.ty = type_named(name).ok_or_else(unknown)?;
                    check_head(&head).map_err(|message| SyntaxError::new(token.position, message))?;
                    return Ok(head);
                }
            }
        }
    }

    fn alignment(&mut self) -> Result<u32> {
        let position = self.token.position;
        let align = self.number()?;
        if align.is_power_of_two() {
            return Ok(align);
        }
        Err(SyntaxError::new(position, format!("an alignment must be a power of two, not {align}")))
    }

    /// `(.managed, .unified(1, 2))` after `.attribute`; returns whether it is `.managed`. `.unified` gives a variable
    /// the same address on every device, which takes no work with one device.
    pub fn attribute(&mut self) -> Result<bool> {
        let kinds = self.parenthesised(|parser| {
            let token = parser.take(Kind::Dotted, "an attribute")?;
            match token.text {
                "managed" => return Ok(true),
                "unified" => parser.parenthesised(Self::integer)?,
                _ => return Err(SyntaxError::new(token.position, format!("unsupported attribute {token}"))),
            };
            Ok(false)
        })?;
        Ok(kinds.contains(&true))
    }

    /// `name`, `%r<10>`, `name[2][3] = { … }`
    fn declarator(&mut self, head: &Head) -> Result<Variable> {
        let name = self.name()?;
        let mut variable = Variable {
            position: name.position,
            linkage: head.linkage,
            space: head.space,
            managed: head.managed,
            align: head.align.unwrap_or(head.ty.size() * head.vector),
            ty: head.ty,
            vector: head.vector,
            name: name.text.to_owned(),
            count: None,
            extents: Vec::new(),
            init: Vec::new(),
        };
        if self.at("<") && head.space == Space::Reg {
            self.bump()?;
            variable.count = Some(self.number()?);
            self.expect(">")?;
        }
        while self.at("[") && head.space != Space::Reg {
            let extent = self.extent(variable.extents.is_empty())?;
            variable.extents.push(extent);
        }
        self.initialise(&mut variable)?;
        self.declare(name, &variable)?;
        Ok(variable)
    }

    /// `[16]`; `[]`, where it is allowed, gives 0.
    fn extent(&mut self, may_be_unsized: bool) -> Result<u64> {
        self.expect("[")?;
        if may_be_unsized && self.eat("]")? {
            return Ok(0);
        }
        let position = self.token.position;
        let extent = self.integer()?;
        if extent.cast_signed() <= 0 {
            return Err(SyntaxError::new(position, "an array's extent must be positive"));
        }
        self.expect("]")?;
        Ok(extent)
    }

    /// Records the stride that `name[4]` will need, and refuses an array without a size.
    fn declare(&mut self, name: Token<'a>, variable: &Variable) -> Result<()> {
        let sized_elsewhere = variable.linkage == Linkage::Extern || variable.space == Space::Param;
        if variable.extents.first() == Some(&0) && !sized_elsewhere {
            return Err(SyntaxError::new(name.position, format!("the array {name} has no size")));
        }
        let element = u64::from(variable.ty.size() * variable.vector);
        let stride = (variable.extents.len() == 1).then_some(element);
        if let Some(scope) = self.strides.last_mut() {
            scope.insert(name.text, stride);
        }
        Ok(())
    }
}

fn check_head(head: &Head) -> std::result::Result<(), &'static str> {
    if head.ty == Type::Pred && (head.space != Space::Reg || head.vector > 1) {
        return Err("a predicate must be a scalar register");
    }
    if head.ty.size() * head.vector > 16 {
        return Err("a vector may have at most 128 bits");
    }
    Ok(())
}

/// Types a variable can have; ptxas too refuses `.bf16` and the eight-bit formats here.
fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "b8" => Type::B8,
        "b16" => Type::B16,
        "b32" => Type::B32,
        "b64" => Type::B64,
        "b128" => Type::B128,
        "u8" => Type::U8,
        "u16" => Type::U16,
        "u32" => Type::U32,
        "u64" => Type::U64,
        "s8" => Type::S8,
        "s16" => Type::S16,
        "s32" => Type::S32,
        "s64" => Type::S64,
        "f16" => Type::F16,
        "f16x2" => Type::F16x2,
        "f32" => Type::F32,
        "f64" => Type::F64,
        "pred" => Type::Pred,
        _ => return None,
    })
}
