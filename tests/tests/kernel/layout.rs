//! The maps as the object makes them: kind, sizes, room and flags. In: the built object. Out: what the kernel says of
//! each. Their values' inner layout is held against its version beside `gateway-common`.

use gateway_common::LAYOUT_VERSION;

use crate::programs::Programs;

/// Name, kind and flags as in linux/bpf.h, bytes of keys and values, most entries; and the version that they belong to.
const MAPS: (u32, &str) = (
    1,
    "\
ACCOUNTS: LruHash 0x0, 16 to 16 bytes, 65536
BANS: LruHash 0x0, 16 to 24 bytes, 65536
EVENTS: RingBuf 0x0, 0 to 0 bytes, 262144
FLOWS: Hash 0x1, 36 to 16 bytes, 262144
LISTS: LpmTrie 0x1, 20 to 1 bytes, 16384
LOST: PerCpuArray 0x0, 4 to 8 bytes, 4
PORTS: Array 0x0, 4 to 1 bytes, 65536
PORT_COUNTS: PerCpuArray 0x0, 4 to 536 bytes, 256
SETTINGS: Array 0x0, 4 to 144 bytes, 1
SOCKET_FLOWS: SkStorage 0x1, 4 to 40 bytes, 0
",
);

#[test]
fn the_maps_of_the_object_are_those_of_the_layouts_version() {
    let programs = Programs::load();
    let mut lines: Vec<String> = programs
        .maps()
        .iter()
        .map(|map| (map.name_as_str().expect("it has a name"), map))
        // Constants of the program's own, which are never shared.
        .filter(|(name, _)| !name.starts_with('.'))
        .map(|(name, map)| {
            let kind = map.map_type().expect("the kernel knows it");
            let (key, value) = (map.key_size(), map.value_size());
            let (entries, flags) = (map.max_entries(), map.map_flags());
            format!("{name}: {kind:?} {flags:#x}, {key} to {value} bytes, {entries}\n")
        })
        .collect();
    lines.sort_unstable();
    assert_eq!(
        (LAYOUT_VERSION, lines.concat().as_str()),
        MAPS,
        "raise LAYOUT_VERSION: a gateway must not take over maps of another layout"
    );
}
