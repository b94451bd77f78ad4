//! Files that others rotate, each with its own layout: no signal, no restart.
//! In: what cert-manager, certbot, Vault agent, spiffe-helper and an editor leave on the disk. Out: what newcomers are
//! served, who is cut off, and that a broken state leaves the old one serving.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tests::{
    Authority, Backend, Behaviour, Client, Closing, Credentials, Gateway, Request, RevocationList,
    Workspace, eventually,
};

const RELOADS: &str = "portcullis_reloads_total";
const TAKEN: [(&str, &str); 1] = [("result", "taken")];
const REFUSED: [(&str, &str); 1] = [("result", "refused")];
const ENDED: &str = "portcullis_connections_ended_total";

fn ping(client: &mut Client) {
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
}

/// A new certificate for the gateway.
fn renewed(workspace: &Workspace, name: &str) -> Credentials {
    let request = Request::server("gateway.test").dns("gateway.test");
    workspace.gateways.issue(name, request)
}

fn leaf(certificate: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(certificate).unwrap()
}

/// What a newcomer is served.
fn served(workspace: &Workspace, gateway: &Gateway) -> CertificateDer<'static> {
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut client);
    client.connection().peer_certificates().unwrap()[0].clone()
}

/// Waits until newcomers are served this certificate.
fn wait_until_served(workspace: &Workspace, gateway: &Gateway, certificate: &Path) {
    let expected = leaf(certificate);
    eventually("the new certificate is served", || {
        (served(workspace, gateway) == expected).then_some(())
    });
}

/// A folder of the workspace, with its path.
fn folder(workspace: &Workspace, name: &str) -> PathBuf {
    let path = workspace.folder().join(name);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Puts a file in the place of another in one step, as careful writers do.
fn replace(from: &Path, to: &Path) {
    let staged = to.with_file_name("staged");
    fs::copy(from, &staged).unwrap();
    fs::rename(staged, to).unwrap();
}

/// Puts a link in the place of another in one step.
fn relink(target: &str, link: &Path) {
    let staged = link.with_file_name("staged");
    symlink(target, &staged).unwrap();
    fs::rename(staged, link).unwrap();
}

#[test]
fn a_secret_that_kubernetes_mounts_is_taken_when_it_is_swapped_whole() {
    let mut workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mount = folder(&workspace, "mount");
    let others = Authority::create(workspace.folder(), "others", "Other agents of the test");
    let publish = |day: &str, own: &Credentials, ca: &Path| {
        let data = mount.join(format!("..2026_11_{day}"));
        fs::create_dir(&data).unwrap();
        fs::copy(&own.certificate, data.join("tls.crt")).unwrap();
        fs::copy(&own.key, data.join("tls.key")).unwrap();
        fs::copy(ca, data.join("ca.crt")).unwrap();
        relink(&format!("..2026_11_{day}"), &mount.join("..data"));
    };
    publish("22", &workspace.server, &workspace.agents.certificate());
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        symlink(format!("..data/{name}"), mount.join(name)).unwrap();
    }
    workspace.server = Credentials {
        certificate: mount.join("tls.crt"),
        key: mount.join("tls.key"),
    };
    let setup = workspace.setup().client_ca(&mount.join("ca.crt"));
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let mut stays = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut stays);

    let next = renewed(&workspace, "next");
    publish("23", &next, &workspace.agents.certificate());
    wait_until_served(&workspace, &gateway, &next.certificate);
    fs::remove_dir_all(mount.join("..2026_11_22")).unwrap();
    ping(&mut stays);

    let third = renewed(&workspace, "third");
    publish("24", &third, &others.certificate());
    assert_ne!(stays.receive_to_end().1, Closing::CloseNotify);
    let untrusted = [("listener", "edge"), ("reason", "untrusted")];
    let metrics = gateway.wait_for(ENDED, &untrusted, 1);
    workspace.client().refused(gateway.address());
    assert_eq!(metrics.count(RELOADS, &TAKEN), 2, "one for each swap");
    assert_eq!(metrics.count(RELOADS, &REFUSED), 0);
}

#[test]
fn the_live_folder_of_certbot_is_followed_to_the_next_number() {
    let mut workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let archive = folder(&workspace, "letsencrypt/archive/gateway.test");
    let live = folder(&workspace, "letsencrypt/live/gateway.test");
    let publish = |number: u32, own: &Credentials| {
        for (name, from) in [("fullchain", &own.certificate), ("privkey", &own.key)] {
            fs::copy(from, archive.join(format!("{name}{number}.pem"))).unwrap();
        }
        for name in ["privkey", "fullchain"] {
            let link = live.join(format!("{name}.pem"));
            let target = format!("../../archive/gateway.test/{name}{number}.pem");
            // Certbot takes the old link away first.
            let _ = fs::remove_file(&link);
            symlink(target, link).unwrap();
        }
    };
    publish(1, &workspace.server);
    workspace.server = Credentials {
        certificate: live.join("fullchain.pem"),
        key: live.join("privkey.pem"),
    };
    let gateway = workspace.gateway(backend.address());
    let mut stays = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut stays);
    for number in [2, 3] {
        let next = renewed(&workspace, &format!("next-{number}"));
        publish(number, &next);
        wait_until_served(&workspace, &gateway, &next.certificate);
        ping(&mut stays);
    }
}

#[test]
fn templates_of_vault_agent_are_taken_as_one_file_or_when_the_second_one_is_there() {
    let mut workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let rendered = folder(&workspace, "rendered");
    let bundle = |own: &Credentials| {
        let staged = rendered.join("bundle.tmp");
        let text = [&own.certificate, &own.key].map(|file| fs::read(file).unwrap());
        fs::write(&staged, text.concat()).unwrap();
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(staged, rendered.join("bundle.pem")).unwrap();
    };
    let apart = Credentials {
        certificate: rendered.join("tls.crt"),
        key: rendered.join("tls.key"),
    };
    bundle(&workspace.server);
    fs::copy(&workspace.server.certificate, &apart.certificate).unwrap();
    fs::copy(&workspace.server.key, &apart.key).unwrap();

    workspace.server = Credentials {
        certificate: rendered.join("bundle.pem"),
        key: rendered.join("bundle.pem"),
    };
    let gateway = workspace.gateway(backend.address());
    let next = renewed(&workspace, "next");
    bundle(&next);
    wait_until_served(&workspace, &gateway, &next.certificate);
    assert_eq!(gateway.metrics().count(RELOADS, &REFUSED), 0);
    drop(gateway);

    let old = leaf(&apart.certificate);
    workspace.server = apart.clone();
    let gateway = workspace.gateway(backend.address());
    replace(&next.certificate, &apart.certificate);
    gateway.wait_for(RELOADS, &REFUSED, 1);
    assert_eq!(served(&workspace, &gateway), old, "until its key is there");
    replace(&next.key, &apart.key);
    wait_until_served(&workspace, &gateway, &next.certificate);
}

#[test]
fn files_of_spiffe_helper_are_taken_although_it_writes_them_in_place() {
    let mut workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let run = folder(&workspace, "run");
    let publish = |own: &Credentials| {
        let bundle = workspace.agents.certificate();
        let files = [
            ("svid.pem", &own.certificate),
            ("svid_key.pem", &own.key),
            ("svid_bundle.pem", &bundle),
        ];
        for (name, from) in files {
            // Truncates and writes: what was there is the same file afterwards.
            fs::write(run.join(name), fs::read(from).unwrap()).unwrap();
        }
        let owner_only = fs::Permissions::from_mode(0o600);
        fs::set_permissions(run.join("svid_key.pem"), owner_only).unwrap();
    };
    publish(&workspace.server);
    let next = renewed(&workspace, "next");
    let server = Credentials {
        certificate: run.join("svid.pem"),
        key: run.join("svid_key.pem"),
    };
    let old = std::mem::replace(&mut workspace.server, server);
    let setup = workspace.setup().client_ca(&run.join("svid_bundle.pem"));
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let mut stays = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut stays);
    for own in [&next, &old, &next] {
        for (name, from) in [("svid.pem", &own.certificate), ("svid_key.pem", &own.key)] {
            fs::write(run.join(name), fs::read(from).unwrap()).unwrap();
        }
        wait_until_served(&workspace, &gateway, &own.certificate);
        ping(&mut stays);
    }
}

/// Cuts a file off, in place.
fn half(file: &Path) {
    let text = fs::read(file).unwrap();
    fs::write(file, &text[..text.len() / 2]).unwrap();
}

#[test]
fn a_key_that_does_not_match_its_certificate_yet_is_a_warning_and_a_fault_when_it_stays_so() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let stranger = renewed(&workspace, "stranger");
    let setup = workspace
        .setup()
        .route("edge", "", &[backend.address()], "");
    let gateway = setup.start();
    let (certificate, key) = (&workspace.server.certificate, &workspace.server.key);
    replace(&stranger.key, key);
    let said = |level: &str, refused: &str| {
        let log = gateway.log();
        let mut lines = log.lines();
        lines.position(|line| {
            [level, refused, "does not belong"]
                .iter()
                .all(|part| line.contains(part))
        })
    };
    let warned = eventually("a warning", || said(" WARN ", "reload refused for now"));
    let failed = eventually("a fault", || said(" ERROR ", "reload refused, the old"));
    assert!(warned < failed, "{warned} {failed}");
    // Once its certificate is there, both are taken.
    replace(&stranger.certificate, certificate);
    let taken = || gateway.metrics().count(RELOADS, &TAKEN);
    eventually("both are taken", || (taken() > 0).then_some(()));
}

type Break<'a> = Box<dyn Fn() + 'a>;

#[test]
fn each_kind_of_broken_file_leaves_the_old_state_serving_until_it_is_repaired() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let foreign = Authority::create(workspace.folder(), "foreign", "Somebody else");
    let foreign = foreign.revoke("foreign.crl", &RevocationList::of(&[]));
    let stranger = renewed(&workspace, "stranger");
    let list = workspace
        .agents
        .revoke("agents.crl", &RevocationList::of(&[]));
    let crl = format!("crl = [{list:?}]");
    let setup = workspace
        .setup()
        .route("edge", &crl, &[backend.address()], "");
    let gateway = setup.start();
    let mut stays = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut stays);

    let (certificate, key) = (&workspace.server.certificate, &workspace.server.key);
    let configuration = workspace.folder().join("portcullis.toml");
    let ca = workspace.agents.certificate();
    let breaks: [(&Path, Break<'_>, &str); 9] = [
        (
            key,
            Box::new(|| replace(&stranger.key, key)),
            "does not belong",
        ),
        (
            certificate,
            Box::new(|| half(certificate)),
            "the END line is missing",
        ),
        (key, Box::new(|| half(key)), "the END line is missing"),
        (
            key,
            Box::new(|| fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap()),
            "group or others can use the private key",
        ),
        (
            key,
            Box::new(|| fs::remove_file(key).unwrap()),
            "cannot be read",
        ),
        (
            &ca,
            Box::new(|| fs::write(&ca, "").unwrap()),
            "holds no certificate",
        ),
        (&list, Box::new(|| half(&list)), "the END line is missing"),
        (
            &list,
            Box::new(|| replace(&foreign, &list)),
            "is not of a CA that is trusted",
        ),
        (
            &configuration,
            Box::new(|| fs::write(&configuration, "[[listener").unwrap()),
            "not TOML",
        ),
    ];
    for (file, break_file, reason) in breaks {
        let mode = fs::metadata(file).unwrap().permissions();
        let good = fs::read(file).unwrap();
        let log = gateway.log().len();
        break_file();
        wait_for_refusal(&gateway, log, [reason, file.to_str().unwrap()]);
        ping(&mut stays);
        ping(&mut workspace.client().connect(gateway.address()).unwrap());
        repair(&gateway, file, &good, mode);
        ping(&mut workspace.client().connect(gateway.address()).unwrap());
    }
    ping(&mut stays);
}

/// Waits until the log says behind `offset` that a reload was refused, with these words.
fn wait_for_refusal(gateway: &Gateway, offset: usize, words: [&str; 2]) {
    eventually("the broken state is refused with its reason", || {
        let said = gateway.log().split_off(offset);
        let refused = said.contains("reload refused");
        (refused && words.iter().all(|word| said.contains(word))).then_some(())
    });
}

/// Puts the good file back, and waits until it is taken although nobody says so.
fn repair(gateway: &Gateway, file: &Path, good: &[u8], mode: fs::Permissions) {
    let taken = gateway.metrics().count(RELOADS, &TAKEN);
    let _ = fs::remove_file(file);
    fs::write(file, good).unwrap();
    fs::set_permissions(file, mode).unwrap();
    eventually("the repaired state is taken", || {
        (gateway.metrics().count(RELOADS, &TAKEN) > taken).then_some(())
    });
}

#[test]
fn a_new_list_cuts_off_whom_it_names_without_a_signal() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let other = Request::client("spiffe://example.test/agent/other");
    let other = workspace.agents.issue("other", other);
    let nobody = RevocationList::of(&[]);
    let list = workspace.agents.revoke("agents.crl", &nobody);
    let crl = format!("crl = [{list:?}]");
    let setup = workspace
        .setup()
        .route("edge", &crl, &[backend.address()], "");
    let gateway = setup.start();
    let mut revoked = workspace.client().connect(gateway.address()).unwrap();
    let other = workspace.client().credentials(&other);
    let mut stays = other.connect(gateway.address()).unwrap();
    ping(&mut revoked);
    ping(&mut stays);
    let of_agent = RevocationList::of(&[&workspace.agent.certificate]);
    workspace.agents.revoke("agents.crl", &of_agent);
    assert_ne!(revoked.receive_to_end().1, Closing::CloseNotify);
    let labels = [("listener", "edge"), ("reason", "revoked")];
    let metrics = gateway.wait_for(ENDED, &labels, 1);
    let timed = "portcullis_change_to_close_seconds_count";
    assert_eq!(metrics.count(timed, &labels), 1);
    workspace.client().refused(gateway.address());
    ping(&mut stays);
    eventually("the log names the file", || {
        let log = gateway.log();
        let line = log.lines().find(|line| line.contains("reloaded"))?;
        line.contains(list.to_str().unwrap()).then_some(())
    });
}

#[test]
fn what_needs_a_restart_is_refused_once_and_not_again_and_again() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(":4317\"", ":4399\"")).unwrap();
    gateway.wait_for(RELOADS, &REFUSED, 1);
    // Longer than the files are left unlooked at.
    std::thread::sleep(Duration::from_secs(6));
    let metrics = gateway.metrics();
    assert_eq!(metrics.count(RELOADS, &REFUSED), 1);
    assert_eq!(metrics.count(RELOADS, &TAKEN), 0);
    assert!(gateway.log().contains("restart"));
    ping(&mut workspace.client().connect(gateway.address()).unwrap());
}

#[test]
fn closes_are_spread_as_configured() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let setup = workspace.setup().top("close_spread = \"0s\"");
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let mut clients = [(); 20].map(|()| workspace.client().connect(gateway.address()).unwrap());
    clients.iter_mut().for_each(ping);
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("/agent/*", "/nobody/*")).unwrap();
    for client in &mut clients {
        assert_ne!(client.receive_to_end().1, Closing::CloseNotify);
    }
    let labels = [("listener", "edge"), ("reason", "not_authorized")];
    let metrics = gateway.wait_for(ENDED, &labels, 20);
    // Over the ten seconds of the default, five on the average, it would be a hundred.
    let sum = metrics.sum("portcullis_change_to_close_seconds_sum", &labels);
    assert!(sum < 40.0, "{sum} s for all of them together");
}

#[test]
fn a_connection_drains_before_its_certificate_ends_and_comes_back_with_the_next_one() {
    let workspace = Workspace::new();
    let uri = "spiffe://example.test/agent/brief";
    let brief = workspace
        .agents
        .issue("brief", Request::client(uri).seconds(9));
    let next = workspace.agents.issue("next", Request::client(uri));
    let backend = Backend::start(Behaviour::Echo);
    let keys = "at_expiry = \"drain\"\nexpiry_drain = \"7s\"";
    let setup = workspace
        .setup()
        .route("edge", keys, &[backend.address()], "");
    let gateway = setup.start();
    let brief = workspace.client().credentials(&brief);
    let mut drained = brief.connect(gateway.address()).unwrap();
    let mut stays = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut drained);
    ping(&mut stays);
    let (bytes, closing) = drained.receive_to_end();
    assert!(bytes.is_empty());
    assert_eq!(
        closing,
        Closing::Truncated,
        "a clean FIN, and no claim to be complete"
    );
    let labels = [("listener", "edge"), ("reason", "expiring")];
    let metrics = gateway.wait_for(ENDED, &labels, 1);
    assert_eq!(metrics.count(ENDED, &[("reason", "expired")]), 0);
    let next = workspace.client().credentials(&next);
    ping(&mut next.connect(gateway.address()).unwrap());
    ping(&mut stays);
}
