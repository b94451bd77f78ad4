//! The record layer from outside: what it opens, what it seals, and what it answers to everything else.
//! In: keys and bytes made here, and rustls as the other side. Out: claims about every byte. What stands in `framing` and
//! `hostile` runs under Miri too (`cargo +nightly miri test -p gateway-core --test record framing hostile`).

// Helpers of tests may do what tests may.
#![allow(clippy::unwrap_used)]

mod framing;
mod hostile;
mod limits;
mod rustls_as_peer;
mod support;
mod tampered;
mod vectors;
