//! Clients that try to get in without the right to. In: targets, each with its certificate or none. Out: live counts.
//! On a thread of their own: one attempt each, round after round, until stopped. Always finishes the first round.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gateway_core::failure::Failure;
use loadgen::client::Target;
use loadgen::impostor::{Attempt, attempt};

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(500);

/// One impostor.
#[derive(Debug)]
pub struct Impostor {
    /// Why it has no right to get in.
    pub name: &'static str,
    /// The reason that the gateway must refuse it for.
    pub reason: Failure,
    /// The gateway, with the impostor's certificate or none.
    pub target: Target,
}

/// Counts of one impostor at one moment.
#[derive(Debug, Clone)]
pub struct ImpostorState {
    pub name: &'static str,
    pub reason: Failure,
    pub attempts: u64,
    pub refused: u64,
    /// The last answer of the TLS layer.
    pub said: String,
}

/// The running impostors.
#[derive(Debug)]
pub struct Impostors {
    states: Arc<Mutex<Vec<ImpostorState>>>,
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Impostors {
    /// Starts trying.
    pub fn start(impostors: Vec<Impostor>) -> std::io::Result<Self> {
        let states = impostors
            .iter()
            .map(|impostor| ImpostorState {
                name: impostor.name,
                reason: impostor.reason,
                attempts: 0,
                refused: 0,
                said: String::new(),
            })
            .collect();
        let states = Arc::new(Mutex::new(states));
        let (stop, stopped) = channel();
        let shared = Arc::clone(&states);
        let thread = thread::Builder::new()
            .name("impostors".to_owned())
            .spawn(move || {
                loop {
                    for (position, impostor) in impostors.iter().enumerate() {
                        let outcome = try_once(impostor);
                        lock(&shared)[position].note(outcome);
                    }
                    // A message and a sender that is gone both mean the end.
                    if stopped.recv_timeout(PAUSE)
                        != Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                    {
                        return;
                    }
                }
            })?;
        Ok(Self {
            states,
            stop,
            thread: Some(thread),
        })
    }

    /// The counts now.
    pub fn states(&self) -> Vec<ImpostorState> {
        lock(&self.states).clone()
    }

    /// Lets the round end. The counts stay.
    pub fn stop(&mut self) {
        // It ends by itself only when it panicked, and then the counts show that it did not go on.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl ImpostorState {
    fn note(&mut self, (refused, said): (bool, String)) {
        self.attempts += 1;
        self.refused += u64::from(refused);
        self.said = said;
    }
}

fn try_once(impostor: &Impostor) -> (bool, String) {
    match attempt(&impostor.target) {
        Ok(Attempt::Refused(failure)) => (true, failure.kind.label()),
        Ok(Attempt::LetIn) => (false, "LET IN".to_owned()),
        Ok(Attempt::Unknown(failure)) => (false, failure.to_string()),
        Err(error) => (false, format!("{error:#}")),
    }
}

fn lock(states: &Mutex<Vec<ImpostorState>>) -> MutexGuard<'_, Vec<ImpostorState>> {
    states
        .lock()
        .expect("nothing panics while it holds the counts")
}
