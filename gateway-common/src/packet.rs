//! Finds the TCP segment in an Ethernet frame: VLAN tags, IPv4 with options, IPv6 with extension headers, fragments.
//! In: bytes at an offset, from a slice or the kernel's load helper. Out: a `Segment`, or why there is none. Every
//! loop is bounded, and every length that a packet claims is checked.

use crate::address::Address;

/// Maximum of VLAN tags: a customer's inside a provider's (802.1ad).
pub const VLAN_TAGS_MAX: usize = 2;

/// Maximum of IPv6 extension headers. RFC 8200 section 4.1 has seven, each at most once but Destination Options,
/// which may occur twice.
pub const EXTENSION_HEADERS_MAX: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_PROVIDER_VLAN: u16 = 0x88a8;
const ETHERTYPE_OFFSET: u32 = 12;
const ETHERNET_HEADER_BYTES: u32 = 14;
const VLAN_TAG_BYTES: u32 = 4;

const IPV4_HEADER_BYTES_MIN: u32 = 20;
/// Version 4, five words of header.
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
const IPV6_HEADER_BYTES: u32 = 40;
/// Offset of the next header's kind in the IPv6 header.
const IPV6_NEXT_HEADER: usize = 6;
const FRAGMENT_HEADER_BYTES: u32 = 8;
/// RFC 791 section 3.1: the low 13 bits, in units of eight bytes.
const IPV4_FRAGMENT_OFFSET_MASK: u16 = 0x1fff;
/// RFC 8200 section 4.5: the high 13 bits, in units of eight bytes.
const IPV6_FRAGMENT_OFFSET_MASK: u16 = 0xfff8;

const PROTOCOL_HOP_BY_HOP: u8 = 0;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ROUTING: u8 = 43;
const PROTOCOL_FRAGMENT: u8 = 44;
const PROTOCOL_AUTHENTICATION: u8 = 51;
const PROTOCOL_DESTINATION_OPTIONS: u8 = 60;

const TCP_HEADER_BYTES_MIN: u32 = 20;

/// A frame that lends copies of its bytes.
///
/// The kernel program implements it with `bpf_xdp_load_bytes`, which also reads multi-buffer frames and needs no
/// privilege beyond CAP_BPF. Tests implement it for slices.
pub trait Packet {
    /// Length of the whole frame, in bytes.
    fn length(&self) -> u32;

    /// The `N` bytes at `offset`; `None` if the frame ends before the last of them.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// The first `N` bytes in place, which costs less than a copy. `None` if the frame ends before, or the bytes do
    /// not lie in one piece.
    fn head<const N: usize>(&self) -> Option<&[u8; N]>;
}

impl Packet for [u8] {
    fn length(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let start = usize::try_from(offset).ok()?;
        self.get(start..)?.first_chunk().copied()
    }

    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        self.first_chunk()
    }
}

/// A TCP segment with complete headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Source address of the IP header, which the sender may have forged.
    pub source: Address,
    /// Destination address of the IP header; with a source route not yet the last one.
    pub destination: Address,
    /// TCP source port, in host order.
    pub source_port: u16,
    /// TCP destination port, in host order.
    pub destination_port: u16,
    /// Its flags and payload.
    pub body: Body,
}

/// Flags and payload of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// Sequence number of its first byte, or of its SYN.
    pub sequence: u32,
    /// The flags of RFC 9293 section 3.1, FIN in the lowest bit.
    pub flags: u8,
    /// Offset of its payload in the frame.
    pub payload_offset: u32,
    /// Length of its payload in bytes, without the frame's padding.
    pub payload_bytes: u32,
}

impl Body {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    /// Whether it ends a flow: FIN or RST.
    #[inline(always)]
    pub fn is_ending(&self) -> bool {
        self.flags & (Self::FIN | Self::RST) != 0
    }

    /// Whether it opens a flow: SYN without ACK.
    #[inline(always)]
    pub fn is_opening(&self) -> bool {
        self.flags & (Self::SYN | Self::ACK) == Self::SYN
    }
}

/// Why a frame holds no TCP segment that the parser takes. Such frames pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotUnderstood {
    /// The frame, or the length in its IP header, ends before the headers do.
    Truncated,
    /// Neither IPv4 nor IPv6, by EtherType.
    NotIp,
    /// More than [`VLAN_TAGS_MAX`] VLAN tags.
    TooManyTags,
    /// A header contradicts itself: version, header length, or total length.
    Malformed,
    /// A transport other than TCP.
    NotTcp,
    /// A fragment other than the first: it has no ports. First fragments are parsed like any packet: without its
    /// first fragment, the kernel never reassembles a datagram.
    LaterFragment,
    /// More than [`EXTENSION_HEADERS_MAX`] IPv6 extension headers.
    TooManyHeaders,
}

/// Finds the TCP segment in a frame.
///
/// # Errors
///
/// The frame holds none, or not one that the parser takes: see [`NotUnderstood`].
#[inline(always)] // one program without calls: the verifier then knows the context pointer everywhere
pub fn parse<P: Packet + ?Sized>(packet: &P) -> Result<Segment, NotUnderstood> {
    if let Some(segment) = plain(packet) {
        return segment;
    }
    let (ethertype, offset) = link_layer(packet)?;
    let network = match ethertype {
        ETHERTYPE_IPV4 => ipv4(packet, &load(packet, offset)?, offset)?,
        // In one load: each is a call in the kernel, even if its bytes are not used.
        ETHERTYPE_IPV6 => ipv6(packet, &load(packet, offset)?, offset)?,
        ETHERTYPE_VLAN | ETHERTYPE_PROVIDER_VLAN => return Err(NotUnderstood::TooManyTags),
        _ => return Err(NotUnderstood::NotIp),
    };
    network.ensure_transport()?;
    tcp(&load(packet, network.transport)?, &network)
}

/// The same for the form of nearly all packets: no tags, no IPv4 options, no IPv6 extension headers. Its headers have
/// fixed places, where they are read. `None` for any other form.
#[inline(always)]
fn plain<P: Packet + ?Sized>(packet: &P) -> Option<Result<Segment, NotUnderstood>> {
    const ETHERNET: usize = ETHERNET_HEADER_BYTES as usize;
    const TCP: usize = TCP_HEADER_BYTES_MIN as usize;
    const IPV4: usize = ETHERNET + IPV4_HEADER_BYTES_MIN as usize + TCP;
    const IPV6: usize = ETHERNET + IPV6_HEADER_BYTES as usize + TCP;

    let (ethernet, rest) = packet.head::<IPV4>()?.split_first_chunk::<ETHERNET>()?;
    let [.., high, low] = *ethernet;
    let (network, tcp_header) = match u16::from_be_bytes([high, low]) {
        ETHERTYPE_IPV4 => {
            let (header, tcp_header) = rest.split_first_chunk()?;
            if header[0] != IPV4_WITHOUT_OPTIONS {
                return None;
            }
            let network = ipv4(packet, header, ETHERNET_HEADER_BYTES);
            (network, tcp_header.first_chunk()?)
        }
        ETHERTYPE_IPV6 => {
            let (_, rest) = packet.head::<IPV6>()?.split_first_chunk::<ETHERNET>()?;
            let (header, tcp_header) = rest.split_first_chunk()?;
            if header[IPV6_NEXT_HEADER] != PROTOCOL_TCP {
                return None;
            }
            let network = ipv6(packet, header, ETHERNET_HEADER_BYTES);
            (network, tcp_header.first_chunk()?)
        }
        ETHERTYPE_VLAN | ETHERTYPE_PROVIDER_VLAN => return None,
        _ => return Some(Err(NotUnderstood::NotIp)),
    };
    Some(network.and_then(|network| {
        network.ensure_transport()?;
        tcp(tcp_header, &network)
    }))
}

/// What the IP header says of its payload, which is TCP.
struct Network {
    source: Address,
    destination: Address,
    /// Offset of the TCP header in the frame.
    transport: u32,
    /// Offset of the first byte behind the IP packet; the frame's padding follows.
    end: u32,
}

impl Network {
    /// The end of the IP packet, not of the frame: a short first fragment is padded to Ethernet's minimum, and the
    /// padding is not a header.
    #[inline(always)]
    fn ensure_transport(&self) -> Result<(), NotUnderstood> {
        if self.transport + TCP_HEADER_BYTES_MIN > self.end {
            return Err(NotUnderstood::Truncated);
        }
        Ok(())
    }
}

/// The EtherType behind all VLAN tags, and the offset of what it announces.
#[inline(always)]
fn link_layer<P: Packet + ?Sized>(packet: &P) -> Result<(u16, u32), NotUnderstood> {
    let mut ethertype = u16::from_be_bytes(load(packet, ETHERTYPE_OFFSET)?);
    let mut offset = ETHERNET_HEADER_BYTES;
    for _ in 0..VLAN_TAGS_MAX {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_PROVIDER_VLAN {
            break;
        }
        let [_, _, high, low] = load(packet, offset)?;
        ethertype = u16::from_be_bytes([high, low]);
        offset += VLAN_TAG_BYTES;
    }
    Ok((ethertype, offset))
}

#[inline(always)]
fn ipv4<P: Packet + ?Sized>(
    packet: &P,
    header: &[u8; IPV4_HEADER_BYTES_MIN as usize],
    offset: u32,
) -> Result<Network, NotUnderstood> {
    let header_bytes = u32::from(header[0] & 0x0f) * 4;
    let total_bytes = u32::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_bytes < IPV4_HEADER_BYTES_MIN || total_bytes < header_bytes {
        return Err(NotUnderstood::Malformed);
    }
    if header[9] != PROTOCOL_TCP {
        return Err(NotUnderstood::NotTcp);
    }
    if u16::from_be_bytes([header[6], header[7]]) & IPV4_FRAGMENT_OFFSET_MASK != 0 {
        return Err(NotUnderstood::LaterFragment);
    }
    Ok(Network {
        source: Address::from_ipv4([header[12], header[13], header[14], header[15]]),
        destination: Address::from_ipv4([header[16], header[17], header[18], header[19]]),
        transport: offset + header_bytes,
        end: end_inside(packet, offset + total_bytes)?,
    })
}

#[inline(always)]
fn ipv6<P: Packet + ?Sized>(
    packet: &P,
    header: &[u8; IPV6_HEADER_BYTES as usize],
    offset: u32,
) -> Result<Network, NotUnderstood> {
    let [
        version,
        _,
        _,
        _,
        length_high,
        length_low,
        next,
        _,
        ref addresses @ ..,
    ] = *header;
    let (Some(source), Some(destination)) = (addresses.first_chunk(), addresses.last_chunk())
    else {
        return Err(NotUnderstood::Truncated);
    };
    let payload_bytes = u32::from(u16::from_be_bytes([length_high, length_low]));
    // RFC 2675: a length of zero announces a jumbogram, which Ethernet does not carry.
    if version >> 4 != 6 || payload_bytes == 0 {
        return Err(NotUnderstood::Malformed);
    }
    let end = end_inside(packet, offset + IPV6_HEADER_BYTES + payload_bytes)?;
    Ok(Network {
        source: Address::from(*source),
        destination: Address::from(*destination),
        transport: behind_extensions(packet, next, offset + IPV6_HEADER_BYTES)?,
        end,
    })
}

/// Offset of the TCP header behind the extension headers that start at `offset` with one of kind `next`.
#[inline(always)]
fn behind_extensions<P: Packet + ?Sized>(
    packet: &P,
    mut next: u8,
    mut offset: u32,
) -> Result<u32, NotUnderstood> {
    for _ in 0..EXTENSION_HEADERS_MAX {
        if next == PROTOCOL_TCP {
            break;
        }
        let [following, length, fragment_high, fragment_low] = match next {
            PROTOCOL_HOP_BY_HOP
            | PROTOCOL_ROUTING
            | PROTOCOL_DESTINATION_OPTIONS
            | PROTOCOL_FRAGMENT
            | PROTOCOL_AUTHENTICATION => load(packet, offset)?,
            _ => return Err(NotUnderstood::NotTcp),
        };
        offset += match next {
            PROTOCOL_FRAGMENT => {
                let field = u16::from_be_bytes([fragment_high, fragment_low]);
                if field & IPV6_FRAGMENT_OFFSET_MASK != 0 {
                    return Err(NotUnderstood::LaterFragment);
                }
                FRAGMENT_HEADER_BYTES
            }
            // RFC 4302 section 2.2: in units of four bytes, less two.
            PROTOCOL_AUTHENTICATION => (u32::from(length) + 2) * 4,
            // RFC 8200 section 4.3: in units of eight bytes, not counting the first eight.
            _ => (u32::from(length) + 1) * 8,
        };
        next = following;
    }
    if next == PROTOCOL_TCP {
        Ok(offset)
    } else {
        Err(NotUnderstood::TooManyHeaders)
    }
}

#[inline(always)]
fn tcp(
    header: &[u8; TCP_HEADER_BYTES_MIN as usize],
    network: &Network,
) -> Result<Segment, NotUnderstood> {
    let header_bytes = u32::from(header[12] >> 4) * 4;
    if header_bytes < TCP_HEADER_BYTES_MIN {
        return Err(NotUnderstood::Malformed);
    }
    if network.transport + header_bytes > network.end {
        return Err(NotUnderstood::Truncated);
    }
    Ok(Segment {
        source: network.source,
        destination: network.destination,
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
        body: Body {
            sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            flags: header[13],
            payload_offset: network.transport + header_bytes,
            payload_bytes: network.end - network.transport - header_bytes,
        },
    })
}

#[inline(always)]
fn load<P: Packet + ?Sized, const N: usize>(
    packet: &P,
    offset: u32,
) -> Result<[u8; N], NotUnderstood> {
    packet.load(offset).ok_or(NotUnderstood::Truncated)
}

/// `end`, if the frame reaches that far.
#[inline(always)]
fn end_inside<P: Packet + ?Sized>(packet: &P, end: u32) -> Result<u32, NotUnderstood> {
    if end > packet.length() {
        return Err(NotUnderstood::Truncated);
    }
    Ok(end)
}
