//! What a peer of HTTP/1 can do wrong, and what follows: one table, a row a fault: its label, the status that a client
//! gets, the code that stands for it in HTTP/2, and the words for the client. In: a fault. Out: what follows. Pure.

use gateway_common::closed_list;

use crate::http::h2::ErrorCode;

closed_list! {
    /// What a peer did. Any of these ends its connection: where the next message begins is not certain any more. The
    /// status is for clients; of backends nothing is asked. Labels are those of logs and metrics.
    pub enum Fault: (u16, ErrorCode, &'static str) {
        /// The first line of a request is not a method, a target and a version with single spaces between them (RFC 9112
        /// section 3).
        RequestLine = "request_line", (400, ErrorCode::ProtocolError, "the request line is malformed");
        /// The method is no token (RFC 9110 section 9.1).
        RequestMethod = "request_method", (400, ErrorCode::ProtocolError, "the method is malformed");
        /// The target has none of the four forms, or characters that it cannot have (RFC 9112 section 3.2).
        RequestTarget = "request_target", (400, ErrorCode::ProtocolError, "the request target is malformed");
        /// The first line is longer than we read (RFC 9112 section 3).
        RequestLineTooLong = "request_line_too_long", (414, ErrorCode::ProtocolError, "the request line is too long");
        /// CONNECT, which is not served.
        Connect = "connect", (501, ErrorCode::ProtocolError, "CONNECT is not served");
        /// The client asks for another protocol on the connection (RFC 9110 section 7.8).
        Upgrade = "upgrade", (501, ErrorCode::ProtocolError, "no upgrade is served");
        /// The client expects something that is not 100-continue (RFC 9110 section 10.1.1).
        Expectation = "expectation", (417, ErrorCode::ProtocolError, "only 100-continue can be expected");
        /// The version is not written as RFC 9112 section 2.3 has it.
        Version = "version", (400, ErrorCode::ProtocolError, "the version is malformed");
        /// The version is not 1.x.
        VersionUnsupported = "version_unsupported",
            (505, ErrorCode::ProtocolError, "only HTTP/1.1 and HTTP/1.0 are served here");
        /// The first line of a response is malformed (RFC 9112 section 4).
        StatusLine = "status_line", (400, ErrorCode::ProtocolError, "the status line is malformed");
        /// A backend switches protocols, which nobody asked for.
        SwitchedProtocols = "switched_protocols", (400, ErrorCode::ProtocolError, "the protocol was switched");
        /// A line ends without a carriage return (RFC 9112 section 2.2).
        BareLineFeed = "bare_line_feed", (400, ErrorCode::ProtocolError, "a line ends without CR");
        /// A line is folded (RFC 9112 section 5.2).
        FoldedLine = "folded_line", (400, ErrorCode::ProtocolError, "a field line is folded");
        /// A line has no colon, or no name before it, or one with a character that names do not have: white space
        /// before the colon among them (RFC 9112 section 5.1).
        HeaderName = "header_name", (400, ErrorCode::ProtocolError, "a field has no valid name");
        /// A value has a control character: a lone carriage return among them (RFC 9110 section 5.5).
        HeaderValue = "header_value", (400, ErrorCode::ProtocolError, "a field has a control character");
        /// The section is longer than we read.
        SectionTooLarge = "section_too_large", (431, ErrorCode::ProtocolError, "the header section is too large");
        /// There are more fields than we read.
        TooManyFields = "too_many_fields", (431, ErrorCode::ProtocolError, "there are too many fields");
        /// Host is missing, there twice, or names no host (RFC 9112 section 3.2).
        HostField = "host_field", (400, ErrorCode::ProtocolError, "there must be one valid Host");
        /// Host says something else than the target.
        HostMismatch = "host_mismatch", (400, ErrorCode::ProtocolError, "Host differs from the request target");
        /// Connection names too many fields, something that is no name, or a field that is for all recipients (RFC 9110
        /// section 7.6.1).
        ConnectionOption = "connection_option", (400, ErrorCode::ProtocolError, "Connection names what it must not");
        /// Content-Length is no number, or there twice: two that are equal too (RFC 9112 section 6.3).
        LengthField = "length_field", (400, ErrorCode::ProtocolError, "Content-Length is malformed or repeated");
        /// Content-Length or a chunk is longer than anything can be.
        LengthTooLarge = "length_too_large", (413, ErrorCode::ProtocolError, "the content is too large");
        /// Content-Length and Transfer-Encoding, of which some server could believe either (RFC 9112 section 6.1).
        TwoLengths = "two_lengths",
            (400, ErrorCode::ProtocolError, "there are both Content-Length and Transfer-Encoding");
        /// Transfer-Encoding is there twice.
        EncodingRepeated = "encoding_repeated", (400, ErrorCode::ProtocolError, "Transfer-Encoding is repeated");
        /// Transfer-Encoding says something else than `chunked` (RFC 9112 section 6.1).
        EncodingUnknown = "encoding_unknown",
            (501, ErrorCode::ProtocolError, "the only transfer coding served is chunked");
        /// Transfer-Encoding in HTTP/1.0, which does not have it (RFC 9112 section 6.1).
        EncodingInHttp10 = "encoding_in_http_1_0",
            (400, ErrorCode::ProtocolError, "HTTP/1.0 has no Transfer-Encoding");
        /// The size of a chunk is malformed (RFC 9112 section 7.1).
        ChunkSize = "chunk_size", (400, ErrorCode::ProtocolError, "the size of a chunk is malformed");
        /// An extension of a chunk is malformed, or they are longer than we read (RFC 9112 section 7.1.1).
        ChunkExtension = "chunk_extension",
            (400, ErrorCode::ProtocolError, "a chunk extension is malformed or too long");
        /// A chunk is not as long as its size says.
        ChunkEnd = "chunk_end", (400, ErrorCode::ProtocolError, "a chunk does not end where its size says");
        /// A trailer section has a field that only header sections can have (RFC 9110 section 6.5.1).
        TrailerField = "trailer_field", (400, ErrorCode::ProtocolError, "a trailer frames or routes the message");
        /// A section has not come in time (RFC 9110 section 15.5.9).
        SlowSection = "slow_section", (408, ErrorCode::Cancel, "the request did not come in time");
        /// The message as a whole is malformed: its owner rejects it.
        Message = "message", (400, ErrorCode::ProtocolError, "the request is malformed");
        /// A backend sends something before a request has left for it: nothing of a request was processed.
        Unsolicited = "unsolicited", (400, ErrorCode::RefusedStream, "a response came before its request");
        /// A backend sends something behind the end of its response.
        Surplus = "surplus", (400, ErrorCode::ProtocolError, "something came behind a response");
    }
}

impl Fault {
    /// The status that a client gets.
    pub const fn status(self) -> u16 {
        let (status, ..) = self.row();
        status
    }

    /// What stands for it in HTTP/2, where the other side of an exchange may speak that.
    pub const fn code(self) -> ErrorCode {
        let (_, code, _) = self.row();
        code
    }

    /// In words, for the client.
    pub const fn message(self) -> &'static str {
        let (.., message) = self.row();
        message
    }
}
