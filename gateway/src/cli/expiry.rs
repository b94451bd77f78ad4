//! `portcullis check --expiry`: a plugin for Nagios, Icinga and their kin.
//! In: what ends by itself, the clock. Out: one line with performance data, and the exit code 0 (OK), 1 (WARNING), 2
//! (CRITICAL) or 3 (UNKNOWN). Decides nothing else: a configuration that does not load is UNKNOWN.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use gateway_core::expiry::Band;
use gateway_core::visible;

use crate::config::{self, Mortal, shown_time};

/// What the plugin has to say.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    code: u8,
    line: String,
}

/// Looks at everything that ends, and prints the status.
pub fn execute(file: &Path) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now();
    let status = match config::load_expired_too(file, now) {
        Ok(loaded) => judge(&config::mortals(&loaded.config), now),
        Err(errors) => {
            let errors = errors.as_slice();
            let more = match errors.len() {
                1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            Status {
                code: 3,
                line: format!("PORTCULLIS UNKNOWN - {}{more}", text(&errors[0])),
            }
        }
    };
    super::print(&format!("{}\n", status.line))?;
    Ok(ExitCode::from(status.code))
}

/// The worst counts: a sixth of a lifetime left is WARNING, a twentieth CRITICAL. A third is in the log and the metrics.
fn judge(mortals: &[Mortal], now: SystemTime) -> Status {
    let bands = || mortals.iter().map(|mortal| mortal.lifetime.band(now));
    let (code, word) = match bands().max().unwrap_or(Band::Good) {
        Band::Good | Band::Third => (0, "OK"),
        Band::Sixth => (1, "WARNING"),
        Band::Twentieth | Band::Ended => (2, "CRITICAL"),
    };
    let mut soonest: Vec<&Mortal> = mortals.iter().collect();
    soonest.sort_by_key(|mortal| {
        (
            std::cmp::Reverse(mortal.lifetime.band(now)),
            mortal.lifetime.ends,
        )
    });
    let pressing = bands().filter(|band| *band >= Band::Sixth).count();
    let first = soonest.first().map_or(String::new(), |mortal| {
        let verb = match mortal.lifetime.band(now) {
            Band::Ended => "has ended",
            _ => "ends",
        };
        let (name, ends) = (name(mortal), shown_time(mortal.lifetime.ends, now));
        format!(": {name} {verb} {ends}")
    });
    let line = match pressing {
        0 => format!("{} certificates and lists, the first{first}", mortals.len()),
        _ => format!(
            "{pressing} of {} certificates and lists{first}",
            mortals.len()
        ),
    };
    let data: Vec<_> = mortals.iter().map(|mortal| data(mortal, now)).collect();
    Status {
        code,
        line: format!("PORTCULLIS {word} - {} | {}", text(line), data.join(" ")),
    }
}

fn name(mortal: &Mortal) -> String {
    let words = [&mortal.usage, &mortal.file, &mortal.subject];
    let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.into_iter().cloned().collect::<Vec<_>>().join(" ")
}

/// Seconds left, with the moments at which they become too few: `'label'=value;warning;critical;minimum;maximum`.
fn data(mortal: &Mortal, now: SystemTime) -> String {
    // The guidelines forbid `=` in a label, and ask for quotes to be doubled.
    let label = text(name(mortal)).replace('=', ":").replace('\'', "''");
    let seconds = |duration: Duration| duration.as_secs();
    let lifetime = mortal.lifetime;
    let left = seconds(lifetime.ends.duration_since(now).unwrap_or_default());
    let whole = lifetime.ends.duration_since(lifetime.begins);
    let whole = seconds(whole.unwrap_or_default());
    // `N:` is the range that alerts below N.
    format!("'{label}'={left}s;{}:;{}:;0;{whole}", whole / 6, whole / 20)
}

/// What is before the performance data is one line without a bar.
fn text(of: impl ToString) -> String {
    let clean = |character: char| match character {
        '|' => '/',
        hidden if visible::is_hidden(hidden) => ' ',
        other => other,
    };
    of.to_string().chars().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use gateway_core::expiry::Lifetime;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn at(day: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + day * DAY
    }

    fn mortal(subject: &str, begins: u32, ends: u32) -> Mortal {
        Mortal {
            usage: "listener edge certificate".to_owned(),
            file: "server.pem".to_owned(),
            subject: subject.to_owned(),
            lifetime: Lifetime {
                begins: at(begins),
                ends: at(ends),
            },
        }
    }

    #[test]
    fn the_worst_certificate_decides() {
        let long = mortal("CN=long", 0, 3600);
        let short = mortal("CN=short", 0, 60);
        let both = [long, short];
        let cases = [(0, 0), (45, 0), (50, 1), (57, 2), (60, 2), (99, 2)];
        for (day, code) in cases {
            assert_eq!(judge(&both, at(day)).code, code, "day {day}");
        }
    }

    #[test]
    fn the_line_is_what_nagios_reads() {
        let both = [mortal("CN=long", 0, 3600), mortal("CN=it's|short", 0, 60)];
        let status = judge(&both, at(55));
        assert_eq!(
            status.line,
            "PORTCULLIS WARNING - 1 of 2 certificates and lists: listener edge certificate server.pem CN=it's/short \
             ends on 1970-03-02T00:00:00Z (in 5 days) \
             | 'listener edge certificate server.pem CN:long'=306288000s;51840000:;15552000:;0;311040000 \
             'listener edge certificate server.pem CN:it''s/short'=432000s;864000:;259200:;0;5184000"
        );
    }
}
