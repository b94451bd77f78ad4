//! HTTP/1 connections from outside: every rule of RFC 9112 by raw bytes, exchanges step by step, bytes at random, and
//! another implementation beside ours. In: bytes made here. Out: claims about events and about every byte written.

// Helpers of tests may do what tests may; time is invented from a start that is real.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod differential;
mod exchange;
mod hostile;
mod rules;
mod support;
