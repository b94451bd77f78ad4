//! Installs one part: runs its commands, shows how far they are, keeps what they say for the case of a failure.
//! In: a missing part. Out: nothing, or an error with the last lines that the command printed.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::parts::Part;
use command::shown;

/// Lines of a failed command that are shown.
const LINES_KEPT: usize = 40;

/// Runs the commands of a part.
pub fn install(part: Part, number: usize, total: usize, terminal: bool) -> Result<()> {
    let started = Instant::now();
    let title = format!("set-up {number}/{total}: {}", part.name);
    let bar = spinner(&title, terminal);
    for mut command in part.commands {
        if !terminal {
            eprintln!("{title}\n$ {}", shown(&command));
        }
        run(&mut command, &bar).with_context(|| format!("cannot install {}", part.name))?;
    }
    bar.finish_and_clear();
    eprintln!("{title}: done in {} s", started.elapsed().as_secs());
    Ok(())
}

fn spinner(title: &str, terminal: bool) -> ProgressBar {
    if !terminal {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg}")
        .expect("the template is a constant with known fields");
    let bar = ProgressBar::new_spinner()
        .with_style(style)
        .with_prefix(title.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn run(command: &mut Command, bar: &ProgressBar) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    let (lines, received) = channel();
    // Both pipes are read at once, or a full one would stop the command.
    let readers = [
        child.stdout.take().map(|pipe| forward(pipe, lines.clone())),
        child.stderr.take().map(|pipe| forward(pipe, lines)),
    ];
    let mut last = VecDeque::with_capacity(LINES_KEPT);
    for line in received {
        bar.set_message(line.trim().to_owned());
        if last.len() == LINES_KEPT {
            last.pop_front();
        }
        last.push_back(line);
    }
    for reader in readers.into_iter().flatten() {
        reader.join().expect("the reader of a pipe does not panic");
    }
    let status = child.wait()?;
    if !status.success() {
        let last: Vec<String> = last.into();
        bail!(
            "{} ended with {status}:\n{}",
            shown(command),
            last.join("\n")
        );
    }
    Ok(())
}

fn forward(pipe: impl Read + Send + 'static, lines: Sender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { return };
            // The receiver lives until both readers are done.
            let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_what_the_command_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo to one pipe; echo to the other >&2; exit 3"]);
        let error = run(&mut command, &ProgressBar::hidden())
            .unwrap_err()
            .to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("to one pipe"), "{error}");
        assert!(error.contains("to the other"), "{error}");
    }
}
