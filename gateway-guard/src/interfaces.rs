//! Interfaces to attach to, and those that the program is attached to. In: their names, the loaded program. Out:
//! attachments, made anew when an interface has been: virtual ones come and go, and an attachment dies with its interface
//! without a word. Attached first on the thread that has the privileges, looked at every few seconds on the control
//! thread, which has none: attaching a loaded program takes none (bpf(2), BPF_LINK_CREATE).

use aya::programs::Xdp;

use super::attach::{Attached, Attachment, attach_to, index_if_there};
use super::error::GuardError;
use super::pins::Pins;

/// The interfaces of one guard.
#[derive(Debug, Default)]
pub(super) struct Interfaces(Vec<Interface>);

#[derive(Debug)]
struct Interface {
    name: String,
    attached: Option<Attached>,
    /// What was said last of why it is not attached, so that it is said once.
    obstacle: Option<String>,
}

impl Interfaces {
    /// Attaches to one more interface. One that cannot be had stays on the list all the same, and is tried again.
    pub(super) fn add(
        &mut self,
        name: &str,
        program: &mut Xdp,
        pins: Option<&Pins>,
    ) -> Result<(), GuardError> {
        let attached = attach_to(program, name, pins);
        let (attached, outcome) = match attached {
            Ok(attached) => (Some(attached), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.0.push(Interface {
            name: name.to_owned(),
            attached,
            obstacle: outcome.as_ref().err().map(ToString::to_string),
        });
        outcome
    }

    /// Notes interfaces that are gone, and attaches to those that have come, or come back.
    pub(super) fn look(&mut self, program: &mut Xdp, pins: Option<&Pins>) {
        for interface in &mut self.0 {
            interface.look(program, pins);
        }
    }

    /// Those that the program is attached to.
    pub(super) fn attachments(&self) -> Vec<Attachment> {
        let attached = |interface: &Interface| {
            let attached = interface.attached.as_ref()?;
            Some(Attachment {
                interface: interface.name.clone(),
                mode: attached.mode,
            })
        };
        self.0.iter().filter_map(attached).collect()
    }

    /// Those that it should be attached to and is not.
    pub(super) fn unattached(&self) -> Vec<String> {
        let is_unattached = |interface: &&Interface| interface.attached.is_none();
        self.0
            .iter()
            .filter(is_unattached)
            .map(|interface| interface.name.clone())
            .collect()
    }
}

impl Interface {
    fn look(&mut self, program: &mut Xdp, pins: Option<&Pins>) {
        // The kernel gives a new index to each interface, also to one that is made anew by an old name.
        // An error says nothing about the interface: an attachment that there is stays.
        let Ok(index) = index_if_there(&self.name) else {
            return;
        };
        if let Some(attached) = self
            .attached
            .take_if(|attached| Some(attached.index) != index)
        {
            tracing::error!(
                interface = self.name,
                "the interface is gone; the guard attaches to it again when it comes back"
            );
            if let Some(pins) = pins {
                // The attachment is dead already, and its name may belong to another interface one day.
                let _ = std::fs::remove_file(pins.interface_path(attached.index, attached.mode));
            }
        }
        if self.attached.is_some() || index.is_none() {
            return;
        }
        match attach_to(program, &self.name, pins) {
            Ok(attached) => {
                tracing::info!(
                    interface = self.name,
                    "the guard checks packets of this interface again"
                );
                self.attached = Some(attached);
                self.obstacle = None;
            }
            Err(error) => {
                let obstacle = error.to_string();
                if self.obstacle.as_deref() != Some(&obstacle) {
                    tracing::error!(interface = self.name, %error, "the guard does not check packets of this \
                        interface");
                    self.obstacle = Some(obstacle);
                }
            }
        }
    }
}
