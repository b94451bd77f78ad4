//! Health of servers: checks that the gateway makes of them, and what it tells its clients by `grpc.health.v1`.
//!
//! In: how checks ended, bytes of requests and replies, what backends are good for. Out: requests, verdicts, replies.
//! Pure: the driver connects, waits and keeps time.

mod check;
mod grpc;
mod http;
mod server;
mod service;

pub use check::{HealthCheck, HealthFailure, HealthSchedule};
pub use grpc::{GrpcHealthReply, grpc_health_request, grpc_health_request_content};
pub use http::{http_health_request, http_health_verdict};
pub use server::HealthServer;
pub use service::{ServingStatus, is_health_path};
