//! The trace that a request belongs to (W3C Trace Context section 3.2).
//! In: a header section. Out: the trace's identifier, if one stands there as the standard writes it. Changes nothing: the field
//! passes on as it is.

use super::HeaderList;

/// `VERSION-TRACE-PARENT-FLAGS`: where the trace's identifier stands, and how long the field is at least.
const TRACE: std::ops::Range<usize> = 3..35;
const FIELD_BYTES_MIN: usize = 55;

/// The identifier in `traceparent`, 32 digits. None where the field is absent, repeated or invalid, so that its reader starts a
/// trace of its own.
pub fn trace_id(list: &HeaderList) -> Option<&str> {
    let mut fields = list.iter().filter(|field| field.name == b"traceparent");
    let value = fields.next()?.value;
    if fields.next().is_some() {
        return None;
    }
    let is_hexadecimal = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let has_shape = value.len() >= FIELD_BYTES_MIN
        && value[..FIELD_BYTES_MIN]
            .iter()
            .enumerate()
            .all(|(position, byte)| match position {
                2 | 35 | 52 => *byte == b'-',
                _ => is_hexadecimal(byte),
            });
    if !has_shape {
        return None;
    }
    let is_whole = match &value[..2] {
        // Section 3.2.2.1: invalid.
        b"ff" => false,
        b"00" => value.len() == FIELD_BYTES_MIN,
        // Section 3.2.4: a later version may say more behind another hyphen.
        _ => value.get(FIELD_BYTES_MIN).is_none_or(|byte| *byte == b'-'),
    };
    let trace = &value[TRACE];
    let parent = &value[36..52];
    let is_zero = |id: &[u8]| id.iter().all(|byte| *byte == b'0');
    match is_whole && !is_zero(trace) && !is_zero(parent) {
        true => std::str::from_utf8(trace).ok(),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::Field;

    fn traced(values: &[&str]) -> Option<String> {
        let mut list = HeaderList::new(1000);
        list.push(Field::new(b":method", b"POST"));
        for value in values {
            list.push(Field::new(b"traceparent", value.as_bytes()));
        }
        trace_id(&list).map(str::to_owned)
    }

    #[test]
    fn a_trace_is_what_the_standard_writes_and_nothing_else() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        const PARENT: &str = "00f067aa0ba902b7";
        let field =
            |version: &str, trace: &str, parent: &str| format!("{version}-{trace}-{parent}-01");
        let good = field("00", TRACE, PARENT);
        assert_eq!(traced(&[&good]).as_deref(), Some(TRACE));
        let later = field("01", TRACE, PARENT);
        assert_eq!(traced(&[&later]).as_deref(), Some(TRACE));
        assert_eq!(traced(&[&format!("{later}-more")]).as_deref(), Some(TRACE));
        let zeros = |count| "0".repeat(count);
        for bad in [
            String::new(),
            field("ff", TRACE, PARENT),
            format!("{good}-more"),
            format!("{later}more"),
            good.to_uppercase(),
            good.replace('-', "_"),
            good[..54].to_owned(),
            field("00", &zeros(32), PARENT),
            field("00", TRACE, &zeros(16)),
        ] {
            assert_eq!(traced(&[&bad]), None, "{bad}");
        }
        assert_eq!(traced(&[]), None);
        assert_eq!(traced(&[&good, &good]), None, "repeated");
    }
}
