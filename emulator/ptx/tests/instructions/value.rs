//! Elements of buffers: their types, and conversions between literals and bits.

/// The type of an element: its size in bits and their interpretation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    pub bits: u32,
    pub form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Unsigned,
    Signed,
    /// Sign, exponent and `fraction` bits of fraction.
    Float {
        fraction: u32,
    },
}

/// One expected element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Bits(u64),
    /// Any NaN.
    Nan,
    /// Not compared.
    Any,
}

impl Type {
    pub fn parse(text: &str) -> Option<Self> {
        let float = match text {
            "f16" => Some((16, 10)),
            "bf16" => Some((16, 7)),
            "f32" => Some((32, 23)),
            "f64" => Some((64, 52)),
            _ => None,
        };
        if let Some((bits, fraction)) = float {
            return Some(Self { bits, form: Form::Float { fraction } });
        }
        let form = match text.chars().next()? {
            'u' | 'b' => Form::Unsigned,
            's' => Form::Signed,
            _ => return None,
        };
        let bits = text[1..].parse().ok().filter(|bits| [8, 16, 32, 64].contains(bits))?;
        Some(Self { bits, form })
    }

    pub fn bytes(self) -> usize {
        self.bits as usize / 8
    }

    /// All bits of an element.
    pub fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    /// The bits of an input's literal.
    pub fn literal(self, text: &str) -> Result<u64, String> {
        let wrong = || format!("`{text}` is not {} of {} bits", self.noun(), self.bits);
        let radixes = [("0x", 16), ("0b", 2), ("0f", 16), ("0d", 16)];
        for (prefix, radix) in radixes {
            if let Some(digits) = text.strip_prefix(prefix) {
                let bits = u64::from_str_radix(digits, radix).map_err(|_| wrong())?;
                return if bits & !self.mask() == 0 { Ok(bits) } else { Err(wrong()) };
            }
        }
        match self.form {
            Form::Float { .. } => match (text, self.bits) {
                ("nan", _) => Ok(self.mask() >> 1),
                (_, 64) => text.parse().map(f64::to_bits).map_err(|_| wrong()),
                (_, 32) => text.parse().map(|value: f32| u64::from(value.to_bits())).map_err(|_| wrong()),
                _ => text.parse().map(|value| self.round(value)).map_err(|_| wrong()),
            },
            _ => {
                let value: i128 = text.parse().map_err(|_| wrong())?;
                let least = -(1i128 << (self.bits - 1));
                let fits = (least..1 << self.bits).contains(&value);
                if fits { Ok(value as u64 & self.mask()) } else { Err(wrong()) }
            }
        }
    }

    /// An expected element's literal: `_` is not compared, `nan` is any NaN.
    pub fn expected(self, text: &str) -> Result<Value, String> {
        match text {
            "_" => Ok(Value::Any),
            "nan" if matches!(self.form, Form::Float { .. }) => Ok(Value::Nan),
            _ => self.literal(text).map(Value::Bits),
        }
    }

    fn noun(self) -> &'static str {
        match self.form {
            Form::Float { .. } => "a number",
            _ => "an integer",
        }
    }

    fn bias(self, fraction: u32) -> i32 {
        (1 << (self.bits - 2 - fraction)) - 1
    }

    /// The bits of a number: rounded to nearest for floats, truncated for integers.
    pub fn round(self, value: f64) -> u64 {
        let Form::Float { fraction } = self.form else { return value as i64 as u64 & self.mask() };
        if self.bits == 64 {
            return value.to_bits();
        }
        let bias = self.bias(fraction);
        let infinity = ((2 * bias + 1) as u64) << fraction;
        let sign = u64::from(value.is_sign_negative()) << (self.bits - 1);
        let magnitude = value.abs();
        if magnitude.is_nan() {
            return self.mask() >> 1;
        }
        // The exponent of the last bit. Subnormals have that of the smallest normal numbers.
        let exponent = ((magnitude.to_bits() >> 52) as i32 - 1023).max(1 - bias);
        let steps = (magnitude / 2f64.powi(exponent - fraction as i32)).round_ties_even();
        // A carry out of the fraction increments the exponent field, which is the right result.
        let bits = (((exponent + bias - 1) as u64) << fraction).saturating_add(steps as u64);
        sign | bits.min(infinity)
    }

    /// The number that the bits represent.
    pub fn number(self, bits: u64) -> f64 {
        let signed = (bits << (64 - self.bits)) as i64 >> (64 - self.bits);
        match self.form {
            Form::Unsigned => bits as f64,
            Form::Signed => signed as f64,
            Form::Float { .. } if self.bits == 64 => f64::from_bits(bits),
            Form::Float { fraction } => {
                let bias = self.bias(fraction);
                let magnitude = bits & self.mask() >> 1;
                let (exponent, steps) = ((magnitude >> fraction) as i32, magnitude & ((1 << fraction) - 1));
                let value = match exponent {
                    0 => steps as f64 * 2f64.powi(1 - bias - fraction as i32),
                    e if e == 2 * bias + 1 && steps != 0 => f64::NAN,
                    e if e == 2 * bias + 1 => f64::INFINITY,
                    e => (steps | 1 << fraction) as f64 * 2f64.powi(e - bias - fraction as i32),
                };
                if signed < 0 { -value } else { value }
            }
        }
    }

    pub fn is_nan(self, bits: u64) -> bool {
        self.number(bits).is_nan()
    }

    /// The bits in hexadecimal, and the number that they represent.
    pub fn show(self, bits: u64) -> String {
        let digits = self.bits as usize / 4;
        match self.form {
            Form::Unsigned => format!("0x{bits:0digits$x} ({bits})"),
            Form::Signed => {
                let value = (bits << (64 - self.bits)) as i64 >> (64 - self.bits);
                format!("0x{bits:0digits$x} ({value})")
            }
            Form::Float { .. } => format!("0x{bits:0digits$x} ({:e})", self.number(bits)),
        }
    }

    /// The distance of two numbers in units of representable numbers; those of different sign are apart through zero.
    pub fn distance(self, a: u64, b: u64) -> u64 {
        let line = |bits: u64| {
            let magnitude = i128::from(bits & self.mask() >> 1);
            if bits >> (self.bits - 1) & 1 == 1 { -magnitude } else { magnitude }
        };
        let apart = match self.form {
            Form::Float { .. } => line(a) - line(b),
            _ => i128::from(a) - i128::from(b),
        };
        apart.unsigned_abs() as u64
    }
}

/// SplitMix64: the same numbers on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals() {
        let f16 = Type::parse("f16").unwrap();
        let bits = |text: &str| f16.literal(text).unwrap();
        assert_eq!([bits("1"), bits("-0.0"), bits("65504"), bits("65520")], [0x3c00, 0x8000, 0x7bff, 0x7c00]);
        // The smallest subnormal, half of it (a tie, to even), and a bit more than half.
        assert_eq!([bits("5.9604644775390625e-8"), bits("2.98023223876953125e-8"), bits("3e-8")], [1, 0, 1]);
        assert_eq!([bits("6.103515625e-5"), bits("6.1e-5")], [0x400, 0x3ff]);
        let bf16 = Type::parse("bf16").unwrap();
        assert_eq!(bf16.literal("3.140625"), Ok(0x4049));
        assert_eq!(Type::parse("f32").unwrap().literal("0f3F800000"), Ok(0x3f80_0000));
        assert_eq!(Type::parse("s8").unwrap().literal("-128"), Ok(0x80));
        assert!(Type::parse("u8").unwrap().literal("256").is_err());
        assert_eq!(Type::parse("u24"), None);
        for bits in 0..0x10000 {
            let value = f16.number(bits);
            assert!(value.is_nan() || f16.round(value) == bits, "{bits:#x}");
            let value = bf16.number(bits);
            assert!(value.is_nan() || bf16.round(value) == bits, "{bits:#x}");
        }
    }

    #[test]
    fn distances() {
        let f32 = Type::parse("f32").unwrap();
        assert_eq!(f32.distance(0x3f80_0000, 0x3f80_0002), 2);
        assert_eq!(f32.distance(1, 0x8000_0001), 2);
        assert_eq!(Type::parse("u32").unwrap().distance(3, 0), 3);
    }
}
