//! User-space side of the kernel programs: loads them, attaches them to the gateway's cgroup and to the ingress
//! interfaces, pins them so that bans and counters outlive the process, writes their settings, and reads what they have
//! counted. In: what to guard and by which policy. Out: a `Guard` for the control thread, a `SourceAdmission` for the
//! workers. Nothing here decides about a packet: `gateway-common` does, in the kernel.

mod attach;
mod cgroup;
mod clock;
mod error;
mod events;
mod flows;
mod interfaces;
mod kernel_log;
mod layout;
mod link;
mod maps;
mod mounts;
mod pins;
mod ports;
mod probe;
mod source_admission;
mod source_table;
mod supervisor;
mod verdict;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use gateway_common::{
    ACCOUNTS_MAP, BANS_MAP, DEBUG_GLOBAL, EVENTS_MAP, FLOWS_MAP, LISTS_MAP, LOST_MAP,
    PORT_COUNTS_MAP, PORTS_MAP, PortKey, SETTINGS_MAP, SOCKET_FLOWS_MAP, Settings, XDP_PROGRAM,
    mode,
};

use gateway_core::sources::{Lists, Policy};

use attach::leave_others;
pub use attach::{AttachMode, Attachment};
use cgroup::Cgroup;
pub use clock::now_ns;
pub use error::GuardError;
pub use events::Events;
use interfaces::Interfaces;
use kernel_log::KernelLog;
pub use maps::{Maps, PortCount, address_of, source_of};
use maps::{map_of, typed};
pub use pins::{Pins, former_name};
use ports::Ports;
pub use source_admission::{PendingVerdict, SourceAdmission, refusal_detail};
pub use source_table::SourceTable;
pub use supervisor::{BanNews, GuardHandle};
pub use verdict::send_verdict;

/// The kernel programs that this binary carries, as `cargo xtask ebpf` built them.
pub static EMBEDDED_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/ebpf/portcullis.bpf.o"
));

/// Every map that outlives the process.
const LASTING_MAPS: [&str; 10] = [
    PORTS_MAP,
    PORT_COUNTS_MAP,
    FLOWS_MAP,
    SOCKET_FLOWS_MAP,
    ACCOUNTS_MAP,
    BANS_MAP,
    LISTS_MAP,
    SETTINGS_MAP,
    EVENTS_MAP,
    LOST_MAP,
];

/// How long after its last sign of life the programs go on dropping for a gateway.
pub const LIFE_NS: u64 = 10_000_000_000;

/// What is guarded, and by which policy.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Tells this gateway from others on the host.
    pub name: String,
    /// What an earlier version called it, see [`former_name`].
    pub former_name: Option<String>,
    /// Whether bans, counters and attachments outlive the process.
    pub is_lasting: bool,
    /// Interfaces whose packets the programs check.
    pub interfaces: Vec<String>,
    /// Whether all of it has to work.
    pub is_required: bool,
    /// What counts.
    pub policy: Policy,
}

/// The cgroup whose sockets the programs follow. It has to be in place before the first listening socket is made.
#[derive(Debug)]
pub struct TargetCgroup(Cgroup);

impl TargetCgroup {
    /// Finds the cgroup of this process. Makes and enters one where that is the root cgroup.
    ///
    /// # Errors
    /// Why there is none.
    pub fn prepare(plan: &Plan) -> Result<Self, GuardError> {
        let name = cgroup::name_of(&plan.name);
        Cgroup::of_this_process(&name, plan.is_lasting).map(Self)
    }
}

/// The kernel programs, attached. What is pinned stays when this is dropped; the rest is detached, as it is by the end of
/// the process, whichever way it ends.
pub struct Guard {
    interfaces: Mutex<Interfaces>,
    maps: Mutex<Maps>,
    source_admission: SourceAdmission,
    pins: Option<Pins>,
    /// Attachments that are not pinned, and end with these.
    links: Vec<OwnedFd>,
    kernel_log: Option<KernelLog>,
    loaded: Mutex<Ebpf>,
    // After the programs that are attached to it.
    _cgroup: Option<TargetCgroup>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Guard")
            .field("interfaces", &self.interfaces)
            .field("pins", &self.pins)
            .finish_non_exhaustive()
    }
}

impl Guard {
    /// Guards `ports`: follows the flows of the cgroup, checks the packets of the interfaces. An earlier process of the
    /// same gateway hands over its bans and counters, and not one packet goes unchecked in between. Leaves out an interface
    /// that cannot be attached to, and logs that, unless the plan requires it.
    ///
    /// # Errors
    /// What the kernel refused, where, and what to do about it. Nothing new is attached then.
    pub fn start(plan: &Plan, ports: &[u16], cgroup: TargetCgroup) -> Result<Self, GuardError> {
        let (pins, is_alone) = match plan
            .is_lasting
            .then(|| Pins::make(&plan.name, plan.former_name.as_deref()))
        {
            Some(Ok((pins, is_alone))) => (Some(pins), is_alone),
            Some(Err(error)) => {
                tracing::warn!(%error, "bans and counters will not outlive this process");
                (None, true)
            }
            None => (None, true),
        };
        let mut guard = Self::load(EMBEDDED_OBJECT, ports, pins, &plan.policy)?;
        if is_alone {
            let stale = guard.lock().forget_flows()?;
            tracing::debug!(stale, "forgot the flows of an earlier process");
        }
        let started = guard.attach_all(plan, &cgroup);
        if let (Err(_), Some(pins), true) = (&started, &guard.pins, is_alone) {
            // Half a guard is none. What is known of sources waits for a start that succeeds.
            let _ = pins.detach();
        }
        started?;
        guard.beat()?;
        if let Some(pins) = &guard.pins {
            pins.let_others_in()?;
        }
        guard._cgroup = Some(cgroup);
        Ok(guard)
    }

    /// Has the kernel verify the programs and make the maps, and looks at what they would be attached to. Attaches nothing,
    /// pins nothing, and enters no cgroup; what it has made ends with what it returns.
    ///
    /// # Errors
    /// As `start`, as far as that can be told without attaching anything; interfaces of a plan that does not require them too.
    pub fn try_load(plan: &Plan, ports: &[u16]) -> Result<Self, GuardError> {
        cgroup::look(&cgroup::name_of(&plan.name))?;
        for interface in &plan.interfaces {
            attach::index_of(interface)?;
        }
        let mut guard = Self::load(EMBEDDED_OBJECT, ports, None, &plan.policy)?;
        guard.load_flows()?;
        Ok(guard)
    }

    fn attach_all(&mut self, plan: &Plan, cgroup: &TargetCgroup) -> Result<(), GuardError> {
        self.follow_flows(cgroup.0.open()?)?;
        probe::prove(&mut self.lock())?;
        if let Some(pins) = &self.pins {
            leave_others(pins, &plan.interfaces)?;
        }
        for interface in &plan.interfaces {
            match self.attach_to(interface) {
                Err(error) if !plan.is_required => {
                    tracing::warn!(interface, %error, "the guard does not check packets of this interface");
                }
                attached => attached?,
            }
        }
        Ok(())
    }

    /// Loads the embedded programs for `ports` and attaches XDP to each of `interfaces`: natively where the driver can,
    /// else generically. It is attached to all of them or to none; nothing is pinned. Loopback is attached only when it
    /// is named, as any other interface: its traffic loses throughput.
    ///
    /// # Errors
    /// What the kernel refused, at which interface, and what to do about it.
    pub fn attach(interfaces: &[String], ports: &[u16]) -> Result<Self, GuardError> {
        Self::attach_object(EMBEDDED_OBJECT, interfaces, ports)
    }

    /// As [`Guard::attach`], with an object built elsewhere.
    ///
    /// # Errors
    /// As [`Guard::attach`], and when `object` is not an object of this gateway.
    pub fn attach_object(
        object: &[u8],
        interfaces: &[String],
        ports: &[u16],
    ) -> Result<Self, GuardError> {
        let mut interfaces = interfaces.to_vec();
        interfaces.sort_unstable();
        interfaces.dedup();
        if interfaces.is_empty() {
            return Err(GuardError::NoInterface);
        }
        let policy = Policy {
            settings: Settings::new(mode::MONITOR),
            lists: Lists::default(),
        };
        let mut guard = Self::load(object, ports, None, &policy)?;
        for interface in &interfaces {
            guard.attach_to(interface)?;
        }
        Ok(guard)
    }

    /// Makes or takes over the maps, says in them what counts, and has the kernel verify the programs.
    fn load(
        object: &[u8],
        ports: &[u16],
        pins: Option<Pins>,
        policy: &Policy,
    ) -> Result<Self, GuardError> {
        let ports: BTreeSet<PortKey> = ports.iter().copied().collect();
        Ports::ensure_room(&ports)?;
        let mut loader = EbpfLoader::new();
        if let Some(pins) = &pins {
            for name in LASTING_MAPS {
                loader.map_pin_path(name, pins.path(name));
            }
        }
        let is_log_wanted = KernelLog::is_wanted();
        if is_log_wanted {
            loader.override_global(DEBUG_GLOBAL, &1_u8, true);
        }
        let mut loaded = loader
            .load(object)
            .map_err(|error| GuardError::load(&error))?;
        let mut maps = Maps::of(&loaded)?;
        maps.ports().protect(&ports)?;
        maps.set_lists(&policy.lists)?;
        maps.set(alive(policy))?;
        let source_admission = SourceAdmission::of(&loaded)?;
        let kernel_log = is_log_wanted
            .then(|| KernelLog::of(&mut loaded))
            .transpose()?;
        xdp_program(&mut loaded)?
            .load()
            .map_err(|error| GuardError::load(&error))?;
        Ok(Self {
            interfaces: Mutex::default(),
            maps: Mutex::new(maps),
            source_admission,
            pins,
            links: Vec::new(),
            kernel_log,
            loaded: Mutex::new(loaded),
            _cgroup: None,
        })
    }

    fn attach_to(&mut self, interface: &str) -> Result<(), GuardError> {
        let mut loaded = lock(&self.loaded);
        let program = xdp_program(&mut loaded)?;
        lock(&self.interfaces).add(interface, program, self.pins.as_ref())
    }

    /// Attaches to interfaces that have been made anew, and notes those that are gone. To be called every few seconds.
    pub fn look_at_interfaces(&self) {
        let mut loaded = lock(&self.loaded);
        if let Ok(program) = xdp_program(&mut loaded) {
            lock(&self.interfaces).look(program, self.pins.as_ref());
        }
    }

    /// The interfaces whose packets the program checks, and how it is attached to each.
    pub fn attachments(&self) -> Vec<Attachment> {
        lock(&self.interfaces).attachments()
    }

    /// The interfaces to which the program should be attached and is not.
    pub fn unattached(&self) -> Vec<String> {
        lock(&self.interfaces).unattached()
    }

    /// Admission of sources, for the workers.
    pub fn source_admission(&self) -> SourceAdmission {
        self.source_admission.clone()
    }

    /// Where bans and counters are pinned, if anywhere.
    pub fn pins(&self) -> Option<&Pins> {
        self.pins.as_ref()
    }

    /// The maps.
    pub fn lock(&self) -> MutexGuard<'_, Maps> {
        lock(&self.maps)
    }

    /// Counters of every protected port, by port.
    ///
    /// # Errors
    /// When the kernel does not lend its counters.
    pub fn counts(&self) -> Result<Vec<PortCount>, GuardError> {
        self.lock().counts()
    }

    /// Goes by another policy from now on, without attaching anything anew.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn follow(&self, policy: &Policy) -> Result<(), GuardError> {
        let mut maps = self.lock();
        maps.set_lists(&policy.lists)?;
        maps.set(alive(policy))
    }

    /// Says that the gateway is alive, and passes the programs' log on. Call it every few seconds: ten seconds after the last
    /// call the programs drop nothing any more.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn beat(&self) -> Result<(), GuardError> {
        if let Some(log) = &self.kernel_log {
            log.pass_on();
        }
        let mut maps = self.lock();
        let settings = maps.settings()?;
        maps.set(Settings {
            alive_until_ns: now_ns() + LIFE_NS,
            ..settings
        })
    }

    /// Proves that this thread, which has no capability, can use the maps. Detaches everything where it cannot.
    ///
    /// # Errors
    /// Before Linux 6.5 the kernel asks for CAP_BPF each time, unless `kernel.unprivileged_bpf_disabled` is 0.
    pub fn prove_usable(&self) -> Result<(), GuardError> {
        self.beat().map_err(|error| {
            // What stays attached drops nothing, ten seconds from now.
            let _ = self.pins.as_ref().map(Pins::detach);
            GuardError::NeedsCapabilityLater {
                reason: error.to_string(),
            }
        })
    }

    /// The kernel's events. One reader at a time gets each of them. On a thread with a tokio runtime.
    ///
    /// # Errors
    /// When the kernel does not lend its ring.
    pub fn events(&self) -> Result<Events, GuardError> {
        let ring = typed(map_of(&lock(&self.loaded), EVENTS_MAP)?)?;
        Events::of(ring).map_err(|error| GuardError::counters(&error))
    }

    /// Whether the programs are still attached, as far as one can see: an operator may have detached them.
    pub fn is_attached(&self) -> bool {
        self.pins.as_ref().is_none_or(Pins::is_attached)
    }
}

/// What a panic elsewhere left half done is looked at anew in a few seconds.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel's settings for a policy of a gateway that is alive.
fn alive(policy: &Policy) -> Settings {
    Settings {
        alive_until_ns: now_ns() + LIFE_NS,
        has_lists: u32::from(!policy.lists.is_empty()),
        ..policy.settings
    }
}

fn xdp_program(loaded: &mut Ebpf) -> Result<&mut Xdp, GuardError> {
    flows::program(loaded, XDP_PROGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_guard_can_be_handed_to_the_control_thread() {
        fn is_shared<T: Send + Sync>() {}
        is_shared::<Guard>();
        is_shared::<SourceAdmission>();
    }

    #[test]
    fn a_guard_of_no_interface_is_refused_before_the_kernel_is_asked() {
        let refused = Guard::attach(&[], &[4317]).err();
        assert!(
            matches!(refused, Some(GuardError::NoInterface)),
            "{refused:?}"
        );
    }

    #[test]
    fn more_ports_than_the_map_holds_are_refused_before_the_kernel_is_asked() {
        let ports: Vec<u16> = (1..=257).collect();
        let refused = Guard::attach(&names(&["lo"]), &ports).err();
        assert!(
            matches!(refused, Some(GuardError::TooManyPorts { count: 257 })),
            "{refused:?}"
        );
    }

    #[test]
    fn bytes_that_are_no_object_are_refused() {
        let refused = Guard::attach_object(b"not an object", &names(&["lo"]), &[4317]).err();
        assert!(
            matches!(refused, Some(GuardError::Object { .. })),
            "{refused:?}"
        );
    }
}
