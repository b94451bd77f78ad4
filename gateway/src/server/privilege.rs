//! Capabilities stay with one thread that lives as long as the start takes: it binds ports and attaches the kernel
//! programs. All other threads, the one that reads the configuration among them, begin without any, so that what they
//! could do at the start they can do at every reload. In: work that takes capabilities. Out: what came of it.

use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities,
};

/// Work for the thread that has the capabilities.
type Work = Box<dyn FnOnce() + Send>;

/// The capabilities that the process was started with.
#[derive(Debug)]
pub struct Privileges(Option<Apart>);

#[derive(Debug)]
struct Apart {
    work: Sender<Work>,
    thread: JoinHandle<()>,
}

impl Privileges {
    /// Those of the calling thread, which keeps them.
    pub fn of_this_thread() -> Self {
        Self(None)
    }

    /// Gives up every capability of the calling thread, and of those that it will start, for good. To be called before
    /// any other thread is started.
    ///
    /// # Errors
    /// When no thread can be started. Then nothing is given up.
    pub fn set_apart() -> io::Result<Self> {
        let (work, waiting) = channel::<Work>();
        let serve = move || waiting.iter().for_each(|work| work());
        let thread = std::thread::Builder::new()
            .name("privileged".to_owned())
            .spawn(serve)?;
        give_up()?;
        Ok(Self(Some(Apart { work, thread })))
    }

    /// Does `work` with the capabilities.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let Some(apart) = &self.0 else { return work() };
        let (done, answer) = channel();
        let work = move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // It is waited for below.
            let _ = done.send(outcome);
        };
        apart
            .work
            .send(Box::new(work))
            .expect("the thread waits for work until it is told that there is no more");
        match answer.recv().expect("work answers, even when it panics") {
            Ok(outcome) => outcome,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// The end of the thread that had them.
    pub fn end(self) {
        if let Some(Apart { work, thread }) = self.0 {
            drop(work);
            // It does nothing that could panic.
            let _ = thread.join();
        }
    }
}

/// Drops all capabilities of this thread; programs that it would start could not get any back (prctl(2),
/// `PR_SET_NO_NEW_PRIVS`).
fn give_up() -> io::Result<()> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_no_new_privs(true)?;
    // Older than Linux 4.3: there are none.
    let _ = clear_ambient_capability_set();
    Ok(set_capabilities(None, none)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    use rustix::thread::capabilities;

    #[test]
    fn capabilities_stay_with_the_thread_apart_and_with_no_other() {
        // On a thread of its own, which loses them.
        let (before, main, child, apart) = std::thread::spawn(|| {
            let of_this_thread = || capabilities(None).unwrap().permitted;
            let before = of_this_thread();
            let privileges = Privileges::set_apart().unwrap();
            let main = of_this_thread();
            let child = std::thread::spawn(of_this_thread).join().unwrap();
            let apart = privileges.run(of_this_thread);
            privileges.end();
            (before, main, child, apart)
        })
        .join()
        .unwrap();
        assert_eq!(apart, before);
        assert_eq!(main, CapabilitySet::empty());
        assert_eq!(child, CapabilitySet::empty());
    }

    #[test]
    fn a_panic_of_the_work_is_the_callers() {
        let outcome = std::thread::spawn(|| {
            let privileges = Privileges::set_apart().unwrap();
            privileges.run(|| panic!("as planned"))
        })
        .join();
        assert!(outcome.is_err());
    }
}
