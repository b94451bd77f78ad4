//! As much of protobuf as the gateway's own messages take: fields that are written, and fields that are read past. In:
//! numbers and bytes. Out: bytes, and the fields of a message. Pure.

/// Wire types of protobuf.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED_32: u8 = 5;

fn put_varint(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

/// Appends a number, unless it is the default.
pub(super) fn put_number(message: &mut Vec<u8>, field: u8, value: u64) {
    if value > 0 {
        message.push(field << 3 | VARINT);
        put_varint(message, value);
    }
}

pub(super) fn put_bytes(message: &mut Vec<u8>, field: u8, value: &[u8]) {
    message.push(field << 3 | LENGTH_DELIMITED);
    put_varint(message, value.len() as u64);
    message.extend_from_slice(value);
}

/// What a field holds, as far as the gateway reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A number or an enumeration.
    Number(u64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
    /// A number of fixed length.
    Fixed,
}

/// The message breaks off, or has a field of no type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoProtobuf;

/// Reads the field at the front of a message: its number and value.
pub(super) fn take_field<'a>(message: &mut &'a [u8]) -> Result<(u64, Value<'a>), NoProtobuf> {
    let key = take_varint(message)?;
    let value = match key as u8 & 7 {
        VARINT => Value::Number(take_varint(message)?),
        LENGTH_DELIMITED => {
            let length = usize::try_from(take_varint(message)?).map_err(|_| NoProtobuf)?;
            Value::Bytes(take(message, length)?)
        }
        FIXED_64 => take(message, 8).map(|_| Value::Fixed)?,
        FIXED_32 => take(message, 4).map(|_| Value::Fixed)?,
        _ => return Err(NoProtobuf),
    };
    Ok((key >> 3, value))
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Result<&'a [u8], NoProtobuf> {
    let (taken, left) = message.split_at_checked(length).ok_or(NoProtobuf)?;
    *message = left;
    Ok(taken)
}

/// At most ten bytes, of seven bits each, the lowest first.
fn take_varint(message: &mut &[u8]) -> Result<u64, NoProtobuf> {
    let mut number = 0;
    for position in 0..10 {
        let byte = take(message, 1)?[0];
        number |= u64::from(byte & 0x7f) << (7 * position);
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(NoProtobuf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_of_every_type_are_read_past() {
        let mut message = &b"\x08\x96\x01\x12\x07testing\x19........\x25....\x28\x00"[..];
        let mut fields = Vec::new();
        while !message.is_empty() {
            fields.push(take_field(&mut message).unwrap());
        }
        let expected = [
            (1, Value::Number(150)),
            (2, Value::Bytes(b"testing")),
            (3, Value::Fixed),
            (4, Value::Fixed),
            (5, Value::Number(0)),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_breaks_off_or_has_no_type_is_refused() {
        for mut message in [
            &b""[..],
            b"\x08",
            b"\x08\x80",
            b"\x0a\x02a",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x09.......",
            b"\x0b",
            b"\x0f",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(take_field(&mut message), Err(NoProtobuf), "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number in 1u64.., field in 1u8..16, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut message = Vec::new();
            put_number(&mut message, field, number);
            put_bytes(&mut message, field, &bytes);
            let mut message = &message[..];
            prop_assert_eq!(take_field(&mut message), Ok((u64::from(field), Value::Number(number))));
            prop_assert_eq!(take_field(&mut message), Ok((u64::from(field), Value::Bytes(&bytes))));
            prop_assert!(message.is_empty());
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut message = &bytes[..];
            while !message.is_empty() && take_field(&mut message).is_ok() {}
        }
    }
}
