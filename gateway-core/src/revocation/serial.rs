//! Serial numbers of certificates, as bytes and as people and tools write them. In: the bytes of a DER integer, or
//! text. Out: a `Serial`, or why there is none. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A serial number, as in certificates and lists: big-endian, without leading zeros (RFC 5280 section 4.1.2.2 allows
/// 20 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Serial {
    bytes: [u8; Serial::BYTES_MAX],
    length: u8,
}

/// The serial number is longer than RFC 5280 allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a serial number of more than {} bytes (RFC 5280 section 4.1.2.2)",
    Serial::BYTES_MAX
)]
pub struct SerialTooLong;

impl Serial {
    /// Maximum length, in bytes.
    pub const BYTES_MAX: usize = 20;

    /// Takes the content bytes of a DER integer.
    ///
    /// # Errors
    ///
    /// The number is too long.
    pub fn new(integer: &[u8]) -> Result<Self, SerialTooLong> {
        let first = integer
            .iter()
            .position(|byte| *byte != 0)
            .unwrap_or(integer.len());
        let significant = &integer[first..];
        let mut bytes = [0; Self::BYTES_MAX];
        bytes
            .get_mut(..significant.len())
            .ok_or(SerialTooLong)?
            .copy_from_slice(significant);
        Ok(Serial {
            bytes,
            length: significant.len() as u8,
        })
    }

    /// The bytes, without leading zeros.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl TryFrom<Vec<u8>> for Serial {
    type Error = SerialTooLong;

    fn try_from(integer: Vec<u8>) -> Result<Self, Self::Error> {
        Serial::new(&integer)
    }
}

impl From<Serial> for Vec<u8> {
    fn from(serial: Serial) -> Self {
        serial.as_bytes().to_vec()
    }
}

/// Hexadecimal, two digits a byte, as `openssl x509 -serial` prints it but in lower case.
impl fmt::Display for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.length == 0 {
            return formatter.write_str("00");
        }
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// The text is not a serial number, or may be another one than meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SerialError {
    /// It is not a hexadecimal number.
    #[error(
        "serial must be 1 to 40 hexadecimal digits; `0x`, colons and leading zeros are allowed"
    )]
    NotHexadecimal,
    /// It is not a decimal number.
    #[error("serial must be decimal digits")]
    NotDecimal,
    /// It has more than 20 bytes.
    #[error("serial is longer than 20 bytes (RFC 5280 section 4.1.2.2)")]
    TooLong,
    /// It has many digits and no letter.
    #[error(
        "serial has decimal digits alone: as hexadecimal it is {hexadecimal}, as decimal it is {decimal} in hexadecimal; \
         write `--serial 0x{hexadecimal}` or `--serial 0x{decimal}`"
    )]
    Ambiguous {
        /// The number if it is hexadecimal.
        hexadecimal: Serial,
        /// The number if it is decimal.
        decimal: Serial,
    },
}

impl Serial {
    /// Parses hexadecimal digits as tools print them: in either case, with or without `0x`, colons between the bytes
    /// and leading zeros.
    ///
    /// # Errors
    ///
    /// The text is not a serial number.
    pub fn parse(text: &str) -> Result<Self, SerialError> {
        let text = text.trim();
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let digits = digits.unwrap_or(text).bytes().filter(|byte| *byte != b':');
        Self::of_digits(digits, 16).map_err(|overflow| match overflow {
            true => SerialError::TooLong,
            false => SerialError::NotHexadecimal,
        })
    }

    /// Parses decimal digits, as step-ca and databases print them.
    ///
    /// # Errors
    ///
    /// The text is not a serial number.
    pub fn parse_decimal(text: &str) -> Result<Self, SerialError> {
        Self::of_digits(text.trim().bytes(), 10).map_err(|overflow| match overflow {
            true => SerialError::TooLong,
            false => SerialError::NotDecimal,
        })
    }

    /// As [`Serial::parse`], for typed text. Many digits without a letter are probably decimal; taken for hexadecimal
    /// they would name a certificate that does not exist. Accepts `serial=` in front, as `openssl x509 -serial`
    /// prints it.
    ///
    /// # Errors
    ///
    /// The text is not a serial number, or it is ambiguous.
    pub fn parse_argument(text: &str) -> Result<Self, SerialError> {
        let text = text.trim();
        let (hexadecimal, is_labelled) = match text.split_once('=') {
            Some((label, rest)) if label.trim().eq_ignore_ascii_case("serial") => (rest, true),
            _ => (text, false),
        };
        if is_labelled {
            // Only OpenSSL writes this, always in hexadecimal.
            return Self::parse(hexadecimal);
        }
        let hexadecimal = Self::parse(text)?;
        let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
        match Self::parse_decimal(text) {
            Ok(decimal) if is_decimal && text.len() >= Self::DECIMAL_DIGITS_MIN => {
                Err(SerialError::Ambiguous {
                    hexadecimal,
                    decimal,
                })
            }
            _ => Ok(hexadecimal),
        }
    }

    /// The digits that are too many to be hexadecimal by chance: one number of this length in 100,000 has no letter.
    const DECIMAL_DIGITS_MIN: usize = 25;

    /// A number by its digits, at least one; `true` if it is too long.
    fn of_digits(digits: impl Iterator<Item = u8>, base: u32) -> Result<Self, bool> {
        let mut bytes = [0_u8; Self::BYTES_MAX];
        let mut any = false;
        for digit in digits {
            let mut carry = char::from(digit).to_digit(base).ok_or(false)?;
            for byte in bytes.iter_mut().rev() {
                let sum = u32::from(*byte) * base + carry;
                *byte = sum as u8;
                carry = sum >> 8;
            }
            if carry > 0 {
                return Err(true);
            }
            any = true;
        }
        match any {
            true => Serial::new(&bytes).map_err(|_| true),
            false => Err(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_serial_longer_than_the_standard_allows_is_refused() {
        assert_eq!(Serial::new(&[1; 21]), Err(SerialTooLong));
        assert!(
            Serial::new(&[&[0][..], &[1; 20]].concat()).is_ok(),
            "the sign byte of DER"
        );
    }

    #[test]
    fn serials_are_read_as_tools_print_them() {
        let plain = Serial::parse("0a1b2c").unwrap();
        assert_eq!(plain.to_string(), "0a1b2c");
        for same in [
            "0A:1B:2C",
            "a1b2c",
            "00:0a:1b:2c",
            "0x0a1b2c",
            "0X000A1B2C",
            " 0a1b2c\n",
        ] {
            assert_eq!(Serial::parse(same), Ok(plain), "{same}");
            assert_eq!(Serial::parse_argument(same), Ok(plain), "{same}");
        }
        let printed = "serial=1234567890123456789012345678";
        let digits = Serial::parse("1234567890123456789012345678");
        assert_eq!(Serial::parse_argument(printed), digits);
        assert_eq!(Serial::parse_argument("serial=0A1B2C\n"), Ok(plain));
        assert_eq!(Serial::parse_decimal("662316"), Ok(plain));
        for wrong in ["", ":", "0x", "12 34", "0a-1b", "g"] {
            let refused = Err(SerialError::NotHexadecimal);
            assert_eq!(Serial::parse(wrong), refused, "{wrong}");
        }
        for wrong in ["", "a", "0x1", "1:2", "-1"] {
            let refused = Err(SerialError::NotDecimal);
            assert_eq!(Serial::parse_decimal(wrong), refused, "{wrong}");
        }
        assert_eq!(Serial::parse(&"1".repeat(41)), Err(SerialError::TooLong));
        assert_eq!(
            Serial::parse(&("00".repeat(9) + &"f".repeat(40)))
                .unwrap()
                .as_bytes(),
            [255; 20]
        );
    }

    #[test]
    fn many_digits_without_a_letter_are_asked_about() {
        // As step-ca prints the serial number of a certificate.
        let decimal = "124712345678901234567890123456789012345";
        let error = Serial::parse_argument(decimal).unwrap_err();
        let meant = Serial::parse_decimal(decimal).unwrap();
        let text = error.to_string();
        for reading in [
            format!("`--serial 0x0{decimal}`"),
            format!("`--serial 0x{meant}`"),
        ] {
            assert!(text.contains(&reading), "{text}");
        }
        // Whatever the error proposes is taken.
        assert!(Serial::parse_argument(&format!("0x{decimal}")).is_ok());
        assert_eq!(
            Serial::parse_argument(&"1".repeat(24)),
            Serial::parse(&"1".repeat(24))
        );
        assert!(
            Serial::parse(decimal).is_ok(),
            "in a file it is what was written"
        );
    }

    proptest! {
        #[test]
        fn a_serial_is_read_as_it_is_printed(bytes in proptest::collection::vec(any::<u8>(), 0..=20)) {
            let serial = Serial::new(&bytes).unwrap();
            prop_assert_eq!(Serial::parse(&serial.to_string()), Ok(serial));
            let number = bytes.iter().take(16).fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
            let short = Serial::new(&bytes[..bytes.len().min(16)]).unwrap();
            prop_assert_eq!(Serial::parse_decimal(&number.to_string()), Ok(short));
        }
    }
}
