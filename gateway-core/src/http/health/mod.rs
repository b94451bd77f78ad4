//! Health of servers: checks that the gateway makes of them.
//!
//! In: how checks ended, bytes of replies. Out: requests, verdicts. Pure: the driver connects, waits and keeps time.

mod check;
mod grpc;
mod http;

pub use check::{HealthCheck, HealthFailure, HealthSchedule};
pub use grpc::{GrpcHealthReply, grpc_health_request, grpc_health_request_content};
pub use http::{http_health_request, http_health_verdict};
