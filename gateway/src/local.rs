//! HTTP/1 for programs of this host: what the administration endpoint and the control socket share.
//! In: accepted sockets, a way to answer. Out: answers. On the caller's thread, with a small tokio runtime. A silent peer
//! costs the other peers nothing: it has a second, and when there is no room the oldest gives way.

use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use gateway_core::limits;
use gateway_core::suppress::Suppressor;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// Serves what `accept` yields until this is dropped; connections that are open then are served to their end. Each brings
/// what is known of its peer, which has `header_timeout` to ask for something.
pub async fn serve<S, P, R>(
    what: &'static str,
    header_timeout: Duration,
    accept: impl AsyncFn() -> io::Result<(S, P)>,
    respond: R,
) -> Infallible
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    P: Clone + 'static,
    R: AsyncFn(Request<Incoming>, P) -> Answer + 'static,
{
    let respond = Rc::new(respond);
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    let mut lines = Suppressor::new(1);
    loop {
        match accept().await {
            Ok((stream, peer)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= limits::ADMIN_CONNECTIONS_MAX
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                let serving = tokio::task::spawn_local(converse(
                    (stream, peer),
                    Rc::clone(&respond),
                    (header_timeout, limits::ADMIN_TIMEOUT),
                ));
                open.push_back(serving.abort_handle());
            }
            Err(error) => {
                if let Some(left_out) = lines.admit(Instant::now()) {
                    tracing::warn!(%error, left_out, "{what} cannot accept");
                }
                // It may be descriptors that are missing, and silent peers have some.
                open.retain(|connection| !connection.is_finished());
                open.pop_front()
                    .into_iter()
                    .for_each(|oldest| oldest.abort());
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
        // However many are waiting to be accepted, those that have spoken are answered in between.
        tokio::task::yield_now().await;
    }
}

/// One request, whose head has to come within `header_timeout`, and its answer, each within `timeout`. What is done for it in
/// between may take longer: its outcome is told.
async fn converse<S, P, R>(
    (stream, peer): (S, P),
    respond: Rc<R>,
    (header_timeout, timeout): (Duration, Duration),
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    P: Clone + 'static,
    R: AsyncFn(Request<Incoming>, P) -> Answer + 'static,
{
    let is_at_work = Rc::new(Cell::new(false));
    let working = Rc::clone(&is_at_work);
    let service = service_fn(move |request| {
        let (respond, peer, working) = (Rc::clone(&respond), peer.clone(), Rc::clone(&working));
        async move {
            working.set(true);
            let answer = respond(request, peer).await;
            working.set(false);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    loop {
        match tokio::time::timeout(timeout, connection.as_mut()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "local request"),
            Err(_) if is_at_work.get() => continue,
            Err(_) => tracing::debug!("local request took too long"),
        }
        return;
    }
}

/// Until when the sockets of a process that was killed just now are waited for: the kernel takes a ring apart after its process has
/// ended, and with it the sockets that it accepted on.
pub fn lingers_until() -> Instant {
    Instant::now() + limits::LISTENER_LINGER_MAX
}

/// Waits until no process listens on an address, until [`lingers_until`] at most, which may be shared by many addresses. Blocks.
///
/// # Errors
/// `AddrInUse`, and whatever keeps this process from the address.
pub fn await_free(address: SocketAddr, until: Instant) -> io::Result<()> {
    loop {
        match ensure_free(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(limits::LISTENER_LINGER_MAX / 50);
            }
            outcome => return outcome,
        }
    }
}

/// Fails where another socket listens already. Sockets that share a port (`SO_REUSEPORT`) would not notice each other, and
/// each would get a part of the connections.
fn ensure_free(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Connections of an earlier process that are still open take nothing away.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// An answer with a text of this type.
pub fn answer(status: StatusCode, content_type: &'static str, text: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn what_takes_longer_than_a_request_may_is_answered_and_a_request_that_does_not_end_is_not_waited_for()
     {
        const TIMEOUT: Duration = Duration::from_millis(50);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let ask = async |request: &[u8]| {
            let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
            let respond = async |_: Request<Incoming>, ()| {
                tokio::time::sleep(6 * TIMEOUT).await;
                super::answer(StatusCode::OK, "text/plain", "done".to_owned())
            };
            let asking = async {
                let mut ours = ours;
                ours.write_all(request).await.unwrap();
                let mut answer = String::new();
                // Cut off or answered.
                let _ = ours.read_to_string(&mut answer).await;
                answer
            };
            let serving = converse((theirs, ()), Rc::new(respond), (TIMEOUT, TIMEOUT));
            tokio::join!(asking, serving).0
        };
        runtime.block_on(async {
            let answer = ask(b"GET / HTTP/1.0\r\n\r\n").await;
            assert!(answer.ends_with("done"), "{answer:?}");
            let answer = ask(b"GET / HTTP/1.0\r\n").await;
            assert!(!answer.contains("done"), "{answer:?}");
        });
    }

    #[test]
    fn the_sockets_of_a_killed_process_are_waited_for_and_not_those_of_one_that_runs() {
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listening.local_addr().unwrap();
        let refused = await_free(address, lingers_until()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(listening);
        });
        await_free(address, lingers_until()).unwrap();
        late.join().unwrap();
    }

    #[test]
    fn an_address_that_another_socket_listens_on_is_not_free_even_where_both_would_share() {
        let any = "127.0.0.1:0".parse::<SocketAddr>().unwrap();
        let first = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        first.set_reuse_address(true).unwrap();
        first.set_reuse_port(true).unwrap();
        first.bind(&any.into()).unwrap();
        let address = first.local_addr().unwrap().as_socket().unwrap();
        first.listen(1).unwrap();
        let refused = ensure_free(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = first.accept().unwrap();
        drop(first);
        ensure_free(address).unwrap();
        drop((client, accepted));
    }
}
