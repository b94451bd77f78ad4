//! What a peer can do against RFC 9113, and what follows: one table, a row a violation: its label, whether the stream
//! or the connection ends, and the code that the peer gets. In: a violation. Out: what follows. Pure.

use gateway_common::closed_list;

use super::ErrorCode;
use Scope::{Connection, Stream};

closed_list! {
    /// What a peer did against RFC 9113. Labels are those of logs and metrics.
    pub enum Violation: (Scope, ErrorCode) {
        /// A frame is longer than we allow (section 4.2). For DATA the stream would be enough, but all of it would come.
        FrameTooLarge = "frame_too_large", (Connection, ErrorCode::FrameSizeError);
        /// A frame does not have the length of its type (section 6).
        FrameLength = "frame_length", (Connection, ErrorCode::FrameSizeError);
        /// A PRIORITY frame does not have five bytes (section 6.3).
        PriorityLength = "priority_length", (Stream, ErrorCode::FrameSizeError);
        /// A frame of a stream says stream 0, or one of the connection names a stream (section 6).
        WrongStreamId = "wrong_stream_id", (Connection, ErrorCode::ProtocolError);
        /// The padding is longer than what is left for it (sections 6.1, 6.2).
        Padding = "padding", (Connection, ErrorCode::ProtocolError);
        /// A setting has a value that it cannot have (section 6.5.2).
        SettingValue = "setting_value", (Connection, ErrorCode::ProtocolError);
        /// SETTINGS_INITIAL_WINDOW_SIZE is above 2^31 - 1 (section 6.5.2).
        SettingWindow = "setting_window", (Connection, ErrorCode::FlowControlError);
        /// A WINDOW_UPDATE of the connection adds nothing (section 6.9).
        ZeroIncrement = "zero_increment", (Connection, ErrorCode::ProtocolError);
        /// A WINDOW_UPDATE of a stream adds nothing (section 6.9).
        ZeroStreamIncrement = "zero_stream_increment", (Stream, ErrorCode::ProtocolError);
    }
}

/// What a violation ends (RFC 9113 section 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole connection, by GOAWAY.
    Connection,
    /// The stream alone, by RST_STREAM.
    Stream,
}

impl Violation {
    /// What it ends.
    pub const fn scope(self) -> Scope {
        let (scope, _) = self.row();
        scope
    }

    /// The code for the peer.
    pub const fn code(self) -> ErrorCode {
        let (_, code) = self.row();
        code
    }
}
