//! Binds the listening sockets: one per listener and worker, all with SO_REUSEPORT, so that the kernel spreads
//! connections over the workers and none shares a queue.
//! In: addresses. Out: bound and listening sockets. On the starting thread, before any worker runs.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::gateway::StartError;
use crate::config::Config;
use crate::limits;

/// The sockets of each worker, and the address each listener got.
type Bound = (Vec<Vec<TcpListener>>, Vec<(String, SocketAddr)>);

/// Binds all listeners for all workers.
pub(super) fn bind_all(config: &Config) -> Result<Bound, StartError> {
    let mut sockets: Vec<Vec<TcpListener>> = Vec::new();
    sockets.resize_with(config.workers.get(), Vec::new);
    let mut addresses = Vec::new();
    for listener in &config.listeners {
        let mut address = listener.address;
        for worker in &mut sockets {
            let bound = bind(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
            let (got, socket) = bound.map_err(|error| StartError::Listen {
                listener: listener.name.clone(),
                address,
                error,
            })?;
            address = got;
            worker.push(socket);
        }
        tracing::info!(listener = listener.name, %address, "listening");
        addresses.push((listener.name.clone(), address));
    }
    Ok((sockets, addresses))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(limits::LISTEN_BACKLOG)?;
    Ok(socket.into())
}
