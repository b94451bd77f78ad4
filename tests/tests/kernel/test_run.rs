//! Frame by frame through the kernel's own test run: the verdict, the counter and the frame itself, for the same table
//! as in user space and for random frames. The verifier has its say at each load.

use gateway_common::{PortCounter, parse};
use proptest::test_runner::{Config, TestRunner};

use crate::frames::{self, PORT};
use crate::programs::Programs;

/// linux/bpf.h: the frame goes on to the network stack.
const XDP_PASS: u32 = 2;

/// linux/if_ether.h: the kernel refuses to test-run anything shorter than an Ethernet header.
const FRAME_BYTES_MIN: usize = 14;

/// The programs with one protected port, attached to nothing.
fn loaded() -> Programs {
    let mut programs = Programs::load();
    programs.protect(PORT);
    programs
}

/// What the counter gained by one run of `frame`, which passes as it is.
fn gain(programs: &Programs, frame: &[u8]) -> PortCounter {
    let before = programs.counter(PORT);
    let (verdict, after) = programs.run_whole(frame);
    assert_eq!(verdict, XDP_PASS, "every frame passes");
    assert_eq!(after, frame, "the program changed the frame");
    let after = programs.counter(PORT);
    PortCounter {
        packets: after.packets - before.packets,
        bytes: after.bytes - before.bytes,
        ..PortCounter::ZERO
    }
}

fn one(frame: &[u8]) -> PortCounter {
    PortCounter {
        packets: 1,
        bytes: frame.len() as u64,
        ..PortCounter::ZERO
    }
}

#[test]
fn every_crafted_frame_passes_and_counts_as_the_table_says() {
    let programs = loaded();
    let cases = frames::table();
    assert!(cases.len() >= 60, "the table has shrunk to {}", cases.len());
    for case in cases {
        let counts = case
            .expected
            .is_ok_and(|segment| segment.destination_port == PORT);
        let expected = if counts {
            one(&case.frame)
        } else {
            PortCounter::default()
        };
        assert_eq!(gain(&programs, &case.frame), expected, "{}", case.name);
    }
}

#[test]
fn the_kernel_and_user_space_evaluate_random_frames_alike() {
    let programs = loaded();
    let mut counted = 0_u32;
    let mut check = |frame: &[u8]| {
        if frame.len() < FRAME_BYTES_MIN {
            return;
        }
        let expected = match parse(frame) {
            Ok(segment) if segment.destination_port == PORT => one(frame),
            Ok(_) | Err(_) => PortCounter::ZERO,
        };
        counted += u32::try_from(expected.packets).expect("at most one");
        assert_eq!(gain(&programs, frame), expected, "{frame:02x?}");
    };
    for (frame, _) in generated(frames::any_understood()) {
        check(&frame);
    }
    for frame in generated(frames::any_damaged()) {
        check(&frame);
    }
    assert!(
        counted > 100,
        "only {counted} random frames were counted: the test compares nothing with nothing"
    );
}

/// Values of a strategy; the seed they come from is fixed, so that a failure repeats.
fn generated<S: proptest::strategy::Strategy>(strategy: S) -> impl Iterator<Item = S::Value> {
    const FRAMES: usize = 2000;
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    (0..FRAMES).map(move |_| {
        let tree = strategy
            .new_tree(&mut runner)
            .expect("the strategy yields a value");
        proptest::strategy::ValueTree::current(&tree)
    })
}

#[test]
fn the_counter_survives_more_packets_than_fit_into_thirty_two_bits_of_bytes() {
    let programs = loaded();
    let frame = frames::table()
        .into_iter()
        .find(|case| case.name == "IPv4, jumbo frame over several buffers")
        .expect("the table has a jumbo frame")
        .frame;
    let repeat = 500_000;
    programs.run(&frame, repeat);
    let counter = programs.counter(PORT);
    assert_eq!(counter.packets, u64::from(repeat));
    assert_eq!(counter.bytes, u64::from(repeat) * frame.len() as u64);
    assert!(counter.bytes > u64::from(u32::MAX));
}
