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
pub(super) struct Plain<T>(pub T);

// SAFETY: integers in C layout, without padding by the size assertions of `gateway-common`: any bytes make one.
unsafe impl Pod for Plain<PortCounter> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Settings> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Source> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Account> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Ban> {}
// SAFETY: as above.
unsafe impl Pod for Plain<FlowKey> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Flow> {}
