//! What a backend does to a request, as a test's script says it.
//! In: words. Out: a reply that `HttpBackend` carries out.

use std::time::Duration;

/// What is done to a request.
#[derive(Debug, Clone)]
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(&'static str, String)>,
    pub(crate) content: Content,
    pub(crate) trailers: Vec<(&'static str, String)>,
    pub(crate) reads: Reads,
    pub(crate) delay: Duration,
    pub(crate) has_head: bool,
    pub(crate) end: End,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Echo,
    Pieces(Vec<Vec<u8>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    First,
    Meanwhile,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    Reset(u32),
    Death,
    Silence,
}

impl Reply {
    /// A response without content, after the request has been read.
    pub fn status(status: u16) -> Reply {
        Reply {
            status,
            fields: Vec::new(),
            content: Content::Pieces(Vec::new()),
            trailers: Vec::new(),
            reads: Reads::First,
            delay: Duration::ZERO,
            has_head: true,
            end: End::Whole,
        }
    }

    /// What a gRPC server answers that sends back what comes, as it comes.
    pub fn grpc() -> Reply {
        Reply::status(200)
            .field("content-type", "application/grpc")
            .echo()
            .trailer("grpc-status", "0")
    }

    /// Adds a field.
    pub fn field(mut self, name: &'static str, value: &str) -> Reply {
        self.fields.push((name, value.to_owned()));
        self
    }

    /// Adds a trailer.
    pub fn trailer(mut self, name: &'static str, value: &str) -> Reply {
        self.trailers.push((name, value.to_owned()));
        self
    }

    /// Adds content.
    pub fn content(mut self, content: &[u8]) -> Reply {
        match &mut self.content {
            Content::Pieces(pieces) => pieces.push(content.to_vec()),
            Content::Echo => self.content = Content::Pieces(vec![content.to_vec()]),
        }
        self
    }

    /// The request's content is the response's, piece by piece.
    pub fn echo(mut self) -> Reply {
        self.content = Content::Echo;
        self.reads = Reads::Meanwhile;
        self
    }

    /// Answers before the request's content is read, which is read all the same.
    pub fn early(mut self) -> Reply {
        self.reads = Reads::Meanwhile;
        self
    }

    /// Never reads the request's content.
    pub fn unread(mut self) -> Reply {
        self.reads = Reads::Never;
        self
    }

    /// Waits before anything else.
    pub fn after(mut self, delay: Duration) -> Reply {
        self.delay = delay;
        self
    }

    /// No response at all: the end, as the next words say, comes first.
    pub fn without_head(mut self) -> Reply {
        self.has_head = false;
        self
    }

    /// Ends by RST_STREAM; in HTTP/1.1 the connection ends.
    pub fn reset(mut self, code: u32) -> Reply {
        self.end = End::Reset(code);
        self
    }

    /// Ends by RST of TCP.
    pub fn death(mut self) -> Reply {
        self.end = End::Death;
        self
    }

    /// Never ends.
    pub fn silence(mut self) -> Reply {
        self.end = End::Silence;
        self
    }
}
