//! The gateway's processes: start, takeover, roll call, end.
//! In: the files of the stage. Out: processes, their metrics and logs.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tests::{Metrics, Process, get_unix};

use super::Stage;
use crate::journal::{Fact, RollCall};

/// How long a step may take before the run ends.
const PATIENCE: Duration = Duration::from_secs(60);

impl Stage {
    /// Starts the gateway, which takes over where one runs, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start_gateway(&mut self) -> Result<()> {
        let takes_over = !self.processes.is_empty();
        self.started += 1;
        let mut command = self
            .topology
            .program(&self.clock.variables(), &self.program);
        command
            .arg("run")
            .arg("--config")
            .arg(self.file("portcullis.toml"));
        if takes_over {
            command.arg("--takeover");
            self.was_alone = false;
        }
        let name = format!("gateway-{}", self.started);
        let mut process = Process::start(&self.folder, &name, &mut command);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.exited() {
                bail!("{name} ended with {status}:\n{}", process.log());
            }
            // Until it has taken over the one before it answers.
            let is_the_one = !takes_over || process.log().contains("took over");
            if is_the_one && self.is_ready() {
                break;
            }
            if Instant::now() > deadline {
                bail!("{name} does not become ready:\n{}", process.log());
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.processes.push(process);
        Ok(())
    }

    fn is_ready(&self) -> bool {
        matches!(get_unix(&self.file("admin.sock"), "/readyz"), Ok((200, _)))
    }

    /// The process that serves.
    pub fn gateway(&self) -> &Process {
        self.processes.last().expect("the gateway was started")
    }

    /// Whether the processes before the last one have ended.
    ///
    /// # Errors
    ///
    /// When one of them ended badly.
    pub fn is_alone(&mut self) -> Result<bool> {
        let last = self.processes.len().saturating_sub(1);
        let mut left = Vec::new();
        for (index, mut process) in std::mem::take(&mut self.processes).into_iter().enumerate() {
            match process.exited() {
                Some(status) if index < last && !status.success() => {
                    bail!("a process that was taken over from ended with {status}")
                }
                Some(_) if index < last => {}
                _ => left.push(process),
            }
        }
        self.processes = left;
        Ok(self.processes.len() == 1)
    }

    /// Makes the gateway read its files again and open its audit log anew.
    pub fn hang_up(&self) {
        self.gateway().signal(Signal::HUP);
    }

    /// Looks at the gateway once no client is connected and the audit log is silent.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn call_the_roll(&mut self) -> Result<()> {
        let admin = self.file("admin.sock");
        let deadline = Instant::now() + PATIENCE / 3;
        let metrics = loop {
            let (_, page) = get_unix(&admin, "/metrics").context("asking for metrics")?;
            let open = Metrics::parse(&page).count("portcullis_connections_open", &[]);
            if open == 0 || Instant::now() > deadline {
                // Stalled handshakes are refused in their time, and lines of the audit log are read.
                thread::sleep(Duration::from_secs(1));
                break get_unix(&admin, "/metrics")?.1;
            }
            thread::sleep(Duration::from_millis(100));
        };
        let gateway = self.gateway();
        let roll_call = RollCall {
            process: gateway.id(),
            is_alone: self.was_alone,
            is_ready: self.is_ready(),
            metrics,
            resident_bytes: gateway.resident_bytes(),
            descriptors: gateway.descriptors() as u64,
        };
        self.journal.note(Fact::RollCall(roll_call));
        self.was_alone = true;
        Ok(())
    }

    /// Ends the gateway by SIGTERM, and records its end.
    pub fn terminate(&mut self) {
        let Some(mut process) = self.processes.pop() else {
            return;
        };
        let since = Instant::now();
        process.signal(Signal::TERM);
        let mut status = None;
        while status.is_none() && since.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
            status = process.exited();
        }
        self.journal.note(Fact::Terminated {
            took: since.elapsed().as_millis() as u64,
            code: status.and_then(|status| status.code()),
        });
    }
}
