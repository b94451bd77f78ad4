//! What `deploy` holds, as its users have it: under a real systemd as the first process of a machine of its own, made of the
//! host's programs in namespaces. Needs root and systemd's programs, and fails without them. Nothing survives the tests, not
//! even when they are killed.

#![allow(
    clippy::unwrap_used,
    reason = "all of it is test code, helpers included"
)]

#[path = "../guard/cgroup.rs"]
mod cgroup;
mod machine;
#[path = "../kernel/namespace.rs"]
mod namespace;
mod service;
