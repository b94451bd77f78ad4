//! The guard's life in the gateway: prepared before the first socket is made, attached when the ports are known, kept
//! alive and listened to on the control thread. In: the configuration. Out: a gate for the workers, events for log and
//! audit. Where the kernel programs cannot run, the gateway keeps the same accounts in a book of its own, and says so.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gateway_common::{BANS_MAX, Ban, BanEvent, Reason, Source};
use gateway_core::sources::Policy;
use tokio::sync::mpsc::{Receiver, channel};

use super::gateway::{Ports, StartError};
use super::listen::{self, Bound};
use super::privilege::Privileges;
use crate::config::{Config, GuardMode};
use crate::guard::{
    Attachment, Book, Events, Gate, Ground, Guard, GuardError, Maps, Plan, PortCount, address_of,
    former_name, now_ns, source_of,
};
use crate::limits;
use crate::telemetry::Audit;

/// The guard, as the gateway has it.
#[derive(Debug)]
pub struct Guarding {
    kernel: Option<Guard>,
    book: Option<Arc<Book>>,
    /// Why the kernel programs do not run, where they should.
    obstacle: Option<String>,
    /// Bans that begin in the book, for the one who attends.
    news: Mutex<Option<Receiver<(IpAddr, Ban)>>>,
    gate: Gate,
    bans: AtomicU64,
    is_detached: AtomicBool,
}

/// Binds every listener, inside the cgroup that is followed, and attaches the kernel programs for their ports.
pub(super) fn bind_and_guard(
    config: &Arc<Config>,
    privileges: &Privileges,
    ports: Ports,
) -> Result<(Bound, Guarding), StartError> {
    let is_required = config.guard.required;
    let config = Arc::clone(config);
    let (bound, guarding) = privileges.run(move || {
        let plan = plan(&config);
        let ground = plan.as_ref().map(Ground::prepare);
        let bound = listen::bind_all(&config, ports)?;
        let Some((plan, ground)) = plan.zip(ground) else {
            return Ok((bound, Guarding::none()));
        };
        let ports: Vec<_> = bound
            .addresses
            .iter()
            .map(|(_, address)| address.port())
            .collect();
        let guard = ground.and_then(|ground| Guard::start(&plan, &ports, ground));
        match guard {
            Ok(guard) => Ok((bound, Guarding::by_kernel(guard))),
            Err(error) if plan.is_required => Err(StartError::Guard(error)),
            Err(error) => Ok((bound, Guarding::by_book(&error))),
        }
    })?;
    // Here, as on every thread that serves, without the privileges.
    match guarding.kernel.as_ref().map(Guard::prove_usable) {
        Some(Err(error)) if is_required => Err(StartError::Guard(error)),
        Some(Err(error)) => Ok((bound, Guarding::by_book(&error))),
        _ => Ok((bound, guarding)),
    }
}

pub(super) fn plan(config: &Config) -> Option<Plan> {
    let guard = &config.guard;
    (guard.mode != GuardMode::Off).then(|| Plan {
        name: config.paths.name.to_string(),
        former_name: Some(former_name(&config.file)),
        is_lasting: guard.is_lasting,
        interfaces: guard.interfaces.clone(),
        is_required: guard.required,
        policy: Policy::clone(&guard.policy),
    })
}

impl Guarding {
    fn none() -> Self {
        Self {
            kernel: None,
            book: None,
            obstacle: None,
            news: Mutex::default(),
            gate: Gate::default(),
            bans: AtomicU64::default(),
            is_detached: AtomicBool::default(),
        }
    }

    fn by_kernel(guard: Guard) -> Self {
        Self {
            gate: guard.gate(),
            kernel: Some(guard),
            ..Self::none()
        }
    }

    fn by_book(obstacle: &GuardError) -> Self {
        tracing::warn!(error = %obstacle, "running without the kernel programs: the gateway keeps accounts by itself");
        let book = Arc::new(Book::default());
        let (news, heard) = channel(limits::BAN_NEWS_MAX);
        Self {
            gate: Gate::by_book(Arc::clone(&book), news),
            book: Some(book),
            obstacle: Some(obstacle.to_string()),
            news: Mutex::new(Some(heard)),
            ..Self::none()
        }
    }

    /// What the workers ask.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// What the kernel counted on each protected port; `None` where it does not.
    pub fn counts(&self) -> Option<Result<Vec<PortCount>, GuardError>> {
        self.kernel.as_ref().map(Guard::counts)
    }

    /// Why the kernel programs do not run, where they should.
    pub fn obstacle(&self) -> Option<&str> {
        self.obstacle.as_deref()
    }

    /// Interfaces whose packets are judged.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.kernel
            .as_ref()
            .map(Guard::attachments)
            .unwrap_or_default()
    }

    /// Interfaces whose packets are not judged, although they are to be.
    pub fn unattached(&self) -> Vec<String> {
        self.kernel
            .as_ref()
            .map(Guard::unattached)
            .unwrap_or_default()
    }

    /// Runs `ask` on the kernel's maps, if there are any.
    pub fn with_maps<R>(&self, ask: impl FnOnce(&mut Maps) -> R) -> Option<R> {
        self.kernel.as_ref().map(|guard| ask(&mut guard.lock()))
    }

    /// Our own book, where the kernel keeps none.
    pub fn book(&self) -> Option<&Book> {
        self.book.as_deref()
    }

    /// Bans that have begun since the start.
    pub fn bans(&self) -> u64 {
        self.bans.load(Ordering::Relaxed)
    }

    /// Whether the kernel programs are attached.
    pub fn is_attached(&self) -> bool {
        self.kernel.is_some() && !self.is_detached.load(Ordering::Relaxed)
    }

    /// Goes by another policy from now on.
    pub(super) fn follow(&self, policy: &Policy) {
        if let Some(guard) = &self.kernel
            && let Err(error) = guard.follow(policy)
        {
            tracing::error!(%error, "the kernel programs go on by the old [guard]");
        }
    }

    /// Keeps the kernel programs alive and passes on what they report. Never returns.
    pub(super) async fn attend(&self, audit: &Audit) {
        match &self.kernel {
            Some(guard) => self.attend_kernel(guard, audit).await,
            None => self.attend_book(audit).await,
        }
    }

    /// Tells of the bans that begin in our own book, and of their ends.
    async fn attend_book(&self, audit: &Audit) {
        let mut told = Told::default();
        let news = self
            .news
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut looks = tokio::time::interval(limits::GUARD_LOOK_INTERVAL);
        if let (Some(mut news), Some(book)) = (news, &self.book) {
            loop {
                tokio::select! {
                    _ = looks.tick() => self.look(book.bans(), &mut told, audit),
                    begun = news.recv() => match begun {
                        Some((source, ban)) => self.tell(&mut told, (source_of(source), ban), None, audit),
                        None => break,
                    },
                }
            }
        }
        std::future::pending().await
    }

    async fn attend_kernel(&self, guard: &Guard, audit: &Audit) {
        let mut events = match guard.events() {
            Ok(events) => Some(events),
            Err(error) => {
                tracing::error!(%error, "bans will be told of late");
                None
            }
        };
        let mut told = Told::new(guard);
        let mut beats = tokio::time::interval(limits::GUARD_BEAT_INTERVAL);
        let mut looks = tokio::time::interval(limits::GUARD_LOOK_INTERVAL);
        loop {
            tokio::select! {
                _ = beats.tick() => self.beat(guard),
                _ = looks.tick() => self.look_at_kernel(guard, &mut told, audit),
                event = next(&mut events) => {
                    let ban = (event.source, event.ban);
                    self.tell(&mut told, ban, Some(event.local_port), audit);
                }
            }
        }
    }

    fn beat(&self, guard: &Guard) {
        if let Err(error) = guard.beat() {
            tracing::error!(%error, "cannot tell the kernel programs that the gateway is alive");
        }
        if guard.is_attached() {
            guard.look_at_interfaces();
        } else if !self.is_detached.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "the kernel programs were detached: restart the gateway to attach them again"
            );
        }
    }

    fn look_at_kernel(&self, guard: &Guard, told: &mut Told, audit: &Audit) {
        let bans = guard.lock().bans();
        match bans {
            Ok(bans) => self.look(bans, told, audit),
            Err(error) => tracing::error!(%error, "cannot read the bans"),
        }
    }

    /// Tells of bans that are over or were lifted, and of those that no event told of: an operator's, or in a flood.
    fn look(&self, bans: impl IntoIterator<Item = (Source, Ban)>, told: &mut Told, audit: &Audit) {
        let now_ns = now_ns();
        let in_force: HashMap<Source, Ban> = bans
            .into_iter()
            .filter(|(_, ban)| ban.holds(now_ns))
            .collect();
        told.0.retain(|source, ban| {
            let holds = in_force.contains_key(source);
            if !holds {
                let outcome = if ban.holds(now_ns) { "lifted" } else { "over" };
                tracing::info!(source = %address_of(*source), outcome, "not banned any more");
                audit.banned(outcome, address_of(*source), ban, None);
            }
            holds
        });
        for (source, ban) in in_force {
            self.tell(told, (source, ban), None, audit);
        }
    }

    /// Tells of a ban, once.
    fn tell(
        &self,
        told: &mut Told,
        (source, ban): (Source, Ban),
        port: Option<u16>,
        audit: &Audit,
    ) {
        if !told.note(source, ban) {
            return;
        }
        self.bans.fetch_add(1, Ordering::Relaxed);
        let address = address_of(source);
        let reason = ban.tipped_by().map_or("an operator's order", Reason::label);
        let lasts_seconds = Duration::from_nanos(ban.lasts_ns).as_secs();
        tracing::warn!(source = %address, reason, lasts_seconds, port, "banned");
        audit.banned("banned", address, &ban, port);
    }
}

/// Bans in force that have been told of: as many as there is room for in the kernel's maps, and in our own book.
#[derive(Default)]
struct Told(HashMap<Source, Ban>);

impl Told {
    /// Those from before the start are no news.
    fn new(guard: &Guard) -> Self {
        let (bans, now_ns) = (guard.lock().bans().unwrap_or_default(), now_ns());
        Self(
            bans.into_iter()
                .filter(|(_, ban)| ban.holds(now_ns))
                .collect(),
        )
    }

    /// Notes a ban; false if it was known. Without room any other one is forgotten, and told of once more if it is still
    /// in force at the next look.
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

/// The next event; never, where there are none to be had.
async fn next(events: &mut Option<Events>) -> BanEvent {
    if let Some(waiting) = events {
        match waiting.next().await {
            Ok(event) => return event,
            Err(error) => tracing::error!(%error, "bans will be told of late"),
        }
    }
    *events = None;
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_bans_are_remembered_as_told_than_there_can_be() {
        let mut told = Told::default();
        let ban = Ban::by_operator(0, 0, u64::MAX);
        let source = |number: u32| source_of(IpAddr::from(number.to_be_bytes()));
        for number in 0..3 * BANS_MAX {
            assert!(told.note(source(number), ban));
            assert!(!told.note(source(number), ban), "it is known");
        }
        assert_eq!(told.0.len(), BANS_MAX as usize);
    }
}
