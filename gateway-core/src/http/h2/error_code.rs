//! Error codes of RST_STREAM and GOAWAY. In: a code or its number. Out: the other. One table, a row a code. Pure.

use gateway_common::closed_list;

closed_list! {
    /// Why a stream or a connection ends (RFC 9113 section 7).
    pub enum ErrorCode: u32 {
        /// It ends without an error.
        NoError = "no_error", 0x00;
        /// The peer broke a rule of the protocol for which there is no code of its own.
        ProtocolError = "protocol_error", 0x01;
        /// A fault of the sender of the code.
        InternalError = "internal_error", 0x02;
        /// The peer sent more than its window allowed, or made a window too large.
        FlowControlError = "flow_control_error", 0x03;
        /// The peer did not acknowledge SETTINGS in time.
        SettingsTimeout = "settings_timeout", 0x04;
        /// A frame came for a stream that its sender had closed.
        StreamClosed = "stream_closed", 0x05;
        /// A frame has a size that its type does not allow.
        FrameSizeError = "frame_size_error", 0x06;
        /// Nothing of the stream was processed.
        RefusedStream = "refused_stream", 0x07;
        /// The stream is not needed any more.
        Cancel = "cancel", 0x08;
        /// The state of field compression is lost.
        CompressionError = "compression_error", 0x09;
        /// The connection of a CONNECT request was reset.
        ConnectError = "connect_error", 0x0a;
        /// The peer does too much that costs us more than it.
        EnhanceYourCalm = "enhance_your_calm", 0x0b;
        /// The transport below is not secure enough.
        InadequateSecurity = "inadequate_security", 0x0c;
        /// The peer should use HTTP/1.1.
        Http11Required = "http_1_1_required", 0x0d;
    }
}

impl ErrorCode {
    /// Its number in frames.
    pub const fn number(self) -> u32 {
        self.row()
    }

    /// The code with a number; `None` if RFC 9113 has none. An unknown number triggers nothing special (section 7).
    pub fn from_number(number: u32) -> Option<Self> {
        let index = usize::try_from(number).ok()?;
        Self::ALL.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_by_its_number() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(code));
        }
        assert_eq!(ErrorCode::from_number(0x0e), None);
        assert_eq!(ErrorCode::from_number(u32::MAX), None);
    }
}
