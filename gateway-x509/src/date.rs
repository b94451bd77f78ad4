//! Times of certificates as text. The maker of a certificate chooses its times, so any must do.
//! In: a time. Out: text. On any thread. Pure.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A time as RFC 3339 in UTC, to the second.
pub fn date(time: SystemTime) -> String {
    let (seconds, before) = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()), false),
        Err(before) => (
            i64::try_from(before.duration().as_secs()).map(|past| -past),
            true,
        ),
    };
    let date = seconds
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    // The last that a certificate can name is the end of the year 9999 (RFC 5280 section 4.1.2.5).
    let text = date.and_then(|date| date.format(&Rfc3339).ok());
    match (text, before) {
        (Some(text), _) => text,
        (None, true) => "before the year 0".to_owned(),
        (None, false) => "after 9999".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    const LAST: Duration = Duration::from_secs(253_402_300_799);

    #[test]
    fn every_time_has_a_text() {
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(date(epoch), "1970-01-01T00:00:00Z");
        assert_eq!(date(epoch + LAST), "9999-12-31T23:59:59Z");
        assert_eq!(date(epoch + LAST + Duration::from_secs(1)), "after 9999");
        assert_eq!(date(epoch - Duration::from_secs(1)), "1969-12-31T23:59:59Z");
        assert_eq!(
            date(epoch - Duration::from_secs(631_152_000)),
            "1950-01-01T00:00:00Z"
        );
        assert_eq!(date(epoch - LAST), "before the year 0");
    }
}
