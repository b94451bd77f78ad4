//! Frame by frame through the kernel's own test run: the verdict, the counter and the frame itself, for the same table
//! as in user space and for random frames. The verifier has its say at each load.

use aya::Ebpf;
use aya::maps::{PerCpuHashMap, PerCpuValues};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::util::nr_cpus;
use gateway_common::{PORT_COUNTS_MAP, PortCounter, PortKey, XDP_PROGRAM, parse};
use proptest::test_runner::{Config, TestRunner};

use crate::frames::{self, PORT};
use crate::object;

/// linux/bpf.h: the frame goes on to the network stack.
const XDP_PASS: u32 = 2;

/// linux/if_ether.h: the kernel refuses to test-run anything shorter than an Ethernet header.
const FRAME_BYTES_MIN: usize = 14;

/// The counter as it lies in the map.
const COUNTER_WORDS: usize = size_of::<PortCounter>() / size_of::<u64>();
type CounterWords = [u64; COUNTER_WORDS];

/// The program, loaded but attached to nothing, with one protected port.
struct Loaded(Ebpf);

impl Loaded {
    fn new() -> Self {
        let mut loaded = Ebpf::load(&object()).expect("the object loads");
        let map = loaded
            .map_mut(PORT_COUNTS_MAP)
            .expect("the object has the map");
        let mut map: PerCpuHashMap<_, PortKey, CounterWords> =
            map.try_into().expect("keys and values have their sizes");
        let zeros = vec![[0; COUNTER_WORDS]; nr_cpus().expect("the number of CPUs is known")];
        map.insert(PORT, PerCpuValues::try_from(zeros).expect("one per CPU"), 0)
            .expect("a port fits");
        let program = loaded
            .program_mut(XDP_PROGRAM)
            .expect("the object has the program");
        let program: &mut Xdp = program.try_into().expect("it is an XDP program");
        program.load().expect("the verifier accepts it");
        Self(loaded)
    }

    /// Runs the program on `frame`; returns its verdict after checking that the frame is as it was.
    fn run(&self, frame: &[u8]) -> u32 {
        let program = self
            .0
            .program(XDP_PROGRAM)
            .expect("the object has the program");
        let program: &Xdp = program.try_into().expect("it is an XDP program");
        let mut after = vec![0; frame.len()];
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut after),
                ..TestRunOptions::default()
            })
            .expect("the kernel runs the program");
        assert_eq!(result.data_size_out as usize, frame.len());
        assert_eq!(after, frame, "the program changed the frame");
        result.return_value
    }

    fn counter(&self) -> PortCounter {
        let map = self.0.map(PORT_COUNTS_MAP).expect("the object has the map");
        let map: PerCpuHashMap<_, PortKey, CounterWords> =
            map.try_into().expect("keys and values have their sizes");
        let values = map.get(&PORT, 0).expect("the port is protected");
        PortCounter {
            packets: values.iter().map(|words| words[0]).sum(),
            bytes: values.iter().map(|words| words[1]).sum(),
            ..PortCounter::ZERO
        }
    }

    /// What the counter gained by one run of `frame`.
    fn gain(&self, frame: &[u8]) -> PortCounter {
        let before = self.counter();
        assert_eq!(self.run(frame), XDP_PASS, "every frame passes");
        let after = self.counter();
        PortCounter {
            packets: after.packets - before.packets,
            bytes: after.bytes - before.bytes,
            ..PortCounter::ZERO
        }
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
    let loaded = Loaded::new();
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
        assert_eq!(loaded.gain(&case.frame), expected, "{}", case.name);
    }
}

#[test]
fn the_kernel_and_user_space_judge_random_frames_alike() {
    let loaded = Loaded::new();
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
        assert_eq!(loaded.gain(frame), expected, "{frame:02x?}");
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
    let loaded = Loaded::new();
    let frame = frames::table()
        .into_iter()
        .find(|case| case.name == "IPv4, jumbo frame over several buffers")
        .expect("the table has a jumbo frame")
        .frame;
    let program = loaded
        .0
        .program(XDP_PROGRAM)
        .expect("the object has the program");
    let program: &Xdp = program.try_into().expect("it is an XDP program");
    let repeat = 500_000;
    program
        .test_run(TestRunOptions {
            data_in: Some(&frame),
            repeat,
            ..TestRunOptions::default()
        })
        .expect("the kernel runs the program");
    let counter = loaded.counter();
    assert_eq!(counter.packets, u64::from(repeat));
    assert_eq!(counter.bytes, u64::from(repeat) * frame.len() as u64);
    assert!(counter.bytes > u64::from(u32::MAX));
}
