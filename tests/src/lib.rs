//! What the end-to-end tests stand on: certificates, addresses, processes, backends and clients of their own.
//! In: real programs, started as a user starts them. Out: what arrived, how connections ended, what the metrics say.
//! Shares no code with the gateway: it makes its own certificates and looks at the program from outside.

mod authority;
mod backend;
mod client;
mod clock;
mod collector;
mod forged;
mod frames;
mod gateway;
mod host;
mod http;
mod http1_client;
mod http2_client;
mod http_backend;
mod metrics;
mod process;
mod programs;
mod reply;
mod resolver;
mod sidecar;
mod tape;
mod wait;
mod wire;

pub use authority::{Authority, Credentials, Excluded, Request, RevocationList, Usage};
pub use backend::{Backend, Behaviour, Ending, Recorded};
pub use client::{Client, ClientBuilder, Closing, TlsFailure, abort};
pub use clock::Clock;
pub use collector::{Collector, Delivery, Exporter, SIGNALS};
pub use forged::{forged, interchangeable, turned_round};
pub use frames::{
    Field, PREFACE, RawFrame, Said, Sections, code, data, field_block, flag, frame, frame_type,
    goaway, headers, literal, reset, settings, take_frame, window_update,
};
pub use gateway::{Gateway, Setup, Workspace};
pub use host::Host;
pub use http::{get, get_unix, post_json};
pub use http_backend::{Arrived, HttpBackend, Speaks};
pub use http1_client::{Http1Answer, Http1Client};
pub use http2_client::{Answer, Http2Client};
pub use metrics::Metrics;
pub use process::Process;
pub use programs::{
    client_script, envoy, haproxy, node, node_modules, program, prometheus, promtool, python,
    software, wheel_file,
};
pub use reply::Reply;
pub use resolver::{Answering, Resolver};
pub use sidecar::Sidecar;
pub use tape::{Taped, requests_of};
pub use wait::{PATIENCE, eventually};
pub use wire::{
    ALERT, DATA, Direction, Established, HANDSHAKE, Heard, Wire, WireBackend, key_update,
};
