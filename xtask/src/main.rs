//! `cargo xtask`: the only door to building, checking and trying the project, the same at home and in CI.
//! In: a subcommand. Out: its tools run in order, the first failure ends it. Never part of the gateway itself.

mod bench;
mod check;
mod count;
mod demo;
mod ebpf;
mod fuzz;
mod house;
mod leftovers;
mod miri;
mod neighbour;
mod nightly;
mod setup;
mod soak;
mod test;
#[cfg(test)]
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Set-up, demo, tests and checks of Portcullis.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the demo and the tests need and what is missing.
    Setup {
        /// What the long tests need as well.
        #[arg(long)]
        all: bool,
    },
    /// Run the main job with no configuration: real telemetry through mTLS. Arguments go to `portcullis-demo`.
    Demo {
        /// Arguments of `portcullis-demo`, such as `--for 20s`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Everything CI runs, ending in the test runner's own summary. Arguments go to the runner.
    Test {
        /// The long tests as well, as before a release; see CONTRIBUTING.md.
        #[arg(long)]
        all: bool,
        /// Arguments of `cargo nextest run`, such as a part of a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Format, clippy, documentation, dependencies and tidy.
    Check,
    /// Figures of how the code is built: lengths of functions and files, documented items, names that mean two things.
    House {
        /// A checkout of another commit, to compare with.
        folder: Option<PathBuf>,
    },
    /// Build the kernel program from source, into the repository unless told otherwise.
    Ebpf {
        /// Write into this folder and leave the repository's object alone.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Measure, with the release build. Arguments go to the program that measures; `--help` is one of them.
    #[command(disable_help_flag = true)]
    Bench {
        /// What to measure, and how.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Count the instructions of handshakes and of framing by callgrind, and compare them with the committed figures.
    Count {
        /// Write the figures instead.
        #[arg(long)]
        update: bool,
    },
    /// Run the tests of the record layer's framing under Miri.
    Miri,
    /// A day of a gateway's life in fast motion, and every promise judged afterwards. Takes root.
    Soak {
        /// How long trouble is made, such as `1h`.
        #[arg(long = "for", value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
        time: Duration,
        /// Repeats the run that printed it.
        #[arg(long)]
        seed: Option<u64>,
        /// The gateway as it is released.
        #[arg(long)]
        release: bool,
    },
    /// Run the fuzz targets, each for the given time. Needs a nightly compiler and cargo-fuzz.
    Fuzz {
        /// How long each target runs, such as `10m`.
        #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
        time: Duration,
        /// Ten seconds each, without a sanitizer and without cargo-fuzz, as `cargo xtask test` does.
        #[arg(long, conflicts_with_all = ["time", "target"])]
        short: bool,
        /// Only this target.
        target: Option<String>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Setup { all: false } => setup::run(setup::Purpose::Everything),
        Task::Setup { all: true } => setup::run(setup::Purpose::Long),
        Task::Demo { arguments } => demo::run_demo(&arguments),
        Task::Test { all, arguments } => test::run_tests(all, &arguments),
        Task::Check => setup::run(setup::Purpose::Check).and_then(|()| check::run_with_tidy()),
        Task::House { folder } => house::run_house(folder),
        Task::Ebpf { out } => ebpf::run(&ebpf::EbpfOptions { out }),
        Task::Bench { arguments } => bench::run_bench(&arguments),
        Task::Count { update } => count::run_counts(update),
        Task::Miri => miri::run_miri(),
        Task::Soak {
            time,
            seed,
            release,
        } => soak::run_soak(&soak::SoakOptions {
            time,
            seed,
            release,
        }),
        Task::Fuzz { short: true, .. } => fuzz::run_short(),
        Task::Fuzz { time, target, .. } => fuzz::run_targets(&fuzz::FuzzOptions { time, target }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
