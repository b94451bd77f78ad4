//! `portcullis check` beside `portcullis run`: what one refuses the other does, and with whose rights each looks.
//! In: configurations and hosts that are broken in one place. Out: exit codes and words. Needs root, as the gateway's own user.

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tests::{Backend, Behaviour, Setup, Workspace, program};

/// An account that no host has.
const STRANGER: u32 = 54_321;

fn check(workspace: &Workspace, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("portcullis"));
    command.args(["check", "--config"]);
    command.arg(workspace.folder().join("portcullis.toml"));
    command.args(arguments).output().unwrap()
}

fn ends_with(code: i32, output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn setup<'w>(workspace: &'w Workspace, backend: &Backend) -> Setup<'w> {
    let setup = workspace
        .setup()
        .tables("[audit]\nfile = \"audit.jsonl\"\n");
    setup.route("edge", "", &[backend.address()], "")
}

fn write(workspace: &Workspace, setup: &Setup<'_>) {
    fs::write(workspace.folder().join("portcullis.toml"), setup.text()).unwrap();
}

fn fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

fn give_away(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    chown(path, Some(STRANGER), Some(STRANGER)).unwrap();
}

/// Every file and folder below, with its size.
fn everything_below(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let seen = fs::symlink_metadata(&path).unwrap();
        if seen.is_dir() {
            found.extend(everything_below(&path));
        }
        found.push((path, seen.len()));
    }
    found.sort();
    found
}

/// What keeps a gateway from starting: what breaks it, and what both commands say of it.
type Obstacle = (&'static str, fn(&Workspace), &'static str);

const OBSTACLES: [Obstacle; 15] = [
    (
        "a run folder that cannot be made",
        |workspace| drop(File::create(workspace.folder().join("run")).unwrap()),
        "run folder",
    ),
    (
        "a run folder of another account",
        |workspace| {
            fs::create_dir_all(workspace.run_folder()).unwrap();
            give_away(&workspace.run_folder(), 0o750);
        },
        "CAP_DAC_OVERRIDE",
    ),
    (
        "a run folder that everybody may write to",
        |workspace| {
            fs::create_dir_all(workspace.run_folder()).unwrap();
            fs::set_permissions(workspace.run_folder(), Permissions::from_mode(0o777)).unwrap();
        },
        "chmod o-w",
    ),
    (
        "a state folder that is a file",
        |workspace| drop(File::create(workspace.folder().join("state")).unwrap()),
        "state folder",
    ),
    (
        "a block list that is a link to nowhere",
        |workspace| {
            fs::create_dir_all(workspace.state_folder()).unwrap();
            let list = workspace.state_folder().join("blocked.json");
            std::os::unix::fs::symlink("/no/such/volume", list).unwrap();
        },
        "is a link to a file that does not exist",
    ),
    (
        "a block list that is a pipe",
        |workspace| {
            fs::create_dir_all(workspace.state_folder()).unwrap();
            fifo(&workspace.state_folder().join("blocked.json"));
        },
        "is not a regular file",
    ),
    (
        "no folder for the administration endpoint",
        |workspace| edit(workspace, "/admin.sock", "/no-such-folder/admin.sock"),
        "/no-such-folder/admin.sock: ",
    ),
    (
        "a file in the place of the administration endpoint",
        |workspace| drop(File::create(workspace.folder().join("admin.sock")).unwrap()),
        "[admin] address: cannot listen on unix:/",
    ),
    (
        "an audit log in a folder of another account",
        |workspace| {
            fs::create_dir(workspace.folder().join("log")).unwrap();
            give_away(&workspace.folder().join("log"), 0o755);
            edit(workspace, "audit.jsonl", "log/audit.jsonl");
        },
        "[audit] file: ",
    ),
    (
        "an audit log of another account",
        |workspace| {
            File::create(workspace.folder().join("audit.jsonl")).unwrap();
            give_away(&workspace.folder().join("audit.jsonl"), 0o640);
        },
        "[audit] file: ",
    ),
    (
        "an audit log that is a pipe",
        |workspace| fifo(&workspace.folder().join("audit.jsonl")),
        "audit: file",
    ),
    (
        "a key of another account",
        |workspace| give_away(&workspace.server.key, 0o600),
        "CAP_DAC_OVERRIDE",
    ),
    (
        "a certificate that is a pipe",
        |workspace| {
            fs::remove_file(&workspace.server.certificate).unwrap();
            fifo(&workspace.server.certificate);
        },
        "is not a regular file",
    ),
    (
        "an address that is not of this host",
        |workspace| {
            edit(
                workspace,
                &workspace.host.address().to_string(),
                "192.0.2.1",
            )
        },
        "listener \"edge\": cannot listen on 192.0.2.1",
    ),
    (
        "an interface that is not there",
        |workspace| {
            edit(
                workspace,
                "[audit]",
                "[guard]\nmode = \"monitor\"\ninterfaces = [\"nosuch0\"]\nrequired = true\n[audit]",
            );
        },
        "[guard] required = true: ",
    ),
];

fn edit(workspace: &Workspace, from: &str, to: &str) {
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    fs::write(&file, text.replace(from, to)).unwrap();
}

#[test]
fn what_keeps_run_from_starting_check_refuses_in_the_same_words_and_changes_nothing() {
    let backend = Backend::start(Behaviour::Echo);
    for (what, break_it, expected) in OBSTACLES {
        let workspace = Workspace::new();
        write(&workspace, &setup(&workspace, &backend));
        break_it(&workspace);
        let before = everything_below(workspace.folder());
        let said = ends_with(1, &check(&workspace, &[]));
        assert!(said.contains(expected), "{what}: {said}");
        assert_eq!(
            everything_below(workspace.folder()),
            before,
            "{what}: {said}"
        );
        let mut run = Command::new(program("portcullis"));
        run.args(["run", "--config"]);
        run.arg(workspace.folder().join("portcullis.toml"));
        let said = ends_with(1, &run.output().unwrap());
        assert!(said.contains(expected), "{what}: {said}");
        // What a guard that could not start has pinned waits for one that can: here there is none to come.
        let mut detach = Command::new(program("portcullis"));
        detach.args(["guard", "detach", "--config"]);
        detach.arg(workspace.folder().join("portcullis.toml"));
        detach.output().unwrap();
    }
}

#[test]
fn an_address_that_another_process_has_is_refused_and_one_of_the_running_gateway_is_not() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let setup = setup(&workspace, &backend);
    write(&workspace, &setup);
    let before = everything_below(workspace.folder());
    // Another gateway beside it is none of its business.
    let other = Workspace::new();
    let _other = self::setup(&other, &backend).start();
    let said = ends_with(0, &check(&workspace, &[]));
    assert!(said.contains("portcullis.toml: good"), "{said}");
    assert!(!said.contains(other.name()), "{said}");
    assert_eq!(
        everything_below(workspace.folder()),
        before,
        "nothing is made"
    );

    let taken = TcpListener::bind(workspace.host.at(4317)).unwrap();
    let said = ends_with(1, &check(&workspace, &[]));
    assert!(said.contains("another process does"), "{said}");
    ends_with(0, &check(&workspace, &["--files-only"]));
    drop(taken);

    let _gateway = setup.start();
    let said = ends_with(0, &check(&workspace, &[]));
    assert!(said.contains("runs already, as process"), "{said}");
}

#[test]
fn root_looks_with_the_rights_of_the_account_that_the_gateway_runs_as() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    write(&workspace, &setup(&workspace, &backend));
    let key = &workspace.server.key;
    give_away(key, 0o600);
    let said = ends_with(1, &check(&workspace, &[]));
    assert!(said.contains("rights of root (uid 0)"), "{said}");
    // The account's own key is its to read, and so is what everybody may read.
    fs::set_permissions(workspace.folder(), Permissions::from_mode(0o755)).unwrap();
    for folder in [workspace.state_folder(), workspace.run_folder()] {
        fs::create_dir_all(&folder).unwrap();
        give_away(&folder, 0o750);
    }
    File::create(workspace.folder().join("audit.jsonl")).unwrap();
    give_away(&workspace.folder().join("audit.jsonl"), 0o640);
    let sockets = workspace.folder().join("sockets");
    fs::create_dir(&sockets).unwrap();
    give_away(&sockets, 0o755);
    edit(&workspace, "/admin.sock", "/sockets/admin.sock");
    let said = ends_with(0, &check(&workspace, &[]));
    assert!(said.contains(&format!("(uid {STRANGER})")), "{said}");
    // And what is root's is not.
    chown(key, Some(0), Some(0)).unwrap();
    let said = ends_with(1, &check(&workspace, &[]));
    let name = key.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(name), "{said}");
    assert!(said.contains(&format!("(uid {STRANGER})")), "{said}");
    // Whoever is named counts.
    let said = ends_with(1, &check(&workspace, &["--user", "root"]));
    assert!(said.contains("CAP_DAC_OVERRIDE"), "{said}");
}
