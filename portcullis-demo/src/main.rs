//! `portcullis-demo`: the gateway at work on this host, without a configuration. `portcullis demo` starts it.
//! In: how long. Out: a live table, a summary, an exit code. Makes everything in a temporary folder: certificates, a
//! configuration file that is loaded as any other, a receiver behind the gateway, agents and impostors in front of it.
//!
//! A program of its own, so that the one that serves holds nothing of the load generator.

mod impostors;
mod metrics;
mod screen;
mod setup;
mod snapshot;
mod summary;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use gateway::backend::Resolver;
use gateway::config;
use gateway::server::{Gateway, Ports, Privileges, note_inherited};
use gateway_core::block::BlockList;
use gateway_rt::Memory;
use loadgen::fleet::Fleet;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::impostors::Impostors;
use crate::screen::Screen;
use crate::setup::DemoSetup;
use crate::snapshot::{Kernel, Snapshot, Sources};

#[global_allocator]
static MEMORY: Memory = Memory;

/// Show Portcullis at work on this host, without a configuration.
#[derive(Debug, Parser)]
#[command(name = "portcullis-demo", version)]
struct Demo {
    /// End after this time; without it, at Ctrl-C
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<humantime::Duration>,
}

fn main() -> ExitCode {
    Memory::map_large_blocks();
    note_inherited();
    match Demo::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("portcullis-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How long the agents may take to finish their last request.
const FLEET_STOP_MAX: Duration = Duration::from_secs(5);

/// How long the gateway may take to count what its clients have seen already.
const SETTLE_MAX: Duration = Duration::from_secs(2);

impl Demo {
    /// Runs the demo to its end. The exit code is 0 only if every agent delivered and every impostor was refused.
    fn execute(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // Catch signals first, so that a signal never leaves anything behind.
        let signals = runtime.block_on(async { Signals::catch() })?;
        let mut setup = DemoSetup::make().context("preparing the demo")?;
        let loaded = config::load(setup.configuration_file())
            .map_err(|errors| anyhow::anyhow!("the demo's own configuration: {errors}"))?;
        let mut config = loaded.config;
        // Nothing of a demo may outlive it.
        config.guard.is_lasting = false;
        let privileges = Privileges::of_this_thread();
        let resolver = Resolver::start(&config.backends)?;
        let gateway = Gateway::start(
            config,
            BlockList::default(),
            privileges,
            &resolver,
            Ports::Shared,
        )?;
        setup.release_ports();
        gateway.set_ready();
        let demo = RunningDemo {
            fleet: Fleet::start(setup.agents()?)?,
            impostors: Impostors::start(setup.impostors()?)?,
            setup,
            gateway,
            started: Instant::now(),
        };
        let mut screen = Screen::new();
        let shown = screen.introduce(&demo.setup).and_then(|()| {
            demo.show(
                &mut screen,
                &runtime,
                signals,
                self.duration.map(Into::into),
            )
        });
        // End everything in order, even where the terminal has failed.
        let last = demo.end()?;
        shown?;
        screen.close(&last)?;
        Ok(if summary::is_good(&last) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Everything that runs.
struct RunningDemo {
    setup: DemoSetup,
    gateway: Gateway,
    fleet: Fleet,
    impostors: Impostors,
    started: Instant,
}

impl RunningDemo {
    /// Draws until the time is up, a signal comes, a worker ends or the reader has gone.
    fn show(
        &self,
        screen: &mut Screen,
        runtime: &Runtime,
        mut signals: Signals,
        duration: Option<Duration>,
    ) -> std::io::Result<()> {
        runtime.block_on(async {
            let mut tick = tokio::time::interval(screen.interval());
            let end = tokio::time::sleep(duration.unwrap_or(Duration::MAX));
            tokio::pin!(end);
            loop {
                tokio::select! {
                    _ = tick.tick() => screen.draw(&self.snapshot())?,
                    () = &mut end => return Ok(()),
                    () = signals.next() => return Ok(()),
                    () = self.gateway.fatal().wait() => return Ok(()),
                }
            }
        })
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::take(
            &self.sources(),
            self.fleet.states(),
            self.impostors.states(),
        )
    }

    fn sources(&self) -> Sources<'_> {
        Sources {
            setup: &self.setup,
            elapsed: self.started.elapsed(),
            metrics: self.gateway.metrics(),
            kernel: Kernel::of(&self.gateway, self.setup.kernel_refusal()),
        }
    }

    /// Ends senders before the gateway, and the gateway before the receiver, so that what was sent can arrive.
    fn end(mut self) -> anyhow::Result<Snapshot> {
        self.impostors.stop();
        self.fleet.stop(FLEET_STOP_MAX)?;
        let deadline = Instant::now() + SETTLE_MAX;
        let mut last = self.snapshot();
        // A worker may count a refusal after its client has read the alert.
        while !summary::is_good(&last) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            last = self.snapshot();
        }
        self.gateway.drain();
        self.setup.clear()?;
        Ok(last)
    }
}

/// The signals that end the demo.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
