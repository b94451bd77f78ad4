//! The newest revocation list of each CA that has been in force, over restarts: an older one that takes its place would bring
//! the revoked back.
//! In: the lists in force, the state folder. Out: whether a list is older than one before it. What the folder does not hold,
//! because it is not there, cannot be written or is damaged, the process remembers. On the threads that read and reload a configuration, and in `portcullis crl`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use gateway_core::limits;
use gateway_core::revocation::{
    AuthorityId, IssuerList, Kinds, ListNumber, ListScope, Rank, Serial,
};
use gateway_files::{JsonFault, LockError, lock, reason, replace};
use serde::{Deserialize, Serialize};

use super::date::date;
use super::file::{self, ReadError};

/// What this process knows, for what the state folder does not hold.
static REMEMBERED: Mutex<Remembered> = Mutex::new(Remembered {
    known: KnownLists {
        lists: BTreeMap::new(),
    },
    unwritten: BTreeSet::new(),
});

struct Remembered {
    known: KnownLists,
    /// The keys of those that the file does not hold. Of all others the file decides: `portcullis crl accept` lowers it.
    unwritten: BTreeSet<String>,
}

impl Remembered {
    /// The file holds these lists.
    fn written<'a>(
        &mut self,
        file: &KnownLists,
        lists: impl Iterator<Item = (&'a AuthorityId, &'a IssuerList)>,
    ) {
        for key in lists.map(|(issuer, list)| key(*issuer, list.scope())) {
            self.unwritten.remove(&key);
            if let Some(known) = file.lists.get(&key) {
                self.known.lists.insert(key, known.clone());
            }
        }
    }

    /// The file does not hold them.
    fn unwritten<'a>(
        &mut self,
        lists: impl Iterator<Item = (&'a AuthorityId, &'a IssuerList)> + Clone,
    ) {
        self.known.raise(lists.clone());
        let keys = lists.map(|(issuer, list)| key(*issuer, list.scope()));
        self.unwritten.extend(keys);
    }
}

/// Why the file of the ranks cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RanksError {
    /// It cannot be read.
    #[error("{}: {}", .0.display(), .1)]
    Read(PathBuf, ReadError),
    /// It is not what was written.
    #[error("{}: is damaged: {}; remove it, and until the next list comes the gateway does not recognise older \
             lists", .0.display(), .1)]
    Broken(PathBuf, JsonFault),
    /// It cannot be written.
    #[error("{}: cannot be written: {}", .0.display(), reason(.1))]
    Write(PathBuf, io::Error),
    /// Another process holds it for too long.
    #[error("{}: cannot be locked: {}", .0.display(), .1)]
    Lock(PathBuf, LockError),
}

/// The newest list of each CA.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownLists {
    lists: BTreeMap<String, Known>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// The CA's name.
    issuer: String,
    /// Hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number: Option<String>,
    /// Seconds of Unix time.
    this_update: u64,
    /// The older list that is to take its place, by the word of an operator, once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accepted: Option<Accepted>,
}

/// A list that an operator has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    /// Hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number: Option<String>,
    /// Seconds of Unix time.
    this_update: u64,
}

impl Known {
    fn of(list: &IssuerList) -> Self {
        let Rank {
            number,
            this_update,
        } = list.rank();
        let since = this_update.duration_since(SystemTime::UNIX_EPOCH);
        Known {
            issuer: list.issuer_name().to_owned(),
            number: number.map(|number| number.0.to_string()),
            this_update: since.unwrap_or_default().as_secs(),
            accepted: None,
        }
    }

    fn rank(&self) -> Rank {
        rank(self.number.as_deref(), self.this_update)
    }

    /// What a list may not be older than.
    fn floor(&self) -> Rank {
        match &self.accepted {
            None => self.rank(),
            Some(accepted) => rank(accepted.number.as_deref(), accepted.this_update),
        }
    }

    /// Notes that a list may take the place of this one.
    fn accept(&mut self, other: &Known) {
        self.accepted = Some(Accepted {
            number: other.number.clone(),
            this_update: other.this_update,
        });
    }
}

fn rank(hexadecimal: Option<&str>, this_update: u64) -> Rank {
    let since = std::time::Duration::from_secs(this_update);
    let this_update = SystemTime::UNIX_EPOCH.checked_add(since);
    Rank {
        number: hexadecimal.and_then(number),
        this_update: this_update.unwrap_or(SystemTime::UNIX_EPOCH),
    }
}

fn number(hexadecimal: &str) -> Option<ListNumber> {
    let bytes: Option<Vec<u8>> = hexadecimal
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    Serial::new(&bytes?).ok().map(ListNumber)
}

/// A rank as people read it.
pub fn shown(rank: &Rank) -> String {
    let made = date(rank.this_update);
    match rank.number {
        Some(number) => format!("number {}, made {made}", number.0),
        None => format!("without a number, made {made}"),
    }
}

/// The file in the state folder.
pub fn file_in(state: &Path) -> PathBuf {
    state.join("revocation-lists.json")
}

/// What lists of one key and of one scope are remembered under.
fn key(issuer: AuthorityId, scope: &ListScope) -> String {
    let hexadecimal =
        |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let points = scope.points.iter().map(|point| hexadecimal(&point.0));
    let points = points.collect::<Vec<_>>().join("+");
    format!(
        "{}{}",
        hexadecimal(&issuer.0),
        of_scope(scope.kinds, &points)
    )
}

/// Digits of the issuer that a key begins with.
const ISSUER_DIGITS: usize = 64;

/// Whether there are certificates that both of two scopes cover, as keys write them.
fn overlap(one: &str, other: &str) -> bool {
    let parts = |scope: &str| -> Option<(String, Vec<String>)> {
        let (kinds, points) = scope.strip_prefix('/')?.split_once('/')?;
        let points = points.split('+').filter(|point| !point.is_empty());
        Some((kinds.to_owned(), points.map(str::to_owned).collect()))
    };
    // What this program has not written covers anything.
    let (Some((one, points)), Some((other, others))) = (parts(one), parts(other)) else {
        return true;
    };
    let all = ["all"; 2];
    let share_kinds = one == other || all.contains(&&*one) || all.contains(&&*other);
    let is_any = points.is_empty() || others.is_empty();
    share_kinds && (is_any || points.iter().any(|point| others.contains(point)))
}

fn of_scope(kinds: Kinds, points: &str) -> String {
    let kinds = match kinds {
        Kinds::All => "all",
        Kinds::EndEntities => "end-entities",
        Kinds::Authorities => "authorities",
    };
    format!("/{kinds}/{points}")
}

impl KnownLists {
    /// What is known in this state folder, and what this process remembers beside it.
    pub fn read(state: &Path) -> Result<Self, RanksError> {
        let file = Self::of_file(state)?;
        let remembered = remembered();
        let Some(mut known) = file else {
            return Ok(remembered.known.clone());
        };
        for key in &remembered.unwritten {
            if let Some(entry) = remembered.known.lists.get(key) {
                known.raise_entry(key.clone(), entry);
            }
        }
        Ok(known)
    }

    /// What this process remembers, where the state folder cannot be read.
    pub fn remembered() -> Self {
        remembered().known.clone()
    }

    /// What the file holds; `None` where there is none.
    fn of_file(state: &Path) -> Result<Option<Self>, RanksError> {
        let path = file_in(state);
        match file::file(&path, limits::LIST_RANKS_FILE_BYTES_MAX) {
            Ok(bytes) => {
                let known = serde_json::from_slice(&bytes);
                known
                    .map(Some)
                    .map_err(|error| RanksError::Broken(path, error.into()))
            }
            Err(ReadError::Open(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RanksError::Read(path, error)),
        }
    }

    /// The rank of the list that was in force before and is newer than this one, if there was one.
    pub fn newer_than(&self, issuer: AuthorityId, list: &IssuerList) -> Option<Rank> {
        let known = self.lists.get(&key(issuer, list.scope()))?;
        let is_older = known.floor().compare(&Known::of(list).rank()).is_gt();
        is_older.then(|| known.rank())
    }

    /// The rank of a list of the same CA and another scope that covers certificates which this one covers, that was in force before
    /// and is newer, and that `named` does not have any more: this one takes its place. Lists of two scopes are numbered each for
    /// itself (RFC 5280 section 5.2.3), so the time decides.
    pub fn newer_of_another_scope(
        &self,
        issuer: AuthorityId,
        list: &IssuerList,
        named: &mut dyn Iterator<Item = (AuthorityId, &ListScope)>,
    ) -> Option<Rank> {
        let own = key(issuer, list.scope());
        let named: BTreeSet<_> = named.map(|(issuer, scope)| key(issuer, scope)).collect();
        let made = Known::of(list).rank().this_update;
        let (own_issuer, own_scope) = own.split_at(ISSUER_DIGITS);
        let is_other = |key: &str| {
            let parts = key.split_at_checked(ISSUER_DIGITS);
            parts.is_some_and(|(issuer, scope)| issuer == own_issuer && overlap(scope, own_scope))
        };
        let mut others = self.lists.iter().filter(|(other, known)| {
            **other != own
                && !named.contains(*other)
                && is_other(other)
                && known.floor().this_update > made
        });
        others.next().map(|(_, known)| known.rank())
    }

    /// Notes that these lists are in force. Returns whether that is new.
    fn raise<'a>(
        &mut self,
        lists: impl Iterator<Item = (&'a AuthorityId, &'a IssuerList)>,
    ) -> bool {
        // Of each CA and scope the newest counts: an older copy beside it takes nothing away from it.
        let mut newest = KnownLists::default();
        for (issuer, list) in lists {
            newest.raise_entry(key(*issuer, list.scope()), &Known::of(list));
        }
        let mut is_new = false;
        for (key, list) in newest.lists {
            is_new |= self.raise_entry(key.clone(), &list);
            let Some(before) = self.lists.get_mut(&key) else {
                continue;
            };
            // The list that was accepted has taken the place.
            if before.accepted.is_some() && list.rank().compare(&before.rank()).is_lt() {
                *before = list;
                is_new = true;
            }
        }
        is_new
    }

    fn raise_entry(&mut self, key: String, list: &Known) -> bool {
        let mut is_new = false;
        let before = self.lists.entry(key).or_insert_with(|| {
            is_new = true;
            list.clone()
        });
        if list.rank().compare(&before.rank()).is_gt() {
            *before = list.clone();
            is_new = true;
        }
        is_new
    }

    /// Takes a list of this issuer, name and scope as the newest from now on. Returns the rank that it comes after, for each CA
    /// of that name.
    fn lower(&mut self, list: &IssuerList) -> Vec<Rank> {
        // The key is not known here, for the list's signature is not looked at: the gateway does, when it reads the list.
        let any = key(AuthorityId([0; 32]), list.scope());
        let scope = &any[ISSUER_DIGITS..];
        let known = Known::of(list);
        let mut before = Vec::new();
        for (key, entry) in &mut self.lists {
            let (rank, own) = (entry.rank(), known.rank());
            let is_newer = match key.get(ISSUER_DIGITS..).unwrap_or_default() {
                same if same == scope => rank.compare(&own).is_gt(),
                other => overlap(other, scope) && rank.this_update > own.this_update,
            };
            if entry.issuer == known.issuer && is_newer {
                before.push(rank);
                entry.accept(&known);
            }
        }
        before
    }

    fn write(&self, path: &Path) -> Result<(), RanksError> {
        let failed = |error| RanksError::Write(path.to_owned(), error);
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        replace(path, folder, &(text + "\n")).map_err(failed)
    }
}

/// Notes that these lists are in force: in the state folder, and in this process.
pub fn record<'a>(
    state: &Path,
    lists: impl Iterator<Item = (&'a AuthorityId, &'a IssuerList)> + Clone,
) -> Result<(), RanksError> {
    let file = write(state, lists.clone());
    let mut remembered = remembered();
    match file {
        Ok(Some(file)) => remembered.written(&file, lists),
        // There is no folder: the process remembers.
        Ok(None) => remembered.unwritten(lists),
        Err(error) => {
            remembered.unwritten(lists);
            return Err(error);
        }
    }
    Ok(())
}

/// Raises the file to these lists and returns what it holds then; `None` where there is no folder for it.
fn write<'a>(
    state: &Path,
    lists: impl Iterator<Item = (&'a AuthorityId, &'a IssuerList)> + Clone,
) -> Result<Option<KnownLists>, RanksError> {
    if !fs::exists(state).unwrap_or(false) {
        return Ok(None);
    }
    // Looked at without the lock first: it is a file, and mostly there is nothing new.
    if let Some(file) = KnownLists::of_file(state)?
        && !file.clone().raise(lists.clone())
    {
        return Ok(Some(file));
    }
    let raised = change(state, |known| {
        known.raise(lists);
        known.clone()
    });
    raised.map(Some)
}

/// Takes a list as the newest of its CA from now on. Returns what it comes after.
pub fn accept(state: &Path, list: &IssuerList) -> Result<Vec<Rank>, RanksError> {
    change(state, |known| known.lower(list))
}

fn change<T>(state: &Path, change: impl FnOnce(&mut KnownLists) -> T) -> Result<T, RanksError> {
    let path = file_in(state);
    let _lock = lock(&path).map_err(|error| RanksError::Lock(path.clone(), error))?;
    let known = KnownLists::of_file(state)?;
    let mut known = known.unwrap_or_else(KnownLists::remembered);
    let before = known.clone();
    let outcome = change(&mut known);
    // As it was: nothing to be woken for.
    if known != before || !fs::exists(&path).unwrap_or(false) {
        known.write(&path)?;
    }
    Ok(outcome)
}

fn remembered() -> MutexGuard<'static, Remembered> {
    REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::revocation::{PointId, StalePolicy};
    use std::time::Duration;

    const ISSUER: AuthorityId = AuthorityId([77; 32]);

    fn list(number: u8, made: u64) -> IssuerList {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(made);
        let number = ListNumber(Serial::new(&[number]).unwrap());
        let list = IssuerList::new(made, made, StalePolicy::Refuse);
        list.named("CN=Agents").numbered(Some(number))
    }

    #[test]
    fn an_older_list_is_known_for_one_over_restarts_until_it_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let newer = |number| {
            let known = KnownLists::read(state).unwrap();
            known.newer_than(ISSUER, &list(number, 100)).is_some()
        };
        record(state, [(&ISSUER, &list(5, 100))].into_iter()).unwrap();
        assert!(file_in(state).exists());
        assert_eq!([4, 5, 6].map(newer), [true, false, false]);
        // An older one in force, beside it, takes nothing away.
        record(state, [(&ISSUER, &list(3, 900))].into_iter()).unwrap();
        assert!(newer(4));
        let before = accept(state, &list(4, 100)).unwrap();
        assert_eq!(before, [list(5, 100).rank()]);
        assert_eq!([3, 4].map(newer), [true, false]);
        // Of another name, or about other certificates, it has nothing to say.
        let other = list(1, 100).named("CN=Others");
        assert_eq!(accept(state, &other).unwrap(), []);
        let scope = ListScope {
            kinds: Kinds::EndEntities,
            points: Vec::new(),
        };
        assert_eq!(accept(state, &list(1, 100).about(scope)).unwrap(), []);
    }

    #[test]
    fn a_list_that_is_accepted_before_it_is_there_is_taken_when_it_comes_and_no_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let issuer = AuthorityId([80; 32]);
        let record = |number| record(state, [(&issuer, &list(number, 100))].into_iter()).unwrap();
        let newer = |number| {
            let known = KnownLists::read(state).unwrap();
            known.newer_than(issuer, &list(number, 100)).is_some()
        };
        record(5);
        assert_eq!(accept(state, &list(3, 100)).unwrap(), [list(5, 100).rank()]);
        // The newer one is in force until the other one is in its place.
        record(5);
        assert_eq!([2, 3, 4].map(newer), [true, false, false]);
        record(3);
        assert_eq!([2, 3, 4].map(newer), [true, false, false]);
        // From then on it is the one that others are compared with; and one accepted for an earlier state is not.
        record(4);
        assert_eq!([3, 4].map(newer), [true, false]);
        accept(state, &list(2, 100)).unwrap();
        record(6);
        assert_eq!([2, 5, 6].map(newer), [true, true, false]);
    }

    #[test]
    fn a_list_of_another_scope_that_takes_the_place_of_a_newer_one_is_known_for_older() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let issuer = AuthorityId([81; 32]);
        let scope = |kinds, points: &[u8]| ListScope {
            kinds,
            points: points.iter().map(|point| PointId([*point; 8])).collect(),
        };
        let (all, clients) = (scope(Kinds::All, &[]), scope(Kinds::EndEntities, &[]));
        let before = list(9, 200).about(all.clone());
        record(state, [(&issuer, &before)].into_iter()).unwrap();
        let newer = |list: &IssuerList, named: &[&ListScope]| {
            let known = KnownLists::read(state).unwrap();
            let mut named = named.iter().map(|scope| (issuer, *scope));
            let newer = known.newer_of_another_scope(issuer, list, &mut named);
            newer.is_some()
        };
        // A higher number says nothing: another scope has numbers of its own.
        let old = list(10, 199).about(clients.clone());
        assert!(newer(&old, &[&clients]));
        assert!(!newer(&old, &[&clients, &all]), "beside the newer one");
        assert!(!newer(&list(1, 200).about(clients.clone()), &[&clients]));
        assert!(!newer(&list(1, 199).about(all), &[]), "of its own scope");
        assert!(newer(&list(1, 199).about(scope(Kinds::All, &[1])), &[]));
        assert_eq!(accept(state, &old).unwrap(), [before.rank()]);
        assert!(!newer(&old, &[&clients]));
        assert!(newer(&list(10, 198).about(clients.clone()), &[&clients]));

        // Of two parts one may be left out.
        let part = |point: u8, made| list(1, made).about(scope(Kinds::EndEntities, &[point]));
        let other = AuthorityId([82; 32]);
        record(state, [(&other, &part(1, 300))].into_iter()).unwrap();
        let known = KnownLists::read(state).unwrap();
        let older = |list: &IssuerList| {
            let newer = known.newer_of_another_scope(other, list, &mut std::iter::empty());
            newer.is_some()
        };
        assert!(!older(&part(2, 200)));
        assert!(!older(&list(1, 200).about(scope(Kinds::Authorities, &[1]))));
        assert!(older(&list(1, 200).about(scope(Kinds::All, &[1]))));
    }

    #[test]
    fn without_a_folder_the_process_remembers() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("absent");
        let issuer = AuthorityId([78; 32]);
        record(&state, [(&issuer, &list(5, 100))].into_iter()).unwrap();
        let known = KnownLists::read(&state).unwrap();
        assert!(known.newer_than(issuer, &list(4, 100)).is_some());
        assert!(!state.exists());
    }

    #[test]
    fn what_cannot_be_written_is_remembered_beside_the_file_and_written_when_it_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let issuer = AuthorityId([79; 32]);
        let newer_than = |known: &KnownLists, number| {
            let newer = known.newer_than(issuer, &list(number, 100));
            newer.is_some()
        };
        let record = |number| record(state, [(&issuer, &list(number, 100))].into_iter());
        record(5).unwrap();
        let good = std::fs::read(file_in(state)).unwrap();
        std::fs::write(file_in(state), "{\"lists\":").unwrap();
        assert!(newer_than(&KnownLists::remembered(), 4));
        assert!(matches!(record(7), Err(RanksError::Broken(..))));
        assert!(newer_than(&KnownLists::remembered(), 6));
        // The file as it was knows of the first one only.
        std::fs::write(file_in(state), good).unwrap();
        let known = KnownLists::read(state).unwrap();
        assert_eq!(
            [6, 7].map(|number| newer_than(&known, number)),
            [true, false]
        );
        record(7).unwrap();
        let known = KnownLists::of_file(state).unwrap().unwrap();
        assert!(newer_than(&known, 6));
        // From now on the file decides again.
        accept(state, &list(3, 100)).unwrap();
        assert!(!newer_than(&KnownLists::read(state).unwrap(), 3));
    }

    #[test]
    fn what_is_damaged_is_an_error_and_not_an_empty_memory() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(file_in(folder.path()), "{\"lists\":").unwrap();
        let refused = KnownLists::read(folder.path());
        assert!(matches!(refused, Err(RanksError::Broken(..))));
    }
}
