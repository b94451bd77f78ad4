//! What a peer can do against RFC 9113, and what follows: one table, a row a violation: its label, whether the stream
//! or the connection ends, and the code that the peer gets. In: a violation. Out: what follows. Pure.

use gateway_common::closed_list;

use super::ErrorCode;
use ErrorScope::{Connection, Stream};

closed_list! {
    /// What a peer did against RFC 9113. Labels are those of logs and metrics.
    pub enum Violation: (ErrorScope, ErrorCode) {
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
        /// The connection does not begin with the client's preface (section 3.4).
        Preface = "preface", (Connection, ErrorCode::ProtocolError);
        /// The first frame is not SETTINGS (section 3.4).
        NoSettings = "no_settings", (Connection, ErrorCode::ProtocolError);
        /// SETTINGS were not acknowledged in time (section 6.5.3).
        SettingsTimeout = "settings_timeout", (Connection, ErrorCode::SettingsTimeout);
        /// A backend with streams was silent, and has not answered a PING in time (section 6.7).
        PingTimeout = "ping_timeout", (Connection, ErrorCode::Cancel);
        /// The preface, a frame or a field block was begun and not completed in time.
        SlowFrame = "slow_frame", (Connection, ErrorCode::EnhanceYourCalm);
        /// A server says that it accepts pushed streams (section 6.5.2).
        PushByServer = "push_by_server", (Connection, ErrorCode::ProtocolError);
        /// PUSH_PROMISE, which nobody may send us (sections 6.6, 8.4).
        Pushed = "pushed", (Connection, ErrorCode::ProtocolError);
        /// A frame stands between those of a field block (section 4.3).
        Interleaved = "interleaved", (Connection, ErrorCode::ProtocolError);
        /// CONTINUATION continues nothing (section 6.10).
        LoneContinuation = "lone_continuation", (Connection, ErrorCode::ProtocolError);
        /// A field block cannot be decoded (section 4.3).
        Compression = "compression", (Connection, ErrorCode::CompressionError);
        /// A frame other than HEADERS or PRIORITY is for a stream that nobody has opened (section 5.1).
        IdleStream = "idle_stream", (Connection, ErrorCode::ProtocolError);
        /// A stream is opened that is below one opened before, or of the wrong side (section 5.1.1).
        StreamOrder = "stream_order", (Connection, ErrorCode::ProtocolError);
        /// A frame is for a stream that its sender had ended and that is gone (section 5.1).
        ClosedStream = "closed_stream", (Connection, ErrorCode::StreamClosed);
        /// A frame is for a stream that its sender had ended, and that is not gone (section 5.1).
        EndedStream = "ended_stream", (Stream, ErrorCode::StreamClosed);
        /// DATA comes before the header section (section 8.1).
        DataBeforeHeaders = "data_before_headers", (Stream, ErrorCode::ProtocolError);
        /// A trailer section does not end its stream (section 8.1).
        UnendedTrailers = "unended_trailers", (Stream, ErrorCode::ProtocolError);
        /// There is more DATA than the connection's window allows (section 6.9.1).
        ConnectionWindow = "connection_window", (Connection, ErrorCode::FlowControlError);
        /// There is more DATA than the stream's window allows (section 6.9.1).
        StreamWindow = "stream_window", (Stream, ErrorCode::FlowControlError);
        /// The connection's window has become too large (section 6.9.1), or one by a change of settings.
        WindowOverflow = "window_overflow", (Connection, ErrorCode::FlowControlError);
        /// A stream's window has become too large (section 6.9.1).
        StreamWindowOverflow = "stream_window_overflow", (Stream, ErrorCode::FlowControlError);
        /// A field block has too many bytes or frames (section 10.5.1).
        ContinuationFlood = "continuation_flood", (Connection, ErrorCode::EnhanceYourCalm);
        /// The peer makes us send and does not read.
        OutputFlood = "output_flood", (Connection, ErrorCode::EnhanceYourCalm);
        /// Too many resets of streams that were just opened (section 10.5).
        RapidResetFlood = "rapid_reset_flood", (Connection, ErrorCode::EnhanceYourCalm);
        /// Too many streams that we had to reset.
        ForcedResetFlood = "forced_reset_flood", (Connection, ErrorCode::EnhanceYourCalm);
        /// Too many SETTINGS.
        SettingsFlood = "settings_flood", (Connection, ErrorCode::EnhanceYourCalm);
        /// Too many PING.
        PingFlood = "ping_flood", (Connection, ErrorCode::EnhanceYourCalm);
        /// Too many DATA frames without data.
        EmptyDataFlood = "empty_data_flood", (Connection, ErrorCode::EnhanceYourCalm);
        /// Too many DATA frames of few bytes.
        TinyDataFlood = "tiny_data_flood", (Connection, ErrorCode::EnhanceYourCalm);
        /// Too many WINDOW_UPDATE.
        WindowUpdateFlood = "window_update_flood", (Connection, ErrorCode::EnhanceYourCalm);
        /// Too many header lists beyond the bound.
        HeaderListFlood = "header_list_flood", (Connection, ErrorCode::EnhanceYourCalm);
        /// Too many frames that say nothing.
        IdleFlood = "idle_flood", (Connection, ErrorCode::EnhanceYourCalm);
    }
}

/// What a violation ends (RFC 9113 section 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorScope {
    /// The whole connection, by GOAWAY.
    Connection,
    /// The stream alone, by RST_STREAM.
    Stream,
}

impl Violation {
    /// What it ends.
    pub const fn scope(self) -> ErrorScope {
        let (scope, _) = self.row();
        scope
    }

    /// The code for the peer.
    pub const fn code(self) -> ErrorCode {
        let (_, code) = self.row();
        code
    }
}
