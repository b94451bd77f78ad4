//! When something is to be read again although no file has changed: a time that it waits for has come, or the operating
//! system had no room for it.
//! In: times from what was read, errors of the operating system. Out: whether it is time. Plain data; looks at no clock.
//! The count of errors belongs to the process: every reader of files adds to it, and each that retries compares.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use gateway_core::limits;
use rustix::io::Errno;

static SYSTEM_ERRORS: AtomicU64 = AtomicU64::new(0);

/// Counts an error if it is one of the operating system, which may be over in a moment, and not one of the file.
pub fn note_error(error: &io::Error) {
    const PASSING: [Errno; 6] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::IO,
        Errno::STALE,
        Errno::INTR,
    ];
    let errno = Errno::from_io_error(error);
    if errno.is_some_and(|errno| PASSING.contains(&errno)) {
        SYSTEM_ERRORS.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many errors of the operating system readers of files have met in this process.
pub fn system_errors() -> u64 {
    SYSTEM_ERRORS.load(Ordering::Relaxed)
}

/// Why it is time to read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A time that something waited for has come.
    Time,
    /// An error of the operating system may be over.
    System,
    /// Files that are replaced one after the other have had their time.
    Pair,
}

impl Due {
    /// The reason, for the log.
    pub const fn words(self) -> &'static str {
        match self {
            Due::Time => "the time of a certificate or list has come",
            Due::System => "the operating system could not read a file",
            Due::Pair => "a key and its certificate had time to match",
        }
    }
}

impl From<()> for Again {
    /// Never: nothing is waited for.
    fn from((): ()) -> Self {
        Again::default()
    }
}

/// When to read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Again {
    time: Option<SystemTime>,
    system: Option<Instant>,
    pair: Option<Instant>,
}

impl Again {
    /// At this time of the wall clock, whatever the wall clock does until then.
    pub fn at(time: Option<SystemTime>) -> Self {
        Again {
            time,
            ..Again::default()
        }
    }

    /// Also at this moment, when files that are replaced one after the other have had their time.
    pub fn or_when_matched_by(mut self, at: Option<Instant>) -> Self {
        self.pair = at;
        self
    }

    /// Also a few seconds from now, if readers have met errors of the operating system since there were `errors_before`.
    pub fn unless_read(mut self, errors_before: u64, now: Instant) -> Self {
        if system_errors() > errors_before {
            self.system = Some(now + limits::RETRY_INTERVAL);
        }
        self
    }

    /// Whether it is time.
    pub fn due(&self, wall: SystemTime, now: Instant) -> Option<Due> {
        let is_over = self.system.is_some_and(|at| now >= at);
        let has_come = self.time.is_some_and(|at| wall >= at);
        let had_time = self.pair.is_some_and(|at| now >= at);
        match (has_come, is_over, had_time) {
            (true, ..) => Some(Due::Time),
            (false, true, _) => Some(Due::System),
            (false, false, true) => Some(Due::Pair),
            (false, false, false) => None,
        }
    }

    /// When a thread that has nothing else to do has to look next: the wall clock may be set at any moment, so a time on it
    /// is looked for and not slept through.
    pub fn look_at(&self, now: Instant) -> Option<Instant> {
        let time = self.time.map(|_| now + limits::CLOCK_LOOK_INTERVAL);
        let system = self.system.into_iter().chain(self.pair);
        time.into_iter().chain(system).min()
    }
}

/// How long files that do not go together have been so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unmatched {
    since: Option<Instant>,
    is_told: bool,
}

/// How loudly to say that files do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// They may be replaced one after the other at this very moment: until then.
    Until(Instant),
    /// It is a fault, and said for the first time.
    OverNow,
    /// It is a fault.
    Over,
}

impl Unmatched {
    /// Looks at files that have just been read.
    pub fn look(&mut self, may_pass: bool, now: Instant) -> Patience {
        if !may_pass {
            *self = Unmatched::default();
            return Patience::Over;
        }
        let until = *self.since.get_or_insert(now) + limits::KEY_PAIR_PATIENCE;
        match (now < until, self.is_told) {
            (true, _) => Patience::Until(until),
            (false, true) => Patience::Over,
            (false, false) => {
                self.is_told = true;
                Patience::OverNow
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn files_that_do_not_match_have_five_seconds_once_and_are_a_fault_then() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut unmatched = Unmatched::default();
        let mut look = |may_pass, seconds| unmatched.look(may_pass, at(seconds));
        assert_eq!(look(true, 10), Patience::Until(at(15)));
        assert_eq!(look(true, 12), Patience::Until(at(15)), "no new patience");
        assert_eq!(look(true, 15), Patience::OverNow);
        assert_eq!(look(true, 16), Patience::Over);
        // Taken, or refused for another reason.
        assert_eq!(look(false, 20), Patience::Over);
        assert_eq!(look(true, 30), Patience::Until(at(35)));
        let again = Again::default().or_when_matched_by(Some(at(35)));
        let wall = SystemTime::UNIX_EPOCH;
        assert_eq!(again.due(wall, at(34)), None);
        assert_eq!(again.look_at(at(34)), Some(at(35)));
        assert_eq!(again.due(wall, at(35)), Some(Due::Pair));
    }

    #[test]
    fn a_time_is_due_when_the_wall_clock_says_so_and_an_error_when_a_pause_is_over() {
        let (wall, now) = (SystemTime::now(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(Again::default().due(wall, now), None);
        assert_eq!(Again::default().look_at(now), None);
        let again = Again::at(Some(wall + second));
        assert_eq!(again.due(wall, now), None);
        assert_eq!(again.due(wall, now + 100 * second), None, "another clock");
        assert_eq!(again.due(wall + second, now), Some(Due::Time));
        assert!(again.look_at(now).is_some_and(|at| at > now));
        let before = system_errors();
        note_error(&io::Error::from(Errno::MFILE));
        let again = Again::default().unless_read(before, now);
        assert_eq!(again.due(wall, now), None);
        assert_eq!(
            again.due(wall, now + limits::RETRY_INTERVAL),
            Some(Due::System)
        );
    }

    #[test]
    fn an_error_of_the_file_itself_is_none_of_the_system() {
        // Other tests of this process add errors of the system, but none of these kinds to this very count.
        for (errno, counts) in [
            (Errno::NOENT, false),
            (Errno::ACCESS, false),
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOMEM, true),
            (Errno::IO, true),
            (Errno::STALE, true),
            (Errno::INTR, true),
        ] {
            let before = system_errors();
            note_error(&io::Error::from(errno));
            assert_eq!(system_errors() > before, counts, "{errno}");
        }
    }
}
