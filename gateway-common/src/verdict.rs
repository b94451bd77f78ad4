//! The decision on one packet. In: a packet. Out: a `Verdict` for the kernel program to carry out.
//! Pure and without state, so that what the kernel does is tested in user space first.

use crate::packet::{Packet, parse};

/// What the kernel program does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it on untouched: not a TCP segment, or one that is not understood. The network stack has the last word on
    /// such packets; a parser that dropped what it does not know would be a fault in waiting.
    Pass,
    /// Hand it on, and charge it to this destination port if that port is protected.
    CountAndPass {
        /// TCP destination port.
        port: u16,
    },
}

/// Decides what happens to `packet`.
#[inline(always)] // one program without calls: the verifier then knows the context pointer everywhere
pub fn judge<P: Packet + ?Sized>(packet: &P) -> Verdict {
    match parse(packet) {
        Ok(segment) => Verdict::CountAndPass {
            port: segment.destination_port,
        },
        Err(_) => Verdict::Pass,
    }
}
