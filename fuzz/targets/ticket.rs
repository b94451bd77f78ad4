//! Any bytes as a session ticket, as the lineage inside one, and as the file of ticket keys.
//!
//! What must hold: no panic; no ticket is worth anything to a listener whose authority signed nobody, even one that its
//! keys open; a lineage is admitted by nobody who does not trust its root, and reads back as it was written; a key file
//! that is refused is refused in one printable line without a secret in it, one that is taken can be rotated, and what
//! that writes is taken again.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, SystemTime};

use fuzz::ticket::{Edge, edge, write_secret};
use gateway::crypto::{KeyRing, load_ticket_keys, rotate_ticket_keys};
use gateway_core::lineage::{Lineage, ResumptionPolicy};
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ticket");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
    fuzz::make_certificates(&folder);
    folder
});

static EDGE: LazyLock<Edge> = LazyLock::new(|| edge(&FOLDER));

fuzz_target!(|bytes: &[u8]| {
    try_ticket(bytes);
    try_lineage(bytes);
    try_key_file(bytes);
});

fn try_ticket(bytes: &[u8]) {
    let ticketer = &EDGE.server.ticketer;
    // Of one connection only a few tickets are tried, and without one all of a thread count as one connection's.
    let opened = thread::scope(|scope| scope.spawn(|| ticketer.decrypt(bytes)).join());
    assert_eq!(opened.expect("no ticket makes us panic"), None);
}

fn try_lineage(bytes: &[u8]) {
    let Some((lineage, rest)) = Lineage::decode(bytes) else {
        return;
    };
    assert!(bytes.ends_with(rest));
    assert_eq!(
        Lineage::decode(&lineage.encode()),
        Some((lineage.clone(), &[][..]))
    );
    let policy = ResumptionPolicy {
        max_authentication_age: Duration::from_secs(24 * 60 * 60),
        epoch: 3,
    };
    let times = [
        SystemTime::UNIX_EPOCH,
        SystemTime::now(),
        lineage.authenticated_at,
        lineage.chain.not_before,
    ];
    for now in times {
        assert!(lineage.evaluate_ticket(&EDGE.trust, &policy, now).is_err());
        if let Some(left) = lineage.time_left(&policy, now) {
            assert!(left <= policy.max_authentication_age);
        }
    }
}

fn try_key_file(bytes: &[u8]) {
    let path = FOLDER.join("any.toml");
    write_secret(&path, bytes);
    match load_ticket_keys(&path) {
        Ok(ring) => assert_rotates(&ring, &path),
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty());
            assert!(!message.contains("QkJCQkJCQkJCQkJC"), "{message:?}");
            assert!(!message.contains(char::is_control), "{message:?}");
        }
    }
}

fn assert_rotates(ring: &KeyRing, path: &Path) {
    assert!(!ring.is_empty());
    let random = EDGE.config.provider.secure_random;
    for distrust in [false, true] {
        let rotated = rotate_ticket_keys(path, distrust, ("a fuzzer", SystemTime::now()), random);
        let rotated = rotated.expect("a file that can be read can be rotated");
        let after = load_ticket_keys(path).expect("it was written by us");
        assert_eq!(after.len(), rotated.keys);
        assert_eq!(after.epoch(), rotated.epoch);
        assert!(!after.seals_as(ring));
        if distrust {
            assert_eq!(after.len(), 1);
            assert!(after.epoch() > ring.epoch());
        }
    }
}
