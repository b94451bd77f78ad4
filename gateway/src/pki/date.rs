//! Times of certificates as text. Whoever makes a certificate chooses its times, so any must do.

use std::time::{Duration, SystemTime};

/// The end of the year 9999, the last that a certificate can name (RFC 5280 section 4.1.2.5).
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// A time as RFC 3339 in UTC, to the second.
pub fn date(time: SystemTime) -> String {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Err(_) => "before 1970".to_owned(),
        Ok(since) if since > LAST => "after 9999".to_owned(),
        Ok(_) => humantime::format_rfc3339_seconds(time).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_text() {
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(date(epoch), "1970-01-01T00:00:00Z");
        assert_eq!(date(epoch + LAST), "9999-12-31T23:59:59Z");
        assert_eq!(date(epoch + LAST + Duration::from_secs(1)), "after 9999");
        assert_eq!(date(epoch - Duration::from_secs(1)), "before 1970");
    }
}
