//! Portcullis, the shell around `gateway-core`: runtime, sockets and files.
//!
//! The modules follow a connection on its way through the program: `config` says what may exist, `server` accepts, `tls`
//! proves the identity of the peer by what `gateway-x509` reads and `crypto` allows, `connection` keeps its place and its
//! timers, `backend` connects, and `relay` moves the bytes or `http` the requests. `telemetry` hears of everything.
#![forbid(unsafe_code)]

pub mod admin;
pub mod backend;
pub mod blocks;
pub mod config;
pub mod connection;
pub mod control;
pub mod crypto;
pub mod http;
pub mod local;
pub mod relay;
pub mod server;
pub mod telemetry;
pub mod tls;
