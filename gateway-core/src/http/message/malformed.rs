//! What makes a message malformed (RFC 9113 section 8.1.1): one table, for logs and metrics. Whoever sends such a
//! message gets its stream reset by PROTOCOL_ERROR, or status 400 in HTTP/1. In: nothing. Out: the cases. Pure.

use gateway_common::closed_list;

closed_list! {
    /// Why a message is malformed.
    pub enum Malformed {
        /// A name is empty, or has a character that names do not have: upper case among them (RFC 9113 section 8.2.1).
        FieldName = "field_name";
        /// A value has a control character, or white space at an end (section 8.2.1).
        FieldValue = "field_value";
        /// A field speaks of the connection, which HTTP/2 knows by itself (section 8.2.2).
        ConnectionSpecific = "connection_specific";
        /// A pseudo-header field stands behind a regular one (section 8.3).
        PseudoOrder = "pseudo_order";
        /// A pseudo-header field is unknown, or belongs to another kind of message (section 8.3).
        PseudoUnknown = "pseudo_unknown";
        /// A pseudo-header field stands there twice (section 8.3).
        PseudoRepeated = "pseudo_repeated";
        /// A pseudo-header field that the message needs is not there (sections 8.3.1, 8.3.2).
        PseudoMissing = "pseudo_missing";
        /// The method is no token (RFC 9110 section 9.1).
        Method = "method";
        /// CONNECT, which is not served.
        Connect = "connect";
        /// The scheme is neither http nor https.
        Scheme = "scheme";
        /// The path does not begin with a slash, or has a character that paths do not have (RFC 9113 section 8.3.1).
        Path = "path";
        /// The authority is empty or no host with a port (section 8.3.1).
        Authority = "authority";
        /// Host is there twice, or says something else than the authority (section 8.3.1).
        Host = "host";
        /// The status is not of three digits, or 101 (sections 8.3.2, 8.6).
        Status = "status";
        /// Content-Length is there twice, or is no number (RFC 9110 section 8.6).
        ContentLength = "content_length";
        /// There is more or less content than Content-Length says (RFC 9113 section 8.1.1).
        ContentMismatch = "content_mismatch";
        /// A header section, which is not the last of its message, ends the stream, or a trailer section does not
        /// (section 8.1).
        Order = "order";
        /// The header list is larger than allowed (section 10.5.1).
        TooLarge = "too_large";
    }
}
