//! `portcullis check --expiry`: a plugin for Nagios, Icinga and their kin.
//! In: what expires, the connections that depend on it by the word of the running gateway, the clock. Out: one line with
//! performance data, and the exit code 0 (OK), 1 (WARNING), 2 (CRITICAL) or 3 (UNKNOWN). Decides nothing else: a
//! configuration that does not load is UNKNOWN.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use gateway::config::{self, Dependents, Expiring, Paths, shown_time};
use gateway::control::Client;
use gateway_core::expiry::Band;
use gateway_core::visible;

/// What the plugin has to say.
#[derive(Debug, PartialEq, Eq)]
struct PluginStatus {
    code: u8,
    line: String,
}

/// Looks at everything that ends, and prints the status.
pub fn execute(file: &Path) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now();
    let status = match config::load_expired_too(file, now) {
        Ok(loaded) => {
            let dependents = ask(&loaded.config.paths);
            evaluate_expiry(&config::expiring(&loaded.config), &dependents, now)
        }
        Err(errors) => {
            let errors = errors.as_slice();
            let more = match errors.len() {
                1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            PluginStatus {
                code: 3,
                line: format!("PORTCULLIS UNKNOWN - {}{more}", text(&errors[0])),
            }
        }
    };
    super::print(&format!("{}\n", status.line))?;
    Ok(ExitCode::from(status.code))
}

/// The connections that stand on a CA alone. Where no gateway runs, or none that may be asked, nothing is known of any.
fn ask(paths: &Paths) -> Dependents {
    let status = Client::connect(paths).and_then(Client::status);
    let mut dependents = Dependents::default();
    for found in status.into_iter().flat_map(|status| status.dependents) {
        dependents.add(found.usage, found.authority, found.connections);
    }
    dependents
}

/// The worst counts: a sixth of a lifetime left is WARNING, a twentieth CRITICAL. A third is in the log and the metrics.
fn evaluate_expiry(all: &[Expiring], dependents: &Dependents, now: SystemTime) -> PluginStatus {
    let band = |expiring: &Expiring| expiring.pressing_band(dependents, now);
    let bands = || all.iter().map(band);
    let (code, word) = match bands().max().unwrap_or(Band::Good) {
        Band::Good | Band::Third => (0, "OK"),
        Band::Sixth => (1, "WARNING"),
        Band::Twentieth | Band::Ended => (2, "CRITICAL"),
    };
    let mut soonest: Vec<&Expiring> = all.iter().collect();
    soonest.sort_by_key(|expiring| {
        let matters = expiring.matters(dependents);
        (
            std::cmp::Reverse((matters, band(expiring))),
            expiring.lifetime.ends,
        )
    });
    let pressing = bands().filter(|band| *band >= Band::Sixth).count();
    let first = soonest.first().map_or(String::new(), |expiring| {
        let verb = match expiring.lifetime.band(now) {
            Band::Ended => "has ended",
            _ => "ends",
        };
        let (name, ends) = (name(expiring), shown_time(expiring.lifetime.ends, now));
        format!(": {name} {verb} {ends}")
    });
    let line = match pressing {
        0 => format!("{} certificates and lists, the first{first}", all.len()),
        _ => format!("{pressing} of {} certificates and lists{first}", all.len()),
    };
    let data = all.iter().map(|expiring| data(expiring, dependents, now));
    let data: Vec<_> = data.collect();
    PluginStatus {
        code,
        line: format!("PORTCULLIS {word} - {} | {}", text(line), data.join(" ")),
    }
}

fn name(expiring: &Expiring) -> String {
    let words = [&expiring.usage, &expiring.file, &expiring.subject];
    let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.into_iter().cloned().collect::<Vec<_>>().join(" ")
}

/// Seconds left, with the moments at which they become too few: `'label'=value;warning;critical;minimum;maximum`.
/// What ends without shutting a client out has no such moments.
fn data(expiring: &Expiring, dependents: &Dependents, now: SystemTime) -> String {
    // The guidelines forbid `=` in a label, and ask for quotes to be doubled.
    let label = text(name(expiring)).replace('=', ":").replace('\'', "''");
    let seconds = |duration: Duration| duration.as_secs();
    let lifetime = expiring.lifetime;
    let left = seconds(lifetime.ends.duration_since(now).unwrap_or_default());
    let whole = lifetime.ends.duration_since(lifetime.begins);
    let whole = seconds(whole.unwrap_or_default());
    // `N:` is the range that alerts below N.
    match expiring.matters(dependents) {
        true => format!("'{label}'={left}s;{}:;{}:;0;{whole}", whole / 6, whole / 20),
        false => format!("'{label}'={left}s;;;0;{whole}"),
    }
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
    use gateway_core::revocation::AuthorityId;
    use gateway_core::succession::Succession;

    use super::*;
    use gateway::config::FiledAuthority;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn at(day: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + day * DAY
    }

    fn expiring(subject: &str, begins: u32, ends: u32) -> Expiring {
        Expiring {
            usage: "listener edge certificate".to_owned(),
            file: "server.pem".to_owned(),
            subject: subject.to_owned(),
            lifetime: Lifetime {
                begins: at(begins),
                ends: at(ends),
            },
            authority: None,
        }
    }

    #[test]
    fn the_worst_certificate_decides() {
        let long = expiring("CN=long", 0, 3600);
        let short = expiring("CN=short", 0, 60);
        let both = [long, short];
        let cases = [(0, 0), (45, 0), (50, 1), (57, 2), (60, 2), (99, 2)];
        for (day, code) in cases {
            assert_eq!(
                evaluate_expiry(&both, &Dependents::default(), at(day)).code,
                code,
                "day {day}"
            );
        }
    }

    #[test]
    fn the_end_of_a_ca_with_a_successor_is_information_unless_a_client_stands_on_it_alone() {
        let id = AuthorityId([1; 32]);
        let authority = |succession| Expiring {
            authority: Some(FiledAuthority { id, succession }),
            ..expiring("CN=old", 0, 60)
        };
        let none = Dependents::default();
        let mut one = Dependents::default();
        one.add(expiring("", 0, 0).usage, id, 1);
        let code = |succession, dependents, day| {
            let both = [authority(succession), expiring("CN=new", 50, 3600)];
            evaluate_expiry(&both, dependents, at(day)).code
        };
        for (day, critical) in [(51, 1), (58, 2), (99, 2)] {
            for dependents in [&none, &one] {
                assert_eq!(code(Succession::Last, dependents, day), critical);
                assert_eq!(code(Succession::Renewed, dependents, day), 0);
            }
            assert_eq!(code(Succession::Superseded, &none, day), 0);
            assert_eq!(code(Succession::Superseded, &one, day), critical);
        }
        let both = [
            authority(Succession::Superseded),
            expiring("CN=new", 50, 3600),
        ];
        let line = evaluate_expiry(&both, &none, at(99)).line;
        assert!(
            line.contains("OK - 2 certificates and lists, the first: listener edge certificate server.pem CN=new ends on"),
            "{line}"
        );
        assert!(line.contains("CN:old'=0s;;;0;5184000"), "{line}");
    }

    #[test]
    fn the_line_is_what_nagios_reads() {
        let both = [
            expiring("CN=long", 0, 3600),
            expiring("CN=it's|short", 0, 60),
        ];
        let status = evaluate_expiry(&both, &Dependents::default(), at(55));
        assert_eq!(
            status.line,
            "PORTCULLIS WARNING - 1 of 2 certificates and lists: listener edge certificate server.pem CN=it's/short \
             ends on 1970-03-02T00:00:00Z (in 5 days) \
             | 'listener edge certificate server.pem CN:long'=306288000s;51840000:;15552000:;0;311040000 \
             'listener edge certificate server.pem CN:it''s/short'=432000s;864000:;259200:;0;5184000"
        );
    }
}
