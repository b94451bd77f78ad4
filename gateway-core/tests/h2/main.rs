//! HTTP/2 connections from outside: every rule of RFC 9113 by raw frames, two ends of ours against each other, floods.
//! In: frames made here, invented time. Out: claims about events and about each frame that is answered.

// Helpers of tests may do what tests may; time is invented from a start that is real.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod differential;
mod ending;
mod flood;
mod flow;
mod hostile;
mod model;
mod rules;
mod share;
mod support;
