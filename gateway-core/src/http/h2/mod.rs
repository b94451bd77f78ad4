//! HTTP/2 (RFC 9113): frames, streams and connections.
//!
//! In: bytes of one connection, the time. Out: events, bytes to send, violations. No I/O, no clock.

mod error_code;
mod frame;
mod settings;
mod violation;

pub use error_code::ErrorCode;
pub use frame::{
    DataPayload, Flags, Frame, FrameHeader, FrameType, HEADER_BYTES, Padding, StreamId,
    write_data_header, write_field_block, write_goaway, write_ping, write_rst_stream,
    write_settings, write_settings_ack, write_window_update,
};
pub use settings::{Setting, settings};
pub use violation::{Scope, Violation};
