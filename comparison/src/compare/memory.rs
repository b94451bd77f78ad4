//! The same work in memory: a program of its own does handshakes by rustls and records by the ciphers alone, without
//! sockets.
//! In: certificates of the workspace. Out: figures by library and kind of work. Runs on the server's CPU.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::Value;

use crate::process::{Cpu, Process, pinned};
use crate::work::WorkKind;
use crate::workspace::Workspace;
use command::{cargo, run, target};

/// A figure of a library.
pub struct Figure {
    /// What tables call it.
    pub name: String,
    /// The work it is of.
    pub kind: WorkKind,
    /// In the unit of the kind.
    pub value: f64,
}

/// Builds the program and issues the certificate it needs.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    run(cargo().args([
        "build",
        "--release",
        "--locked",
        "--package",
        "benches",
        "--bin",
        "in-memory",
    ]))?;
    let identity = "spiffe://example.org/agent/in-memory";
    workspace.pki(&["issue", "agent", "in-memory", "--uri", identity])?;
    Ok(target().join("release/in-memory"))
}

/// Runs it once.
pub fn measure(workspace: &Workspace, program: &Path) -> Result<Vec<Figure>> {
    let mut command = pinned(Cpu::Server, program);
    for name in [
        "pki/ca.pem",
        "current/server.pem",
        "current/server.key",
        "pki/in-memory.pem",
        "pki/in-memory.key",
    ] {
        command.arg(workspace.path(name));
    }
    let text = Process::start(command, &workspace.path("in-memory.log"))?.finish()?;
    read(&text)
}

/// `{"ring": {"full": 1.5, ...}, ...}`.
fn read(text: &str) -> Result<Vec<Figure>> {
    let report: Value = serde_json::from_str(text).context("figures in memory")?;
    let libraries = report.as_object().context("an object of libraries")?;
    let mut figures = Vec::new();
    for (library, works) in libraries {
        for &kind in WorkKind::value_variants() {
            if let Some(value) = works[kind.name()].as_f64() {
                figures.push(Figure {
                    name: format!("in memory, {library}"),
                    kind,
                    value,
                });
            }
        }
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_by_library_and_kind() {
        let figures =
            read(r#"{"ring": {"full": 290.5, "up": 120}, "other": {"full": 1}}"#).unwrap();
        let mut seen: Vec<(&str, WorkKind, f64)> = figures
            .iter()
            .map(|figure| (figure.name.as_str(), figure.kind, figure.value))
            .collect();
        seen.sort_by(|one, other| one.2.total_cmp(&other.2));
        assert_eq!(
            seen,
            [
                ("in memory, other", WorkKind::Full, 1.0),
                ("in memory, ring", WorkKind::Up, 120.0),
                ("in memory, ring", WorkKind::Full, 290.5),
            ]
        );
    }
}
