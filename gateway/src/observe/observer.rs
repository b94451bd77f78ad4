//! A worker's ear: takes events, counts them, logs those an operator wants to read, and makes audit lines of the rest.
//! In: events. Out: counters, log and audit lines. On its worker; never waits for either log.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use gateway_core::failure::{Failure, Level};
use gateway_core::suppress::Suppressor;

use super::audit::{self, Audit, Line, Text, Time, Weight};
use super::counters::WorkerCounters;
use super::event::Event;
use crate::config::Config;
use crate::limits;
use crate::tls::VerifiedPeer;

/// A worker's ear.
#[derive(Debug)]
pub struct Observer {
    config: RefCell<Arc<Config>>,
    counters: Arc<WorkerCounters>,
    audit: Audit,
    /// The audit line that is being made.
    line: RefCell<Vec<u8>>,
    refusals: RefCell<[Suppressor; Failure::ALL.len()]>,
    server_failures: RefCell<Vec<Suppressor>>,
    backend_faults: RefCell<Suppressor>,
}

impl Observer {
    /// Records into `counters` and `audit`.
    pub fn new(config: Arc<Config>, counters: Arc<WorkerCounters>, audit: Audit) -> Self {
        let suppressor = Suppressor::new(limits::REFUSAL_LINES_PER_SECOND);
        let refusals = RefCell::new(std::array::from_fn(|_| suppressor.clone()));
        let server_failures = RefCell::new(vec![suppressor.clone(); config.backends.len()]);
        let backend_faults = RefCell::new(suppressor);
        Observer {
            config: RefCell::new(config),
            counters,
            audit,
            line: RefCell::default(),
            refusals,
            server_failures,
            backend_faults,
        }
    }

    /// Takes names from this configuration from now on.
    pub fn reload(&self, config: &Arc<Config>) {
        self.config.replace(Arc::clone(config));
    }

    /// Takes note of an event on the listener at position `listener`.
    pub fn emit(&self, listener: usize, event: &Event<'_>) {
        self.counters.record(listener, event);
        self.log(listener, event);
        if self.audit.is_on() {
            self.audit(listener, event);
        }
    }

    fn audit(&self, listener: usize, event: &Event<'_>) {
        let config = self.config.borrow();
        let listener = config.listeners[listener].name.as_str();
        if let Some(line) = audit_line(listener, event) {
            let mut buffer = self.line.borrow_mut();
            line.write(&mut buffer);
            self.audit.push(&buffer, Weight::Client);
        }
    }

    fn log(&self, listener: usize, event: &Event<'_>) {
        let config = self.config.borrow();
        let listener = config.listeners[listener].name.as_str();
        match event {
            Event::Refused {
                failure,
                address,
                detail,
            } => {
                let admitted = self.refusals.borrow_mut()[failure.index()].admit(Instant::now());
                let Some(left_out) = admitted else { return };
                let reason = failure.label();
                match failure.level() {
                    Level::Info => {
                        tracing::info!(listener, reason, peer = %address, detail, left_out, "refused")
                    }
                    Level::Warn => {
                        tracing::warn!(listener, reason, peer = %address, detail, left_out, "refused")
                    }
                    Level::Error => {
                        tracing::error!(listener, reason, peer = %address, detail, left_out, "refused")
                    }
                }
            }
            Event::ServerFailed {
                backend,
                server,
                error,
            } => {
                let admitted = self.server_failures.borrow_mut()[*backend].admit(Instant::now());
                let Some(left_out) = admitted else { return };
                let backend = config.backends[*backend].name.as_str();
                tracing::warn!(listener, backend, %server, %error, left_out, "cannot reach the backend's server");
            }
            Event::Established {
                peer,
                address,
                parameters: (suite, group),
                took,
            } => {
                tracing::debug!(
                    listener, peer = %address, identity = peer.identity(), rule = peer.rule() + 1,
                    tenant = peer.tenant().map(|tenant| tenant.as_str()), suite, group, ?took, "accepted"
                );
            }
            Event::Ended {
                end,
                address,
                peer,
                received_bytes,
                sent_bytes,
            } => {
                let (identity, reason) = (peer.identity(), end.label());
                tracing::debug!(listener, peer = %address, identity, reason, received_bytes, sent_bytes, "ended");
                if end.is_backends_fault()
                    && let Some(left_out) = self.backend_faults.borrow_mut().admit(Instant::now())
                {
                    tracing::warn!(listener, peer = %address, identity, reason, left_out, "cut off by the backend");
                }
            }
            Event::Panicked { address, message } => {
                tracing::error!(listener, peer = %address, panic = message, "a connection panicked; please report this");
            }
            Event::Accepted | Event::Moved { .. } | Event::Closed => {}
        }
    }
}

/// The audit line of an event that has one.
fn audit_line<'a>(listener: &'a str, event: &'a Event<'_>) -> Option<Line<'a>> {
    let time = Time(SystemTime::now());
    let handshake = |outcome, peer| audit::Handshake {
        time,
        outcome,
        listener,
        peer,
        reason: None,
        detail: None,
        suite: None,
        group: None,
        duration_microseconds: None,
        client: None,
    };
    let line = match *event {
        Event::Refused {
            failure,
            address,
            detail,
        } => Line::Handshake(audit::Handshake {
            reason: Some(failure.label()),
            detail: Some(Text(detail)),
            ..handshake("refused", address)
        }),
        Event::Established {
            peer,
            address,
            parameters: (suite, group),
            took,
        } => Line::Handshake(audit::Handshake {
            suite: Some(suite),
            group: Some(group),
            duration_microseconds: Some(took.as_micros()),
            client: Some(client(peer)),
            ..handshake("accepted", address)
        }),
        Event::Ended {
            end,
            address,
            peer,
            received_bytes,
            sent_bytes,
        } => Line::End(audit::End {
            time,
            listener,
            peer: address,
            reason: end.label(),
            received_bytes,
            sent_bytes,
            client: client(peer),
        }),
        Event::Accepted
        | Event::Moved { .. }
        | Event::ServerFailed { .. }
        | Event::Closed
        | Event::Panicked { .. } => return None,
    };
    Some(line)
}

fn client(peer: &VerifiedPeer) -> audit::Client<'_> {
    audit::Client {
        identity: Text(peer.identity()),
        rule: peer.rule() + 1,
        tenant: peer.tenant().map(|tenant| tenant.as_str()),
        not_after: Time(peer.not_after()),
    }
}
