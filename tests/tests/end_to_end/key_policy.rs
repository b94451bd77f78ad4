//! Which keys, signatures and chains clients may come with: what is weak is refused by that name.
//! In: certificates by `openssl`, which makes what our own tools refuse to make. Out: exactly one reason each.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use rustix::process::Signal;
use rustls::{AlertDescription, HandshakeKind};
use tests::{
    Backend, Behaviour, Closing, Credentials, Gateway, Request, TlsFailure, Workspace, eventually,
    program,
};

const FAILURES: &str = "portcullis_handshake_failures_total";
const P256: &[&str] = &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P384: &[&str] = &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
const P521: &[&str] = &["EC", "-pkeyopt", "ec_paramgen_curve:P-521"];
const RSA_1024: &[&str] = &["RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
const RSA_2048: &[&str] = &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const ED448: &[&str] = &["ED448"];

/// An authority that `openssl` makes, and what it signs.
struct Openssl(PathBuf);

impl Openssl {
    /// A folder with a root of this kind of key.
    fn new(workspace: &Workspace, root: &[&str]) -> Openssl {
        let pki = Openssl(workspace.folder().join("openssl"));
        fs::create_dir(&pki.0).unwrap();
        pki.key("root", root);
        let subject = ["-subj", "/CN=Root", "-days", "30", "-out", "root.pem"];
        pki.run(&[&["req", "-x509", "-key", "root.key"][..], &subject].concat());
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn run(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .current_dir(&self.0)
            .args(arguments)
            .output()
            .expect("openssl runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments:?}: {said}");
    }

    fn key(&self, name: &str, kind: &[&str]) {
        let file = format!("{name}.key");
        if kind == ["DSA"] {
            self.run(&["dsaparam", "-noout", "-genkey", "-out", &file, "1024"]);
        } else {
            let out = ["-out", &file];
            self.run(&[&["genpkey", "-algorithm"][..], kind, &out].concat());
        }
    }

    /// Signs a certificate for a fresh key of a kind. `days` may have passed already.
    fn sign(&self, name: &str, kind: &[&str], issuer: &str, extensions: &str, options: &[&str]) {
        self.key(name, kind);
        fs::write(self.path("extensions"), extensions).unwrap();
        let (request, certificate) = (format!("{name}.csr"), format!("{name}.pem"));
        let (key, subject) = (format!("{name}.key"), format!("/CN={name}"));
        self.run(&[
            "req", "-new", "-key", &key, "-subj", &subject, "-out", &request,
        ]);
        let (issuer_key, issuer) = (format!("{issuer}.key"), format!("{issuer}.pem"));
        let from = [
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &issuer,
            "-CAkey",
            &issuer_key,
        ];
        let to = ["-extfile", "extensions", "-out", &certificate];
        self.run(&[&from[..], &to, options].concat());
    }

    /// A certificate that a rule admits, with the certificates between it and the root.
    fn agent(&self, name: &str, kind: &[&str], issuer: &str, options: &[&str]) -> Credentials {
        let extensions = "subjectAltName=URI:spiffe://example.test/agent/openssl\n\
                          extendedKeyUsage=clientAuth\nkeyUsage=critical,digitalSignature\n";
        let days = ["-days", "3"];
        self.sign(
            name,
            kind,
            issuer,
            extensions,
            &[&days[..], options].concat(),
        );
        if issuer != "root" {
            let chain = [format!("{name}.pem"), format!("{issuer}.pem")];
            let chain = chain.map(|file| fs::read_to_string(self.path(&file)).unwrap());
            fs::write(self.path(&format!("{name}.pem")), chain.concat()).unwrap();
        }
        Credentials {
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        }
    }

    /// An authority between the root and clients.
    fn intermediate(&self, name: &str, kind: &[&str], days: &str) {
        let extensions = "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\n";
        self.sign(name, kind, "root", extensions, &["-days", days]);
    }
}

/// A gateway that trusts `root`, with these keys in `[tls]`.
fn gateway(workspace: &Workspace, root: &Path, tls: &str, backend: SocketAddr) -> Gateway {
    workspace
        .setup()
        .tables(&format!("[tls]\n{tls}\n"))
        .client_ca(root)
        .route("edge", "", &[backend], "")
        .start()
}

/// Asserts that a client is refused with this reason and alert, and that the log has the words.
fn assert_refused(
    gateway: &Gateway,
    failure: &TlsFailure,
    (reason, alert): (&str, AlertDescription),
    count: u64,
    words: &str,
) {
    let expected = Closing::Alert(alert);
    match failure {
        TlsFailure::Closed(closing) => assert_eq!(*closing, expected, "{words}"),
        other @ TlsFailure::Ours(_) => panic!("{words}: {other:?}"),
    }
    let metrics = gateway.wait_for(FAILURES, &[("reason", reason)], count);
    let all = metrics.by_label(FAILURES, "reason");
    assert_eq!(metrics.count(FAILURES, &[]), count, "{words}: {all:?}");
    eventually(&format!("the log says {words}"), || {
        gateway.log().contains(words).then_some(())
    });
}

const WEAK: (&str, AlertDescription) = ("weak_key", AlertDescription::BadCertificate);

/// What `openssl s_client` gets back from an echo, and what it says.
fn echoed(workspace: &Workspace, gateway: &Gateway, agent: &Credentials) -> (bool, String) {
    let mut command = Command::new("timeout");
    command
        .args(["5", "openssl", "s_client", "-ign_eof", "-brief"])
        .args([
            "-cipher",
            "DEFAULT:@SECLEVEL=0",
            "-servername",
            "gateway.test",
        ])
        .args(["-connect", &gateway.address().to_string(), "-CAfile"])
        .arg(workspace.gateways.certificate())
        .arg("-cert")
        .arg(&agent.certificate)
        .arg("-cert_chain")
        .arg(&agent.certificate)
        .arg("-key")
        .arg(&agent.key)
        .stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"echo me\n").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(input);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.stdout.ends_with(b"echo me\n"), said)
}

/// Each of these agents is refused as weak in these words, and a good one gets in afterwards.
fn weak(workspace: &Workspace, pki: &Openssl, cases: &[(Credentials, &str)]) {
    let backend = Backend::start(Behaviour::Echo);
    let gateway = gateway(workspace, &pki.path("root.pem"), "", backend.address());
    for (number, (agent, words)) in (1..).zip(cases) {
        let client = workspace.client().credentials(agent).without_its_key();
        let failure = client.refused(gateway.address());
        assert_refused(&gateway, &failure, WEAK, number, words);
    }
    assert!(backend.connections().is_empty());
    let good = pki.agent("good", P256, "root", &[]);
    let mut client = workspace
        .client()
        .credentials(&good)
        .connect(gateway.address())
        .unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(client.receive(5).unwrap(), b"hello");
}

#[test]
fn weak_and_unknown_keys_are_refused_by_that_name() {
    let workspace = Workspace::new();
    let pki = Openssl::new(&workspace, P256);
    let agent = |name, kind| pki.agent(name, kind, "root", &[]);
    let cases = [
        (
            agent("rsa", RSA_1024),
            "the key of the certificate is RSA-1024",
        ),
        (
            agent("p521", P521),
            "the key of the certificate is ECDSA-P521",
        ),
        (
            agent("dsa", &["DSA"]),
            "the key of the certificate is id-dsa",
        ),
        (agent("ed448", ED448), "the key of the certificate is ed448"),
    ];
    weak(&workspace, &pki, &cases);
}

#[test]
fn weak_keys_and_signatures_further_up_are_refused_by_that_name() {
    let workspace = Workspace::new();
    let pki = Openssl::new(&workspace, P256);
    pki.intermediate("short", RSA_1024, "3");
    pki.intermediate("large", P521, "3");
    let agent = |name, issuer, options| pki.agent(name, P256, issuer, options);
    let cases = [
        (
            agent("rsa", "short", &[]),
            "an intermediate certificate is RSA-1024",
        ),
        (
            agent("p521", "large", &["-sha256"]),
            "an intermediate certificate is ECDSA-P521",
        ),
        (
            agent("sha1", "root", &["-sha1"]),
            "is signed with ecdsa-with-SHA1",
        ),
    ];
    weak(&workspace, &pki, &cases);
}

#[test]
fn a_real_client_with_a_short_rsa_key_is_told_so_and_one_of_2048_bits_gets_in() {
    let workspace = Workspace::new();
    let pki = Openssl::new(&workspace, RSA_2048);
    let backend = Backend::start(Behaviour::Echo);
    let gateway = gateway(&workspace, &pki.path("root.pem"), "", backend.address());
    let short = pki.agent("short", RSA_1024, "root", &[]);
    let (_, said) = echoed(&workspace, &gateway, &short);
    assert!(said.contains("alert bad certificate"), "{said}");
    gateway.wait_for(FAILURES, &[("reason", "weak_key")], 1);
    let (echoed, said) = echoed(
        &workspace,
        &gateway,
        &pki.agent("long", RSA_2048, "root", &[]),
    );
    assert!(echoed, "{said}");
}

#[test]
fn pinned_key_types_refuse_all_others() {
    let workspace = Workspace::new();
    let pki = Openssl::new(&workspace, P256);
    let backend = Backend::start(Behaviour::Echo);
    let pins = "client_keys = [\"ECDSA-P384\", \"RSA-3072\"]";
    let gateway = gateway(&workspace, &pki.path("root.pem"), pins, backend.address());
    let allowed = pki.agent("allowed", P384, "root", &[]);
    assert!(echoed(&workspace, &gateway, &allowed).0);
    for (number, kind, words) in [
        (1, P256, "is ECDSA-P256, allowed are ECDSA-P384, RSA-3072"),
        (2, RSA_2048, "is RSA-2048, allowed are ECDSA-P384, RSA-3072"),
    ] {
        let agent = pki.agent(&format!("agent-{number}"), kind, "root", &[]);
        let client = workspace.client().credentials(&agent).without_its_key();
        assert_refused(
            &gateway,
            &client.refused(gateway.address()),
            WEAK,
            number,
            words,
        );
    }
    pki.intermediate("branch", P256, "3");
    let agent = pki.agent("below", P384, "branch", &["-sha256"]);
    let client = workspace.client().credentials(&agent);
    let words = "the key of an intermediate certificate is ECDSA-P256, allowed are ECDSA-P384";
    let refused = client.refused(gateway.address());
    assert_refused(&gateway, &refused, WEAK, 3, words);
}

#[test]
fn pinned_signatures_bind_certificates_and_the_proof_of_possession() {
    let workspace = Workspace::new();
    let pki = Openssl::new(&workspace, P384);
    let backend = Backend::start(Behaviour::Echo);
    let pins = "client_signatures = [\"ecdsa_secp384r1_sha384\"]";
    let gateway = gateway(&workspace, &pki.path("root.pem"), pins, backend.address());
    let allowed = pki.agent("allowed", P384, "root", &["-sha384"]);
    assert!(echoed(&workspace, &gateway, &allowed).0);
    // The same root with another hash.
    let other_hash = pki.agent("other-hash", P384, "root", &["-sha256"]);
    let client = workspace.client().credentials(&other_hash);
    let words = "is signed with ecdsa-with-SHA256";
    assert_refused(&gateway, &client.refused(gateway.address()), WEAK, 1, words);
    // A key that could only prove itself by a signature that is not asked for: the client stays silent about it.
    let other_proof = pki.agent("other-proof", P256, "root", &["-sha384"]);
    let (_, said) = echoed(&workspace, &gateway, &other_proof);
    assert!(said.contains("alert certificate required"), "{said}");
    // It would be of no use to it either.
    let output = Command::new(program("portcullis"))
        .args(["check", "--config"])
        .arg(workspace.folder().join("portcullis.toml"))
        .arg("--certificate")
        .arg(&other_proof.certificate)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = "REFUSED, weak_key\n  the key of the certificate is ECDSA-P256 and makes none of";
    assert!(said.contains(words), "{said}");
}

#[test]
fn p521_is_for_the_provider_that_has_it() {
    let workspace = Workspace::new();
    let pki = Openssl::new(&workspace, P521);
    let backend = Backend::start(Behaviour::Echo);
    let agent = pki.agent("agent", P521, "root", &["-sha512"]);
    let root = pki.path("root.pem");
    let refused = workspace
        .setup()
        .client_ca(&root)
        .route("edge", "", &[backend.address()], "");
    let said = refused.refused();
    assert!(said.contains("the key of CN=Root is ECDSA-P521"), "{said}");
    let provider = "provider = \"aws-lc-rs\"";
    let gateway = gateway(&workspace, &root, provider, backend.address());
    assert!(echoed(&workspace, &gateway, &agent).0);
}

#[test]
fn a_chain_longer_than_allowed_is_refused() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let root = workspace.agents.certificate();
    let gateway = gateway(&workspace, &root, "max_chain_depth = 2", backend.address());
    let second = workspace.agents.subordinate("second", "Second");
    let third = second.subordinate("third", "Third");
    let request = || Request::client("spiffe://example.test/agent/deep");
    let (two, three) = (
        second.issue("two", request()),
        third.issue("three", request()),
    );
    let mut client = workspace
        .client()
        .credentials(&two)
        .connect(gateway.address())
        .unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(client.receive(5).unwrap(), b"hello");
    let failure = workspace
        .client()
        .credentials(&three)
        .refused(gateway.address());
    let words = "a chain of 3 certificates, max_chain_depth = 2";
    assert_refused(&gateway, &failure, WEAK, 1, words);
}

#[test]
fn an_expired_intermediate_is_refused_however_good_the_certificate_below_it() {
    let workspace = Workspace::new();
    let pki = Openssl::new(&workspace, P256);
    let backend = Backend::start(Behaviour::Echo);
    let gateway = gateway(&workspace, &pki.path("root.pem"), "", backend.address());
    pki.intermediate("past", P256, "-1");
    pki.intermediate("present", P256, "3");
    let expected = ("expired", AlertDescription::CertificateExpired);
    let agent = pki.agent("below-past", P256, "past", &[]);
    let failure = workspace
        .client()
        .credentials(&agent)
        .refused(gateway.address());
    assert_refused(&gateway, &failure, expected, 1, "expired");
    let agent = pki.agent("below-present", P256, "present", &[]);
    assert!(echoed(&workspace, &gateway, &agent).0);
}

#[test]
fn names_that_mean_nothing_refuse_the_start() {
    let workspace = Workspace::new();
    for (tls, expected) in [
        ("client_keys = [\"RSA-1024\"]", "must be one of ECDSA-P256"),
        ("client_keys = []", "must name at least one"),
        (
            "client_signatures = [\"rsa_pkcs1_sha1\"]",
            "must be one of ecdsa_secp256r1_sha256",
        ),
        (
            "client_signatures = [\"rsa_pkcs1_sha256\"]",
            "signs certificates only",
        ),
        ("max_chain_depth = 0", "must be 1 to 7"),
    ] {
        let tables = format!("[tls]\n{tls}\n");
        let setup = workspace.setup().tables(&tables);
        let said = setup
            .route("edge", "", &[workspace.host.at(9)], "")
            .refused();
        assert!(said.contains(expected), "{tls}: {said}");
    }
}

#[test]
fn a_ticket_from_before_a_stricter_policy_is_worth_nothing() {
    let table = [
        (
            "client_keys = [\"ECDSA-P384\"]",
            "the key of the certificate is ECDSA-P256, allowed are ECDSA-P384",
        ),
        (
            "client_signatures = [\"ecdsa_secp384r1_sha384\"]",
            "the client sent no certificate",
        ),
        (
            "max_chain_depth = 1",
            "a chain of 2 certificates, max_chain_depth = 1",
        ),
    ];
    for (stricter, words) in table {
        let workspace = Workspace::new();
        let backend = Backend::start(Behaviour::Echo);
        let branch = workspace.agents.subordinate("branch", "Branch");
        let agent = branch.issue("agent", Request::client("spiffe://example.test/agent/1"));
        let root = workspace.agents.certificate();
        let mut gateway = gateway(&workspace, &root, "", backend.address());
        let client = workspace.client().credentials(&agent).remembering();
        let visit = || {
            let mut client = client.connect(gateway.address()).unwrap();
            client.send(b"hello").unwrap();
            assert_eq!(client.receive(5).unwrap(), b"hello");
            let kind = client.connection().handshake_kind();
            client.finish();
            client.receive_to_end();
            kind
        };
        assert_eq!(visit(), Some(HandshakeKind::Full));
        assert_eq!(visit(), Some(HandshakeKind::Resumed));
        let file = workspace.folder().join("portcullis.toml");
        let text = fs::read_to_string(&file).unwrap();
        let text = text.replace("[tls]", &format!("[tls]\n{stricter}"));
        fs::write(&file, text).unwrap();
        gateway.process().signal(Signal::HUP);
        gateway.wait_for_reloads(1);
        client.refused(gateway.address());
        let refused = "portcullis_tickets_refused_total";
        gateway.wait_for(refused, &[("reason", "domain")], 1);
        eventually(words, || gateway.log().contains(words).then_some(()));
    }
}

#[test]
fn a_key_that_may_not_sign_is_refused_for_its_usage_and_so_is_an_authority_that_may_not_issue() {
    let workspace = Workspace::new();
    let pki = Openssl::new(&workspace, P256);
    let backend = Backend::start(Behaviour::Echo);
    let gateway = gateway(&workspace, &pki.path("root.pem"), "", backend.address());
    let extensions = "subjectAltName=URI:spiffe://example.test/agent/openssl\n\
                      extendedKeyUsage=clientAuth\nkeyUsage=critical,keyAgreement\n";
    pki.sign("silent", P256, "root", extensions, &["-days", "3"]);
    let silent = Credentials {
        certificate: pki.path("silent.pem"),
        key: pki.path("silent.key"),
    };
    workspace
        .client()
        .credentials(&silent)
        .refused(gateway.address());
    let wrong = [("reason", "wrong_key_usage")];
    gateway.wait_for(FAILURES, &wrong, 1);
    let authority = "basicConstraints=critical,CA:true\nkeyUsage=critical,digitalSignature\n";
    pki.sign("no-issuer", P256, "root", authority, &["-days", "3"]);
    let below = pki.agent("below", P256, "no-issuer", &[]);
    workspace
        .client()
        .credentials(&below)
        .refused(gateway.address());
    gateway.wait_for(FAILURES, &wrong, 2);
    assert!(backend.connections().is_empty());
}

#[test]
fn an_intermediate_that_ends_before_the_certificate_below_it_ends_that_too() {
    const DAY: f64 = 24.0 * 60.0 * 60.0;
    let workspace = Workspace::new();
    let pki = Openssl::new(&workspace, P256);
    let backend = Backend::start(Behaviour::Echo);
    let gateway = gateway(&workspace, &pki.path("root.pem"), "", backend.address());
    pki.intermediate("branch", P256, "1");
    let agent = pki.agent("below", P256, "branch", &[]);
    let client = workspace.client().credentials(&agent);
    let _client = client.connect(gateway.address()).unwrap();
    let first = "portcullis_clients_first_not_after_timestamp_seconds";
    let ends = eventually("clients are counted", || {
        let ends = gateway.metrics().sum(first, &[]);
        (ends > 0.0).then_some(ends)
    });
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let left = ends - now.unwrap().as_secs_f64();
    assert!((0.5 * DAY..1.5 * DAY).contains(&left), "{left}");
}
