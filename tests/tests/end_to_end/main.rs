//! End to end: the gateway as a program, with clients and backends that nobody here wrote, and with hostile ones.
//! In: programs started as a user starts them. Out: what arrived, what was refused and why, what was left.

#![allow(
    clippy::unwrap_used,
    reason = "all of it is test code, helpers included"
)]

mod acme;
mod again;
mod alerts;
mod apart;
mod audit;
mod backend_trust;
mod backends;
mod blocks;
mod chain;
mod check;
mod clock;
mod collector;
mod conformance;
mod connecting;
mod demo;
mod descriptors;
mod expiry;
mod explain;
mod flood;
mod handshake_records;
mod http;
mod identity;
mod java;
mod key_policy;
mod lifecycle;
mod lifetime;
mod limits;
mod load;
mod names;
mod new_backends;
mod nginx;
mod observe;
mod openssl;
mod process;
mod prometheus;
mod protocols;
mod proxy_protocol;
mod random_records;
mod readme;
mod recipes;
mod recorded;
mod records;
mod refused;
mod relay;
mod reload;
mod requests;
mod resolver;
mod resumption;
mod revocation;
mod runbooks;
mod scrape;
mod series;
mod skywalking;
mod spire;
mod step;
mod stream_routes;
mod telemetry;
mod tls;
mod units;
mod unix_sockets;
mod watching;
mod worst;
