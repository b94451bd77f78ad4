//! What the kernel program and the gateway must agree on: how a packet is read, what is done with it, and the maps
//! between the two. In: the bytes of a frame. Out: a `Verdict`. Runs in the kernel, in the gateway's tests and on the
//! control thread; no allocation, no I/O, and no panic that a packet could reach (the verifier refuses one).

#![no_std]
#![forbid(unsafe_code)]

mod maps;
mod packet;
mod verdict;

pub use maps::{PORT_COUNTS_MAP, PORT_COUNTS_PORTS_MAX, PortCounter, PortKey, XDP_PROGRAM};
pub use packet::{
    Address, EXTENSION_HEADERS_MAX, NotUnderstood, Packet, Segment, VLAN_TAGS_MAX, parse,
};
pub use verdict::{Verdict, judge};
