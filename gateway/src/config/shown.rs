//! Times and paths as people read them. In: a moment, or a file. Out: text. Pure.

use std::path::Path;
use std::time::{Duration, SystemTime};

use gateway_x509::date;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// A time with its distance: `on 2027-01-31T12:00:00Z (in 12 days)`.
pub fn shown_time(time: SystemTime, now: SystemTime) -> String {
    let distance = match time.duration_since(now) {
        Ok(left) => format!("in {}", shown_distance(left)),
        Err(past) => format!("{} ago", shown_distance(past.duration())),
    };
    format!("on {} ({distance})", date(time))
}

/// A duration in the largest unit of which there are two, or else in a smaller one: one day is 24 hours to an operator who
/// has to act in it.
fn shown_distance(duration: Duration) -> String {
    const UNITS: [(u64, &str); 3] = [
        (SECONDS_PER_DAY, "days"),
        (60 * 60, "hours"),
        (60, "minutes"),
    ];
    let seconds = duration.as_secs();
    let unit = UNITS.into_iter().find(|(length, _)| seconds >= 2 * length);
    match (unit, seconds) {
        (Some((length, name)), _) => format!("{} {name}", seconds / length),
        (None, 1) => "1 second".to_owned(),
        (None, seconds) => format!("{seconds} seconds"),
    }
}

/// A file as the configuration's reader knows it: relative to the configuration where it lies beside it.
pub fn shown_path(file: &Path, configuration: &Path) -> String {
    let directory = configuration.parent().unwrap_or(Path::new(""));
    file.strip_prefix(directory)
        .unwrap_or(file)
        .display()
        .to_string()
}
