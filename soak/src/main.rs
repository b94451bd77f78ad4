//! `portcullis-soak`: plays a day in fast motion on a gateway, and judges the run. `cargo xtask soak` builds and starts
//! it.
//! In: a time, perhaps a seed. Out: a report; exit code 0 if every promise was at stake and held, 1 if not.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use soak::director::{Play, run};
use soak::journal::{Journal, read};
use soak::{report, rules};

/// A day of a gateway's life in fast motion.
#[derive(Parser)]
#[command(name = "portcullis-soak")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Play a run, and judge it. Takes root.
    Run {
        /// How long the deeds go on, such as `1h`.
        #[arg(long = "for", value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
        time: Duration,
        /// Repeats the run that printed it, as far as threads and a network can be repeated.
        #[arg(long)]
        seed: Option<u64>,
        /// The gateway's program; by default the one beside this program.
        #[arg(long)]
        program: Option<PathBuf>,
        /// Where journal, logs and files stay; by default a temporary folder, which stays when a promise broke.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Judge a journal once more.
    Judge {
        /// The journal of a run.
        journal: PathBuf,
    },
}

fn main() -> ExitCode {
    let judged = match Arguments::parse().task {
        Task::Judge { journal } => judge(&journal),
        Task::Run {
            time,
            seed,
            program,
            out,
        } => play(time, seed, program, out),
    };
    match judged {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(
    time: Duration,
    seed: Option<u64>,
    program: Option<PathBuf>,
    out: Option<PathBuf>,
) -> Result<bool> {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = seed.unwrap_or(since_1970.as_nanos() as u64 % 1_000_000);
    let program = match program {
        Some(program) => program,
        None => std::env::current_exe()?.with_file_name("portcullis"),
    };
    let program = program
        .canonicalize()
        .with_context(|| format!("{}", program.display()))?;
    let temporary = tempfile::Builder::new()
        .prefix("portcullis-soak-")
        .tempdir()?;
    let folder = match &out {
        None => temporary.path(),
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            folder
        }
    }
    .canonicalize()?;
    println!(
        "soak: seed {seed}, for {}",
        humantime::format_duration(time)
    );
    let file = folder.join("journal.jsonl");
    let journal = Journal::begin(&file)?;
    let play = Play {
        folder: &folder,
        program: &program,
        seed,
        time,
    };
    run(&play, &journal)?;
    let is_good = judge(&file)?;
    if !is_good {
        println!("seed {seed}; journal and logs are in {}", folder.display());
        // They show the cause.
        let _ = temporary.keep();
    }
    Ok(is_good)
}

fn judge(journal: &Path) -> Result<bool> {
    let entries = read(journal)?;
    let (text, is_good) = report::report(&entries, &rules::judge(&entries));
    println!("{text}");
    Ok(is_good)
}
