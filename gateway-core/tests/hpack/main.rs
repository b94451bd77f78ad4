//! HPACK from outside: the standard's examples, blocks of other encoders, and blocks of nobody.
//! In: blocks and header lists. Out: claims about what a decoder makes of them, and an encoder.

// Helpers of tests may do what tests may; stories lie in files.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod hostile;
mod round_trip;
mod standard;
mod stories;
mod support;
