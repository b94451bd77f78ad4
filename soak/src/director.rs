//! The director: does the deeds in chapters, each deed once a chapter in a random order, with a roll call between
//! chapters.
//! In: a stage, a seed, a time. Out: a journal. Deeds overlap where they need different resources.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::agents::Grounds;
use crate::deeds::{DEEDS, Deed, INTERLUDE, Need, Step};
use crate::journal::{Disturbance, Fact, Journal};
use crate::random::Random;
use crate::stage::{Stage, listeners};
use crate::watch::Watch;

/// How long a roll call waits until all agents have disconnected.
const GATE: Duration = Duration::from_secs(60);
/// How long a deed keeps its resources after its last step, so that the gateway has acted by it before the next deed.
const SETTLES: Duration = Duration::from_millis(1500);
/// How long agents come and go before the first deed.
const QUIET: Duration = Duration::from_secs(4);

/// The run to play.
pub struct Play<'a> {
    /// The folder of journal, logs and files.
    pub folder: &'a Path,
    /// The gateway's program.
    pub program: &'a Path,
    /// The seed that repeats it.
    pub seed: u64,
    /// For how long.
    pub time: Duration,
}

/// A later step that is due.
struct Pending {
    at: Instant,
    deed: &'static Deed,
    /// None where all is done, and what the deed needed is free.
    step: Option<Step>,
}

struct Director {
    stage: Stage,
    random: Random,
    pending: Vec<Pending>,
    busy: Vec<Need>,
}

/// Plays it.
///
/// # Errors
///
/// When the stage cannot be set. The journal has what goes wrong later.
pub fn run(play: &Play<'_>, journal: &Journal) -> Result<()> {
    journal.note(Fact::Began {
        seed: play.seed,
        program: play.program.display().to_string(),
    });
    let witness = journal.clone();
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let what = format!("the soak panicked: {panic}");
        witness.note(Fact::Trouble { what });
        shown(panic);
    }));
    let mut stage = Stage::set(play.folder, play.program, journal, play.seed)?;
    let watch = Watch::begin(play.folder, journal);
    stage.start_gateway()?;
    let grounds = Arc::new(Grounds::new(journal.clone(), listeners()));
    stage.populate(&grounds, play.seed)?;
    let mut director = Director {
        stage,
        random: Random::part(play.seed, u64::MAX),
        pending: Vec::new(),
        busy: Vec::new(),
    };
    let played = director.play(&grounds, Instant::now() + play.time);
    if let Err(error) = played {
        journal.note(Fact::Trouble {
            what: format!("{error:#}"),
        });
    }
    director.end(&grounds);
    watch.end();
    journal.flush()
}

impl Director {
    /// Plays chapters until the time is nearly over: one at least, and no further one of which less than half would
    /// fit.
    fn play(&mut self, grounds: &Grounds, until: Instant) -> Result<()> {
        thread::sleep(QUIET);
        self.call_the_roll(grounds)?;
        loop {
            let began = Instant::now();
            self.chapter();
            self.call_the_roll(grounds)?;
            self.begin(&INTERLUDE);
            self.finish();
            self.call_the_roll(grounds)?;
            if Instant::now() + began.elapsed() / 2 > until {
                return Ok(());
            }
        }
    }

    /// Each deed once.
    fn chapter(&mut self) {
        let mut deck: Vec<&'static Deed> = DEEDS.iter().collect();
        self.random.shuffle(&mut deck);
        while !deck.is_empty() {
            let free = deck.iter().position(|deed| {
                let mut needs = deed.needs.iter();
                needs.all(|need| !self.busy.contains(need))
            });
            match free {
                Some(index) => {
                    let deed = deck.remove(index);
                    self.begin(deed);
                    let pause = self.random.between(500, 3000);
                    self.wait(Duration::from_millis(pause));
                }
                None => self.wait(Duration::from_millis(200)),
            }
        }
        self.finish();
    }

    /// Waits until every deed is undone.
    fn finish(&mut self) {
        while !self.pending.is_empty() {
            self.wait(Duration::from_millis(100));
        }
    }

    fn begin(&mut self, deed: &'static Deed) {
        self.note(deed, true);
        let began = Instant::now();
        match (deed.begin)(&mut self.stage) {
            Err(error) => self.complain(deed, &error),
            Ok(plan) => {
                self.busy.extend(deed.needs);
                let mut settled = Instant::now() + SETTLES;
                for (delay, step) in plan {
                    let at = began + delay;
                    settled = settled.max(at + SETTLES);
                    self.pending.push(Pending {
                        at,
                        deed,
                        step: Some(step),
                    });
                }
                self.pending.push(Pending {
                    at: settled,
                    deed,
                    step: None,
                });
            }
        }
    }

    /// Waits, and does the steps that become due.
    fn wait(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let now = Instant::now();
            let mut due = self.pending.iter();
            if let Some(index) = due.position(|pending| pending.at <= now) {
                let pending = self.pending.remove(index);
                self.follow(pending);
            } else if now >= until {
                return;
            } else {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn follow(&mut self, pending: Pending) {
        let deed = pending.deed;
        match pending.step {
            Some(step) => {
                if let Err(error) = step(&mut self.stage) {
                    self.complain(deed, &error);
                }
            }
            None => {
                self.note(deed, false);
                self.busy.retain(|need| !deed.needs.contains(need));
            }
        }
    }

    fn note(&self, deed: &Deed, begins: bool) {
        let name = deed.name.to_owned();
        self.stage.journal.note(Fact::Deed { name, begins });
    }

    fn complain(&self, deed: &Deed, error: &anyhow::Error) {
        let what = format!("{}: {error:#}", deed.name);
        self.stage.journal.note(Fact::Trouble { what });
    }

    fn call_the_roll(&mut self, grounds: &Grounds) -> Result<()> {
        let is_empty = grounds.close(GATE);
        ensure!(is_empty, "agents do not come to an end");
        let called = self.stage.call_the_roll();
        grounds.open();
        called?;
        self.stage.journal.flush()
    }

    /// Sends SIGTERM while agents connect and disconnect, and ends them after that.
    fn end(mut self, grounds: &Grounds) {
        thread::sleep(QUIET / 2);
        self.stage.disturb(Disturbance::Takeover);
        self.stage.terminate();
        grounds.end();
        grounds.close(GATE);
    }
}
