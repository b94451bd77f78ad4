//! `cargo xtask bench regress BASE`: the gateway of the working tree beside that of another commit, in turn within each
//! round. In: a commit, kinds of work, a tolerance. Out: tables, target/bench/regress.json, and an error where the
//! working tree spends more than the tolerance allows and more than its rounds differ.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::compare::contestants::{Contestant, Contestants, Role};
use crate::compare::result::{HEAD, Work};
use crate::compare::{Effort, take_turns};
use crate::figures::table;
use crate::job::Job;
use crate::server::Server;
use crate::work::WorkKind;
use crate::workspace::{self, Workspace};
use command::{cargo, program, run_quietly};

/// With what to compare, and how.
#[derive(Args)]
pub struct RegressOptions {
    /// The commit to compare with, as git knows it.
    base: String,
    /// Rounds; within each the two take turns.
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only these kinds of work; by default those of stream mode. Earlier commits may not know requests.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    kinds: Vec<WorkKind>,
    /// By which share the working tree may spend more, at the median; and if it spends more in every round, that is a
    /// failure.
    #[arg(long, value_name = "SHARE", default_value_t = 0.15)]
    tolerance: f64,
    /// A tenth of the work: to see that it works, not for figures.
    #[arg(long)]
    quick: bool,
}

/// Builds both, measures, prints, writes, judges.
pub fn run(options: &RegressOptions) -> Result<()> {
    ensure!(
        (0.0..10.0).contains(&options.tolerance),
        "--tolerance {}: must be a share such as 0.15",
        options.tolerance
    );
    let commit = commit(&options.base)?;
    let base = build(&commit)?;
    let workspace = Workspace::prepare("regress")?;
    let contestant = |role, name, program| Contestant {
        server: Server::gateway(name, program, None),
        role,
    };
    let contestants = Contestants {
        servers: vec![
            contestant(Role::Ours, "head", workspace.gateway.clone()),
            contestant(Role::Peer, "base", base),
        ],
        memory: None,
    };
    let streams: Vec<WorkKind> = WorkKind::value_variants()
        .iter()
        .copied()
        .filter(|kind| kind.job() == Job::Relay)
        .collect();
    let kinds = match options.kinds.as_slice() {
        [] => &streams,
        kinds => kinds,
    };
    let effort = Effort::new(kinds, options.rounds, options.quick);
    let measured = take_turns(&workspace, &contestants, &effort);
    let results = workspace.keep_if_failed(measured)?;
    for work in &results.works {
        let (what, unit) = (work.kind.title(), work.kind.unit());
        let title = format!(
            "{what}: {unit}, median (range) of {} rounds",
            options.rounds
        );
        table(&title, &HEAD, &work.rows());
    }
    let mut json = results.json(options.rounds)?;
    json["base"] = commit.into();
    let file = workspace::results_folder().join("regress.json");
    fs::write(&file, serde_json::to_string_pretty(&json)? + "\n")
        .with_context(|| format!("writing {}", file.display()))?;
    println!("\nwritten to {}", file.display());
    let works = results.works.iter();
    let worse: Vec<String> = works
        .filter_map(|work| verdict(work, options.tolerance))
        .collect();
    if !worse.is_empty() {
        bail!("worse than the base:\n  {}", worse.join("\n  "));
    }
    Ok(())
}

/// What got worse: more than tolerated at the median, and in every single round. A machine that drifts makes one round
/// look worse and another better; a change makes all of them.
fn verdict(work: &Work, tolerance: f64) -> Option<String> {
    let ratio = work.ours()?.server.over(&work.best_peer()?.server);
    let (lowest, _) = ratio.range();
    let is_worse = ratio.median() > 1.0 + tolerance && lowest > 1.0;
    is_worse.then(|| format!("{}: {} times the base", work.kind.title(), ratio.shown(2)))
}

/// The full name of a commit.
fn commit(name: &str) -> Result<String> {
    let output = program("git")
        .args(["rev-parse", "--verify", "--quiet", "--end-of-options"])
        .arg(format!("{name}^{{commit}}"))
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run git")?;
    ensure!(output.status.success(), "{name:?} is no commit");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The files of a commit, outside the working tree for as long as this lives.
struct Worktree(PathBuf);

impl Worktree {
    fn add(commit: &str) -> Result<Self> {
        let path = workspace::results_folder().join("base");
        let worktree = Self(path);
        // What an earlier run that was killed has left.
        worktree.remove();
        fs::create_dir_all(workspace::results_folder())?;
        command::run(
            program("git")
                .args(["worktree", "add", "--detach"])
                .arg(&worktree.0)
                .arg(commit),
        )?;
        Ok(worktree)
    }

    fn remove(&self) {
        if self.0.exists() {
            // It may be half of one; then the folder goes, and git forgets it.
            let _ = run_quietly(
                program("git")
                    .args(["worktree", "remove", "--force"])
                    .arg(&self.0)
                    .stderr(Stdio::null()),
            );
            let _ = fs::remove_dir_all(&self.0);
        }
        let _ = run_quietly(program("git").args(["worktree", "prune"]));
    }
}

impl Drop for Worktree {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Builds the gateway of a commit. The folder of what was built stays, so that the next base takes less.
fn build(commit: &str) -> Result<PathBuf> {
    let target = workspace::results_folder().join("base-target");
    let worktree = Worktree::add(commit)?;
    command::run(
        cargo()
            .args(["build", "--release", "--locked", "--bin", "portcullis"])
            .current_dir(&worktree.0)
            .env("CARGO_TARGET_DIR", &target),
    )?;
    Ok(target.join("release/portcullis"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::result::Cell;
    use crate::figures::Series;

    fn work(head: [f64; 3]) -> Work {
        let cell = |name: &str, role, rounds: [f64; 3]| Cell {
            name: name.to_owned(),
            role,
            server: Series(rounds.to_vec()),
            client: Series::default(),
        };
        Work {
            kind: WorkKind::Full,
            cells: vec![
                cell("head", Role::Ours, head),
                cell("base", Role::Peer, [100.0, 100.0, 100.0]),
            ],
        }
    }

    #[test]
    fn what_is_worse_in_every_round_and_beyond_the_tolerance_fails() {
        let verdict = verdict(&work([120.0, 130.0, 140.0]), 0.15).unwrap();
        assert_eq!(
            verdict,
            "full handshake: 1.30 (1.20 to 1.40) times the base"
        );
    }

    #[test]
    fn what_is_within_the_tolerance_or_within_the_noise_does_not() {
        assert_eq!(verdict(&work([110.0, 110.0, 110.0]), 0.15), None);
        assert_eq!(verdict(&work([90.0, 130.0, 140.0]), 0.15), None);
        assert_eq!(verdict(&work([50.0, 60.0, 70.0]), 0.15), None);
    }

    #[test]
    fn a_name_that_is_no_commit_is_refused() {
        assert_eq!(commit("HEAD").unwrap().len(), 40);
        assert!(commit("no such commit").is_err());
    }
}
