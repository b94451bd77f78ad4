//! Deadlines of requests: what a client's `grpc-timeout` says, and what the backend is told of the time that is left
//! (gRPC over HTTP/2, "Requests"). In: the field, or a time. Out: the other one. Never asks for time.

use std::time::Duration;

/// The name of the field.
pub const GRPC_TIMEOUT: &[u8] = b"grpc-timeout";

/// Digits of the field's number, at most.
const DIGITS_MAX: usize = 8;
/// The first number that has more.
const VALUE_END: u128 = 100_000_000;

/// Units of the field, with their nanoseconds, finest first.
const UNITS: [(u8, u64); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// The time that a `grpc-timeout` gives a request. `None` if it is malformed: such a field goes to the backend as it
/// is, whose judgement it is.
pub fn read_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let (_, nanoseconds) = UNITS.iter().find(|(known, _)| known == unit)?;
    let is_number = digits.iter().all(u8::is_ascii_digit);
    if !is_number || digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    let number = digits
        .iter()
        .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    Duration::from_nanos(*nanoseconds).checked_mul(number)
}

/// A `grpc-timeout` as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcTimeout {
    text: [u8; DIGITS_MAX + 1],
    begin: usize,
}

impl GrpcTimeout {
    /// The field for so much time, in the finest unit that holds it. Rounded down: a backend must not work on for a
    /// client that has gone.
    pub fn of(left: Duration) -> Self {
        let left = left.as_nanos();
        let fits = |(_, nanoseconds): &&(u8, u64)| left / u128::from(*nanoseconds) < VALUE_END;
        let (unit, nanoseconds) = *UNITS.iter().find(fits).unwrap_or(&UNITS[UNITS.len() - 1]);
        let mut number = (left / u128::from(nanoseconds)).min(VALUE_END - 1) as u32;
        let mut text = [0; DIGITS_MAX + 1];
        let mut begin = DIGITS_MAX;
        text[begin] = unit;
        loop {
            begin -= 1;
            text[begin] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return GrpcTimeout { text, begin };
            }
        }
    }

    /// The field's value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[self.begin..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_unit_is_read() {
        for (text, time) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("100m", Duration::from_millis(100)),
            ("99999u", Duration::from_micros(99_999)),
            ("00000007n", Duration::from_nanos(7)),
            ("0S", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(read_grpc_timeout(text.as_bytes()), Some(time), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_malformed() {
        for text in [
            "",
            "S",
            "1",
            "1s",
            "1h",
            "-1S",
            "+1S",
            " 1S",
            "1S ",
            "1 S",
            "1.5S",
            "123456789n",
            "1mS",
            "0x1S",
            "\u{0661}S",
        ] {
            assert_eq!(read_grpc_timeout(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn the_time_left_is_written_in_the_finest_unit_that_holds_it() {
        for (left, text) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_secs(5), "5000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(99_999_999), "99999999S"),
            (Duration::from_secs(120_000_059), "2000000M"),
            (Duration::MAX, "99999999H"),
        ] {
            let written = GrpcTimeout::of(left);
            assert_eq!(String::from_utf8_lossy(written.as_bytes()), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_never_longer(seconds in 0u64..400_000_000_000, nanoseconds in 0u32..1_000_000_000) {
            let left = Duration::new(seconds, nanoseconds);
            let written = GrpcTimeout::of(left);
            let read = read_grpc_timeout(written.as_bytes()).expect("a time");
            let longest = Duration::from_secs(99_999_999 * 3600);
            prop_assert!(read <= left);
            // The next finer unit did not hold it, so the number is not below 100,000.
            prop_assert!(left.min(longest) - read <= left / 100_000, "{left:?} {read:?}");
        }

        #[test]
        fn nothing_a_client_writes_is_too_much(value in proptest::collection::vec(any::<u8>(), 0..12)) {
            let read = read_grpc_timeout(&value);
            prop_assert_eq!(read.is_some(), read.and_then(|read| read_grpc_timeout(GrpcTimeout::of(read).as_bytes())).is_some());
        }
    }
}
