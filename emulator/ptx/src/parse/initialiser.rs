//! Initialisers: `= 3`, `= {{1, 2}, {3}}`, `= generic(table)+12`.

use super::constant::Constant;
use super::cursor::Parser;
use super::lexer::Kind;
use super::{Result, SyntaxError};
use crate::ast::{Init, Space, Type, Variable};

/// How many zeros may be stored to fill the rows of an initialiser: `{{1}, {2}}` of a huge array must not take the
/// array's size in memory.
const MAX_ZEROS: u64 = 1 << 16;

/// A (possibly nested) list being flattened.
struct Flat {
    ty: Type,
    /// Extents, outermost first, the vector width last; 0 is `[]`.
    extents: Vec<u64>,
    /// How many of them are the array's own.
    dimensions: usize,
    /// Elements between two neighbours of each dimension; `None` if 64 bits do not hold it.
    strides: Vec<Option<u64>>,
    elements: Vec<Init>,
    zeros: u64,
}

impl Flat {
    fn new(variable: &Variable) -> Self {
        let mut extents = variable.extents.clone();
        let dimensions = extents.len();
        if variable.vector > 1 {
            extents.push(u64::from(variable.vector));
        }
        let mut strides = vec![Some(1_u64); extents.len()];
        for dim in (1..extents.len()).rev() {
            strides[dim - 1] = strides[dim].and_then(|stride| stride.checked_mul(extents[dim]));
        }
        Self { ty: variable.ty, extents, dimensions, strides, elements: Vec::new(), zeros: 0 }
    }

    /// Fills with zeros up to element `index` of a list in dimension `dim` that begins at `start`; false if too many.
    fn pad(&mut self, start: usize, dim: usize, index: u64) -> bool {
        let distance =
            if index == 0 { Some(0) } else { self.strides[dim].and_then(|stride| stride.checked_mul(index)) };
        let written = (self.elements.len() - start) as u64;
        let Some(missing) = distance.and_then(|distance| distance.checked_sub(written)) else { return false };
        self.zeros = self.zeros.saturating_add(missing);
        if self.zeros > MAX_ZEROS {
            return false;
        }
        self.elements.extend(std::iter::repeat_n(Init::Bits(0), missing as usize));
        true
    }
}

impl Parser<'_> {
    /// The initialiser of `variable`, if one comes next.
    pub fn initialise(&mut self, variable: &mut Variable) -> Result<()> {
        let position = self.token.position;
        if !self.eat("=")? {
            return Ok(());
        }
        if !matches!(variable.space, Space::Global | Space::Const) {
            return Err(SyntaxError::new(position, "only `.global` and `.const` variables may have an initialiser"));
        }
        let mut flat = Flat::new(variable);
        let count = self.values(&mut flat, 0)?;
        if let Some(extent @ 0) = variable.extents.first_mut() {
            *extent = count;
        }
        variable.init = flat.elements;
        Ok(())
    }

    /// One element, or the list of the elements of dimension `dim`; returns the length of the list.
    fn values(&mut self, flat: &mut Flat, dim: usize) -> Result<u64> {
        let Some(&extent) = flat.extents.get(dim) else {
            let element = self.element(flat.ty)?;
            flat.elements.push(element);
            return Ok(1);
        };
        let start = flat.elements.len();
        let mut count = 0;
        self.expect("{")?;
        if self.eat("}")? {
            return Ok(0);
        }
        self.nested(|parser| {
            parser.separated(|parser| {
                let position = parser.token.position;
                if extent != 0 && count == extent {
                    return Err(SyntaxError::new(position, format!("more than {extent} elements in an initialiser")));
                }
                if !flat.pad(start, dim, count) {
                    let message = format!("an initialiser with more than {MAX_ZEROS} zeros left out between its rows");
                    return Err(SyntaxError::new(position, message));
                }
                count += 1;
                parser.values(flat, dim + 1)
            })
        })?;
        let vector = dim == flat.dimensions;
        if vector && count < extent {
            return Err(self.unexpected(&format!("{extent} values for a vector")));
        }
        self.expect("}")?;
        Ok(count)
    }

    fn element(&mut self, ty: Type) -> Result<Init> {
        let token = self.token;
        if self.at_constant() {
            let constant = self.constant()?;
            return bits(constant, ty).map_err(|message| SyntaxError::new(token.position, message));
        }
        self.take(Kind::Word, "an initial value")?;
        if !matches!(ty, Type::B64 | Type::U64 | Type::S64) {
            return Err(SyntaxError::new(token.position, "an address can initialise only a 64-bit integer"));
        }
        if !self.at("(") {
            return Ok(Init::Address { name: token.text.to_owned(), offset: self.offset()?, generic: false });
        }
        if token.text != "generic" {
            return Err(SyntaxError::new(token.position, format!("{token}(…) in an initialiser is not supported")));
        }
        self.expect("(")?;
        let name = self.name()?.text.to_owned();
        self.expect(")")?;
        Ok(Init::Address { name, offset: self.offset()?, generic: true })
    }
}

/// The bits of a constant in a variable of type `ty`. As in ptxas, integers keep their low bits, decimal numbers are
/// rounded to f64 first, and an integer cannot initialise a floating-point variable or the other way round.
fn bits(constant: Constant, ty: Type) -> std::result::Result<Init, String> {
    use Type::*;
    let integral = matches!(ty, B8 | B16 | B32 | B64 | U8 | U16 | U32 | U64 | S8 | S16 | S32 | S64);
    let bits = match (constant, ty) {
        (Constant::Integer { bits, .. }, _) if integral => bits & (u64::MAX >> (64 - 8 * ty.size())),
        (Constant::F32(bits), F32 | B32) => u64::from(bits),
        (Constant::F64(bits), F64 | B64) => bits,
        (Constant::F64(bits), F32) => u64::from((f64::from_bits(bits) as f32).to_bits()),
        (Constant::Decimal(value), F64 | B64) => value.to_bits(),
        (Constant::Decimal(value), F32 | B32) => u64::from((value as f32).to_bits()),
        (constant, _) => {
            let integer = matches!(constant, Constant::Integer { .. });
            let kind = if integer { "an integer" } else { "a floating-point number" };
            return Err(format!("{kind} cannot initialise a `.{}`", format!("{ty:?}").to_lowercase()));
        }
    };
    Ok(Init::Bits(bits))
}
