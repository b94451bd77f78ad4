//! The servers of a backend, from outside: what a request gets, as a claim each, and a model with random events. In:
//! servers, events, invented time. Out: choices.
#![allow(clippy::disallowed_methods)] // Tests invent the time from a start that is real.

mod affinity;
mod choice;
mod ejection;
mod model;
mod support;
