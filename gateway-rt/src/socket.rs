//! A connected socket, TCP, Unix or to another thread, read and written by two directions at once.
//! In: buffers. Out: the same buffers, filled or emptied. On the worker that owns the connection.
//!
//! The ring says when a socket is ready, and no operation in it ever holds a buffer: bytes are then moved by `recv` and `send`
//! that do not wait. That is one system call where a read through the ring takes two turns of it, and a future that is dropped
//! while it waits has no bytes to lose.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use gateway_core::delivery::Delivery;
use gateway_core::descriptors::Descriptor;
use gateway_core::endpoint::{Endpoint, UnixPath};
use gateway_core::limits;
use monoio::net::TcpStream;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, FdFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use super::{Buffer, runtime};

/// A connected stream socket.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    /// Released after the stream is closed.
    _descriptor: Option<Descriptor>,
}

/// What is known of a peer without reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Nothing speaks against its being there.
    Here,
    /// It sends no more. It may still read.
    Finished,
    /// The connection has broken.
    Gone,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor()
    }
}

impl Socket {
    /// Takes a socket the runtime accepted or connected: closes it on exec.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        let socket = Socket {
            stream,
            _descriptor: None,
        };
        rustix::io::fcntl_setfd(socket.descriptor(), FdFlags::CLOEXEC)?;
        Ok(socket)
    }

    /// Holds `descriptor` for as long as the socket is open.
    pub fn holding(self, descriptor: Descriptor) -> Self {
        Socket {
            _descriptor: Some(descriptor),
            ..self
        }
    }

    /// Turns off Nagle's delay and lets the kernel find dead peers to which nothing is sent (keepalive). What a listening socket has of
    /// this, those that are accepted from it have too.
    pub(super) fn set_up(socket: impl AsFd) -> io::Result<()> {
        let descriptor = socket.as_fd();
        sockopt::set_tcp_nodelay(descriptor, true)?;
        sockopt::set_socket_keepalive(descriptor, true)?;
        sockopt::set_tcp_keepidle(descriptor, limits::KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(descriptor, limits::KEEPALIVE_INTERVAL)?;
        Ok(sockopt::set_tcp_keepcnt(
            descriptor,
            limits::KEEPALIVE_PROBES,
        )?)
    }

    /// Connects to a server. The caller bounds the time.
    ///
    /// A TCP connection ends as a reset until `end_cleanly` says otherwise: even if this process is killed, the
    /// backend cannot take a cut-off stream for a complete one. Unix sockets know no reset.
    pub async fn connect(server: Endpoint) -> io::Result<Self> {
        match server {
            Endpoint::Ip(address) => {
                let socket = Socket::new(TcpStream::connect_addr(address).await?)?;
                Socket::set_up(&socket)?;
                socket.reset_on_close();
                Ok(socket)
            }
            Endpoint::Unix(path) => Socket::connect_unix(path).await,
        }
    }

    async fn connect_unix(path: UnixPath) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path.as_str())?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        loop {
            match rustix::net::connect(&socket, &address) {
                Ok(()) => break,
                // Its queue is full, and nothing tells when it no longer is (connect(2)).
                Err(Errno::AGAIN) => monoio::time::sleep(limits::SERVER_LOOK_INTERVAL).await,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The runtime only waits for it: any stream socket will do.
        let socket = std::net::TcpStream::from(socket);
        Socket::new(TcpStream::from_std(socket)?)
    }

    /// A connection to another thread of this process: this end, and that thread's.
    pub fn to_other_thread() -> io::Result<(Self, UnixStream)> {
        let (own, other) = UnixStream::pair()?;
        own.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        // The runtime only waits for it: any stream socket will do.
        let own = std::net::TcpStream::from(OwnedFd::from(own));
        Ok((Socket::new(TcpStream::from_std(own)?)?, other))
    }

    /// The address of this end.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let address = rustix::net::getsockname(self.descriptor())?;
        SocketAddr::try_from(address).map_err(|_| io::ErrorKind::Unsupported.into())
    }

    /// Waits until a read would return, without holding a buffer.
    pub async fn readable(&self) -> io::Result<()> {
        // Not relaxed: reads pass the runtime by, which on epoll therefore does not know that there is nothing left.
        self.stream.readable(false).await?;
        // The ring answers in its next turn. On epoll the answer is there at once, and a peer that is fast enough would
        // keep the worker from all other connections.
        runtime::yield_now().await;
        Ok(())
    }

    /// Whether a read would return something: bytes, the end or an error. Takes nothing.
    pub fn has_arrived(&self) -> bool {
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        let peeked = rustix::net::recv(self.descriptor(), &mut [0; 1], flags);
        !matches!(peeked, Err(Errno::AGAIN))
    }

    /// Appends what has arrived; `None` when nothing has. A full buffer is a caller's fault.
    pub fn read_now(&self, buffer: &mut Buffer) -> io::Result<Option<usize>> {
        assert!(
            !buffer.is_full(),
            "a read needs room: 0 would be taken for the end of the stream"
        );
        loop {
            let room = buffer.room_mut();
            match rustix::net::recv(self.descriptor(), room, RecvFlags::DONTWAIT) {
                Ok((count, _)) => {
                    buffer.advance(count);
                    return Ok(Some(count));
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Appends what has arrived, at least one byte; 0 is the end of the stream. A full buffer is a caller's fault.
    pub async fn read(&self, buffer: &mut Buffer) -> io::Result<usize> {
        loop {
            if let Some(count) = self.read_now(buffer)? {
                return Ok(count);
            }
            self.readable().await?;
        }
    }

    /// Writes some of the filled bytes, at least one, and consumes them.
    pub fn write(&self, buffer: &mut Buffer) -> impl Future<Output = io::Result<()>> {
        self.write_some(buffer, SendFlags::empty())
    }

    /// Writes all filled bytes and consumes them.
    pub async fn write_all(&self, buffer: &mut Buffer) -> io::Result<()> {
        while !buffer.is_empty() {
            self.write(buffer).await?;
        }
        Ok(())
    }

    /// As `write_all`, for bytes that something else follows soon: they go out together with that, or with the FIN, in one
    /// segment; if nothing follows, by themselves after a fifth of a second (tcp(7), `TCP_CORK`).
    pub async fn write_ahead(&self, buffer: &mut Buffer) -> io::Result<()> {
        while !buffer.is_empty() {
            self.write_some(buffer, SendFlags::MORE).await?;
        }
        Ok(())
    }

    async fn write_some(&self, buffer: &mut Buffer, flags: SendFlags) -> io::Result<()> {
        while !self.write_now(buffer, flags)? {
            // Boxed: most writes never wait, and every connection would keep the room.
            Box::pin(self.writable(buffer)).await?;
        }
        Ok(())
    }

    /// Writes as many of the filled bytes as the peer takes now, and consumes them. Whether those are all.
    pub fn try_write(&self, buffer: &mut Buffer) -> io::Result<bool> {
        while !buffer.is_empty() {
            if !self.write_now(buffer, SendFlags::empty())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until the peer takes more.
    pub async fn until_writable(&self) -> io::Result<()> {
        // Not relaxed, as `readable`.
        self.stream.writable(false).await
    }

    /// Writes some of the filled bytes and consumes them; false when the peer takes none now.
    fn write_now(&self, buffer: &mut Buffer, flags: SendFlags) -> io::Result<bool> {
        let flags = flags | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match rustix::net::send(self.descriptor(), buffer.filled(), flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    buffer.consume(count);
                    return Ok(true);
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until a write would take some of `buffer`, which releases the memory that it does not need if that takes long.
    async fn writable(&self, buffer: &mut Buffer) -> io::Result<()> {
        // Not relaxed, as above.
        let mut writable = pin!(self.stream.writable(false));
        let stall = pin!(monoio::time::sleep(limits::STALL));
        if let Either::Left((ready, _)) = select(writable.as_mut(), stall).await {
            return ready;
        }
        if buffer.capacity() - buffer.len() >= limits::STALL_SHRINK_BYTES_MIN {
            buffer.shrink();
        }
        writable.await
    }

    /// Acknowledges what has arrived now instead of a moment later (tcp(7), TCP_QUICKACK).
    pub fn acknowledge(&self) {
        // Fails only on a descriptor that is no socket.
        let _ = sockopt::set_tcp_quickack(self.descriptor(), true);
    }

    /// Whether the peer is still there, as far as is known without reading. The next read still gets a pending error.
    pub fn presence(&self) -> Presence {
        let seen = self.poll_now();
        match seen {
            _ if seen.intersects(PollFlags::ERR | PollFlags::HUP) => Presence::Gone,
            _ if seen.intersects(PollFlags::RDHUP) => Presence::Finished,
            _ => Presence::Here,
        }
    }

    /// Whether an error waits here that neither a read nor a write has got yet; it is left to them. Where we have finished, this
    /// tells a reset from a peer that has finished too.
    pub fn holds_error(&self) -> bool {
        self.poll_now().intersects(PollFlags::ERR)
    }

    fn poll_now(&self) -> PollFlags {
        let interest = PollFlags::RDHUP;
        let mut look = [PollFd::from_borrowed_fd(self.descriptor(), interest)];
        // Without a wait; what fails is seen by the next read.
        let _ = rustix::event::poll(&mut look, Some(&Timespec::default()));
        look[0].revents()
    }

    /// Whether the connection has broken, as far as is known without reading: reset by the peer, or found dead.
    pub fn broken(&self) -> io::Result<()> {
        Ok(sockopt::socket_error(self.descriptor())??)
    }

    /// Bounds what may wait here unread, about; the peer's TCP waits with the rest. For a connected socket.
    pub fn bound_received(&self, bytes: usize) {
        // Fails only on a descriptor that is no socket.
        let _ = sockopt::set_socket_recv_buffer_size(self.descriptor(), bytes);
    }

    /// Whether the peer has taken what was sent to it.
    pub fn delivery(&self) -> io::Result<Delivery> {
        let mut queued_bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open, and this request writes one `int` there (tcp(7), SIOCOUTQ).
        let asked = unsafe {
            libc::ioctl(
                self.stream.as_raw_fd(),
                libc::TIOCOUTQ,
                &raw mut queued_bytes,
            )
        };
        if asked < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: `tcp_info` is made of numbers, of which all bits zero are some.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to `info` (tcp(7), TCP_INFO).
        let asked = unsafe {
            libc::getsockopt(
                self.stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        let last_heard = match asked {
            0 => Duration::from_millis(info.tcpi_last_ack_recv.into()),
            // A Unix socket: the peer is on this host, and cannot be silent without being gone.
            _ if Errno::from_io_error(&io::Error::last_os_error()) == Some(Errno::OPNOTSUPP) => {
                Duration::ZERO
            }
            _ => return Err(io::Error::last_os_error()),
        };
        Ok(Delivery {
            queued_bytes: queued_bytes.unsigned_abs().into(),
            last_heard,
        })
    }

    /// Sends FIN: nothing more will be written. The other direction stays open.
    pub fn finish(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self.descriptor(), Shutdown::Write)?)
    }

    /// Makes the coming close a reset (RST) that also throws away what is still queued: the peer cannot take the
    /// end of the bytes for the end of the message.
    pub fn reset_on_close(&self) {
        // Fails only on a descriptor that is no socket.
        let _ = sockopt::set_socket_linger(self.descriptor(), Some(Duration::ZERO));
    }

    /// Makes the coming close deliver what is queued, and then a FIN.
    pub fn end_cleanly(&self) {
        let _ = sockopt::set_socket_linger(self.descriptor(), None);
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `self.stream` lives, and the borrow does not outlive `self`.
        unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AcceptStop, Listener, on_each_driver};

    async fn pair_on_this_worker() -> (Socket, Socket) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Listener::new(listener).unwrap();
        let connecting =
            monoio::spawn(async move { Socket::connect(address.into()).await.unwrap() });
        let (accepted, _) = listener
            .accept(AcceptStop::new().handle())
            .await
            .unwrap()
            .unwrap();
        (accepted, connecting.await)
    }

    #[test]
    fn both_directions_move_at_once_byte_for_byte() {
        on_each_driver(async || {
            let (left, right) = pair_on_this_worker().await;
            let (left, right) = (std::rc::Rc::new(left), std::rc::Rc::new(right));
            let send = |socket: std::rc::Rc<Socket>, seed: u8| async move {
                for round in 0..64u8 {
                    let mut buffer = Buffer::with_capacity(16384);
                    buffer.append(&[seed ^ round; 10_000]);
                    socket.write_all(&mut buffer).await.unwrap();
                }
                socket.finish().unwrap();
            };
            let receive = |socket: std::rc::Rc<Socket>| async move {
                let mut all = Vec::new();
                loop {
                    let mut buffer = Buffer::with_capacity(4096);
                    if socket.read(&mut buffer).await.unwrap() == 0 {
                        return all;
                    }
                    all.extend_from_slice(buffer.filled());
                }
            };
            let (_, _, at_left, at_right) = futures_util::join!(
                send(left.clone(), 1),
                send(right.clone(), 2),
                receive(left.clone()),
                receive(right.clone())
            );
            let expected = |seed: u8| {
                (0..64u8)
                    .flat_map(|round| [seed ^ round; 10_000])
                    .collect::<Vec<_>>()
            };
            assert!(at_right == expected(1) && at_left == expected(2));
        });
    }

    #[test]
    fn a_connected_socket_ends_as_a_reset_unless_it_ended_cleanly() {
        on_each_driver(async || {
            for clean in [false, true] {
                let (accepted, connected) = pair_on_this_worker().await;
                if clean {
                    connected.end_cleanly();
                }
                drop(connected);
                let read = accepted.read(&mut Buffer::with_capacity(16)).await;
                let reset = read.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
                assert_eq!(reset, !clean);
            }
        });
    }

    #[test]
    fn a_socket_marked_for_reset_ends_as_a_reset_although_a_read_of_it_was_dropped() {
        on_each_driver(async || {
            let (left, right) = pair_on_this_worker().await;
            {
                let mut buffer = Buffer::with_capacity(16);
                let reading = left.read(&mut buffer);
                let waited = monoio::time::timeout(Duration::from_millis(20), reading).await;
                assert!(waited.is_err(), "nothing was sent");
            }
            left.reset_on_close();
            drop(left);
            let read = right.read(&mut Buffer::with_capacity(16)).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        });
    }

    #[test]
    fn a_reader_that_pauses_is_heard_of_and_one_that_reads_has_everything() {
        use gateway_core::delivery::DeliveryState;
        on_each_driver(async || {
            let (left, right) = pair_on_this_worker().await;
            let standing = || left.delivery().unwrap().state(limits::PEER_SILENCE_MAX);
            let mut sent = Buffer::of(&vec![7; 16 << 20]);
            // As much as the two sockets take.
            while left.write_now(&mut sent, SendFlags::empty()).unwrap() {}
            assert_eq!(standing(), DeliveryState::Waiting);
            let mut received = Buffer::with_capacity(1 << 20);
            while standing() == DeliveryState::Waiting {
                received.clear();
                right.read(&mut received).await.unwrap();
            }
            assert_eq!(standing(), DeliveryState::Delivered);
        });
    }

    #[test]
    fn a_unix_socket_is_connected_when_its_queue_has_room_and_tells_what_is_unread() {
        use gateway_core::delivery::DeliveryState;
        on_each_driver(async || {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("server.sock");
            let path = path.to_str().unwrap();
            let server = Endpoint::Unix(UnixPath::new(path).unwrap());
            let missing = Socket::connect(server).await.unwrap_err();
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
            let flags = SocketFlags::CLOEXEC;
            let listener =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
                    .unwrap();
            rustix::net::bind(&listener, &SocketAddrUnix::new(path).unwrap()).unwrap();
            // Room for one that waits to be accepted.
            rustix::net::listen(&listener, 0).unwrap();
            let first = Socket::connect(server).await.unwrap();
            let second = monoio::spawn(async move { Socket::connect(server).await });
            monoio::time::sleep(2 * limits::SERVER_LOOK_INTERVAL).await;
            let accepted = rustix::net::accept(&listener).unwrap();
            second.await.unwrap();
            first.write_all(&mut Buffer::of(b"unread")).await.unwrap();
            let silence = Duration::from_secs(150);
            let state = || first.delivery().unwrap().state(silence);
            assert_eq!(state(), DeliveryState::Waiting);
            rustix::net::recv(&accepted, &mut [0; 16], RecvFlags::empty()).unwrap();
            assert_eq!(state(), DeliveryState::Delivered);
            assert_eq!(first.presence(), Presence::Here);
            drop(accepted);
            assert_eq!(first.presence(), Presence::Gone);
        });
    }

    #[test]
    fn a_buffer_that_nobody_takes_shrinks_and_none_of_its_bytes_is_lost() {
        on_each_driver(async || {
            let (left, right) = pair_on_this_worker().await;
            sockopt::set_socket_send_buffer_size(left.descriptor(), 4096).unwrap();
            sockopt::set_socket_recv_buffer_size(right.descriptor(), 4096).unwrap();
            let sent: Vec<u8> = (0..400_000).map(|index| (index % 251) as u8).collect();
            let mut buffer = Buffer::with_capacity(1 << 20);
            buffer.append(&sent);
            let mut received = Vec::new();
            let sending = async {
                left.write_all(&mut buffer).await.unwrap();
                left.finish().unwrap();
            };
            let receiving = async {
                monoio::time::sleep(2 * limits::STALL).await;
                let mut part = Buffer::with_capacity(4096);
                while right.read(&mut part).await.unwrap() > 0 {
                    received.extend_from_slice(part.filled());
                    part.clear();
                }
            };
            futures_util::join!(sending, receiving);
            assert!(received == sent);
            assert!(buffer.capacity() <= sent.len(), "{}", buffer.capacity());
        });
    }

    #[test]
    fn a_peer_that_has_finished_is_told_from_one_that_is_gone_and_its_bytes_stay() {
        on_each_driver(async || {
            let (left, right) = pair_on_this_worker().await;
            right.write_all(&mut Buffer::of(b"last")).await.unwrap();
            left.readable().await.unwrap();
            assert_eq!(left.presence(), Presence::Here);
            right.finish().unwrap();
            let mut looks = 0;
            while left.presence() == Presence::Here && looks < 1000 {
                monoio::time::sleep(Duration::from_millis(1)).await;
                looks += 1;
            }
            assert_eq!(left.presence(), Presence::Finished);
            let mut buffer = Buffer::with_capacity(16);
            assert_eq!(left.read(&mut buffer).await.unwrap(), 4);
            right.reset_on_close();
            drop(right);
            while left.presence() != Presence::Gone && looks < 2000 {
                monoio::time::sleep(Duration::from_millis(1)).await;
                looks += 1;
            }
            assert_eq!(left.presence(), Presence::Gone);
        });
    }

    #[test]
    fn accepted_and_connected_sockets_do_not_delay_and_find_dead_peers() {
        on_each_driver(async || {
            let (left, right) = pair_on_this_worker().await;
            for socket in [&left, &right] {
                let descriptor = socket.descriptor();
                assert!(sockopt::tcp_nodelay(descriptor).unwrap());
                assert!(sockopt::socket_keepalive(descriptor).unwrap());
                let idle = sockopt::tcp_keepidle(descriptor).unwrap();
                let interval = sockopt::tcp_keepintvl(descriptor).unwrap();
                let probes = sockopt::tcp_keepcnt(descriptor).unwrap();
                assert_eq!(
                    (idle, interval, probes),
                    (
                        limits::KEEPALIVE_IDLE,
                        limits::KEEPALIVE_INTERVAL,
                        limits::KEEPALIVE_PROBES
                    )
                );
                // It would take a reader that pauses for a dead one, and end keepalive before its last probe.
                assert_eq!(sockopt::tcp_user_timeout(descriptor).unwrap(), 0);
            }
        });
    }

    #[test]
    fn accepted_and_connected_sockets_are_closed_on_exec() {
        on_each_driver(async || {
            let (left, right) = pair_on_this_worker().await;
            for socket in [&left, &right] {
                assert_eq!(
                    rustix::io::fcntl_getfd(socket.descriptor()).unwrap(),
                    FdFlags::CLOEXEC
                );
            }
        });
    }
}
