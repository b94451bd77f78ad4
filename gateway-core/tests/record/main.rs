//! The record layer from outside: what it opens, what it seals, and what it answers to everything else.
//! In: keys and bytes made here, and rustls as the other side. Out: claims about every byte. What takes no real cipher and
//! no minutes runs under Miri too (`cargo xtask miri`).

// Helpers of tests may do what tests may.
#![allow(clippy::unwrap_used)]

mod framing;
mod hostile;
mod limits;
mod rustls_as_peer;
mod support;
mod tampered;
mod vectors;
