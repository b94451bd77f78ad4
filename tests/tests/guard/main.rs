//! The guard as its users have it: `portcullis run` with `[guard]` on a host of its own, agents and attackers on another,
//! a cable between them. Needs root and fails without it. Nothing survives the tests, not even when they are killed.

mod cgroup;
mod commands;
mod lifecycle;
mod migration;
#[path = "../kernel/namespace.rs"]
mod namespace;
mod pages;
mod topology;
mod verdicts;
