//! Keys and values of the kernel program's maps as aya moves them. In: types of `gateway-common`. Out: the same, marked
//! as plain bytes. Nothing else is here.
#![allow(
    unsafe_code,
    reason = "aya copies keys and values from and to the kernel as bytes"
)]

use aya::Pod;
use gateway_common::{Account, Ban, Flow, FlowKey, PortCounter, Settings, Source};

/// A key or value as it lies in its map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct PodValue<T>(pub T);

// SAFETY: integers in C layout, without padding by the size assertions of `gateway-common`: any bytes make one.
unsafe impl Pod for PodValue<PortCounter> {}
// SAFETY: as above.
unsafe impl Pod for PodValue<Settings> {}
// SAFETY: as above.
unsafe impl Pod for PodValue<Source> {}
// SAFETY: as above.
unsafe impl Pod for PodValue<Account> {}
// SAFETY: as above.
unsafe impl Pod for PodValue<Ban> {}
// SAFETY: as above.
unsafe impl Pod for PodValue<FlowKey> {}
// SAFETY: as above.
unsafe impl Pod for PodValue<Flow> {}
