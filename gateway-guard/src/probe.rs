//! Proof that the kernel programs see our listeners: a connection of the gateway to itself. In: the maps. Out: nothing,
//! or an error. At the start, before any client connects. The socket it listens with is made where the listeners were, so
//! that what holds for it holds for them.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use super::GuardError;
use super::maps::Maps;

/// A connection over loopback stands at once, or never.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connects to itself and looks whether the kernel has opened a flow.
pub(super) fn prove(maps: &mut Maps) -> Result<(), GuardError> {
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)) {
        Ok(listener) => listener,
        // Without loopback there is nothing to prove with.
        Err(error) => {
            tracing::warn!(%error, "cannot prove that the kernel programs see the listeners");
            return Ok(());
        }
    };
    let address = listener
        .local_addr()
        .map_err(|error| unseen(&error.to_string()))?;
    let protected = maps.ports().protected();
    let mut with_ours = protected.clone();
    with_ours.insert(address.port());
    maps.ports().protect(&with_ours)?;
    let connected = TcpStream::connect_timeout(&address, PATIENCE);
    let counts = maps.counts()?;
    let ours = counts.iter().find(|count| count.port == address.port());
    let is_seen = ours.is_some_and(|count| count.counter.flows_opened > 0);
    drop((connected, listener));
    maps.ports().protect(&protected)?;
    match is_seen {
        true => Ok(()),
        false => Err(unseen(
            "they did not see a connection of the gateway to itself",
        )),
    }
}

fn unseen(reason: &str) -> GuardError {
    GuardError::Unseen {
        reason: reason.to_owned(),
    }
}
