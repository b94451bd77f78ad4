//! Limits of HTTP mode, with what each costs. In: nothing. Out: constants, checked against each other when compiled.
//! The rest of the program has its limits in `crate::limits`.

/// Longest payload of a frame that a peer may send: the least that RFC 9113 section 4.2 allows. A frame that is not
/// DATA is held until it is complete; DATA is passed on as it comes.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 16_384;
