//! HTTP/2 (RFC 9113): frames, streams and connections.
//!
//! In: bytes of one connection, the time. Out: events, bytes to send, violations. No I/O, no clock.

mod connection;
mod error_code;
mod flood;
mod frame;
mod history;
mod settings;
mod stream;
mod violation;
mod window;

pub use connection::{Connection, Event, Left, PREFACE, Role, Stall};
pub use error_code::ErrorCode;
pub use flood::Flood;
pub use frame::{
    DataPayload, Flags, Frame, FrameHeader, FrameType, HEADER_BYTES, StreamId, Taken,
    frame_field_block, rewrite_data_header, write_data_header, write_field_block, write_goaway,
    write_ping, write_rst_stream, write_settings, write_settings_ack, write_window_update,
};
pub use settings::{Setting, settings};
pub use violation::{ErrorScope, Violation};
pub use window::WindowBudget;
