//! User-space side of the kernel program: loads it, attaches it to the ingress interfaces and reads its counters.
//! In: interface names and protected ports. Out: a `Guard`; dropping it detaches. On the control thread only, never on
//! a worker. Nothing here decides about a packet: `gateway-common` does, in the kernel.

mod error;
mod flows;
mod layout;
mod ports;
mod verdict;

use std::collections::BTreeSet;

use aya::Ebpf;
use aya::maps::{Array, PerCpuValues};
use aya::programs::{ProgramError, Xdp, XdpMode};
use gateway_common::{PortCounter, PortKey, SETTINGS_MAP, Settings, XDP_PROGRAM, mode};

pub use error::GuardError;
use error::{Refusal, explain, refusal_of};
pub use flows::SourceState;
use layout::Plain;
use ports::Ports;
pub use verdict::{reason_of, say};

/// The kernel program that this binary carries, as `cargo xtask ebpf` built it.
pub static EMBEDDED_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/ebpf/portcullis.bpf.o"
));

/// Longest interface name the kernel knows (IFNAMSIZ without the final zero).
const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// The kernel program, attached. Dropping it detaches the program from every interface and unloads it; so does the
/// end of the process, whichever way it ends.
#[derive(Debug)]
pub struct Guard {
    loaded: Ebpf,
    attachments: Vec<Attachment>,
    ports: Ports,
}

/// Where the program is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the interface.
    pub interface: String,
    /// How the kernel calls the program there.
    pub mode: AttachMode,
}

/// How the kernel calls the program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before a packet buffer is even allocated.
    Native,
    /// In the network stack, for drivers without XDP: every packet pays for a buffer first.
    Generic,
}

impl AttachMode {
    /// The word for logs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// What arrived for one protected port, over all CPUs and interfaces, since the program was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortCount {
    /// TCP destination port.
    pub port: u16,
    /// TCP packets as they arrived. Where the host itself is the sender, or the network card merges segments, one
    /// packet may be many on the wire.
    pub packets: u64,
    /// Bytes of those packets from the Ethernet header on.
    pub bytes: u64,
    /// The same packets by what became of them, and the port's flows by how they came out.
    pub counter: PortCounter,
}

impl Guard {
    /// Loads the embedded program for `ports` and attaches it to each of `interfaces`: natively where the driver can,
    /// else generically. It is attached to all of them or to none. Loopback is attached only when it is named, as any
    /// other interface: its traffic loses throughput.
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
        let ports: BTreeSet<PortKey> = ports.iter().copied().collect();
        Ports::ensure_room(&ports)?;
        let mut interfaces = interfaces.to_vec();
        interfaces.sort_unstable();
        interfaces.dedup();
        if interfaces.is_empty() {
            return Err(GuardError::NoInterface);
        }
        let mut loaded = load(object)?;
        let ports = Ports::protect(&mut loaded, &ports)?;
        let program = program_of(&mut loaded)?;
        let mut attachments = Vec::with_capacity(interfaces.len());
        for interface in interfaces {
            let mode = attach_to(program, &interface)?;
            attachments.push(Attachment { interface, mode });
        }
        Ok(Self {
            loaded,
            attachments,
            ports,
        })
    }

    /// The interfaces, by name, and how the program is attached to each.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Counters of every protected port, by port.
    ///
    /// # Errors
    /// When the kernel does not lend its counters.
    pub fn counts(&self) -> Result<Vec<PortCount>, GuardError> {
        self.ports.counts(&self.loaded)
    }
}

impl PortCount {
    /// Sums what the CPUs have counted. They are read while the kernel writes them: the sum may mix moments, by the few
    /// packets that arrive meanwhile.
    fn of(port: PortKey, values: &PerCpuValues<Plain<PortCounter>>) -> Self {
        let mut sum = PortCounter::ZERO;
        for Plain(counter) in values.iter() {
            sum.add(counter);
        }
        Self {
            port,
            packets: sum.packets,
            bytes: sum.bytes,
            counter: sum,
        }
    }
}

/// Creates the maps, and has the kernel verify the program.
fn load(object: &[u8]) -> Result<Ebpf, GuardError> {
    let mut loaded = Ebpf::load(object).map_err(|error| GuardError::load(&error))?;
    let map = loaded
        .map_mut(SETTINGS_MAP)
        .ok_or(GuardError::foreign(SETTINGS_MAP))?;
    Array::try_from(map)
        .and_then(|mut map: Array<_, Plain<Settings>>| {
            map.set(0, Plain(Settings::new(mode::MONITOR)), 0)
        })
        .map_err(|error| GuardError::counters(&error))?;
    program_of(&mut loaded)?
        .load()
        .map_err(|error| GuardError::load(&error))?;
    Ok(loaded)
}

fn program_of(loaded: &mut Ebpf) -> Result<&mut Xdp, GuardError> {
    loaded
        .program_mut(XDP_PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or(GuardError::foreign(XDP_PROGRAM))
}

fn attach_to(program: &mut Xdp, interface: &str) -> Result<AttachMode, GuardError> {
    // Names that no interface can have; one with a zero byte would not survive the way to the kernel.
    let length = interface.len();
    if length == 0 || length > INTERFACE_NAME_BYTES_MAX || interface.contains('\0') {
        return Err(GuardError::no_such_interface(interface));
    }
    let native = match program.attach(interface, XdpMode::Driver) {
        Ok(_) => {
            tracing::info!(interface, mode = "native", "kernel program attached");
            return Ok(AttachMode::Native);
        }
        Err(error) => worth_another_try(interface, error)?,
    };
    match program.attach(interface, XdpMode::Skb) {
        Ok(_) => {
            let reason = explain(&native);
            tracing::warn!(
                interface,
                mode = "generic",
                reason,
                "kernel program attached without the driver's help"
            );
            Ok(AttachMode::Generic)
        }
        Err(error) => Err(GuardError::NotAttachable {
            interface: interface.to_owned(),
            native: explain(&native),
            generic: explain(&worth_another_try(interface, error)?),
        }),
    }
}

/// Gives the error back if another mode of attachment could still work.
fn worth_another_try(interface: &str, error: ProgramError) -> Result<ProgramError, GuardError> {
    match refusal_of(&error) {
        Refusal::Capability => Err(GuardError::MissingCapability {
            reason: format!("{interface}: {}", explain(&error)),
        }),
        Refusal::Busy => Err(GuardError::InterfaceBusy {
            interface: interface.to_owned(),
            reason: explain(&error),
        }),
        Refusal::NoDevice => Err(GuardError::no_such_interface(interface)),
        Refusal::Other => Ok(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_guard_can_be_handed_to_the_control_thread() {
        fn is_send<T: Send>() {}
        is_send::<Guard>();
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
