//! `cargo xtask miri`: the framing of records under Miri, which sees undefined behaviour that a test does not.
//! In: tests of the record layer that need no real cipher, for that is assembly, which Miri cannot run. Out: nothing, or what
//! Miri says.

use anyhow::Result;

use crate::nightly::nightly_cargo;
use command::{run, target};

/// Tests of `gateway-core/tests/record` with every kind of record, message and error. Each takes Miri seconds; the property
/// tests take it many minutes.
const TESTS: [&str; 9] = [
    "limits::data_beyond",
    "limits::no_sequence_number",
    "limits::a_peer_that_has_used_up",
    "framing::our_own_short_records",
    "hostile::a_fatal_alert",
    "hostile::each_error",
    "hostile::every_malformed_record",
    "hostile::key_updates",
    "hostile::records_that_bring_nothing",
];

/// Runs them.
pub fn run_miri() -> Result<()> {
    run(nightly_cargo()
        .args(["miri", "test", "--locked", "--quiet"])
        .args(["--package", "gateway-core", "--test", "record", "--"])
        .args(TESTS)
        .env("CARGO_TARGET_DIR", target().join("miri"))
        // The tests ask for the working folder.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use command::root;

    #[test]
    fn every_test_for_miri_exists() {
        for name in TESTS {
            let (module, test) = name.split_once("::").unwrap();
            let file = format!("gateway-core/tests/record/{module}.rs");
            let text = fs::read_to_string(root().join(file)).unwrap();
            let found = text.contains(&format!("\n#[test]\nfn {test}"));
            assert!(found, "{name}");
        }
    }
}
