//! `portcullis guard detach`: the way out. In: the pins of a gateway. Out: a kernel without its programs and maps, and what
//! was removed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use gateway_guard::{Attachment, Pins, former_name};
use serde::Serialize;

use super::Common;
use super::snapshot::{Heartbeat, Snapshot};
use super::status::Place;

/// Arguments of `portcullis guard detach`.
#[derive(Debug, Args)]
pub struct Detach {
    #[command(flatten)]
    common: Common,
}

/// What was removed, as JSON.
#[derive(Debug, Serialize)]
struct Removed {
    /// Interfaces that no program is attached to any more.
    detached: Vec<Place>,
    /// Pins that are gone.
    removed: Vec<PathBuf>,
    /// Bans that were forgotten, in force or past.
    bans_lifted: usize,
    /// Whether a gateway answered for the program until now.
    was_alive: bool,
}

impl Detach {
    /// Removes everything.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let which = &self.common.which;
        let paths = which.paths()?;
        let former = former_name(&which.file.config);
        let pins = Pins::find_of_any_layout(&paths.name, Some(&former))?;
        // What cannot be read any more can still be removed.
        let snapshot = Snapshot::take_bans(&paths.name);
        let (attachments, was_alive) = match &snapshot {
            Ok(snapshot) => {
                let is_alive = matches!(snapshot.heartbeat(), Heartbeat::Alive(_));
                (snapshot.attachments.as_slice(), is_alive)
            }
            Err(_) => (<&[Attachment]>::default(), false),
        };
        let maps = pins.maps();
        let paths = pins.remove()?;
        // A running gateway holds the maps too, and rejects banned sources itself. No command could lift a ban any more.
        let bans_lifted = match maps {
            Ok(mut maps) => maps.unban_all()?,
            Err(_) => 0,
        };
        let removed = Removed {
            detached: attachments.iter().map(Place::of).collect(),
            removed: paths,
            bans_lifted,
            was_alive,
        };
        super::print(&self.common, &removed, || text(&removed))
    }
}

fn text(removed: &Removed) -> String {
    let mut text = String::new();
    for Place { interface, mode } in &removed.detached {
        text += &format!("detached from {interface} ({mode})\n");
    }
    for path in &removed.removed {
        text += &format!("removed {}\n", path.display());
    }
    if removed.bans_lifted > 0 {
        text += &format!("forgot {} bans\n", removed.bans_lifted);
    }
    if removed.was_alive {
        text += "the gateway still runs: it goes on without the guard until it is restarted\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_said_line_by_line() {
        let mut removed = Removed {
            detached: vec![Place {
                interface: "eth0".to_owned(),
                mode: "native",
            }],
            removed: vec![PathBuf::from("/sys/fs/bpf/portcullis/v1/edge/BANS")],
            bans_lifted: 0,
            was_alive: false,
        };
        let lines = "detached from eth0 (native)\nremoved /sys/fs/bpf/portcullis/v1/edge/BANS\n";
        assert_eq!(text(&removed), lines);
        removed.was_alive = true;
        removed.bans_lifted = 2;
        let text = text(&removed);
        assert!(text.contains("\nforgot 2 bans\n"), "{text}");
        assert!(text.ends_with("until it is restarted\n"), "{text}");
        let json = serde_json::to_value(&removed).unwrap();
        let expected = serde_json::json!({
            "detached": [{ "interface": "eth0", "mode": "native" }],
            "removed": ["/sys/fs/bpf/portcullis/v1/edge/BANS"],
            "bans_lifted": 2,
            "was_alive": true,
        });
        assert_eq!(json, expected);
    }
}
