//! What the kernel program and the gateway share: the packet parser, the state of flows and sources, the decision on
//! a packet, and the maps between the two. In: the bytes of a frame, and events of flows. Out: an `Evaluation`,
//! reasons, bans. Runs in the kernel, in the gateway and in tests. No allocation, no I/O, and no panic that a packet
//! can reach: the verifier refuses one.

#![no_std]
#![forbid(unsafe_code)]

mod address;
#[macro_use]
mod closed_list;
mod evaluate;
mod event;
mod flow;
mod maps;
mod packet;
mod reason;
mod settings;
mod source;

pub use address::Address;
#[doc(hidden)]
pub use closed_list::are_distinct;
pub use evaluate::{Evaluation, Listed, State, evaluate_packet};
pub use event::{BanEvent, Overflow};
pub use flow::{
    Evidence, Flow, FlowKey, SocketFlow, first_bytes, flow_state, settled_by, settled_by_end,
    socket_state,
};
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
pub use reason::{COUNTERS, DropReason, PacketVerdict, PassReason, Reason};
pub use settings::{Settings, mode};
pub use source::{Account, Ban, Source};
