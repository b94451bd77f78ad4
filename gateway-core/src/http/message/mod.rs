//! Messages: what header and trailer sections say (RFC 9110, RFC 9113 section 8).
//!
//! In: header lists. Out: requests and responses that are well-formed, and lists that the gateway vouches for. Knows
//! nothing of frames, streams or connections.

mod header_list;

pub use header_list::{FIELD_OVERHEAD_BYTES, Field, HeaderList};
