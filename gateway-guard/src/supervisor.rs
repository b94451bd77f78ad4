//! The guard as the gateway holds it: the kernel programs, or the gateway's own table of sources where they cannot run.
//! In: a guard that has started, or why there is none. Out: admission for the workers, counts and bans for reports and
//! metrics. On any thread.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gateway_common::{Ban, Source};
use gateway_core::limits;
use gateway_core::sources::Policy;
use tokio::sync::mpsc::{Receiver, channel};

use super::{Attachment, Events, Guard, GuardError, Maps, PortCount, SourceAdmission, SourceTable};

/// Bans that begin in the gateway's own table of sources.
pub type BanNews = Receiver<(IpAddr, Ban)>;

/// The guard, as the gateway has it.
#[derive(Debug)]
pub struct GuardHandle {
    kernel: Option<Guard>,
    table: Option<Arc<SourceTable>>,
    /// Why the kernel programs do not run, where they should.
    obstacle: Option<String>,
    /// Bans that begin in the table; `None` once they were taken.
    news: Mutex<Option<BanNews>>,
    source_admission: SourceAdmission,
    bans: AtomicU64,
    is_detached: AtomicBool,
}

impl GuardHandle {
    /// No guard: every source is admitted.
    pub fn none() -> Self {
        Self {
            kernel: None,
            table: None,
            obstacle: None,
            news: Mutex::default(),
            source_admission: SourceAdmission::default(),
            bans: AtomicU64::default(),
            is_detached: AtomicBool::default(),
        }
    }

    /// The kernel programs keep the accounts.
    pub fn by_kernel(guard: Guard) -> Self {
        Self {
            source_admission: guard.source_admission(),
            kernel: Some(guard),
            ..Self::none()
        }
    }

    /// The gateway keeps the accounts itself, because of `obstacle`.
    pub fn by_source_table(obstacle: &GuardError) -> Self {
        tracing::warn!(error = %obstacle, "running without the kernel programs: the gateway keeps accounts by itself");
        let table = Arc::new(SourceTable::default());
        let (sender, news) = channel(limits::BAN_NEWS_MAX);
        Self {
            source_admission: SourceAdmission::by_source_table(Arc::clone(&table), sender),
            table: Some(table),
            obstacle: Some(obstacle.to_string()),
            news: Mutex::new(Some(news)),
            ..Self::none()
        }
    }

    /// Admission of sources, for the workers.
    pub fn source_admission(&self) -> SourceAdmission {
        self.source_admission.clone()
    }

    /// Whether this thread may use the kernel's maps; nothing to prove where there are none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn prove_usable(&self) -> Result<(), GuardError> {
        self.kernel.as_ref().map_or(Ok(()), Guard::prove_usable)
    }

    /// What the kernel counted on each protected port; `None` where it does not.
    pub fn counts(&self) -> Option<Result<Vec<PortCount>, GuardError>> {
        self.kernel.as_ref().map(Guard::counts)
    }

    /// Why the kernel programs do not run, where they should.
    pub fn obstacle(&self) -> Option<&str> {
        self.obstacle.as_deref()
    }

    /// Interfaces whose packets the programs check.
    pub fn attachments(&self) -> Vec<Attachment> {
        let attachments = self.kernel.as_ref().map(Guard::attachments);
        attachments.unwrap_or_default()
    }

    /// Interfaces to which the programs should be attached and are not.
    pub fn unattached(&self) -> Vec<String> {
        let unattached = self.kernel.as_ref().map(Guard::unattached);
        unattached.unwrap_or_default()
    }

    /// Runs `ask` on the kernel's maps, if there are any.
    pub fn with_maps<R>(&self, ask: impl FnOnce(&mut Maps) -> R) -> Option<R> {
        self.kernel.as_ref().map(|guard| ask(&mut guard.lock()))
    }

    /// The gateway's own table of sources, where the kernel keeps none.
    pub fn source_table(&self) -> Option<&SourceTable> {
        self.table.as_deref()
    }

    /// Bans that have begun since the start.
    pub fn bans(&self) -> u64 {
        self.bans.load(Ordering::Relaxed)
    }

    /// Counts a ban that has begun.
    pub fn count_ban(&self) {
        self.bans.fetch_add(1, Ordering::Relaxed);
    }

    /// The bans that the kernel or the table holds now, some of them over.
    ///
    /// # Errors
    /// When the kernel's map cannot be read.
    pub fn held_bans(&self) -> Result<Vec<(Source, Ban)>, GuardError> {
        match (&self.kernel, &self.table) {
            (Some(guard), _) => guard.lock().bans(),
            (None, Some(table)) => Ok(table.bans()),
            (None, None) => Ok(Vec::new()),
        }
    }

    /// Bans as the kernel reports them; `None` where there are no kernel programs.
    pub fn events(&self) -> Option<Result<Events, GuardError>> {
        self.kernel.as_ref().map(Guard::events)
    }

    /// Bans as the table reports them, for the first caller; `None` where there is no table.
    pub fn take_news(&self) -> Option<BanNews> {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        news.take()
    }

    /// Whether the kernel programs are attached.
    pub fn is_attached(&self) -> bool {
        self.kernel.is_some() && !self.is_detached.load(Ordering::Relaxed)
    }

    /// Goes by another policy from now on.
    pub fn follow(&self, policy: &Policy) {
        if let Some(guard) = &self.kernel
            && let Err(error) = guard.follow(policy)
        {
            tracing::error!(%error, "cannot change the kernel programs; they keep the old [guard]");
        }
    }

    /// Tells the kernel programs that the gateway is alive, and looks for interfaces that have come.
    pub fn beat(&self) {
        let Some(guard) = &self.kernel else { return };
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
}
