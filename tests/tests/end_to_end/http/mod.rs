//! Mode `http`: clients, backends and hostile bytes against the gateway as a program.
//! In: requests right and wrong, over HTTP/2 and HTTP/1.1. Out: what the backend saw, what the client was told.

mod cortex;
mod forged;
mod grpcio;
mod http1;
mod lifecycle;
mod long_content;
mod many_clients;
mod mirror;
mod restarts;
mod stalls;
mod statuses;
mod systems;
mod tenants;
mod testers;
mod waiting;
