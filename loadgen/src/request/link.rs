//! One connection that carries requests: opened when it is needed, given up when the peer ends it or a request breaks.
//! In: a dialer, what requests are to look like. Out: an `Answer` for each. On the load's threads; the streams of one
//! connection share its link.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout, timeout_at};

use super::{Answer, Content, ContentCounter, HttpVersion, Outgoing, RequestKind};
use crate::client::Dialer;
use crate::failure::{Failure, FailureKind};
use crate::limits::{CLIENT_CONNECTION_WINDOW, CLIENT_STREAM_WINDOW, RECONNECT_PAUSE};
use crate::otlp::watched::FirstError;

/// What all requests of a run are.
#[derive(Debug, Clone)]
pub(crate) struct RequestPlan {
    pub(crate) version: HttpVersion,
    pub(crate) kind: RequestKind,
    pub(crate) scheme: &'static str,
    pub(crate) path: String,
    pub(crate) fields: HeaderMap,
}

impl RequestPlan {
    /// Requests with their kind's own fields and these.
    pub(crate) fn new(
        version: HttpVersion,
        kind: RequestKind,
        path: Option<String>,
        more: &[(HeaderName, HeaderValue)],
    ) -> Self {
        let mut fields = HeaderMap::new();
        for &(name, value) in kind.fields() {
            fields.append(name, HeaderValue::from_static(value));
        }
        fields.append(USER_AGENT, HeaderValue::from_static("portcullis-loadgen"));
        for (name, value) in more {
            fields.append(name, value.clone());
        }
        Self {
            version,
            kind,
            scheme: "https",
            path: path.unwrap_or_else(|| kind.path().to_owned()),
            fields,
        }
    }
}

/// A connection of the load that carries requests.
pub(crate) struct Link {
    plan: RequestPlan,
    authority: HeaderValue,
    uri: Uri,
    dialer: tokio::sync::Mutex<Dialer>,
    limit: Duration,
    open: Mutex<Open>,
    content: Mutex<(Content, ContentCounter)>,
    first_error: FirstError,
    /// A request has failed since the last connection was opened.
    has_failed: AtomicBool,
}

/// The connection, if there is one.
#[derive(Default)]
struct Open {
    requests: Option<Requests>,
    driver: Option<JoinHandle<()>>,
    /// Connections before this one.
    generation: u64,
}

/// What takes requests.
enum Requests {
    H2(SendRequest<Bytes>),
    /// One request at a time: taken while it lasts.
    H1(http1::SendRequest<Outgoing>),
}

/// A request on its way: the numbers in it, and the answer.
pub(crate) struct Asked {
    pub(crate) numbers: std::ops::Range<u64>,
    pub(crate) bytes: u64,
    pub(crate) answer: Result<Answer, Failure>,
}

impl Link {
    /// A link that is not connected yet.
    pub(crate) fn new(
        plan: RequestPlan,
        dialer: Dialer,
        authority: &str,
        content: Content,
    ) -> Result<Self, Failure> {
        let invalid = |error: http::Error| Failure::new(FailureKind::Protocol, error);
        let uri = match plan.version {
            HttpVersion::H2 => format!("{}://{authority}{}", plan.scheme, plan.path),
            HttpVersion::H1 => plan.path.clone(),
        };
        Ok(Self {
            authority: HeaderValue::from_str(authority).map_err(|error| invalid(error.into()))?,
            uri: uri
                .parse()
                .map_err(|error: http::uri::InvalidUri| invalid(error.into()))?,
            plan,
            limit: dialer.timeout,
            dialer: tokio::sync::Mutex::new(dialer),
            open: Mutex::default(),
            content: Mutex::new((content, ContentCounter::default())),
            first_error: FirstError::default(),
            has_failed: AtomicBool::new(false),
        })
    }

    /// Opens the connection unless it is open.
    pub(crate) async fn connect(&self) -> Result<(), Failure> {
        let (requests, generation) = self.requests().await?;
        self.give_back(requests, generation);
        Ok(())
    }

    /// Sends one request and waits for its whole answer, all within the target's time-out.
    pub(crate) async fn ask(&self) -> Asked {
        let (numbers, mut contents) = {
            let mut content = lock(&self.content);
            let (content, counter) = &mut *content;
            let numbers = counter.next(content.messages());
            let contents: Vec<Outgoing> = numbers.clone().map(|at| content.numbered(at)).collect();
            (numbers, contents)
        };
        let bytes = contents.iter().map(Outgoing::left).sum();
        let answer = timeout(self.limit, self.ask_unbounded(numbers.start, &mut contents))
            .await
            .unwrap_or_else(|_| Err(Failure::timeout("waiting for the answer")));
        let answer = answer.map_err(|failure| {
            self.has_failed.store(true, Ordering::Relaxed);
            // HTTP loses the alert on its way up; the stream beneath has kept it.
            self.first_error.take().unwrap_or(failure)
        });
        Asked {
            numbers,
            bytes,
            answer,
        }
    }

    /// Until that time, or until the peer ends the connection.
    pub(crate) async fn hold(&self, end: tokio::time::Instant) -> Result<(), Failure> {
        let driver = lock(&self.open).driver.take();
        let driver = driver.ok_or_else(|| Failure::new(FailureKind::ClosedEarly, "not open"))?;
        match timeout_at(end, driver).await {
            Err(_) => Ok(()),
            Ok(_) => Err(self.first_error.take().unwrap_or_else(|| {
                Failure::new(
                    FailureKind::ClosedEarly,
                    "the peer closed during the silence",
                )
            })),
        }
    }

    /// Ends the connection with the protocol's goodbye.
    pub(crate) async fn close(&self) {
        let open = std::mem::take(&mut *lock(&self.open));
        drop(open.requests);
        if let Some(driver) = open.driver {
            // Counted already: how the goodbye goes changes nothing.
            let _ = timeout(Duration::from_secs(1), driver).await;
        }
    }

    async fn ask_unbounded(
        &self,
        number: u64,
        contents: &mut [Outgoing],
    ) -> Result<Answer, Failure> {
        let (requests, generation) = self.requests().await?;
        match requests {
            Requests::H2(requests) => {
                let result = self.ask_h2(requests, number, contents).await;
                if let Err(failure) = &result
                    && !matches!(failure.kind, FailureKind::StreamReset(_))
                {
                    self.give_up(generation);
                }
                result
            }
            Requests::H1(mut requests) => {
                let result = self.ask_h1(&mut requests, contents).await;
                match &result {
                    Ok(_) => self.give_back(Requests::H1(requests), generation),
                    Err(_) => self.give_up(generation),
                }
                result
            }
        }
    }

    fn fields(&self, number: u64) -> HeaderMap {
        let mut fields = self.plan.fields.clone();
        if self.plan.kind.is_grpc() {
            fields.insert("grpc-timeout", grpc_timeout(self.limit, number));
        }
        fields
    }

    async fn ask_h2(
        &self,
        mut requests: SendRequest<Bytes>,
        number: u64,
        contents: &mut [Outgoing],
    ) -> Result<Answer, Failure> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.fields(number);
        if let [content] = contents
            && !self.plan.kind.is_grpc()
        {
            let length = HeaderValue::from(content.left());
            request.headers_mut().insert(CONTENT_LENGTH, length);
        }
        let (response, mut stream) = requests.send_request(request, false).map_err(broken)?;
        let sent = async {
            let last = contents.len() - 1;
            for (index, content) in contents.iter_mut().enumerate() {
                send(&mut stream, content, index == last).await?;
            }
            Ok::<(), Failure>(())
        };
        // An answer may come before all content has left, and says more than the reset behind it.
        tokio::pin!(response);
        let response = tokio::select! {
            biased;
            sent = sent => match sent {
                Ok(()) => response.await,
                Err(failure) => timeout(Duration::from_secs(1), response).await.map_err(|_| failure)?,
            },
            response = &mut response => response,
        };
        let (head, mut body) = response.map_err(broken)?.into_parts();
        let mut answer = Answer::new(head.status.as_u16());
        answer.read_status(&head.headers);
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(broken)?;
            answer.bytes += piece.len() as u64;
            body.flow_control()
                .release_capacity(piece.len())
                .map_err(broken)?;
        }
        if let Some(trailers) = body.trailers().await.map_err(broken)? {
            answer.read_status(&trailers);
        }
        Ok(answer)
    }

    async fn ask_h1(
        &self,
        requests: &mut http1::SendRequest<Outgoing>,
        contents: &mut [Outgoing],
    ) -> Result<Answer, Failure> {
        let [content] = contents else {
            return Err(Failure::new(FailureKind::Protocol, "HTTP/1 has no gRPC"));
        };
        let mut request = Request::new(content.clone());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.plan.fields.clone();
        request.headers_mut().insert(HOST, self.authority.clone());
        let response = requests.send_request(request).await;
        let (head, mut body) = response
            .map_err(|error| Failure::from(&error))?
            .into_parts();
        let mut answer = Answer::new(head.status.as_u16());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::from(&error))?;
            answer.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Ok(answer)
    }

    /// What takes requests on the open connection, or on a new one.
    async fn requests(&self) -> Result<(Requests, u64), Failure> {
        loop {
            if let Some((requests, generation)) = self.taken() {
                match ready(requests).await {
                    Some(requests) => return Ok((requests, generation)),
                    // The peer has ended it, between two requests.
                    None => self.give_up(generation),
                }
            }
            let mut dialer = self.dialer.lock().await;
            if lock(&self.open).requests.is_some() {
                continue;
            }
            if self.has_failed.swap(false, Ordering::Relaxed) {
                sleep(RECONNECT_PAUSE).await;
            }
            self.open(&mut dialer).await?;
        }
    }

    async fn open(&self, dialer: &mut Dialer) -> Result<(), Failure> {
        // What an earlier connection saw explains nothing about this one.
        self.first_error.take();
        let stream = dialer.connect().await.inspect_err(|_| {
            self.has_failed.store(true, Ordering::Relaxed);
        })?;
        let (stream, _) = self.first_error.watch(stream);
        let (requests, driver) = match self.plan.version {
            HttpVersion::H2 => {
                let (requests, connection) = h2::client::Builder::new()
                    .initial_window_size(CLIENT_STREAM_WINDOW)
                    .initial_connection_window_size(CLIENT_CONNECTION_WINDOW)
                    .enable_push(false)
                    .handshake(stream)
                    .await
                    .map_err(broken)?;
                // Its error reaches the requests that wait for answers.
                let driver = tokio::spawn(async { drop(connection.await) });
                (Requests::H2(requests), driver)
            }
            HttpVersion::H1 => {
                let connected = http1::handshake(TokioIo::new(stream)).await;
                let (requests, connection) = connected.map_err(|error| Failure::from(&error))?;
                let driver = tokio::spawn(async { drop(connection.await) });
                (Requests::H1(requests), driver)
            }
        };
        let mut open = lock(&self.open);
        open.requests = Some(requests);
        open.driver = Some(driver);
        open.generation += 1;
        Ok(())
    }

    fn taken(&self) -> Option<(Requests, u64)> {
        let mut open = lock(&self.open);
        let requests = match &open.requests {
            Some(Requests::H2(requests)) => Requests::H2(requests.clone()),
            Some(Requests::H1(_)) => open.requests.take()?,
            None => return None,
        };
        Some((requests, open.generation))
    }

    fn give_back(&self, requests: Requests, generation: u64) {
        let mut open = lock(&self.open);
        if open.generation == generation && open.requests.is_none() {
            open.requests = Some(requests);
        }
    }

    fn give_up(&self, generation: u64) {
        let mut open = lock(&self.open);
        if open.generation == generation {
            open.requests = None;
        }
    }
}

/// Waits until a request may be sent; `None` when the connection takes no more.
async fn ready(requests: Requests) -> Option<Requests> {
    match requests {
        Requests::H2(requests) => requests.ready().await.ok().map(Requests::H2),
        Requests::H1(mut requests) => {
            requests.ready().await.ok()?;
            Some(Requests::H1(requests))
        }
    }
}

/// Sends content as fast as the peer's windows allow.
pub(crate) async fn send(
    stream: &mut h2::SendStream<Bytes>,
    content: &mut Outgoing,
    is_last: bool,
) -> Result<(), Failure> {
    /// The longest piece that windows are asked for: a frame of the size that every peer takes.
    const PIECE: usize = 16_384;
    if content.left() <= PIECE as u64 {
        // h2 keeps what the window does not take yet, and that is not much.
        let piece = content.take(PIECE);
        return stream.send_data(piece, is_last).map_err(broken);
    }
    while content.left() > 0 {
        stream.reserve_capacity(PIECE.min(usize::try_from(content.left()).unwrap_or(PIECE)));
        let capacity = match stream.capacity() {
            // Tells of capacity that comes, and never of what is there: a short last piece would wait for ever.
            0 => match poll_fn(|context| stream.poll_capacity(context)).await {
                Some(capacity) => capacity.map_err(broken)?,
                None => return Err(closed()),
            },
            known => known,
        };
        let piece = content.take(capacity);
        let is_end = is_last && content.left() == 0;
        stream.send_data(piece, is_end).map_err(broken)?;
    }
    Ok(())
}

fn closed() -> Failure {
    Failure::new(
        FailureKind::ClosedEarly,
        "the stream ended before all content had left",
    )
}

/// As grpc-go says it: microseconds that differ from request to request.
fn grpc_timeout(limit: Duration, number: u64) -> HeaderValue {
    let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
    let left = limit - number % (limit / 10).clamp(1, 100_000);
    let text = match left {
        // The protocol allows eight digits.
        0..100_000_000 => format!("{left}u"),
        _ => format!("{}m", (left / 1000).min(99_999_999)),
    };
    HeaderValue::from_str(&text).expect("digits and a letter")
}

fn broken(error: h2::Error) -> Failure {
    Failure::from(&error)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds a link")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends content of so many bytes to a server that gives credit in steps of `step` bytes. Returns how much arrived.
    async fn sent_in_steps(content_bytes: u64, window: u32, step: usize) -> u64 {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let serving = async {
            let mut server = h2::server::Builder::new()
                .initial_window_size(window)
                .handshake::<_, Bytes>(theirs)
                .await
                .unwrap();
            let (request, _answer) = server.accept().await.unwrap().unwrap();
            let mut body = request.into_body();
            let reading = async {
                let mut arrived = 0;
                while let Some(piece) = body.data().await {
                    let mut left = piece.unwrap().len();
                    arrived += left as u64;
                    while left > 0 {
                        let released = left.min(step);
                        body.flow_control().release_capacity(released).unwrap();
                        left -= released;
                        tokio::task::yield_now().await;
                    }
                }
                arrived
            };
            tokio::select! {
                arrived = reading => arrived,
                _ = async { while server.accept().await.is_some() {} } => 0,
            }
        };
        let sending = async {
            let (mut requests, connection) = h2::client::handshake(ours).await.unwrap();
            let driver = tokio::spawn(connection);
            let request = Request::post("https://test.example/").body(()).unwrap();
            let (_response, mut stream) = requests.send_request(request, false).unwrap();
            let mut content = Outgoing::new(Bytes::new(), content_bytes);
            send(&mut stream, &mut content, true).await.unwrap();
            let _ = driver.await;
        };
        tokio::select! {
            arrived = serving => arrived,
            () = sending => 0,
        }
    }

    #[tokio::test]
    async fn content_leaves_to_its_end_whatever_the_steps_in_which_there_is_credit() {
        for content_bytes in [16_385, 33_008, 65_535] {
            for window in [1, 100, 16_144, 16_384, 30_000, 65_535] {
                for step in [1000, 7_919, 16_384, 40_000] {
                    let sending = sent_in_steps(content_bytes, window, step);
                    let arrived = timeout(Duration::from_secs(20), sending).await;
                    let case = format!("{content_bytes} bytes, {window}, {step}");
                    assert_eq!(arrived.expect(&case), content_bytes, "{case}");
                }
            }
        }
    }

    #[test]
    fn deadlines_differ_and_have_no_more_than_eight_digits() {
        let limit = Duration::from_secs(10);
        assert_eq!(grpc_timeout(limit, 0), "10000000u");
        assert_eq!(grpc_timeout(limit, 7), "9999993u");
        assert_eq!(grpc_timeout(Duration::from_secs(600), 1), "599999m");
    }
}
