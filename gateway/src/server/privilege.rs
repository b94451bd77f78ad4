//! Capabilities stay with one thread that lives as long as the start takes: it binds ports and attaches the kernel
//! programs. All other threads, the one that reads the configuration among them, begin without any, so that what they
//! could do at the start they can do at every reload. In: work that takes capabilities. Out: what came of it.
//! `check` takes the same step, so that it finds what the start would find; as root, into the rights of the user that the
//! gateway runs as.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::config::Paths;
use crate::control::account_name;

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
        let privileges = Self::set_apart_thread()?;
        give_up()?;
        Ok(privileges)
    }

    /// Starts the thread that keeps them.
    fn set_apart_thread() -> io::Result<Self> {
        let (work, waiting) = channel::<Work>();
        let serve = move || waiting.iter().for_each(|work| work());
        let thread = std::thread::Builder::new()
            .name("privileged".to_owned())
            .spawn(serve)?;
        Ok(Self(Some(Apart { work, thread })))
    }

    /// As `set_apart`; the calling thread, and those that it will start, have the rights of `user` from then on. Takes root,
    /// unless they have them already.
    ///
    /// # Errors
    /// As `set_apart`, and when the kernel does not let this process change its user.
    pub fn set_apart_as(user: &HostUser) -> io::Result<Self> {
        let privileges = Self::set_apart_thread()?;
        if user.number != geteuid().as_raw() {
            user.assume()?;
        }
        give_up()?;
        Ok(privileges)
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

/// A user of this host with its groups: it decides which files a process can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostUser {
    number: u32,
    group: u32,
    /// Further groups.
    groups: Vec<u32>,
}

impl HostUser {
    /// The user that can run the gateway with these folders: the owner of its state folder, or of the folder that it would be
    /// made in. No other user can write there, root without capabilities included.
    ///
    /// # Errors
    /// When not even the root folder can be looked at.
    pub fn of_gateway(paths: &Paths) -> io::Result<Self> {
        let mut ancestors = paths.state.ancestors();
        let found = ancestors.find_map(|folder| fs::metadata(folder).ok());
        let found = found.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self::of_user(found.uid()).unwrap_or(HostUser {
            group: found.gid(),
            ..Self::of_number(found.uid())
        }))
    }

    /// The user with this number, as passwd(5) and group(5) know it.
    pub fn of_user(user: u32) -> Option<Self> {
        Self::find(|_, number| number == user)
    }

    /// A user that no file knows: its group has the same number.
    pub fn of_number(user: u32) -> Self {
        HostUser {
            number: user,
            group: user,
            groups: Vec::new(),
        }
    }

    /// The user with this name or number.
    pub fn named(name: &str) -> Option<Self> {
        let number = name.parse::<u32>().ok();
        Self::find(|known, user| known == name || Some(user) == number)
    }

    fn find(is_wanted: impl Fn(&str, u32) -> bool) -> Option<Self> {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let (name, user, group) = users.lines().find_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _, user, group, ..] = fields[..] else {
                return None;
            };
            let (user, group) = (user.parse().ok()?, group.parse().ok()?);
            is_wanted(name, user).then_some((name, user, group))
        })?;
        let all = fs::read_to_string("/etc/group").unwrap_or_default();
        let groups = all.lines().filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [_, _, group, members] = fields[..] else {
                return None;
            };
            let is_member = members.split(',').any(|member| member == name);
            is_member.then(|| group.parse().ok()).flatten()
        });
        Some(HostUser {
            number: user,
            group,
            groups: groups.collect(),
        })
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether it is root.
    pub fn is_root(&self) -> bool {
        self.number == 0
    }

    /// Gives this thread its user and groups, for good.
    fn assume(&self) -> io::Result<()> {
        let groups: Vec<_> = std::iter::once(self.group)
            .chain(self.groups.iter().copied())
            .map(Gid::from_raw)
            .collect();
        set_thread_groups(&groups)?;
        let group = Gid::from_raw(self.group);
        set_thread_res_gid(group, group, group)?;
        let user = Uid::from_raw(self.number);
        Ok(set_thread_res_uid(user, user, user)?)
    }
}

impl fmt::Display for HostUser {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&account_name(self.number))
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
