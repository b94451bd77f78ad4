//! Promises about service: the gateway serves clients with every right, loses nothing, and gives a reason for each end.

use super::{Finding, Rules};
use crate::evidence::{Connection, Evidence};
use crate::journal::{Disturbance, Milliseconds, Outcome, Visit, Why};

pub const RULES: Rules = &[
    (
        "rightful",
        "a client with every right is served to the end, whatever happens to others",
        rightful,
    ),
    (
        "data",
        "what arrives is what was sent, and of a connection that ended well all of it, both ways",
        data,
    ),
    (
        "truncation",
        "a broken connection never looks complete to a server",
        truncation,
    ),
    (
        "audit",
        "every client that is served is in the audit log, which has no gaps",
        audit,
    ),
    (
        "one end",
        "each connection that is accepted has exactly one end",
        one_end,
    ),
    (
        "reasons of ends",
        "each end has a reason that fits what was done",
        reasons,
    ),
];

fn rightful(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    for (ended, visit) in &evidence.visits {
        let rights = &evidence.rights;
        let is_rightful = rights
            .reasons(&visit.serial, visit.began, *ended)
            .is_empty();
        // A client of a server that is revoked has to come again, also if nothing of it had arrived there.
        let connection = evidence.connection(*ended, visit);
        let mut ends = connection.iter().flat_map(|connection| &connection.ends);
        let has_met_one = evidence.delivery(visit.number).is_some()
            || ends.any(|end| end.reason == SERVER_REVOKED);
        let is_orphaned = has_met_one && lost_its_server(evidence, visit, *ended);
        if !is_rightful || is_orphaned || !rights.disturbed(visit.began, *ended).is_empty() {
            continue;
        }
        let is_good = matches!(visit.outcome, Outcome::Finished | Outcome::Left);
        let (name, outcome, detail) = (&visit.identity, visit.outcome, &visit.detail);
        finding.count(
            visit.began,
            (!is_good).then(|| format!("{name} ({}): {outcome:?}, {detail:?}", visit.number)),
        );
    }
    finding
}

/// The end of a client whose server was revoked, in the audit log.
const SERVER_REVOKED: &str = "backend_revoked";

/// Whether the server of a visit was revoked meanwhile: any, if nothing of the visit arrived at one.
fn lost_its_server(evidence: &Evidence<'_>, visit: &Visit, until: Milliseconds) -> bool {
    let rights = &evidence.rights;
    let was_revoked = |key: &str| {
        let reasons = rights.reasons(key, visit.began, until);
        reasons.contains(&Why::ServerRevoked)
    };
    match evidence.delivery(visit.number) {
        Some(delivery) => was_revoked(&delivery.key()),
        None => rights.forbidden().any(|(key, _)| was_revoked(key)),
    }
}

fn data(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    for (at, delivery) in &evidence.deliveries {
        let server = &delivery.server;
        finding.count(
            *at,
            (!delivery.is_intact).then(|| format!("{server} got other bytes than were sent")),
        );
    }
    for (ended, visit) in &evidence.visits {
        let corrupted = visit.outcome == Outcome::Corrupted;
        let breach = match evidence.delivery(visit.number) {
            _ if corrupted => Some(format!("{:?}", visit.detail)),
            _ if visit.outcome != Outcome::Finished => continue,
            None => Some("nothing arrived".to_owned()),
            Some(delivery) => {
                let connection = evidence.connection(*ended, visit);
                let end = connection.and_then(|connection| connection.ends.first());
                let audited = end.map(|end| (end.received, end.sent));
                let client = (visit.sent, visit.received);
                let server = (delivery.received, delivery.sent);
                let is_whole = client == server
                    && delivery.is_finished
                    && audited.is_none_or(|audited| audited == client);
                (!is_whole)
                    .then(|| format!("client {client:?}, server {server:?}, audit log {audited:?}"))
            }
        };
        let breach = breach.map(|what| format!("{} ({}): {what}", visit.identity, visit.number));
        finding.count(*ended, breach);
    }
    finding
}

fn truncation(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    for (ended, visit) in &evidence.visits {
        if visit.said_goodbye {
            continue;
        }
        if let Some(delivery) = evidence.delivery(visit.number) {
            let (number, server) = (visit.number, &delivery.server);
            finding.count(
                *ended,
                delivery
                    .is_finished
                    .then(|| format!("{server} took the torn visit {number} for a whole one")),
            );
        }
    }
    finding
}

fn audit(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    for (ended, visit) in &evidence.visits {
        if visit.served.is_none() {
            continue;
        }
        let connection = evidence.connection(*ended, visit);
        let is_told = connection.is_some_and(|connection| connection.serial == visit.serial);
        finding.count(
            *ended,
            (!is_told).then(|| format!("visit {} of {} is missing", visit.number, visit.identity)),
        );
    }
    for (at, line) in evidence.audit_lines() {
        let event = crate::evidence::text(line, "event");
        if matches!(event.as_str(), "dropped" | "unreadable") {
            finding.count(at, Some(line.to_string()));
        }
    }
    finding
}

fn one_end(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    for connection in &evidence.connections {
        let ends = connection.ends.len();
        let (name, peer) = (&connection.name, &connection.peer);
        finding.count(
            connection.at,
            (ends != 1).then(|| format!("{name} of {peer} has {ends} ends")),
        );
    }
    for (at, name) in &evidence.orphans {
        finding.count(*at, Some(format!("{name} ended and had never begun")));
    }
    finding
}

fn reasons(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    for (ended, visit) in &evidence.visits {
        let Some(connection) = evidence.connection(*ended, visit) else {
            continue;
        };
        for end in &connection.ends {
            let fits = fits(evidence, (*ended, visit), connection, &end.reason);
            let (reason, outcome) = (&end.reason, visit.outcome);
            finding.count(
                end.at,
                (!fits).then(|| {
                    format!(
                        "{} ({}): {reason}, {outcome:?}",
                        visit.identity, visit.number
                    )
                }),
            );
        }
    }
    finding
}

/// Whether any deed leads to such an end.
fn fits(
    evidence: &Evidence<'_>,
    (ended, visit): (Milliseconds, &Visit),
    connection: &Connection,
    reason: &str,
) -> bool {
    let rights = &evidence.rights;
    // A connection may end long after its agent has gone.
    let until = connection
        .ends
        .iter()
        .map(|end| end.at)
        .fold(ended, u64::max);
    let disturbed = rights.disturbed(visit.began, until);
    let is_disturbed = |what| disturbed.contains(&what);
    match reason {
        "finished" => visit.said_goodbye,
        "client_reset" | "client_truncated" => {
            visit.outcome == Outcome::Left
                || is_disturbed(Disturbance::Interface)
                || (visit.outcome == Outcome::Lost && !disturbed.is_empty())
        }
        "drained" => is_disturbed(Disturbance::Takeover),
        "backend_reset" | "backend_truncated" | "backend_unreachable" => [
            Disturbance::Servers,
            Disturbance::Budget,
            Disturbance::Descriptors,
        ]
        .into_iter()
        .any(is_disturbed),
        SERVER_REVOKED => lost_its_server(evidence, visit, until),
        reason => {
            let why = rights.reasons(&visit.serial, visit.began, until);
            why.iter().any(|why| why.ends().contains(&reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::journal::{Fact, Outcome};
    use crate::rules::sample::{Sample, goes_red, stays_good};

    #[test]
    fn an_agent_with_every_right_that_is_lost_breaks_it() {
        goes_red("rightful", |sample| {
            sample.refused_visit(Sample::OTHER, 100_000, "revoked");
        });
        goes_red("rightful", |sample| {
            sample.doctor(|fact| {
                if let Fact::Visit(visit) = fact {
                    visit.outcome = Outcome::Dismissed;
                }
            });
        });
    }

    #[test]
    fn an_agent_that_is_lost_with_its_server_breaks_it_only_if_none_was_revoked() {
        let cut_off = |began| {
            move |sample: &mut Sample| {
                sample.visit(Sample::OTHER, began, began + 100, "backend_revoked");
                // Nothing of it had arrived.
                sample.drop_last_delivery();
            }
        };
        for name in ["rightful", "reasons of ends"] {
            stays_good(name, cut_off(60_000));
            goes_red(name, cut_off(16_000));
        }
    }

    #[test]
    fn a_byte_too_few_or_another_one_breaks_it() {
        goes_red("data", |sample| {
            sample.doctor(|fact| {
                if let Fact::Delivery(delivery) = fact {
                    delivery.received -= 1;
                }
            });
        });
        goes_red("data", |sample| {
            sample.doctor(|fact| {
                if let Fact::Delivery(delivery) = fact {
                    delivery.is_intact = false;
                }
            });
        });
        goes_red("data", |sample| {
            sample.doctor(|fact| {
                if let Fact::Visit(visit) = fact {
                    visit.outcome = Outcome::Corrupted;
                }
            });
        });
    }

    #[test]
    fn a_torn_connection_that_a_server_takes_for_whole_breaks_it() {
        goes_red("truncation", |sample| {
            sample.doctor(|fact| {
                if let Fact::Delivery(delivery) = fact {
                    delivery.is_finished = true;
                }
            });
        });
    }

    #[test]
    fn a_line_too_few_in_the_audit_log_breaks_it() {
        goes_red("audit", |sample| sample.drop_audit("handshake", 0));
        goes_red("audit", |sample| {
            sample.audit(50_000, serde_json::json!({"event": "dropped", "lines": 3}));
        });
    }

    #[test]
    fn a_connection_without_an_end_or_with_two_breaks_it() {
        goes_red("one end", |sample| sample.drop_audit("end", 0));
        goes_red("one end", |sample| sample.repeat_audit("end", 0));
    }

    #[test]
    fn an_end_that_nothing_led_to_breaks_it() {
        for reason in ["blocked", "internal", "idle", "drained", "backend_reset"] {
            goes_red("reasons of ends", |sample| {
                sample.doctor(|fact| match fact {
                    Fact::Audit { line } if line["event"] == "end" => {
                        line["reason"] = reason.into();
                    }
                    _ => {}
                });
            });
        }
    }
}
