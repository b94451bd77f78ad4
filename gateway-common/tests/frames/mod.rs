//! Crafted frames and what the parser must make of each. One table for both sides: the tests beside this folder give
//! it to the parser in user space, those of the `tests` crate to the built program in the kernel.

use gateway_common::{Body, EXTENSION_HEADERS_MAX, FlowKey, NotUnderstood, Segment};
use proptest::prelude::*;

/// Destination port of every understood frame in the table but one.
pub const PORT: u16 = 4317;
/// Destination port of that one.
pub const OTHER_PORT: u16 = 4318;
const SOURCE_PORT: u16 = 50_001;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_ARP: u16 = 0x0806;
const TAG: u16 = 0x8100;
const PROVIDER_TAG: u16 = 0x88a8;

const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_IN_IP: u8 = 41;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ENCAPSULATED: u8 = 50;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const NO_NEXT: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

const DO_NOT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

/// Sequence number and flags (PSH, ACK) of every segment in the table.
const SEQUENCE: u32 = 0x8000_0001;
const FLAGS: u8 = 0x18;
const PAYLOAD_BYTE: u8 = 0x16;

const SOURCE: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
const DESTINATION: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x42];
const SOURCE_IPV4: [u8; 4] = [192, 0, 2, 17];
const DESTINATION_IPV4: [u8; 4] = [198, 51, 100, 34];

/// A frame, and what it must be understood as.
pub struct Case {
    /// What is particular about it.
    pub name: &'static str,
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
    /// What the parser must return.
    pub expected: Result<Segment, NotUnderstood>,
    /// Bytes at the end that belong to Ethernet, not to the IP packet.
    pub padding: usize,
}

/// Every form of header, and every way to get it wrong.
pub fn table() -> Vec<Case> {
    let mut cases = understood_ipv4();
    cases.extend(understood_ipv6());
    cases.extend(not_understood_link_layer());
    cases.extend(not_understood_ipv4());
    cases.extend(not_understood_ipv6());
    cases.extend(not_understood_tcp());
    cases
}

fn understood_ipv4() -> Vec<Case> {
    let plain = || tcp(PORT, 0, 0);
    let ip = |payload: &[u8]| ipv4(0, 0, TCP, payload);
    let tagged = |tags: &[u16]| ethernet(tags, ETHERTYPE_IPV4, &ip(&plain()));
    let bare = |packet: &[u8]| ethernet(&[], ETHERTYPE_IPV4, packet);
    let mut cases: Vec<Case> = [
        ("IPv4", bare(&ip(&plain()))),
        ("IPv4, payload", bare(&ip(&tcp(PORT, 0, 517)))),
        ("IPv4, full segment", bare(&ip(&tcp(PORT, 3, 1448)))),
        (
            "IPv4, one word of options",
            bare(&ipv4(1, 0, TCP, &plain())),
        ),
        ("IPv4, all options", bare(&ipv4(10, 0, TCP, &plain()))),
        (
            "IPv4, do not fragment",
            bare(&ipv4(0, DO_NOT_FRAGMENT, TCP, &plain())),
        ),
        (
            "IPv4, first fragment",
            bare(&ipv4(0, MORE_FRAGMENTS, TCP, &tcp(PORT, 0, 8))),
        ),
        ("IPv4, all TCP options", bare(&ip(&tcp(PORT, 10, 0)))),
        ("IPv4, one tag", tagged(&[TAG])),
        ("IPv4, provider tag alone", tagged(&[PROVIDER_TAG])),
        ("IPv4, tag in provider tag", tagged(&[PROVIDER_TAG, TAG])),
        ("IPv4, tag in tag", tagged(&[TAG, TAG])),
        (
            "IPv4, jumbo frame over several buffers",
            bare(&ip(&tcp(PORT, 0, 8960))),
        ),
    ]
    .map(|(name, frame)| understood(name, frame, segment_ipv4))
    .into();
    let other = bare(&ip(&tcp(OTHER_PORT, 0, 0)));
    let segment = segment_ipv4(OTHER_PORT, &other);
    cases.push(case("IPv4, other port", other, Ok(segment)));
    let mut padded = understood("IPv4, padded", bare(&ip(&plain())), segment_ipv4);
    padded.frame.extend([0xee; 6]);
    padded.padding = 6;
    cases.push(padded);
    cases
}

fn understood_ipv6() -> Vec<Case> {
    let behind = |headers: &[Extension]| ipv6(headers, TCP, &tcp(PORT, 0, 0));
    let bare = |packet: &[u8]| ethernet(&[], ETHERTYPE_IPV6, packet);
    let long = || Extension::options(DESTINATION_OPTIONS, 255);
    // The order that RFC 8200 section 4.1 recommends.
    let usual = [
        Extension::options(HOP_BY_HOP, 0),
        Extension::options(DESTINATION_OPTIONS, 1),
        Extension::options(ROUTING, 2),
        Extension::fragment(0, true),
        Extension::authentication(4),
        Extension::options(DESTINATION_OPTIONS, 0),
    ];
    let most: Vec<Extension> = (0..EXTENSION_HEADERS_MAX)
        .map(|_| Extension::options(HOP_BY_HOP, 0))
        .collect();
    [
        ("IPv6", bare(&behind(&[]))),
        (
            "IPv6, payload and TCP options",
            bare(&ipv6(&[], TCP, &tcp(PORT, 3, 1208))),
        ),
        (
            "IPv6, hop by hop",
            bare(&behind(&[Extension::options(HOP_BY_HOP, 0)])),
        ),
        (
            "IPv6, routing",
            bare(&behind(&[Extension::options(ROUTING, 2)])),
        ),
        ("IPv6, longest options", bare(&behind(&[long()]))),
        (
            "IPv6, TCP header in the second buffer",
            bare(&behind(&[long(), long()])),
        ),
        (
            "IPv6, first fragment",
            bare(&behind(&[Extension::fragment(0, true)])),
        ),
        (
            "IPv6, atomic fragment",
            bare(&behind(&[Extension::fragment(0, false)])),
        ),
        (
            "IPv6, authentication",
            bare(&behind(&[Extension::authentication(4)])),
        ),
        (
            "IPv6, shortest authentication",
            bare(&behind(&[Extension::authentication(0)])),
        ),
        ("IPv6, the usual headers", bare(&behind(&usual))),
        (
            "IPv6, as many headers as are looked through",
            bare(&behind(&most)),
        ),
        (
            "IPv6, one tag",
            ethernet(&[TAG], ETHERTYPE_IPV6, &behind(&[])),
        ),
        (
            "IPv6, two tags",
            ethernet(&[PROVIDER_TAG, TAG], ETHERTYPE_IPV6, &behind(&usual)),
        ),
    ]
    .map(|(name, frame)| understood(name, frame, segment_ipv6))
    .into()
}

fn not_understood_link_layer() -> Vec<Case> {
    let ip = ipv4(0, 0, TCP, &tcp(PORT, 0, 0));
    let frame = |tags: &[u16], ethertype| ethernet(tags, ethertype, &ip);
    [
        ("ARP", frame(&[], ETHERTYPE_ARP), NotUnderstood::NotIp),
        (
            "tagged ARP",
            frame(&[TAG], ETHERTYPE_ARP),
            NotUnderstood::NotIp,
        ),
        ("802.3 with a length", frame(&[], 46), NotUnderstood::NotIp),
        ("MPLS", frame(&[], 0x8847), NotUnderstood::NotIp),
        (
            "three tags",
            frame(&[PROVIDER_TAG, TAG, TAG], ETHERTYPE_IPV4),
            NotUnderstood::TooManyTags,
        ),
        (
            "header alone",
            ethernet(&[], ETHERTYPE_IPV4, &[]),
            NotUnderstood::Truncated,
        ),
        (
            "tag cut short",
            ethernet(&[], TAG, &[0, 7]),
            NotUnderstood::Truncated,
        ),
    ]
    .map(|(name, frame, reason)| case(name, frame, Err(reason)))
    .into()
}

fn not_understood_ipv4() -> Vec<Case> {
    let plain = ipv4(0, 0, TCP, &tcp(PORT, 0, 0));
    let with = |offset: usize, value: u8| patched(&plain, offset, value);
    let protocol = |protocol| ipv4(0, 0, protocol, &tcp(PORT, 0, 0));
    [
        ("IPv4, UDP", protocol(UDP), NotUnderstood::NotTcp),
        ("IPv4, ICMP", protocol(ICMP), NotUnderstood::NotTcp),
        (
            "IPv4, IPv6 inside",
            protocol(IPV6_IN_IP),
            NotUnderstood::NotTcp,
        ),
        (
            "IPv4, second fragment",
            ipv4(0, MORE_FRAGMENTS | 1, TCP, &tcp(PORT, 0, 0)),
            NotUnderstood::LaterFragment,
        ),
        (
            "IPv4, last fragment",
            ipv4(0, 185, TCP, &tcp(PORT, 0, 0)),
            NotUnderstood::LaterFragment,
        ),
        ("IPv4, version 5", with(0, 0x55), NotUnderstood::Malformed),
        ("IPv4, version 6", with(0, 0x65), NotUnderstood::Malformed),
        (
            "IPv4, header of four words",
            with(0, 0x44),
            NotUnderstood::Malformed,
        ),
        (
            "IPv4, header longer than the packet",
            with(0, 0x4f),
            NotUnderstood::Malformed,
        ),
        (
            "IPv4, shorter than its header",
            with(3, 19),
            NotUnderstood::Malformed,
        ),
        (
            "IPv4, longer than the frame",
            with(3, 41),
            NotUnderstood::Truncated,
        ),
        (
            "IPv4, much longer than the frame",
            with(2, 0xff),
            NotUnderstood::Truncated,
        ),
        (
            "IPv4, no room for TCP",
            with(3, 39),
            NotUnderstood::Truncated,
        ),
        (
            "IPv4, header cut short",
            plain[..19].to_vec(),
            NotUnderstood::Truncated,
        ),
        (
            "IPv4, first fragment without a whole header, padded",
            tiny_fragment(),
            NotUnderstood::Truncated,
        ),
    ]
    .map(|(name, packet, reason)| case(name, ethernet(&[], ETHERTYPE_IPV4, &packet), Err(reason)))
    .into()
}

/// Eight bytes of TCP, which hold the ports, and padding that would make a header of them.
fn tiny_fragment() -> Vec<u8> {
    let mut packet = ipv4(0, MORE_FRAGMENTS, TCP, &tcp(PORT, 0, 0)[..8]);
    packet.extend_from_slice(&tcp(PORT, 0, 0)[8..]);
    packet
}

fn not_understood_ipv6() -> Vec<Case> {
    let plain = ipv6(&[], TCP, &tcp(PORT, 0, 0));
    let with = |offset: usize, value: u8| patched(&plain, offset, value);
    let ends = |last| ipv6(&[Extension::options(HOP_BY_HOP, 0)], last, &tcp(PORT, 0, 0));
    let too_many: Vec<Extension> = (0..=EXTENSION_HEADERS_MAX)
        .map(|_| Extension::options(DESTINATION_OPTIONS, 0))
        .collect();
    let mut runaway = ipv6(&[Extension::options(ROUTING, 0)], TCP, &tcp(PORT, 0, 0));
    runaway[41] = 255;
    let behind = |header: Extension| ipv6(&[header], TCP, &tcp(PORT, 0, 0));
    [
        ("IPv6, UDP", ends(UDP), NotUnderstood::NotTcp),
        (
            "IPv6, neighbour discovery",
            ipv6(&[], ICMPV6, &[135; 24]),
            NotUnderstood::NotTcp,
        ),
        (
            "IPv6, nothing follows",
            ends(NO_NEXT),
            NotUnderstood::NotTcp,
        ),
        ("IPv6, encrypted", ends(ENCAPSULATED), NotUnderstood::NotTcp),
        ("IPv6, mobility", ends(MOBILITY), NotUnderstood::NotTcp),
        (
            "IPv6, one header too many",
            ipv6(&too_many, TCP, &tcp(PORT, 0, 0)),
            NotUnderstood::TooManyHeaders,
        ),
        (
            "IPv6, second fragment",
            behind(Extension::fragment(1, true)),
            NotUnderstood::LaterFragment,
        ),
        (
            "IPv6, last fragment",
            behind(Extension::fragment(8191, false)),
            NotUnderstood::LaterFragment,
        ),
        ("IPv6, version 4", with(0, 0x45), NotUnderstood::Malformed),
        (
            "IPv6, jumbogram",
            patched(&plain, 5, 0),
            NotUnderstood::Malformed,
        ),
        (
            "IPv6, longer than the frame",
            with(5, 21),
            NotUnderstood::Truncated,
        ),
        (
            "IPv6, no room for TCP",
            with(5, 19),
            NotUnderstood::Truncated,
        ),
        (
            "IPv6, header cut short",
            plain[..39].to_vec(),
            NotUnderstood::Truncated,
        ),
        (
            "IPv6, options that run past the end",
            runaway,
            NotUnderstood::Truncated,
        ),
    ]
    .map(|(name, packet, reason)| case(name, ethernet(&[], ETHERTYPE_IPV6, &packet), Err(reason)))
    .into()
}

fn not_understood_tcp() -> Vec<Case> {
    let with_header_words = |words: u8| patched(&tcp(PORT, 0, 0), 12, words << 4);
    [
        (
            "TCP, header of four words",
            with_header_words(4),
            NotUnderstood::Malformed,
        ),
        (
            "TCP, no header at all",
            with_header_words(0),
            NotUnderstood::Malformed,
        ),
        (
            "TCP, header longer than the packet",
            with_header_words(6),
            NotUnderstood::Truncated,
        ),
    ]
    .map(|(name, segment, reason)| {
        let packet = ipv4(0, 0, TCP, &segment);
        case(name, ethernet(&[], ETHERTYPE_IPV4, &packet), Err(reason))
    })
    .into()
}

/// Any well-formed frame, with random ports, and the segment in it.
pub fn any_understood() -> impl Strategy<Value = (Vec<u8>, Segment)> {
    let tags = prop::collection::vec(prop::sample::select(vec![TAG, PROVIDER_TAG]), 0..=2);
    let headers = prop::collection::vec(any_extension(), 0..=EXTENSION_HEADERS_MAX);
    let ports = prop_oneof![3 => Just(PORT), 1 => any::<u16>()];
    let segment = (ports, 0..=10_u8, 0..1200_usize);
    let network = prop_oneof![(0..=10_u8).prop_map(Ok), headers.prop_map(Err)];
    (tags, segment, network).prop_map(|(tags, (port, option_words, payload), network)| {
        let transport = tcp(port, option_words, payload);
        match network {
            Ok(words) => {
                let packet = ipv4(words, DO_NOT_FRAGMENT, TCP, &transport);
                let frame = ethernet(&tags, ETHERTYPE_IPV4, &packet);
                let segment = segment_ipv4(port, &frame);
                (frame, segment)
            }
            Err(headers) => {
                let packet = ipv6(&headers, TCP, &transport);
                let frame = ethernet(&tags, ETHERTYPE_IPV6, &packet);
                let segment = segment_ipv6(port, &frame);
                (frame, segment)
            }
        }
    })
}

fn any_extension() -> impl Strategy<Value = Extension> {
    let kinds = vec![HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS];
    prop_oneof![
        (prop::sample::select(kinds), 0..16_u8)
            .prop_map(|(kind, units)| Extension::options(kind, units)),
        any::<bool>().prop_map(|more| Extension::fragment(0, more)),
        (0..16_u8).prop_map(Extension::authentication),
    ]
}

/// Any frame at all: a well-formed one with some of its header bytes overwritten, then cut anywhere.
pub fn any_damaged() -> impl Strategy<Value = Vec<u8>> {
    let damage = prop::collection::vec((0..120_usize, any::<u8>()), 0..6);
    (any_understood(), damage, any::<prop::sample::Index>()).prop_map(
        |((mut frame, _), damage, cut)| {
            for (offset, value) in damage {
                if let Some(byte) = frame.get_mut(offset) {
                    *byte = value;
                }
            }
            frame.truncate(cut.index(frame.len() + 1));
            frame
        },
    )
}

fn case(name: &'static str, frame: Vec<u8>, expected: Result<Segment, NotUnderstood>) -> Case {
    Case {
        name,
        frame,
        expected,
        padding: 0,
    }
}

fn understood(name: &'static str, frame: Vec<u8>, segment: fn(u16, &[u8]) -> Segment) -> Case {
    let segment = segment(PORT, &frame);
    case(name, frame, Ok(segment))
}

/// What `tcp` made of the end of a frame: its payload is the only thing that ends in this byte.
fn body(frame: &[u8]) -> Body {
    let is_payload = |byte: &&u8| **byte == PAYLOAD_BYTE;
    let payload = frame.iter().rev().take_while(is_payload).count();
    let number = |bytes: usize| u32::try_from(bytes).expect("frames are short");
    Body {
        sequence: SEQUENCE,
        flags: FLAGS,
        payload_offset: number(frame.len() - payload),
        payload_bytes: number(payload),
    }
}

fn segment_ipv4(destination_port: u16, frame: &[u8]) -> Segment {
    let mapped = |[a, b, c, d]: [u8; 4]| {
        std::net::Ipv4Addr::new(a, b, c, d)
            .to_ipv6_mapped()
            .octets()
    };
    Segment {
        source: mapped(SOURCE_IPV4).into(),
        destination: mapped(DESTINATION_IPV4).into(),
        source_port: SOURCE_PORT,
        destination_port,
        body: body(frame),
    }
}

fn segment_ipv6(destination_port: u16, frame: &[u8]) -> Segment {
    Segment {
        source: SOURCE.into(),
        destination: DESTINATION.into(),
        source_port: SOURCE_PORT,
        destination_port,
        body: body(frame),
    }
}

fn patched(bytes: &[u8], offset: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[offset] = value;
    bytes
}

fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend(7_u16.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn ipv4(option_words: u8, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = 20 + usize::from(option_words) * 4 + payload.len();
    let mut packet = vec![0x45 + option_words, 0];
    packet.extend(
        u16::try_from(total)
            .expect("frames are short")
            .to_be_bytes(),
    );
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(SOURCE_IPV4);
    packet.extend(DESTINATION_IPV4);
    packet.extend(vec![1; usize::from(option_words) * 4]); // one-byte no-operations
    packet.extend_from_slice(payload);
    packet
}

/// An IPv6 extension header; its first byte is set when what follows is known.
#[derive(Clone, Debug)]
struct Extension {
    kind: u8,
    bytes: Vec<u8>,
}

impl Extension {
    /// Hop-by-hop, routing or destination options: `units` times eight bytes and eight more.
    fn options(kind: u8, units: u8) -> Self {
        let mut bytes = vec![0; (usize::from(units) + 1) * 8];
        bytes[1] = units;
        Self { kind, bytes }
    }

    fn fragment(offset_units: u16, more: bool) -> Self {
        let mut bytes = vec![0; 8];
        bytes[2..4].copy_from_slice(&(offset_units << 3 | u16::from(more)).to_be_bytes());
        Self {
            kind: FRAGMENT,
            bytes,
        }
    }

    /// `units` times four bytes and eight more.
    fn authentication(units: u8) -> Self {
        let mut bytes = vec![0; (usize::from(units) + 2) * 4];
        bytes[1] = units;
        Self {
            kind: AUTHENTICATION,
            bytes,
        }
    }
}

fn ipv6(headers: &[Extension], last: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (position, header) in headers.iter().enumerate() {
        let start = body.len();
        body.extend_from_slice(&header.bytes);
        body[start] = headers.get(position + 1).map_or(last, |next| next.kind);
    }
    body.extend_from_slice(payload);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(
        u16::try_from(body.len())
            .expect("frames are short")
            .to_be_bytes(),
    );
    packet.extend([headers.first().map_or(last, |first| first.kind), 64]);
    packet.extend(SOURCE);
    packet.extend(DESTINATION);
    packet.extend(body);
    packet
}

fn tcp(destination_port: u16, option_words: u8, payload: usize) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(SOURCE_PORT.to_be_bytes());
    segment.extend(destination_port.to_be_bytes());
    segment.extend(SEQUENCE.to_be_bytes());
    segment.extend([0, 0, 0, 2]);
    segment.extend([(5 + option_words) << 4, FLAGS, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(vec![1; usize::from(option_words) * 4]);
    segment.extend(vec![PAYLOAD_BYTE; payload]);
    segment
}

/// A client of one family.
pub struct Client {
    is_ipv6: bool,
}

impl Client {
    pub fn ipv4() -> Self {
        Self { is_ipv6: false }
    }

    pub fn ipv6() -> Self {
        Self { is_ipv6: true }
    }

    /// Its flow to [`PORT`].
    pub fn key(&self) -> FlowKey {
        let segment = if self.is_ipv6 {
            segment_ipv6(PORT, &[])
        } else {
            segment_ipv4(PORT, &[])
        };
        FlowKey::of(&segment)
    }
}

/// A packet of a client to [`PORT`].
pub fn packet(client: &Client, flags: u8, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut segment = tcp(PORT, 0, 0);
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[13] = flags;
    segment.extend_from_slice(payload);
    if client.is_ipv6 {
        ethernet(&[], ETHERTYPE_IPV6, &ipv6(&[], TCP, &segment))
    } else {
        ethernet(&[], ETHERTYPE_IPV4, &ipv4(0, 0, TCP, &segment))
    }
}
