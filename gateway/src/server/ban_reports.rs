//! Reports of bans to log and audit: each ban once when it begins, and once when it is over or lifted.
//! In: events of the kernel or news of the gateway's own table of sources; now and then a look at both. Out: lines. On the
//! control thread. What no event reported, an operator's ban or one in a flood, the next look finds.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use gateway_common::{BANS_MAX, Ban, BanEvent, Reason, Source};
use gateway_core::limits;
use gateway_guard::{BanNews, Events, GuardHandle, address_of, now_ns, source_of};

use crate::telemetry::Audit;

/// Keeps the kernel programs alive and reports the bans of `guard`. Never returns.
pub(super) async fn attend(guard: &GuardHandle, audit: &Audit) {
    let mut reports = BanReports::new(guard, audit);
    let mut events = match guard.events() {
        Some(Ok(events)) => Some(events),
        Some(Err(error)) => {
            tracing::error!(%error, "ban reports are delayed: cannot listen to the kernel's events");
            None
        }
        None => None,
    };
    let mut news = guard.take_news();
    let mut beats = tokio::time::interval(limits::GUARD_BEAT_INTERVAL);
    let mut looks = tokio::time::interval(limits::GUARD_LOOK_INTERVAL);
    loop {
        tokio::select! {
            _ = beats.tick() => guard.beat(),
            _ = looks.tick() => reports.look(),
            event = next_event(&mut events) => {
                reports.begun(event.source, event.ban, Some(event.local_port));
            }
            (source, ban) = next_news(&mut news) => reports.begun(source_of(source), ban, None),
        }
    }
}

/// The next event of the kernel; never, where there are none to be had.
async fn next_event(events: &mut Option<Events>) -> BanEvent {
    if let Some(waiting) = events {
        match waiting.next().await {
            Ok(event) => return event,
            Err(error) => {
                tracing::error!(%error, "ban reports are delayed: cannot read the kernel's events");
            }
        }
    }
    *events = None;
    std::future::pending().await
}

/// The next ban of the table; never, where there is no table.
async fn next_news(news: &mut Option<BanNews>) -> (IpAddr, Ban) {
    if let Some(waiting) = news
        && let Some(begun) = waiting.recv().await
    {
        return begun;
    }
    *news = None;
    std::future::pending().await
}

/// What has been reported, and to whom reports go.
struct BanReports<'g> {
    guard: &'g GuardHandle,
    audit: &'g Audit,
    reported: ReportedBans,
}

impl<'g> BanReports<'g> {
    /// Bans from before the start are no news: the kernel keeps some, the gateway's own table none.
    fn new(guard: &'g GuardHandle, audit: &'g Audit) -> Self {
        let now_ns = now_ns();
        let held = match guard.source_table() {
            Some(_) => Vec::new(),
            None => guard.held_bans().unwrap_or_default(),
        };
        let reported = held.into_iter().filter(|(_, ban)| ban.holds(now_ns));
        Self {
            guard,
            audit,
            reported: ReportedBans(reported.collect()),
        }
    }

    /// Reports bans that are over or were lifted, and those that no event reported.
    fn look(&mut self) {
        let held = match self.guard.held_bans() {
            Ok(held) => held,
            Err(error) => return tracing::error!(%error, "cannot read the bans"),
        };
        let now_ns = now_ns();
        let in_force: HashMap<Source, Ban> = held
            .into_iter()
            .filter(|(_, ban)| ban.holds(now_ns))
            .collect();
        let audit = self.audit;
        self.reported.0.retain(|source, ban| {
            let holds = in_force.contains_key(source);
            if !holds {
                let outcome = if ban.holds(now_ns) { "lifted" } else { "over" };
                tracing::info!(source = %address_of(*source), outcome, "the ban has ended");
                audit.banned(outcome, address_of(*source), ban, None);
            }
            holds
        });
        for (source, ban) in in_force {
            self.begun(source, ban, None);
        }
    }

    /// Reports a ban, once.
    fn begun(&mut self, source: Source, ban: Ban, port: Option<u16>) {
        if !self.reported.note(source, ban) {
            return;
        }
        self.guard.count_ban();
        let address = address_of(source);
        let reason = ban.tipped_by().map_or("by hand", Reason::label);
        let lasts_seconds = Duration::from_nanos(ban.lasts_ns).as_secs();
        tracing::warn!(source = %address, reason, lasts_seconds, port, "banned");
        self.audit.banned("banned", address, &ban, port);
    }
}

/// Bans in force that have been reported: as many as the kernel's maps, or the gateway's own table, have room for.
#[derive(Default)]
struct ReportedBans(HashMap<Source, Ban>);

impl ReportedBans {
    /// Notes a ban; false if it was known. Without room it forgets any other one, which is reported once more if it is still in
    /// force at the next look.
    fn note(&mut self, source: Source, ban: Ban) -> bool {
        if self.0.len() >= BANS_MAX as usize
            && !self.0.contains_key(&source)
            && let Some(any) = self.0.keys().next().copied()
        {
            self.0.remove(&any);
        }
        self.0.insert(source, ban) != Some(ban)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_bans_are_remembered_as_reported_than_there_can_be() {
        let mut reported = ReportedBans::default();
        let ban = Ban::by_operator(0, 0, u64::MAX);
        let source = |number: u32| source_of(IpAddr::from(number.to_be_bytes()));
        for number in 0..3 * BANS_MAX {
            assert!(reported.note(source(number), ban));
            assert!(!reported.note(source(number), ban), "it is known");
        }
        assert_eq!(reported.0.len(), BANS_MAX as usize);
    }
}
