//! What the kernel program and the gateway must agree on: how a packet is read, what is known of flows and their
//! sources, what is done with a packet, and the maps between the two. In: the bytes of a frame, and what happened to
//! flows. Out: a `Judgement`, reasons, bans. Runs in the kernel, in the gateway's tests and on the control thread; no
//! allocation, no I/O, and no panic that a packet could reach (the verifier refuses one).

#![no_std]
#![forbid(unsafe_code)]

mod address;
#[macro_use]
mod closed_list;
mod event;
mod flow;
mod judge;
mod maps;
mod packet;
mod reason;
mod settings;
mod source;

pub use address::Address;
#[doc(hidden)]
pub use closed_list::are_distinct;
pub use event::{BanEvent, Lost};
pub use flow::{
    Evidence, Flow, FlowKey, SocketFlow, first_bytes, flow_state, settled_by, settled_by_end,
    socket_state,
};
pub use judge::{Judgement, Knowledge, Listed, judge};
pub use maps::{
    ACCOUNTS_MAP, ACCOUNTS_MAX, BANS_MAP, BANS_MAX, DEBUG_GLOBAL, EVENTS_BYTES, EVENTS_MAP,
    FLOWS_MAP, FLOWS_MAX, LAYOUT_VERSION, LIFE_PROGRAM, LISTS_MAP, LISTS_MAX, LOST_MAP,
    PORT_COUNTS_ENTRIES, PORT_COUNTS_MAP, PORT_COUNTS_PORTS_MAX, PORTS_ENTRIES, PORTS_MAP,
    PortCounter, PortKey, SETTINGS_MAP, SOCKET_FLOWS_MAP, Slot, VERDICT_LEVEL, VERDICT_PROGRAM,
    XDP_PROGRAM,
};
pub use packet::{
    Body, EXTENSION_HEADERS_MAX, NotUnderstood, Packet, Segment, VLAN_TAGS_MAX, parse,
};
pub use reason::{COUNTERS, Drop, Fate, Pass, Reason};
pub use settings::{Settings, mode};
pub use source::{Account, Ban, Source};
