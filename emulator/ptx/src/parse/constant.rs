//! Numbers and constant expressions.

use super::cursor::Parser;
use super::lexer::{Kind, Token};
use super::{Result, SyntaxError};
use crate::ast::Position;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Constant {
    /// 64 bits; division and right shifts depend on the sign, as in C.
    Integer { bits: u64, unsigned: bool },
    /// `0f3F800000`
    F32(u32),
    /// `0d3FF0000000000000`
    F64(u64),
    /// `1.5`
    Decimal(f64),
}

/// Binary operators and their precedence.
const OPERATORS: [(&str, u8); 10] =
    [("|", 1), ("^", 2), ("&", 3), ("<<", 4), (">>", 4), ("+", SUM), ("-", SUM), ("*", 6), ("/", 6), ("%", 6)];
const SUM: u8 = 5;

impl Parser<'_> {
    /// Whether a constant begins here.
    pub fn at_constant(&self) -> bool {
        let signs = ["-", "+", "~", "("];
        let word = self.token.is(Kind::Word, "WARP_SZ");
        self.token.kind == Kind::Number || word || signs.iter().any(|sign| self.at(sign))
    }

    pub fn constant(&mut self) -> Result<Constant> {
        self.binary(0)
    }

    pub fn integer(&mut self) -> Result<u64> {
        let position = self.token.position;
        integer(self.constant()?, position)
    }

    /// What follows a name: `+16`, `-16`, `+-16`; 0 if nothing does.
    pub fn offset(&mut self) -> Result<i64> {
        let position = self.token.position;
        let zero = Constant::Integer { bits: 0, unsigned: false };
        Ok(integer(self.continued(zero, SUM)?, position)?.cast_signed())
    }

    /// An integer without any arithmetic.
    pub fn plain_integer(&mut self) -> Result<u64> {
        let token = self.take(Kind::Number, "a number")?;
        integer(literal(token)?, token.position)
    }

    /// An integer of at most 32 bits, without any arithmetic.
    pub fn number(&mut self) -> Result<u32> {
        let token = self.token;
        let fits = u32::try_from(self.plain_integer()?);
        fits.map_err(|_| SyntaxError::new(token.position, format!("{token} does not fit 32 bits")))
    }

    fn binary(&mut self, lowest: u8) -> Result<Constant> {
        let left = self.unary()?;
        self.continued(left, lowest)
    }

    /// Operators of precedence `lowest` or higher; `left` is the left operand of the first.
    fn continued(&mut self, mut left: Constant, lowest: u8) -> Result<Constant> {
        loop {
            let found = OPERATORS.iter().find(|&&(operator, precedence)| precedence >= lowest && self.at(operator));
            let Some(&(operator, precedence)) = found else { return Ok(left) };
            let position = self.bump()?.position;
            let right = self.binary(precedence + 1)?;
            left = apply(operator, left, right, position)?;
        }
    }

    fn unary(&mut self) -> Result<Constant> {
        let position = self.token.position;
        if self.eat("-")? {
            return match self.nested(Self::unary)? {
                Constant::Integer { bits, unsigned } => Ok(Constant::Integer { bits: bits.wrapping_neg(), unsigned }),
                Constant::Decimal(value) => Ok(Constant::Decimal(-value)),
                _ => Err(SyntaxError::new(position, "`-` before a hexadecimal floating-point number")),
            };
        }
        if self.eat("+")? {
            return self.nested(Self::unary);
        }
        if self.eat("~")? {
            return match self.nested(Self::unary)? {
                Constant::Integer { bits, unsigned } => Ok(Constant::Integer { bits: !bits, unsigned }),
                _ => Err(SyntaxError::new(position, "`~` before a floating-point number")),
            };
        }
        if self.eat("(")? {
            let value = self.nested(Self::constant)?;
            self.expect(")")?;
            return Ok(value);
        }
        if self.token.is(Kind::Word, "WARP_SZ") {
            self.bump()?;
            return Ok(Constant::Integer { bits: 32, unsigned: false });
        }
        literal(self.take(Kind::Number, "a constant")?)
    }
}

fn integer(constant: Constant, position: Position) -> Result<u64> {
    match constant {
        Constant::Integer { bits, .. } => Ok(bits),
        _ => Err(SyntaxError::new(position, "expected an integer, found a floating-point number")),
    }
}

/// `unsigned` of either side makes the operation unsigned. Sums and products wrap at 64 bits.
fn apply(operator: &str, left: Constant, right: Constant, position: Position) -> Result<Constant> {
    let (Constant::Integer { bits: a, unsigned: a_unsigned }, Constant::Integer { bits: b, unsigned: b_unsigned }) =
        (left, right)
    else {
        return Err(SyntaxError::new(position, format!("`{operator}` on floating-point numbers is not supported")));
    };
    let unsigned = a_unsigned || b_unsigned;
    if matches!(operator, "/" | "%") && b == 0 {
        return Err(SyntaxError::new(position, "division by zero"));
    }
    if matches!(operator, "<<" | ">>") && b >= 64 {
        return Err(SyntaxError::new(position, "a shift by 64 bits or more"));
    }
    let (signed_a, signed_b) = (a.cast_signed(), b.cast_signed());
    let bits = match operator {
        "|" => a | b,
        "^" => a ^ b,
        "&" => a & b,
        "<<" => a << b,
        ">>" if a_unsigned => a >> b,
        ">>" => (signed_a >> b).cast_unsigned(),
        "+" => a.wrapping_add(b),
        "-" => a.wrapping_sub(b),
        "*" => a.wrapping_mul(b),
        "/" if unsigned => a / b,
        "/" => signed_a.wrapping_div(signed_b).cast_unsigned(),
        _ if unsigned => a % b,
        _ => signed_a.wrapping_rem(signed_b).cast_unsigned(),
    };
    Ok(Constant::Integer { bits, unsigned })
}

/// Reads a token of [`Kind::Number`].
pub(super) fn literal(token: Token<'_>) -> Result<Constant> {
    let text = token.text;
    let malformed = || SyntaxError::new(token.position, format!("{token} is not a number"));
    let prefix = text.get(..2).unwrap_or_default().to_ascii_lowercase();
    match prefix.as_str() {
        "0f" => return Ok(Constant::F32(hex_digits(&text[2..], 8).ok_or_else(malformed)? as u32)),
        "0d" => return Ok(Constant::F64(hex_digits(&text[2..], 16).ok_or_else(malformed)?)),
        _ => {}
    }
    let hex = prefix == "0x";
    if !hex && text.contains(['.', 'e', 'E']) {
        return decimal(token).ok_or_else(malformed)?;
    }
    let (digits, unsigned) = text.strip_suffix('U').map_or((text, false), |digits| (digits, true));
    let (digits, radix) = match prefix.as_str() {
        "0x" => (&digits[2..], 16),
        "0b" => (&digits[2..], 2),
        _ if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        _ => (digits, 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(malformed());
    }
    let bits = u64::from_str_radix(digits, radix)
        .map_err(|_| SyntaxError::new(token.position, format!("{token} does not fit 64 bits")))?;
    Ok(Constant::Integer { bits, unsigned: unsigned || bits > i64::MAX.cast_unsigned() })
}

fn hex_digits(digits: &str, count: usize) -> Option<u64> {
    let plain = digits.len() == count && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(digits, 16).ok())?
}

/// `None` if malformed.
fn decimal(token: Token<'_>) -> Option<Result<Constant>> {
    let value: f64 = token.text.parse().ok()?;
    if value.is_infinite() {
        return Some(Err(SyntaxError::new(token.position, format!("{token} is larger than an f64 can hold"))));
    }
    Some(Ok(Constant::Decimal(value)))
}
