//! `cargo xtask count`: how many instructions the logic of a handshake, the framing of a mebibyte and sixteen requests over HTTP/2
//! take, held against the figures in `gateway/examples/instructions.toml`. In: the example of that name, under callgrind. Out: nothing, or what has
//! changed by more than the tolerance and how to accept it.
//!
//! Counted is user space of the gateway's side alone. Not counted: ciphers, hashes, signatures and curves, which run another way
//! under valgrind than on the CPU; and copies of memory, which differ from one CPU to the next.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use command::{cargo, program, root, run, run_quietly, target};

/// Crates of ours that the example is made of.
const OWN_CRATES: [&str; 7] = [
    "gateway",
    "gateway-common",
    "gateway-core",
    "gateway-files",
    "gateway-guard",
    "gateway-rt",
    "gateway-x509",
];

/// How far a count may be from its figure, either way, in percent: another release of the compiler or of libc moves it a
/// little, and some handshakes draw longer numbers than others.
const TOLERANCE_PERCENT: f64 = 5.0;

/// What is counted, and over how many of it.
const COUNTED: [(&str, u64); 4] = [
    ("full", 20),
    ("resumed", 20),
    ("framing", 20),
    ("requests", 20),
];

/// Done once and not counted: what is only made for the first.
const BEFORE: u64 = 4;

/// Functions whose names hold one of these are no logic: cryptography by ring, and what differs from one CPU to the next.
const LEFT_OUT: [&str; 14] = [
    "ring_core_",
    "ring::",
    "x25519_",
    "nistz256",
    "gcm_",
    "aes_",
    "aesni",
    "ghash",
    "chacha20",
    "poly1305",
    "sha256",
    "sha512",
    "memcpy",
    "memmove",
];

/// The same of functions in C, whose names are short: by how they begin.
const LEFT_OUT_OF_C: [&str; 13] = [
    "fe_",
    "ge_",
    "fiat_",
    "p256_",
    "bn_",
    "limb",
    "LIMB",
    "table_select",
    "copy_conditional",
    "calc_wvalue",
    "booth_",
    "mem",
    "__mem",
];

fn is_left_out(function: &str) -> bool {
    LEFT_OUT.iter().any(|part| function.contains(part))
        || LEFT_OUT_OF_C
            .iter()
            .any(|start| function.starts_with(start))
}

/// Counts and compares; with `update`, writes the figures instead.
pub fn run_counts(update: bool) -> Result<()> {
    let binary = build()?;
    let mut counts = BTreeMap::new();
    for (kind, times) in COUNTED {
        let few = count(&binary, kind, BEFORE)?;
        let many = count(&binary, kind, BEFORE + times)?;
        let each = many.saturating_sub(few) / times;
        eprintln!("{kind}: {each} instructions each");
        counts.insert(kind.to_owned(), each);
    }
    let file = figures_file();
    if update {
        let mut text = String::from(ABOUT);
        for (kind, each) in &counts {
            text.push_str(&format!("{kind} = {each}\n"));
        }
        return fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()));
    }
    let figures = read_figures(&file)?;
    let complaints = compare(&counts, &figures);
    ensure!(complaints.is_empty(), "{}\n{ADVICE}", complaints.join("\n"));
    Ok(())
}

const ABOUT: &str = "\
# Instructions of one full and one resumed handshake, without cryptography, of the framing of one mebibyte, and of sixteen requests
# over HTTP/2. Written by `cargo xtask count --update`, and held to by `cargo xtask count`.
";

const ADVICE: &str = "if that is meant, `cargo xtask count --update` writes the new figures: commit them with the change that \
                      explains them. If not, `callgrind_annotate target/counted/full.out` shows where they are.";

fn figures_file() -> PathBuf {
    root().join("gateway/examples/instructions.toml")
}

fn read_figures(file: &Path) -> Result<BTreeMap<String, u64>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is no list of figures", file.display()))
}

fn compare(counts: &BTreeMap<String, u64>, figures: &BTreeMap<String, u64>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (kind, count) in counts {
        let Some(figure) = figures.get(kind) else {
            complaints.push(format!(
                "{kind}: {count} instructions, and no figure for it"
            ));
            continue;
        };
        let percent = (*count as f64 / *figure as f64 - 1.0) * 100.0;
        if percent.abs() > TOLERANCE_PERCENT {
            complaints.push(format!(
                "{kind}: {count} instructions, {percent:+.1} % from {figure}"
            ));
        }
    }
    complaints
}

/// The example with our own crates optimised, the others as the tests have them: nothing else is compiled anew.
fn build() -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--locked", "--package", "gateway"]);
    command.args(["--example", "instructions"]);
    // How much of a crate is inlined into another part of it depends on this, and many a CI turns it off.
    command.env("CARGO_INCREMENTAL", "1");
    for name in OWN_CRATES {
        for setting in [
            "opt-level=2",
            "debug-assertions=false",
            "overflow-checks=false",
        ] {
            command.arg("--config");
            command.arg(format!("profile.dev.package.{name}.{setting}"));
        }
    }
    run(&mut command)?;
    Ok(target().join("debug/examples/instructions"))
}

/// Instructions of a whole process that does `times` of it.
fn count(binary: &Path, kind: &str, times: u64) -> Result<u64> {
    let folder = target().join("counted");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let out = folder.join(format!("{kind}.out"));
    let mut counting = program("valgrind");
    counting
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(binary)
        .args([kind, &times.to_string()]);
    run_quietly(&mut counting)?;
    let text =
        fs::read_to_string(&out).with_context(|| format!("cannot read {}", out.display()))?;
    let by_function = by_function(&text)?;
    let counted = by_function.iter().filter(|(name, _)| !is_left_out(name));
    Ok(counted.map(|(_, instructions)| instructions).sum())
}

/// A function's own instructions, without those of what it calls, from callgrind's file (its format is described in
/// valgrind's manual).
fn by_function(text: &str) -> Result<BTreeMap<String, u64>> {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut current = None;
    let mut is_call = false;
    for line in text.lines() {
        if let Some((key, value)) = line.split_once('=') {
            // A name stands once, `(7) name`, and is `(7)` from then on; functions that are called count too.
            if matches!(key, "fn" | "cfn")
                && let Some((number, name)) = value.split_once(' ')
            {
                names.insert(number, name);
            }
            match key {
                "fn" => {
                    let number = value.split(' ').next().unwrap_or(value);
                    current = Some(names.get(number).copied().unwrap_or(value));
                }
                // The next line says what the call cost, which is not the caller's own.
                "calls" => is_call = true,
                _ => {}
            }
            continue;
        }
        if !line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            continue;
        }
        if std::mem::take(&mut is_call) {
            continue;
        }
        let cost = line.split(' ').nth(1).unwrap_or("0");
        let cost: u64 = cost.parse().with_context(|| format!("no cost: {line}"))?;
        let Some(current) = current else {
            bail!("a cost of no function: {line}");
        };
        *counts.entry(current.to_owned()).or_default() += cost;
    }
    ensure!(!counts.is_empty(), "callgrind counted nothing");
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_not_the_callers_own_and_names_are_remembered() {
        let text = "events: Ir\nfl=(1) a.rs\nfn=(1) outer\n10 5\ncfn=(2) inner\ncalls=1 20\n+1 700\n\
                    * 2\n\nfn=(2)\n20 700\n\nfn=(1)\n30 1\ntotals: 708\n";
        let counts = by_function(text).unwrap();
        assert_eq!(counts["outer"], 8);
        assert_eq!(counts["inner"], 700);
        assert_eq!(counts.len(), 2);
    }

    #[test]
    fn ciphers_and_copies_are_left_out_and_what_only_sounds_like_them_is_not() {
        for name in [
            "fe_mul_impl",
            "ring_core_0_17_14__p256_point_mul",
            "__memcpy_avx_unaligned",
            "memset",
        ] {
            assert!(is_left_out(name), "{name}");
        }
        for name in [
            "rustls::msgs::message_deframer",
            "core::mem::swap",
            "malloc",
            "safe_fe_",
        ] {
            assert!(!is_left_out(name), "{name}");
        }
    }

    #[test]
    fn a_count_far_from_its_figure_is_complained_about_in_both_directions() {
        let map = |counts: &[(&str, u64)]| -> BTreeMap<String, u64> {
            counts
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect()
        };
        let figures = map(&[("full", 1000), ("resumed", 1000)]);
        assert!(compare(&map(&[("full", 1049), ("resumed", 951)]), &figures).is_empty());
        let complaints = compare(&map(&[("full", 1060), ("resumed", 940)]), &figures);
        assert_eq!(complaints.len(), 2);
        assert!(complaints[0].contains("+6.0 %"), "{complaints:?}");
        assert_eq!(compare(&map(&[("framing", 1)]), &figures).len(), 1);
    }

    #[test]
    fn everything_that_is_counted_has_its_figure() {
        let figures = read_figures(&figures_file()).unwrap();
        let counted: Vec<_> = COUNTED.iter().map(|(kind, _)| *kind).collect();
        let mut named: Vec<_> = figures.keys().map(String::as_str).collect();
        named.sort_by_key(|name| counted.iter().position(|kind| kind == name));
        assert_eq!(named, counted);
    }
}
