//! The watcher on the layouts that rotate files in practice: each change is reported with the files it concerns, and what
//! is no change is not. In: real files. Out: what the watcher reports.

// Helpers of tests may do what tests may.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use gateway_files::{Changed, FileSnapshot, Watcher};
use tempfile::TempDir;

/// A guard against hanging.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than the watcher waits for the end of a burst.
const APART: Duration = Duration::from_millis(400);

/// A folder whose files are watched.
struct Layout {
    folder: TempDir,
    watched: Option<(Watcher, Receiver<Changed>)>,
}

impl Layout {
    fn new() -> Self {
        Layout {
            folder: tempfile::tempdir().unwrap(),
            watched: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn link(&self, target: &str, name: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    /// Puts a link in the place of another, in one step.
    fn swap(&self, target: &str, name: &str) -> &Self {
        self.link(target, "swap.tmp").rename("swap.tmp", name)
    }

    fn rename(&self, from: &str, to: &str) -> &Self {
        fs::rename(self.path(from), self.path(to)).unwrap();
        self
    }

    fn seen(&self, names: &[&str]) -> Vec<FileSnapshot> {
        let seen = |name: &&str| FileSnapshot::now(&self.path(name));
        names.iter().map(seen).collect()
    }

    /// Watches these files, and a control file that is used to tell that nothing was reported.
    fn watch(&mut self, names: &[&str]) -> &Self {
        self.write("control", "0");
        let (sender, receiver) = channel();
        let seen = self.seen(&[names, &["control"]].concat());
        let watcher = Watcher::start("watcher", seen, move |changed| {
            let _ = sender.send(changed);
        });
        self.watched = Some((watcher.unwrap(), receiver));
        // Whoever asks the kernel a moment later sees the same; this makes the test one of announcements, not of looks.
        thread::sleep(APART);
        self
    }

    fn next(&self) -> Changed {
        let (_, reports) = self.watched.as_ref().unwrap();
        reports.recv_timeout(PATIENCE).expect("a report")
    }

    /// Waits for reports until each of these files has been in one, and none beside them.
    fn expect(&self, names: &[&str]) -> &Self {
        let mut missing: Vec<_> = names.iter().map(|name| self.path(name)).collect();
        let expected = missing.clone();
        while !missing.is_empty() {
            for file in self.next().files {
                assert!(
                    expected.contains(&file),
                    "{} did not change",
                    file.display()
                );
                missing.retain(|other| *other != file);
            }
        }
        self
    }

    /// Nothing was reported of what was done before: the next report is that of the control file alone.
    fn expect_nothing(&self) -> &Self {
        thread::sleep(APART);
        let count: u32 = fs::read_to_string(self.path("control"))
            .unwrap()
            .parse()
            .unwrap();
        self.write("control", &(count + 1).to_string());
        self.expect(&["control"])
    }
}

#[test]
fn a_file_renamed_over_is_reported_with_the_first_sign_of_it() {
    let mut layout = Layout::new();
    layout.write("tls.crt", "one").write("tls.key", "one");
    layout.watch(&["tls.crt", "tls.key"]);
    let before = Instant::now();
    layout.write("new", "two").rename("new", "tls.crt");
    let after = Instant::now();
    let changed = layout.next();
    assert_eq!(changed.files, [layout.path("tls.crt")]);
    assert!(changed.since >= before);
    assert!(
        changed.since <= after + APART,
        "the first sign, not the report"
    );
    layout.expect_nothing();
}

#[test]
fn secrets_mounted_by_kubernetes_change_all_at_once() {
    let mut layout = Layout::new();
    layout
        .write("secret/..2026_11_22/tls.crt", "one")
        .write("secret/..2026_11_22/tls.key", "one")
        .link("..2026_11_22", "secret/..data")
        .link("..data/tls.crt", "secret/tls.crt")
        .link("..data/tls.key", "secret/tls.key");
    layout.watch(&["secret/tls.crt", "secret/tls.key"]);
    for day in ["23", "24", "25"] {
        let directory = format!("secret/..2026_11_{day}");
        layout
            .write(&format!("{directory}/tls.crt"), day)
            .write(&format!("{directory}/tls.key"), day)
            .link(&format!("..2026_11_{day}"), "secret/..data_tmp")
            .rename("secret/..data_tmp", "secret/..data");
        let mut changed = layout.next();
        changed.files.sort();
        let both = ["secret/tls.crt", "secret/tls.key"];
        assert_eq!(changed.files, both.map(|name| layout.path(name)));
    }
    fs::remove_dir_all(layout.path("secret/..2026_11_22")).unwrap();
    layout.expect_nothing();
}

#[test]
fn links_of_certbot_are_followed_to_the_archive_and_back() {
    let mut layout = Layout::new();
    layout
        .write("archive/x/fullchain1.pem", "one")
        .write("archive/x/privkey1.pem", "one")
        .link("../../archive/x/fullchain1.pem", "live/x/fullchain.pem")
        .link("../../archive/x/privkey1.pem", "live/x/privkey.pem");
    layout.watch(&["live/x/fullchain.pem", "live/x/privkey.pem"]);
    layout
        .write("archive/x/privkey2.pem", "two")
        .write("archive/x/fullchain2.pem", "two");
    layout.expect_nothing();
    // Certbot removes the link and makes it anew.
    for name in ["privkey", "fullchain"] {
        fs::remove_file(layout.path(&format!("live/x/{name}.pem"))).unwrap();
        layout.link(
            &format!("../../archive/x/{name}2.pem"),
            &format!("live/x/{name}.pem"),
        );
    }
    layout.expect(&["live/x/fullchain.pem", "live/x/privkey.pem"]);
    // What the links lead to now is watched too.
    layout.write("archive/x/fullchain2.pem", "three");
    layout.expect(&["live/x/fullchain.pem"]);
}

#[test]
fn a_directory_above_may_be_a_link_that_is_swapped() {
    let mut layout = Layout::new();
    layout
        .write("releases/1/etc/gateway.toml", "one")
        .write("releases/2/etc/gateway.toml", "two")
        .link("releases/1", "current");
    layout.watch(&["current/etc/gateway.toml"]);
    layout.swap("releases/2", "current");
    layout.expect(&["current/etc/gateway.toml"]);
    layout.write("releases/2/etc/gateway.toml", "three");
    layout.expect(&["current/etc/gateway.toml"]);
    layout.write("releases/1/etc/gateway.toml", "nobody reads this");
    layout.expect_nothing();
}

#[test]
fn a_directory_above_may_be_renamed_over() {
    let mut layout = Layout::new();
    layout
        .write("etc/ca/roots.pem", "one")
        .write("next/ca/roots.pem", "two");
    layout.watch(&["etc/ca/roots.pem"]);
    layout.rename("etc", "old").rename("next", "etc");
    layout.expect(&["etc/ca/roots.pem"]);
    layout.write("etc/ca/roots.pem", "three");
    layout.expect(&["etc/ca/roots.pem"]);
}

#[test]
fn a_file_that_is_written_in_pieces_is_reported_when_it_is_closed() {
    let mut layout = Layout::new();
    layout.write("list.crl", "old");
    layout.watch(&["list.crl"]);
    let mut file = File::create(layout.path("list.crl")).unwrap();
    for _ in 0..4 {
        file.write_all(b"piece").unwrap();
        // Longer than a quiet period, so that only the open file holds the report back.
        thread::sleep(Duration::from_millis(80));
    }
    drop(file);
    layout.expect(&["list.crl"]);
    assert_eq!(fs::read(layout.path("list.crl")).unwrap().len(), 20);
    layout.expect_nothing();
}

#[test]
fn a_writer_that_never_closes_is_not_waited_for() {
    let mut layout = Layout::new();
    layout.write("list.crl", "old");
    layout.watch(&["list.crl"]);
    let mut file = File::create(layout.path("list.crl")).unwrap();
    file.write_all(b"new").unwrap();
    layout.expect(&["list.crl"]);
    file.write_all(b" and more").unwrap();
    layout.expect(&["list.crl"]);
}

#[test]
fn of_changes_in_quick_succession_the_last_one_counts() {
    let layout = Layout::new();
    layout.write("gateway.toml", "0");
    let path = layout.path("gateway.toml");
    let (sender, receiver) = channel();
    let reader = path.clone();
    let watcher = Watcher::start("watcher", vec![FileSnapshot::now(&path)], move |_| {
        let _ = sender.send(fs::read_to_string(&reader).unwrap());
    });
    for number in 1..=200 {
        layout
            .write("new", &number.to_string())
            .rename("new", "gateway.toml");
    }
    // However many reports there are, whoever reads the file on each has read the last state in the end.
    while receiver.recv_timeout(PATIENCE).expect("a report") != "200" {}
    drop(watcher);
}

#[test]
fn a_file_deleted_and_made_again_is_noticed_both_times() {
    let mut layout = Layout::new();
    layout.write("ca.pem", "one");
    layout.watch(&["ca.pem"]);
    fs::remove_file(layout.path("ca.pem")).unwrap();
    layout.expect(&["ca.pem"]);
    layout.write("ca.pem", "one");
    layout.expect(&["ca.pem"]);
}

#[test]
fn a_directory_removed_and_made_again_is_noticed_both_times() {
    let mut layout = Layout::new();
    layout.write("etc/ca/roots.pem", "one");
    layout.watch(&["etc/ca/roots.pem"]);
    fs::remove_dir_all(layout.path("etc")).unwrap();
    layout.expect(&["etc/ca/roots.pem"]);
    layout.write("etc/ca/roots.pem", "two");
    layout.expect(&["etc/ca/roots.pem"]);
    layout.write("etc/ca/roots.pem", "three");
    layout.expect(&["etc/ca/roots.pem"]);
}

#[test]
fn a_file_that_does_not_exist_yet_is_waited_for() {
    let mut layout = Layout::new();
    layout.watch(&["later/on/file.pem"]);
    layout.write("later/on/other.pem", "nobody asked");
    layout.expect_nothing();
    layout.write("later/on/file.pem", "here");
    layout.expect(&["later/on/file.pem"]);
}

#[test]
fn a_touch_is_no_change_and_a_mode_is_one() {
    let mut layout = Layout::new();
    layout.write("tls.key", "key");
    layout.watch(&["tls.key"]);
    layout.write("tls.key", "key");
    layout.write("new", "key").rename("new", "tls.key");
    layout.expect_nothing();
    let mode = fs::Permissions::from_mode(0o400);
    fs::set_permissions(layout.path("tls.key"), mode).unwrap();
    layout.expect(&["tls.key"]);
}

#[test]
fn what_changed_between_reading_and_watching_is_reported() {
    let layout = Layout::new();
    layout
        .write("gateway.toml", "one")
        .write("added.pem", "one");
    let (sender, receiver) = channel();
    let seen = layout.seen(&["gateway.toml"]);
    layout.write("gateway.toml", "two");
    let report = move |changed: Changed| {
        let _ = sender.send(changed.files);
    };
    let watcher = Watcher::start("watcher", seen, report).unwrap();
    let next = || receiver.recv_timeout(PATIENCE).expect("a report");
    assert_eq!(next(), [layout.path("gateway.toml")]);

    let both = layout.seen(&["gateway.toml", "added.pem"]);
    layout.write("added.pem", "two");
    watcher.watch(both);
    assert_eq!(next(), [layout.path("added.pem")]);
    layout.write("added.pem", "three");
    assert_eq!(next(), [layout.path("added.pem")]);
    drop(watcher);
    assert!(
        receiver.recv().is_err(),
        "nothing is reported after the end"
    );
}

#[test]
fn a_file_that_is_written_by_another_path_is_noticed() {
    let mut layout = Layout::new();
    layout
        .write("etc/shared", "one")
        .write("elsewhere/file", "");
    fs::hard_link(layout.path("etc/shared"), layout.path("elsewhere/shared")).unwrap();
    layout.watch(&["etc/shared"]);
    layout.write("elsewhere/shared", "two");
    layout.expect(&["etc/shared"]);
}
