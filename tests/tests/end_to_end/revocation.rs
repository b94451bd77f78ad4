//! Certificates that are revoked before they end, or end while they are in use.
//! In: revocation lists of several makers, good and bad, and clients on both sides of them. Out: who is refused, with
//! which reason and alert, and that nobody else is; connections that end with their certificate.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use rustls::AlertDescription;
use tests::{
    Authority, Backend, Behaviour, Closing, Credentials, Ending, Gateway, Request, RevocationList,
    TlsFailure, Workspace, eventually, program,
};

const FAILURES: &str = "portcullis_handshake_failures_total";
const ENDED: &str = "portcullis_connections_ended_total";

/// A certificate that the default rule admits.
fn agent(authority: &Authority, name: &str) -> Credentials {
    let uri = format!("spiffe://example.test/agent/{name}");
    authority.issue(name, Request::client(&uri))
}

/// The listener's keys for lists.
fn crl(files: &[&Path]) -> String {
    format!("crl = {files:?}")
}

/// A gateway with one route whose listener has these keys.
fn gateway_with(workspace: &Workspace, backend: &Backend, keys: &str) -> Gateway {
    workspace
        .setup()
        .route("edge", keys, &[backend.address()], "")
        .start()
}

/// Sends and receives; the backend sees the connection.
fn assert_admitted(workspace: &Workspace, address: SocketAddr, credentials: &Credentials) {
    let mut client = workspace
        .client()
        .credentials(credentials)
        .connect(address)
        .unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(client.receive(5).unwrap(), b"hello");
    client.finish();
    client.receive_to_end();
}

/// Is refused for one reason, which shows at the client, in the metric and in the log, and not at the backend.
fn assert_refused(
    workspace: &Workspace,
    gateway: &Gateway,
    backend: &Backend,
    credentials: &Credentials,
    reason: &str,
) {
    let labels = [("listener", "edge"), ("reason", reason)];
    let refused_before = gateway.metrics().count(FAILURES, &labels);
    let connected_before = backend.connections().len();
    let failure = workspace
        .client()
        .credentials(credentials)
        .refused(gateway.address());
    let alert = match reason {
        "revoked" => AlertDescription::CertificateRevoked,
        "crl_stale" => AlertDescription::UnknownCA,
        other => panic!("{other} is no reason of this module"),
    };
    assert!(
        matches!(&failure, TlsFailure::Closed(Closing::Alert(seen)) if *seen == alert),
        "{alert:?} was expected, and came {failure:?}"
    );
    gateway.wait_for(FAILURES, &labels, refused_before + 1);
    eventually("the refusal stands in the log", || {
        let log = gateway.log();
        log.lines()
            .any(|line| line.contains(reason) && line.contains("edge"))
            .then_some(())
    });
    assert_eq!(
        backend.connections().len(),
        connected_before,
        "the backend was connected"
    );
}

/// Runs a program that must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

fn openssl(directory: &Path, arguments: &str) -> String {
    let mut command = Command::new("openssl");
    run(command.args(arguments.split(' ')).current_dir(directory))
}

/// The same list in DER.
fn der(list: &Path) -> PathBuf {
    let der = list.with_extension("der");
    let directory = list.parent().unwrap();
    let arguments = format!(
        "crl -outform der -in {} -out {}",
        list.display(),
        der.display()
    );
    openssl(directory, &arguments);
    der
}

#[test]
fn a_revoked_client_is_refused_and_the_others_get_in() {
    let workspace = Workspace::new();
    let stolen = agent(&workspace.agents, "stolen");
    let list = RevocationList::of(&[&stolen.certificate]);
    let list = workspace.agents.revoke("agents.crl", &list);
    for file in [list.clone(), der(&list)] {
        let backend = Backend::start(Behaviour::Echo);
        let gateway = gateway_with(&workspace, &backend, &crl(&[&file]));
        assert_refused(&workspace, &gateway, &backend, &stolen, "revoked");
        assert_admitted(&workspace, gateway.address(), &workspace.agent);
        let metrics = gateway.metrics();
        assert_eq!(metrics.count(FAILURES, &[]), 1);
        assert_eq!(metrics.count("portcullis_handshakes_total", &[]), 1);
        assert_eq!(backend.received_bytes(), 5);
    }
}

#[test]
fn a_list_of_one_listener_does_not_reach_another() {
    let workspace = Workspace::new();
    let stolen = agent(&workspace.agents, "stolen");
    let list = RevocationList::of(&[&stolen.certificate]);
    let list = workspace.agents.revoke("agents.crl", &list);
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .route("edge", &crl(&[&list]), &[backend.address()], "")
        .route("inner", "", &[backend.address()], "")
        .start();
    assert_refused(&workspace, &gateway, &backend, &stolen, "revoked");
    assert_admitted(&workspace, gateway.address_of("inner"), &stolen);
}

#[test]
fn a_revoked_intermediate_takes_everybody_below_it_along() {
    let workspace = Workspace::new();
    let branch = workspace.agents.subordinate("branch", "Branch of the test");
    let below = agent(&branch, "below");
    let list = RevocationList::of(&[&branch.certificate()]);
    let list = workspace.agents.revoke("agents.crl", &list);
    let backend = Backend::start(Behaviour::Echo);
    let gateway = gateway_with(&workspace, &backend, &crl(&[&list]));
    assert_refused(&workspace, &gateway, &backend, &below, "revoked");
    assert_admitted(&workspace, gateway.address(), &workspace.agent);
}

/// An intermediate that is trusted by itself ends every chain below it; the root's list has to count all the same.
#[test]
fn a_revoked_intermediate_is_no_anchor_either() {
    let workspace = Workspace::new();
    let branch = workspace.agents.subordinate("branch", "Branch of the test");
    let below = agent(&branch, "below");
    let both = workspace.folder().join("both.pem");
    let read = |authority: &Authority| fs::read_to_string(authority.certificate()).unwrap();
    fs::write(&both, read(&workspace.agents) + &read(&branch)).unwrap();
    let of_branch = branch.revoke("branch.crl", &RevocationList::of(&[]));
    let good = workspace
        .agents
        .revoke("good.crl", &RevocationList::of(&[]));
    let bad = RevocationList::of(&[&branch.certificate()]);
    let bad = workspace.agents.revoke("bad.crl", &bad);
    for (list, admitted) in [(good, true), (bad, false)] {
        let backend = Backend::start(Behaviour::Echo);
        let keys = crl(&[&list, &of_branch]);
        let setup = workspace.setup().client_ca(&both);
        let gateway = setup.route("edge", &keys, &[backend.address()], "").start();
        if admitted {
            assert_admitted(&workspace, gateway.address(), &below);
        } else {
            assert_refused(&workspace, &gateway, &backend, &below, "revoked");
        }
        assert_admitted(&workspace, gateway.address(), &workspace.agent);
    }
}

/// Whoever keeps the root's lists from us must not keep an intermediate of it alive.
#[test]
fn an_intermediate_that_is_trusted_by_itself_needs_the_fresh_list_of_its_root() {
    let workspace = Workspace::new();
    let branch = workspace.agents.subordinate("branch", "Branch of the test");
    let below = agent(&branch, "below");
    let both = workspace.folder().join("both.pem");
    let read = |authority: &Authority| fs::read_to_string(authority.certificate()).unwrap();
    fs::write(&both, read(&workspace.agents) + &read(&branch)).unwrap();
    let of_branch = branch.revoke("branch.crl", &RevocationList::of(&[]));
    let ended = RevocationList::of(&[]).ended();
    let ended = crl(&[&workspace.agents.revoke("ended.crl", &ended), &of_branch]);
    let table = [
        (ended.clone(), false),
        (format!("{ended}\ncrl_grace = \"2h\""), true),
        (crl(&[&of_branch]), true),
    ];
    for (keys, admitted) in table {
        let backend = Backend::start(Behaviour::Echo);
        let setup = workspace.setup().client_ca(&both);
        let gateway = setup.route("edge", &keys, &[backend.address()], "").start();
        if admitted {
            assert_admitted(&workspace, gateway.address(), &below);
        } else {
            assert_refused(&workspace, &gateway, &backend, &below, "crl_stale");
        }
    }
}

#[test]
fn a_chain_through_an_intermediate_without_a_list_is_refused() {
    let workspace = Workspace::new();
    let branch = workspace.agents.subordinate("branch", "Branch of the test");
    let below = agent(&branch, "below");
    let list = workspace
        .agents
        .revoke("agents.crl", &RevocationList::of(&[]));
    let backend = Backend::start(Behaviour::Echo);
    let gateway = gateway_with(&workspace, &backend, &crl(&[&list]));
    assert_refused(&workspace, &gateway, &backend, &below, "crl_stale");
    assert_admitted(&workspace, gateway.address(), &workspace.agent);
}

#[test]
fn a_list_that_has_ended_refuses_everybody_unless_told_otherwise() {
    let workspace = Workspace::new();
    let stolen = agent(&workspace.agents, "stolen");
    let list = RevocationList::of(&[&stolen.certificate]).ended();
    let list = crl(&[&workspace.agents.revoke("agents.crl", &list)]);
    let table = [
        (list.clone(), false),
        (format!("{list}\ncrl_grace = \"59m\""), false),
        (format!("{list}\ncrl_grace = \"2h\""), true),
        (format!("{list}\ndangerous_accept_stale_crl = true"), true),
    ];
    for (keys, admitted) in table {
        let backend = Backend::start(Behaviour::Echo);
        let gateway = gateway_with(&workspace, &backend, &keys);
        // Whatever its age, a list is right about what it names.
        assert_refused(&workspace, &gateway, &backend, &stolen, "revoked");
        if admitted {
            assert_admitted(&workspace, gateway.address(), &workspace.agent);
        } else {
            assert_refused(
                &workspace,
                &gateway,
                &backend,
                &workspace.agent,
                "crl_stale",
            );
        }
        let log = gateway.log();
        assert!(log.contains("has ended"), "told at start: {log}");
        let dangerous = "portcullis_dangerous_accept_stale_crl";
        assert_eq!(
            gateway.metrics().count(dangerous, &[("listener", "edge")]),
            u64::from(keys.contains(dangerous.trim_start_matches("portcullis_")))
        );
    }
}

#[test]
fn each_list_may_have_a_stale_policy_of_its_own() {
    let workspace = Workspace::new();
    let others = Authority::create(workspace.folder(), "others", "Other agents of the test");
    let other = agent(&others, "other");
    let both = workspace.folder().join("both.pem");
    let read = |authority: &Authority| fs::read_to_string(authority.certificate()).unwrap();
    fs::write(&both, read(&workspace.agents) + &read(&others)).unwrap();
    let stolen = agent(&workspace.agents, "stolen");
    let named = RevocationList::of(&[&stolen.certificate]).ended();
    let ours = workspace.agents.revoke("agents.crl", &named);
    let theirs = RevocationList::of(&[]).ended();
    let theirs = others.revoke("others.crl", &theirs);
    // The keys of the listener, the policy of our list, that of theirs, and whether each lets its agents in.
    let table = [
        ("", "", "", [false, false]),
        ("", ", grace = \"2h\"", "", [true, false]),
        ("", "", ", dangerous_accept_stale = true", [false, true]),
        ("", ", grace = \"59m\"", ", grace = \"2h\"", [false, true]),
        ("crl_grace = \"2h\"", ", grace = \"59m\"", "", [false, true]),
        (
            "crl_grace = \"2h\"",
            "",
            ", dangerous_accept_stale = false",
            [true, false],
        ),
        (
            "dangerous_accept_stale_crl = true",
            "",
            ", grace = \"59m\"",
            [true, false],
        ),
    ];
    for (keys, our_policy, their_policy, admitted) in table {
        let backend = Backend::start(Behaviour::Echo);
        let lists = format!(
            "{keys}\ncrl = [{{ file = {ours:?}{our_policy} }}, {{ file = {theirs:?}{their_policy} }}]"
        );
        let setup = workspace.setup().client_ca(&both);
        let gateway = setup
            .route("edge", &lists, &[backend.address()], "")
            .start();
        for (credentials, admitted) in [&workspace.agent, &other].into_iter().zip(admitted) {
            if admitted {
                assert_admitted(&workspace, gateway.address(), credentials);
            } else {
                assert_refused(&workspace, &gateway, &backend, credentials, "crl_stale");
            }
        }
        assert_refused(&workspace, &gateway, &backend, &stolen, "revoked");
    }
}

#[test]
fn each_list_in_force_shows_its_issuer_entries_and_dates_and_refused_files_are_counted() {
    let workspace = Workspace::new();
    let stolen = agent(&workspace.agents, "stolen");
    let none = RevocationList::of(&[]);
    let list = RevocationList::of(&[&stolen.certificate]);
    let list = workspace.agents.revoke("agents.crl", &list);
    let of_backends = workspace.gateways.revoke("gateways.crl", &none);
    let server = [workspace.host.free()];
    let tls = format!(
        "tls = {{ ca = [{:?}], certificate = {:?}, key = {:?}, server_name = \"a.test\", crl = [{of_backends:?}] }}",
        workspace.gateways.certificate(),
        stolen.certificate,
        stolen.key,
    );
    let setup = workspace
        .setup()
        .route("edge", &crl(&[&list]), &server, &tls);
    let mut gateway = setup.start();
    let agents = [("listener", "edge"), ("issuer", "CN=Agents of the test")];
    let backends = [("backend", "edge"), ("issuer", "CN=Gateways of the test")];
    let metrics = gateway.metrics();
    assert_eq!(metrics.count("portcullis_crl_entries", &agents), 1);
    assert_eq!(metrics.count("portcullis_crl_entries", &backends), 0);
    let date = |name: &str, labels| {
        metrics.count(&format!("portcullis_crl_{name}_timestamp_seconds"), labels)
    };
    for labels in [&agents, &backends] {
        let (made, ends) = (date("this_update", labels), date("next_update", labels));
        assert_eq!(ends - made, 3 * 24 * 60 * 60);
    }
    let refused = "portcullis_crl_load_errors_total";
    assert_eq!(metrics.count(refused, &[]), 0);
    let good = fs::read(&list).unwrap();
    for count in 1..3 {
        fs::write(&list, "broken").unwrap();
        gateway.process().signal(Signal::HUP);
        // The change of the file is a cause by itself, so there may be more.
        eventually("the refused list is counted", || {
            (gateway.metrics().count(refused, &[]) >= count).then_some(())
        });
    }
    assert_eq!(
        gateway.metrics().count("portcullis_crl_entries", &agents),
        1
    );
    fs::write(&list, good).unwrap();
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_reloads(1);
    assert!(
        gateway.metrics().count(refused, &[]) >= 2,
        "kept over reloads"
    );
}

#[test]
fn lists_that_cannot_be_trusted_refuse_the_start() {
    let workspace = Workspace::new();
    let foreign = Authority::create(workspace.folder(), "foreign", "Somebody else");
    let double = Authority::create(workspace.folder(), "double", "Agents of the test");
    let empty = RevocationList::of(&[]);
    let good = workspace.agents.revoke("agents.crl", &empty);
    let text = fs::read_to_string(&good).unwrap();
    let whole = fs::read(der(&good)).unwrap();
    let written = |name: &str, bytes: &[u8]| {
        let path = workspace.folder().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let table = [
        (
            foreign.revoke("foreign.crl", &empty),
            "is not of a CA that is trusted here",
        ),
        (
            double.revoke("double.crl", &empty),
            "bears the name of a CA that is trusted here and is not signed by it",
        ),
        (written("cut.crl", &whole[..whole.len() - 1]), "is cut off"),
        (
            written("cut.pem", &text.as_bytes()[..text.len() / 2]),
            "line 1: begins a section that does not end",
        ),
        (written("empty.crl", b""), "holds no revocation list"),
        (
            written(
                "certificate.pem",
                &fs::read(&workspace.agent.certificate).unwrap(),
            ),
            "holds no revocation list",
        ),
        (workspace.folder().join("absent.crl"), "cannot be read"),
    ];
    for (file, reason) in table {
        // Beside a good list, which must not make up for it.
        let keys = format!("crl = [\n  {good:?},\n  {file:?},\n]");
        let backend = SocketAddr::from(([127, 0, 0, 1], 9));
        let setup = workspace.setup().route("edge", &keys, &[backend], "");
        let named = format!("  {file:?},");
        let line = 1 + setup.text().lines().position(|line| line == named).unwrap();
        let said = setup.refused();
        let place = format!("portcullis.toml:{line}: listener \"edge\": crl = {file:?}: ");
        assert!(said.contains(&place), "{place} in {said}");
        assert!(said.contains(reason), "{reason} in {said}");
    }
}

#[test]
fn lists_of_several_authorities_may_share_a_file() {
    let workspace = Workspace::new();
    let others = Authority::create(workspace.folder(), "others", "Other agents of the test");
    let trusted = workspace.folder().join("trusted.pem");
    let concatenated = |files: [PathBuf; 2]| files.map(|file| fs::read(file).unwrap()).concat();
    let roots = [workspace.agents.certificate(), others.certificate()];
    fs::write(&trusted, concatenated(roots)).unwrap();
    let stolen = [agent(&workspace.agents, "stolen"), agent(&others, "stolen")];
    let other = agent(&others, "good");
    let lists = workspace.folder().join("lists.pem");
    let one = RevocationList::of(&[&stolen[0].certificate]);
    let two = RevocationList::of(&[&stolen[1].certificate]);
    let both = [
        workspace.agents.revoke("agents.crl", &one),
        others.revoke("others.crl", &two),
    ];
    fs::write(&lists, concatenated(both)).unwrap();

    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .client_ca(&trusted)
        .route("edge", &crl(&[&lists]), &[backend.address()], "")
        .start();
    for credentials in &stolen {
        assert_refused(&workspace, &gateway, &backend, credentials, "revoked");
    }
    for credentials in [&workspace.agent, &other] {
        assert_admitted(&workspace, gateway.address(), credentials);
    }
}

/// Asserts that a gateway that trusts `ca.pem` of a directory tells its agents apart by `ca.crl.pem`.
fn assert_list_works(workspace: &Workspace, directory: &Path) {
    let credentials = |name: &str| Credentials {
        certificate: directory.join(format!("{name}.pem")),
        key: directory.join(format!("{name}.key")),
    };
    let backend = Backend::start(Behaviour::Echo);
    let list = directory.join("ca.crl.pem");
    let gateway = workspace
        .setup()
        .client_ca(&directory.join("ca.pem"))
        .route("edge", &crl(&[&list]), &[backend.address()], "")
        .start();
    assert_refused(
        workspace,
        &gateway,
        &backend,
        &credentials("stolen"),
        "revoked",
    );
    assert_admitted(workspace, gateway.address(), &credentials("good"));
}

#[test]
fn a_list_of_portcullis_pki_works() {
    let workspace = Workspace::new();
    let directory = workspace.folder().join("pki");
    let pki = |arguments: &str| {
        let mut command = Command::new(program("portcullis"));
        command.arg("pki").args(arguments.split(' '));
        run(command.arg("--directory").arg(&directory))
    };
    pki("init");
    for name in ["stolen", "good"] {
        pki(&format!(
            "issue agent {name} --uri spiffe://example.test/agent/{name}"
        ));
    }
    pki("revoke stolen");
    pki("crl --days 1");
    assert_list_works(&workspace, &directory);
}

/// A CA of OpenSSL with two agents, `good` and `stolen`, the latter revoked. Its lists have the extensions that are given.
fn openssl_ca(workspace: &Workspace, list_extensions: &str) -> PathBuf {
    let directory = workspace.folder().join("openssl");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("index.txt"), "").unwrap();
    fs::write(directory.join("crlnumber"), "01").unwrap();
    let settings = "[ca]\ndefault_ca = here\n[here]\ndatabase = index.txt\ncrlnumber = crlnumber\nrand_serial = yes\nnew_certs_dir = .\n\
        certificate = ca.pem\nprivate_key = ca.key\ndefault_md = sha256\ndefault_days = 2\ndefault_crl_days = 1\n\
        policy = names\ncopy_extensions = copy\n[names]\ncommonName = supplied\n";
    let configuration = match list_extensions {
        "" => settings.to_owned(),
        extensions => {
            let named = settings.replace("policy =", "crl_extensions = list\npolicy =");
            format!("{named}[list]\n{extensions}\n")
        }
    };
    fs::write(directory.join("ca.cnf"), configuration).unwrap();
    let key = "-nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256";
    let usage = "-addext keyUsage=critical,keyCertSign,cRLSign";
    let root =
        format!("req -x509 {key} -keyout ca.key -out ca.pem -days 9 -subj /CN=Agents {usage}");
    openssl(&directory, &root);
    for name in ["stolen", "good"] {
        let names = format!("subjectAltName=URI:spiffe://example.test/agent/{name}");
        let request = format!(
            "req {key} -keyout {name}.key -out {name}.csr -subj /CN={name} -addext {names} \
             -addext extendedKeyUsage=clientAuth -addext keyUsage=digitalSignature"
        );
        openssl(&directory, &request);
        let sign = format!("ca -batch -notext -config ca.cnf -in {name}.csr -out {name}.pem");
        openssl(&directory, &sign);
    }
    openssl(
        &directory,
        "ca -config ca.cnf -revoke stolen.pem -crl_reason keyCompromise",
    );
    openssl(&directory, "ca -config ca.cnf -gencrl -out ca.crl.pem");
    directory
}

#[test]
fn a_list_of_openssl_ca_works() {
    let workspace = Workspace::new();
    let directory = openssl_ca(&workspace, "");
    assert_list_works(&workspace, &directory);
}

/// An issuing distribution point with one URI and no flag, and certificates that name no distribution point.
const STEP_CA: &str = "issuingDistributionPoint = critical, @point\n[point]\nfullname = URI:https://ca.example.test/1.0/crl";

#[test]
fn a_list_of_the_shape_of_step_ca_works() {
    let workspace = Workspace::new();
    let directory = openssl_ca(&workspace, STEP_CA);
    assert_list_works(&workspace, &directory);
}

#[test]
fn a_list_of_end_entities_alone_works() {
    let workspace = Workspace::new();
    let point = "issuingDistributionPoint = critical, @point\n[point]\nonlyuser = TRUE";
    let directory = openssl_ca(&workspace, point);
    assert_list_works(&workspace, &directory);
}

#[test]
fn lists_that_are_not_about_certificates_of_one_ca_are_refused_in_words() {
    let workspace = Workspace::new();
    let directory = openssl_ca(&workspace, "");
    let settings = fs::read_to_string(directory.join("ca.cnf")).unwrap();
    for (extensions, reason) in [
        (
            "issuingDistributionPoint = critical, @point\n[point]\nindirectCRL = TRUE",
            "indirect list",
        ),
        (
            "issuingDistributionPoint = critical, @point\n[point]\nonlyAA = TRUE",
            "attribute certificates",
        ),
        (
            "issuingDistributionPoint = critical, @point\n[point]\nonlysomereasons = keyCompromise",
            "onlySomeReasons",
        ),
        ("deltaCRL = critical, ASN1:INTEGER:1", "delta list"),
        (
            "1.2.3.4 = critical, ASN1:NULL",
            "critical extension that is not understood, 1.2.3.4",
        ),
    ] {
        let named = settings.replace("policy =", "crl_extensions = list\npolicy =");
        let configuration = format!("{named}[list]\n{extensions}\n");
        let configuration = configuration.replace("deltaCRL", "2.5.29.27");
        fs::write(directory.join("ca.cnf"), configuration).unwrap();
        openssl(&directory, "ca -config ca.cnf -gencrl -out ca.crl.pem");
        let keys = crl(&[&directory.join("ca.crl.pem")]);
        let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
        let setup = workspace.setup().client_ca(&directory.join("ca.pem"));
        let said = setup.route("edge", &keys, &[nobody], "").refused();
        assert!(said.contains(reason), "{reason} in {said}");
    }
}

/// A list that is replaced by an older one, which is still current.
#[test]
fn an_older_list_brings_nobody_back_over_restarts_until_it_is_accepted() {
    let workspace = Workspace::new();
    let stolen = agent(&workspace.agents, "stolen");
    let newer = || RevocationList::of(&[&stolen.certificate]).numbered(5);
    let older = || RevocationList::of(&[]).numbered(4);
    let list = workspace.agents.revoke("agents.crl", &newer());
    let backend = Backend::start(Behaviour::Echo);
    let keys = crl(&[&list]);
    let setup = || {
        let setup = workspace.setup().top("drain_timeout = \"0s\"");
        let setup = setup.tables("[audit]\nfile = \"audit.jsonl\"\n");
        setup.route("edge", &keys, &[backend.address()], "")
    };
    let mut gateway = setup().start();
    assert_refused(&workspace, &gateway, &backend, &stolen, "revoked");
    workspace.agents.revoke("agents.crl", &older());
    gateway.wait_for_a_refused_reload();
    // It is counted before it is said.
    eventually("the log says why", || {
        let why = "is older than the list of CN=Agents of the test";
        gateway.log().contains(why).then_some(())
    });
    let refused = "portcullis_crl_load_errors_total";
    assert!(gateway.metrics().count(refused, &[]) > 0);
    assert_refused(&workspace, &gateway, &backend, &stolen, "revoked");
    gateway.terminate();
    gateway.wait();
    for said in [setup().refused(), setup().check(1)] {
        assert!(said.contains("portcullis crl accept"), "{said}");
    }
    // With the newer one again it starts, and takes the older one as soon as it is accepted.
    workspace.agents.revoke("agents.crl", &newer());
    let gateway = setup().start();
    workspace.agents.revoke("agents.crl", &older());
    gateway.wait_for_a_refused_reload();
    let mut accept = Command::new(program("portcullis"));
    accept.args(["crl", "accept"]).arg(&list);
    let configuration = workspace.folder().join("portcullis.toml");
    let said = run(accept.arg("--config").arg(configuration));
    assert!(
        said.contains("number 04") && said.contains("number 05"),
        "{said}"
    );
    eventually("the audit log says by which account", || {
        let text = fs::read_to_string(workspace.folder().join("audit.jsonl")).ok()?;
        let line = text
            .lines()
            .find(|line| line.contains("\"crl_accepted\""))?;
        let names = ["CN=Agents", "number 04", "number 05", "(uid "];
        names.iter().all(|name| line.contains(name)).then_some(())
    });
    eventually("the older list is in force", || {
        let client = workspace.client().credentials(&stolen);
        let mut client = client.connect(gateway.address()).ok()?;
        client.send(b"ping").ok()?;
        (client.receive(4).ok()? == b"ping").then_some(())
    });
}

#[test]
fn an_older_list_that_is_accepted_before_it_is_in_its_place_is_taken_when_it_comes() {
    let workspace = Workspace::new();
    let stolen = agent(&workspace.agents, "stolen");
    let newer = RevocationList::of(&[&stolen.certificate]).numbered(5);
    let list = workspace.agents.revoke("agents.crl", &newer);
    let older = RevocationList::of(&[]).numbered(4);
    let waiting = workspace.agents.revoke("older.crl", &older);
    let backend = Backend::start(Behaviour::Echo);
    let setup = workspace
        .setup()
        .route("edge", &crl(&[&list]), &[backend.address()], "");
    let mut gateway = setup.start();
    assert_refused(&workspace, &gateway, &backend, &stolen, "revoked");

    // The refusal says what to type, word for word.
    fs::write(&list, fs::read(&waiting).unwrap()).unwrap();
    gateway.wait_for_a_refused_reload();
    let configuration = workspace.folder().join("portcullis.toml");
    let advice = format!(
        "portcullis crl accept --config {} {}",
        configuration.display(),
        list.display()
    );
    eventually("the advice", || {
        gateway.log().contains(&advice).then_some(())
    });
    let taken = || {
        gateway
            .metrics()
            .count("portcullis_reloads_total", &[("result", "taken")])
    };
    let before = taken();
    workspace.agents.revoke("agents.crl", &newer);
    eventually("the newer list again", || (taken() > before).then_some(()));

    let mut accept = Command::new(program("portcullis"));
    accept.args(["crl", "accept"]).arg(&waiting);
    run(accept.arg("--config").arg(&configuration));
    // What it writes is a change, and the newer list is still in force after it.
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_reloads(1);
    assert_refused(&workspace, &gateway, &backend, &stolen, "revoked");
    fs::write(&list, fs::read(&waiting).unwrap()).unwrap();
    eventually("the older list is in force", || {
        let client = workspace.client().credentials(&stolen);
        let mut client = client.connect(gateway.address()).ok()?;
        client.send(b"ping").ok()?;
        (client.receive(4).ok()? == b"ping").then_some(())
    });
}

#[test]
fn an_older_copy_beside_the_newest_list_refuses_neither_a_reload_nor_the_next_start() {
    let workspace = Workspace::new();
    let stolen = agent(&workspace.agents, "stolen");
    let older = || RevocationList::of(&[]).numbered(4);
    let newer = || RevocationList::of(&[&stolen.certificate]).numbered(5);
    let old = workspace.agents.revoke("old.crl", &older());
    let new = workspace.agents.revoke("new.crl", &newer());
    let backend = Backend::start(Behaviour::Echo);
    let setup = || {
        let setup = workspace.setup().top("drain_timeout = \"0s\"");
        let servers = [backend.address()];
        let setup = setup.route("edge", &crl(&[&old, &new]), &servers, "");
        setup.route("other", &crl(&[&old]), &servers, "")
    };
    let mut gateway = setup().start();
    assert_refused(&workspace, &gateway, &backend, &stolen, "revoked");
    assert!(gateway.log().contains("is older than another list of"));
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_reloads(1);
    gateway.terminate();
    gateway.wait();
    let mut gateway = setup().start();
    assert_refused(&workspace, &gateway, &backend, &stolen, "revoked");
    // All of them together must not go back.
    workspace.agents.revoke("new.crl", &older());
    gateway.wait_for_a_refused_reload();
    gateway.terminate();
    gateway.wait();
    let said = setup().refused();
    assert!(said.contains("portcullis crl accept"), "{said}");
}

#[test]
fn an_older_copy_at_one_listener_brings_nobody_back_there() {
    let workspace = Workspace::new();
    let stolen = agent(&workspace.agents, "stolen");
    let older = RevocationList::of(&[]).numbered(4);
    let newer = RevocationList::of(&[&stolen.certificate]).numbered(5);
    let edge = workspace.agents.revoke("edge.crl", &newer);
    let other = workspace.agents.revoke("other.crl", &newer);
    let backend = Backend::start(Behaviour::Echo);
    let setup = || {
        let servers = [backend.address()];
        let setup = workspace.setup().top("drain_timeout = \"0s\"");
        let setup = setup.route("edge", &crl(&[&edge]), &servers, "");
        setup.route("other", &crl(&[&other]), &servers, "")
    };
    let labels = [("listener", "other"), ("reason", "revoked")];
    let assert_stays_out = |gateway: &Gateway, count| {
        let client = workspace.client().credentials(&stolen);
        client.refused(gateway.address_of("other"));
        gateway.wait_for(FAILURES, &labels, count);
    };
    let mut gateway = setup().start();
    assert_stays_out(&gateway, 1);
    workspace.agents.revoke("other.crl", &older);
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_reloads(1);
    assert!(gateway.log().contains("is older than another list of"));
    assert_stays_out(&gateway, 2);
    // Another client of the CA gets in there as ever.
    let good = agent(&workspace.agents, "good");
    assert_admitted(&workspace, gateway.address_of("other"), &good);
    gateway.terminate();
    gateway.wait();
    let gateway = setup().start();
    assert_stays_out(&gateway, 1);
}

#[test]
fn a_ca_without_a_list_is_warned_of_by_check_start_and_reload_and_named_in_the_refusal() {
    let workspace = Workspace::new();
    let branch = workspace.agents.subordinate("branch", "Branch of the test");
    let below = agent(&branch, "below");
    let both = workspace.folder().join("both.pem");
    let read = |authority: &Authority| fs::read_to_string(authority.certificate()).unwrap();
    fs::write(&both, read(&workspace.agents) + &read(&branch)).unwrap();
    let list = workspace
        .agents
        .revoke("agents.crl", &RevocationList::of(&[]));
    let backend = Backend::start(Behaviour::Echo);
    let setup = || {
        let setup = workspace.setup().client_ca(&both);
        setup.route("edge", &crl(&[&list]), &[backend.address()], "")
    };
    let warning = "there is no list of CN=Branch of the test";
    let said = setup().check(0);
    assert!(said.contains(warning), "{said}");
    let mut gateway = setup().start();
    let warnings = |gateway: &Gateway| gateway.log().matches(warning).count();
    assert_eq!(warnings(&gateway), 1, "{}", gateway.log());
    assert!(!gateway.log().contains("there is no list of CN=Agents"));
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_reloads(1);
    assert_eq!(warnings(&gateway), 2, "{}", gateway.log());
    assert_refused(&workspace, &gateway, &backend, &below, "crl_stale");
    let log = gateway.log();
    let mut lines = log.lines();
    let named = "there is no revocation list of CN=Branch of the test";
    assert!(
        lines.any(|line| line.contains("crl_stale") && line.contains(named)),
        "{log}"
    );
    assert_admitted(&workspace, gateway.address(), &workspace.agent);
}

#[test]
fn a_connection_ends_with_its_certificate() {
    let workspace = Workspace::new();
    let uri = "spiffe://example.test/agent/brief";
    let brief = workspace
        .agents
        .issue("brief", Request::client(uri).seconds(8));
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let mut client = workspace
        .client()
        .credentials(&brief)
        .connect(gateway.address())
        .unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(client.receive(5).unwrap(), b"hello");
    let mut other = workspace.client().connect(gateway.address()).unwrap();

    let (bytes, closing) = client.receive_to_end();
    assert!(bytes.is_empty());
    assert_ne!(closing, Closing::CloseNotify, "it does not look complete");
    let brief_one = eventually("the backend's connection ends", || {
        let first = backend.connections().swap_remove(0);
        first.ending.is_some().then_some(first)
    });
    assert_eq!(brief_one.ending, Some(Ending::Reset));
    gateway.wait_for(ENDED, &[("listener", "edge"), ("reason", "expired")], 1);

    // Its owner does not get in again (in the second of notAfter the certificate is valid still, and the connection over
    // at once), and who was inside with a longer one stays.
    eventually("the handshake is refused", || {
        let failure = workspace
            .client()
            .credentials(&brief)
            .refused(gateway.address());
        let alert = AlertDescription::CertificateExpired;
        matches!(failure, TlsFailure::Closed(Closing::Alert(seen)) if seen == alert).then_some(())
    });
    other.send(b"still here").unwrap();
    assert_eq!(other.receive(10).unwrap(), b"still here");
}
