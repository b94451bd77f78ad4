//! Promises about trust: the gateway serves only clients with a right, under their own names, by servers with a right.

use std::collections::HashSet;

use super::{Finding, Rules};
use crate::evidence::{Evidence, LAG};
use crate::journal::Why;

pub const RULES: Rules = &[
    (
        "newcomers",
        "the gateway admits no client that is revoked, blocked, expired, or without rule or CA, once that is published",
        newcomers,
    ),
    (
        "cut off",
        "a client that loses its right loses its open connections, and none of its bytes arrives afterwards",
        cut_off,
    ),
    ("servers", "a revoked server gets nothing more", servers),
    (
        "strangers",
        "no byte of an unauthenticated client reaches a server, and none comes back",
        strangers,
    ),
    (
        "names",
        "a server is told the true name and tenant of its client",
        names,
    ),
    (
        "reasons of refusals",
        "a refusal gives the true reason",
        reasons,
    ),
];

fn newcomers(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    for (ended, visit) in &evidence.visits {
        let rights = &evidence.rights;
        let Some(spell) = rights.bars(&visit.serial, visit.began) else {
            continue;
        };
        let connection = evidence.connection(*ended, visit);
        // Given back while it was under way.
        if spell.span.until < *ended {
            continue;
        }
        let got_in = connection.is_some() || visit.served.is_some();
        finding.count(
            visit.began,
            got_in.then(|| format!("{} got in, although {:?}", visit.identity, spell.why)),
        );
    }
    // Clients that got in, and have not told their story.
    for connection in &evidence.connections {
        let came = connection.at.saturating_sub(LAG);
        let spell = evidence.rights.bars(&connection.serial, came);
        // Not where the right was restored between the handshake and its line.
        if let Some(spell) = spell.filter(|spell| connection.at < spell.span.until) {
            let what = format!(
                "{} was let in, although {:?}",
                connection.identity, spell.why
            );
            finding.count(connection.at, Some(what));
        }
    }
    finding
}

fn cut_off(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    for (ended, visit) in &evidence.visits {
        let Some(connection) = evidence.connection(*ended, visit) else {
            continue;
        };
        for spell in evidence.rights.spells(&visit.serial) {
            let due = evidence.rights.acts_from(spell) + LAG;
            let end = connection.ends.first();
            let was_open = connection.at < spell.span.from
                && end.is_none_or(|end| end.at + LAG > spell.span.from);
            if !spell.closes || !was_open || spell.span.until < due {
                continue;
            }
            let last = evidence.delivery(visit.number).and_then(|told| told.last);
            let breach = match (end, last) {
                (_, Some(last)) if last > due => Some("bytes arrived"),
                (None, _) => Some("was never closed"),
                (Some(end), _) if end.at > due => Some("was closed late"),
                (Some(_), _) => None,
            };
            let name = &visit.identity;
            finding.count(
                due,
                breach.map(|what| format!("{name}: {what}, although {:?}", spell.why)),
            );
        }
    }
    finding
}

fn servers(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    let spells = evidence.rights.forbidden();
    for (key, spell) in spells.filter(|(_, spell)| spell.why == Why::ServerRevoked) {
        let due = evidence.rights.acts_from(spell) + LAG;
        let late = evidence.deliveries.iter().find(|(_, delivery)| {
            let was_then = |last| due < last && last < spell.span.until;
            delivery.key() == key && delivery.last.is_some_and(was_then)
        });
        finding.count(
            late.map_or(spell.span.from, |(at, _)| *at),
            late.map(|(_, delivery)| format!("{} got bytes of {:?}", key, delivery.claimed)),
        );
    }
    finding
}

fn strangers(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    let visits: HashSet<u64> = evidence
        .visits
        .iter()
        .map(|(_, visit)| visit.number)
        .collect();
    for (at, delivery) in &evidence.deliveries {
        let known = delivery
            .number
            .is_none_or(|number| visits.contains(&number));
        let named = delivery.told.as_ref().is_some_and(|told| !told.is_empty());
        if !known || !named {
            let what = format!("{} got bytes of a client without a name", delivery.server);
            finding.count(*at, Some(what));
        }
    }
    for (at, stranger) in &evidence.strangers {
        let kind = &stranger.kind;
        let breach = match evidence.delivery(stranger.number) {
            Some(_) => Some(format!("{kind}: its bytes reached a server")),
            None if stranger.was_served => Some(format!("{kind}: it was served")),
            None => None,
        };
        finding.count(*at, breach);
    }
    finding
}

fn names(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    for (ended, visit) in &evidence.visits {
        let Some(delivery) = evidence.delivery(visit.number) else {
            continue;
        };
        // `spiffe://soak.test/GROUP/NUMBER`: the group is the tenant.
        let tenant = visit.identity.split('/').nth(3);
        let connection = evidence.connection(*ended, visit);
        let audited = connection.map(|connection| connection.identity.as_str());
        let identity = visit.identity.as_str();
        let said = [
            delivery.told.as_deref(),
            delivery.claimed.as_deref().or(Some(identity)),
            audited.or(Some(identity)),
        ];
        let is_true = said.iter().all(|name| *name == Some(identity));
        let is_true = is_true && delivery.tenant.as_deref() == tenant;
        finding.count(
            *ended,
            (!is_true).then(|| format!("{identity}: {said:?}, tenant {:?}", delivery.tenant)),
        );
    }
    finding
}

fn reasons(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    let visits = evidence.visits_by_peer();
    for refusal in &evidence.refusals {
        let visits = visits.get(refusal.peer.as_str()).into_iter().flatten();
        let mut visits = visits.filter(|(ended, visit)| evidence.is_of(refusal.at, *ended, visit));
        let Some((ended, visit)) = visits.next() else {
            continue;
        };
        let why = evidence.rights.reasons(&visit.serial, visit.began, *ended);
        let fits = why
            .iter()
            .any(|why| why.refusals().contains(&refusal.reason.as_str()));
        // What a connection that breaks looks like.
        let disturbed = !evidence.rights.disturbed(visit.began, *ended).is_empty();
        let breaks = matches!(refusal.reason.as_str(), "reset" | "timeout" | "over_limit");
        let is_explained = fits || (disturbed && breaks);
        let name = &visit.identity;
        finding.count(
            refusal.at,
            (!is_explained)
                .then(|| format!("{name} was refused as {}, expected {why:?}", refusal.reason)),
        );
    }
    finding
}

#[cfg(test)]
mod tests {
    use crate::journal::{Fact, Why};
    use crate::rules::sample::{Sample, goes_red};

    #[test]
    fn a_revoked_client_that_gets_in_breaks_it() {
        goes_red("newcomers", |sample| {
            sample.forbid(Sample::OTHER, Why::Revoked, 100_000);
            sample.visit(Sample::OTHER, 110_000, 111_000, "finished");
        });
    }

    #[test]
    fn a_blocked_client_whose_bytes_go_on_arriving_breaks_it() {
        goes_red("cut off", |sample| {
            sample.visit(Sample::OTHER, 100_000, 130_000, "blocked");
            sample.forbid(Sample::OTHER, Why::Blocked, 110_000);
        });
    }

    #[test]
    fn a_revoked_server_that_gets_bytes_breaks_it() {
        goes_red("servers", |sample| {
            sample.visit(Sample::OTHER, 100_000, 130_000, "finished");
        });
    }

    #[test]
    fn a_strangers_byte_at_a_server_breaks_it() {
        goes_red("strangers", |sample| {
            let number = sample.stranger(100_000);
            sample.delivery(number, Sample::OTHER, 100_100, 10);
        });
    }

    #[test]
    fn a_server_that_is_told_another_name_breaks_it() {
        goes_red("names", |sample| {
            sample.doctor(|fact| {
                if let Fact::Delivery(delivery) = fact {
                    delivery.told = Some("spiffe://soak.test/a/9".into());
                }
            });
        });
        goes_red("names", |sample| {
            sample.doctor(|fact| {
                if let Fact::Delivery(delivery) = fact {
                    delivery.tenant = None;
                }
            });
        });
    }

    #[test]
    fn a_refusal_without_its_reason_breaks_it() {
        goes_red("reasons of refusals", |sample| {
            sample.refused_visit(Sample::OTHER, 100_000, "revoked");
        });
    }
}
