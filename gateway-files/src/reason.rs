//! Why the operating system has refused a file, in words that say what to do. In: its error. Out: text.

use std::io;

use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

/// The error as the system words it. Where root is refused, which does not happen to root elsewhere, also why here.
pub fn reason(error: &io::Error) -> String {
    match error.kind() == io::ErrorKind::PermissionDenied && is_bare_root() {
        true => format!(
            "{error}: root has given up CAP_DAC_OVERRIDE here with all its capabilities, so that owner, group and \
             mode of a file apply to root as well: `chown root` what the gateway uses, or let it run as the owner \
             (`User=` of the unit)"
        ),
        false => error.to_string(),
    }
}

/// Whether this thread is root's and may not pass over the rights of files.
fn is_bare_root() -> bool {
    let passes =
        |sets: rustix::thread::CapabilitySets| sets.effective.contains(CapabilitySet::DAC_OVERRIDE);
    geteuid().is_root() && !capabilities(None).is_ok_and(passes)
}
