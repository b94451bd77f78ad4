//! Binds the listening sockets: one per listener and worker, all with SO_REUSEPORT, so that the kernel spreads
//! connections over the workers and none shares a queue.
//! In: addresses. Out: bound sockets, then listening ones. On the starting thread, before any worker runs. Binding comes
//! early, to find out what cannot be had; listening comes last, because from then on the kernel hands over connections.

use std::net::{SocketAddr, TcpListener};

use gateway_core::limits;
use socket2::{Domain, Protocol, Socket, Type};

use super::error::StartError;
use crate::config::Config;
use crate::local;

/// The sockets of each worker, in the order of the listeners.
pub(super) struct Bound {
    workers: Vec<Vec<Socket>>,
    /// The address each listener got.
    pub(super) addresses: Vec<(String, SocketAddr)>,
}

/// Whether another process may listen on the addresses of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// No other process may: two gateways that share a port by accident would each get a part of the clients.
    Own,
    /// Another process does, which knows of this one: it is being taken over from.
    Shared,
}

/// Binds all listeners for all workers.
pub(super) fn bind_all(config: &Config, ports: Ports) -> Result<Bound, StartError> {
    let mut workers: Vec<Vec<Socket>> = Vec::new();
    workers.resize_with(config.workers.get(), Vec::new);
    let mut addresses = Vec::new();
    let until = local::lingers_until();
    for listener in &config.listeners {
        let mut address = listener.address;
        let failed = |error| StartError::Listen {
            listener: listener.name.clone(),
            address: listener.address,
            error,
        };
        if ports == Ports::Own {
            local::await_free(address, until).map_err(failed)?;
        }
        for worker in &mut workers {
            let (got, socket) = bind(address).map_err(failed)?;
            address = got;
            worker.push(socket);
        }
        addresses.push((listener.name.clone(), address));
    }
    Ok(Bound { workers, addresses })
}

fn bind(address: SocketAddr) -> std::io::Result<(SocketAddr, Socket)> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    let got = socket
        .local_addr()?
        .as_socket()
        .ok_or(std::io::ErrorKind::Unsupported)?;
    Ok((got, socket))
}

impl Bound {
    /// Listens on all sockets.
    pub(super) fn listen(self) -> Result<Vec<Vec<TcpListener>>, StartError> {
        for sockets in &self.workers {
            for (socket, (listener, address)) in sockets.iter().zip(&self.addresses) {
                socket
                    .listen(limits::LISTEN_BACKLOG)
                    .map_err(|error| StartError::Listen {
                        listener: listener.clone(),
                        address: *address,
                        error,
                    })?;
            }
        }
        for (listener, address) in &self.addresses {
            tracing::info!(listener, %address, "listening");
        }
        let listening = |sockets: Vec<Socket>| sockets.into_iter().map(TcpListener::from).collect();
        Ok(self.workers.into_iter().map(listening).collect())
    }
}
