//! `cargo xtask test`: everything CI runs, one command.
//! In: the working tree. Out: the test runner's own summary, last. Fails when something is left behind.

use std::process;

use anyhow::{Result, bail};

use crate::leftovers::Before;
use crate::neighbour::Neighbour;
use crate::{check, count, ebpf, fuzz, miri, setup, soak};
use command::{cargo, run, target};

/// Sets up, checks, builds the kernel program from source and runs every test on it. A run of some tests alone
/// leaves out counts, Miri and fuzzing. With `all`, the tests that say that they are long run too.
pub fn run_tests(all: bool, arguments: &[String]) -> Result<()> {
    setup::run(match all {
        false => setup::Purpose::Everything,
        true => setup::Purpose::Long,
    })?;
    check::run_without_tidy()?;
    let object_folder = target().join("ebpf");
    ebpf::run(&ebpf::EbpfOptions {
        out: Some(object_folder.clone()),
    })?;
    run(cargo().args(["test", "--doc", "--workspace", "--locked", "--quiet"]))?;
    if arguments.is_empty() {
        count::run_counts(false)?;
        miri::run_miri()?;
        fuzz::run_short()?;
    }
    // The end-to-end tests start these as a user does: as programs.
    run(cargo()
        .args(["build", "--workspace", "--bins", "--locked"])
        .args(["--exclude", "comparison"]))?;

    // Every process the tests start inherits this mark; see `leftovers`.
    let mark = process::id().to_string();
    let before = Before::look()?;
    // Some tests alone need no other gateway beside them.
    let neighbour = match arguments.is_empty() {
        true => Some(Neighbour::start()?),
        false => None,
    };
    // By itself: beside the tests it would judge the machine.
    let soaked = match arguments.is_empty() {
        true => run(soak::program_for(&soak::SoakOptions {
            time: if all { soak::LONG } else { soak::SHORT },
            seed: None,
            release: false,
        })
        .env(crate::leftovers::MARK, &mark)),
        false => Ok(()),
    };
    let runner = run(cargo()
        .args([
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--no-fail-fast",
        ])
        .args(["--run-ignored", if all { "all" } else { "default" }])
        .args(arguments)
        .env(
            "PORTCULLIS_EBPF_OBJECT",
            object_folder.join(ebpf::OBJECT_NAME),
        )
        .env(crate::leftovers::MARK, &mark));
    let undisturbed = neighbour.map_or(Ok(()), Neighbour::end);
    // Says nothing when all is clean: the summary above stays the last thing printed.
    let complaints: Vec<_> = [runner, soaked, undisturbed, before.compare(&mark)]
        .into_iter()
        .filter_map(|outcome| Some(format!("{:#}", outcome.err()?)))
        .collect();
    match complaints.is_empty() {
        true => Ok(()),
        false => bail!("{}", complaints.join("\n")),
    }
}
