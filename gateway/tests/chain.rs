//! The search for a path: it finds one whenever there is one within its bounds, and takes no more than its bounds.
//! In: hierarchies of every shape, orderly and hostile, with a few keys. Out: found or refused, and the steps.

// Helpers of tests may do what tests may.
#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use gateway_core::failure::Failure;
use gateway_core::limits;
use gateway_x509::{AnyPath, Refused, Roots, Search, Steps, Usage};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, DnValue, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One of a few keys: making them anew for each case would take longer than everything else.
fn key(number: usize) -> &'static KeyPair {
    static KEYS: OnceLock<Vec<KeyPair>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| (0..24).map(|_| KeyPair::generate().unwrap()).collect());
    &keys[number % keys.len()]
}

/// A certificate to be: whose it is, and whose key signs it under whose name.
#[derive(Debug, Clone)]
struct Plan {
    subject: String,
    key: usize,
    issuer: String,
    signer: usize,
    names_signer: bool,
    is_authority: bool,
}

fn plan(subject: &str, key: usize, issuer: &str, signer: usize) -> Plan {
    Plan {
        subject: subject.to_owned(),
        key,
        issuer: issuer.to_owned(),
        signer,
        names_signer: true,
        is_authority: true,
    }
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let kind = DnType::CommonName;
    params.distinguished_name.push(kind, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn leaf(common_name: &str) -> CertificateParams {
    let mut params = named(common_name);
    params.is_ca = IsCa::NoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

impl Plan {
    fn make(&self) -> CertificateDer<'static> {
        let params = match self.is_authority {
            true => named(&self.subject),
            false => leaf(&self.subject),
        };
        self.make_with(params)
    }

    fn make_with(&self, mut params: CertificateParams) -> CertificateDer<'static> {
        params.use_authority_key_identifier_extension = self.names_signer;
        let above = named(&self.issuer);
        let issuer = Issuer::from_params(&above, key(self.signer));
        params
            .signed_by(key(self.key), &issuer)
            .unwrap()
            .der()
            .clone()
    }
}

fn roots(certificates: &[CertificateDer<'static>]) -> Roots {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.clone()).unwrap();
    }
    Roots::new(store, certificates)
}

fn search(roots: &Roots, sent: &[CertificateDer<'_>]) -> (Result<(), Refused>, Steps) {
    search_at(roots, sent, SystemTime::now())
}

fn search_at(
    roots: &Roots,
    sent: &[CertificateDer<'_>],
    now: SystemTime,
) -> (Result<(), Refused>, Steps) {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let search = Search {
        roots,
        algorithms: ring::default_provider()
            .signature_verification_algorithms
            .all,
        usage: Usage::Client,
        now: UnixTime::since_unix_epoch(since_epoch),
    };
    let (found, steps) = search.find_counting(sent, &AnyPath);
    assert!(
        steps.candidates <= limits::CHAIN_CANDIDATES_MAX,
        "{steps:?}"
    );
    assert!(steps.paths <= limits::CHAIN_PATHS_MAX, "{steps:?}");
    assert!(steps.orders <= limits::CHAIN_ORDERS_MAX, "{steps:?}");
    assert!(
        steps.signatures <= limits::CHAIN_SIGNATURES_MAX
            && steps.signature_work_us <= limits::CHAIN_SIGNATURE_WORK_US_MAX,
        "{steps:?}"
    );
    (found, steps)
}

fn failure(found: Result<(), Refused>) -> (Failure, String) {
    let refused = found.unwrap_err();
    (refused.failure, refused.detail)
}

#[test]
fn of_1000_cas_and_of_120_of_one_name_the_right_one_is_tried_first() {
    let authorities: Vec<_> = (0..1000)
        .map(|number| match number {
            // Keys repeat; that is what CAs of one name and one key are.
            0..120 => plan("Same", 1 + number % 20, "Same", 1 + number % 20),
            _ => plan(
                &format!("CA {number}"),
                number,
                &format!("CA {number}"),
                number,
            ),
        })
        .collect();
    let certificates: Vec<_> = authorities.iter().map(Plan::make).collect();
    let roots = roots(&certificates);
    assert_eq!(roots.len(), 1000);
    for (name, signer) in [("Same", 20), ("CA 500", 500), ("CA 999", 999)] {
        let mut agent = plan("agent", 0, name, signer);
        agent.is_authority = false;
        let (found, steps) = search(&roots, &[agent.make()]);
        found.unwrap();
        assert_eq!((steps.paths, steps.signatures), (1, 1), "{name}");
    }
    // By the name alone it is one of twenty keys: found or refused, and never beyond the bounds.
    let mut agent = plan("agent", 0, "Same", 12);
    (agent.is_authority, agent.names_signer) = (false, false);
    let (_, steps) = search(&roots, &[agent.make()]);
    assert!(steps.signatures > 1);
}

#[test]
fn the_longest_chain_is_verified_within_the_bounds_in_any_order() {
    let root = plan("0", 0, "0", 0).make();
    let mut above: Vec<_> = (1..7)
        .map(|number| {
            let issuer = (number - 1).to_string();
            plan(&number.to_string(), number, &issuer, number - 1).make()
        })
        .collect();
    let mut agent = plan("agent", 7, "6", 6);
    agent.is_authority = false;
    let roots = roots(&[root]);
    for _ in 0..2 {
        let sent = [&[agent.make()][..], &above].concat();
        let (found, steps) = search(&roots, &sent);
        found.unwrap();
        assert_eq!(steps.signatures, 7);
        above.reverse();
    }
    // One more is one too many.
    let deeper = plan("7", 8, "6", 6).make();
    let mut agent = plan("agent", 7, "7", 8);
    agent.is_authority = false;
    let sent = [&[agent.make(), deeper][..], &above].concat();
    let (reason, words) = failure(search(&roots, &sent).0);
    assert_eq!(reason, Failure::WeakKey);
    assert!(words.contains("more than 7 certificates"), "{words}");
}

#[test]
fn a_ca_with_a_new_key_is_found_through_the_certificate_its_old_key_has_signed() {
    // RFC 4210 section 4.4: the new key under the old one, both of one name; without key identifiers it is found as well.
    for names_signer in [true, false] {
        let root = plan("CA", 0, "CA", 0).make();
        let mut new_with_old = plan("CA", 1, "CA", 0);
        let mut agent = plan("agent", 2, "CA", 1);
        agent.is_authority = false;
        (new_with_old.names_signer, agent.names_signer) = (names_signer, names_signer);
        let (found, _) = search(&roots(&[root]), &[agent.make(), new_with_old.make()]);
        found.unwrap();
    }
}

/// A CA whose key has changed so many times, each new one certified by the one before, and a client of the newest. The root is
/// the oldest.
fn renewed(times: usize, names_signer: bool) -> (Roots, Vec<CertificateDer<'static>>) {
    let root = plan("CA", 0, "CA", 0).make();
    let made = |mut plan: Plan| {
        plan.names_signer = names_signer;
        plan
    };
    let mut agent = made(plan("agent", 20, "CA", times));
    agent.is_authority = false;
    let newest_first = (1..=times).rev();
    let above = newest_first.map(|key| made(plan("CA", key, "CA", key - 1)).make());
    let sent = [agent.make()].into_iter().chain(above).collect();
    (roots(&[root]), sent)
}

#[test]
fn a_ca_whose_key_has_changed_several_times_is_found_in_any_order_of_its_certificates() {
    for times in 1..=5 {
        let (roots, mut sent) = renewed(times, true);
        let (found, steps) = search(&roots, &sent);
        found.unwrap();
        assert_eq!((steps.paths, steps.signatures), (1, times + 1));
        sent[1..].reverse();
        search(&roots, &sent).0.unwrap();
    }
    // Without key identifiers each guess takes a signature.
    for times in 1..=2 {
        let (roots, sent) = renewed(times, false);
        search(&roots, &sent).0.unwrap();
    }
    let (roots, sent) = renewed(6, true);
    assert_eq!(failure(search(&roots, &sent).0).0, Failure::ChainTooLarge);
}

#[test]
fn slow_signatures_are_fewer() {
    // Twenty CAs of one name and P-384 keys, none of which has signed.
    let keys: Vec<_> = (0..21)
        .map(|_| KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap())
        .collect();
    let authority = named("CA");
    let certificates: Vec<_> = keys[1..]
        .iter()
        .map(|key| authority.self_signed(key).unwrap().der().clone())
        .collect();
    let issuer = Issuer::from_params(&authority, &keys[0]);
    let signed = leaf("agent").signed_by(key(0), &issuer).unwrap();
    let (found, steps) = search(&roots(&certificates), &[signed.der().clone()]);
    assert_eq!(failure(found).0, Failure::ChainTooLarge);
    assert_eq!((steps.signatures, steps.signature_work_us), (7, 2800));
}

#[test]
fn a_ca_with_the_name_and_the_key_of_the_certificate_itself_leads_nowhere() {
    // webpki takes it for a loop (RFC 4158 section 5.2), and so does the oracle of the fuzz target.
    let root = plan("CA", 0, "CA", 0).make();
    let mut agent = plan("agent", 1, "branch", 2);
    agent.is_authority = false;
    let twin = plan("agent", 1, "CA", 0).make();
    let branch = plan("branch", 2, "agent", 1).make();
    let (found, steps) = search(&roots(&[root]), &[agent.make(), branch, twin]);
    assert_eq!(failure(found).0, Failure::UnknownIssuer);
    assert_eq!(steps.signatures, 0);
}

#[test]
fn a_ca_is_found_by_its_name_in_another_string_type() {
    // RFC 5280 section 7.1: the root has PrintableStrings and capitals, and whoever issued wrote UTF8Strings.
    let spelled = |number: usize, name: &str| {
        let mut params = named("");
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = DnValue::PrintableString(name.try_into().unwrap());
        params.distinguished_name.push(DnType::CommonName, name);
        params.self_signed(key(number)).unwrap().der().clone()
    };
    let right = spelled(0, "AGENTS  CA");
    let roots = roots(&[spelled(3, "Agents CA"), right, spelled(4, "Agent CA")]);
    let branch = plan("branch", 1, "Agents CA", 0).make();
    let mut direct = plan("agent", 2, "Agents CA", 0);
    let mut below = plan("agent", 2, "branch", 1);
    (direct.is_authority, below.is_authority) = (false, false);
    search(&roots, &[direct.make()]).0.unwrap();
    search(&roots, &[below.make(), branch]).0.unwrap();
    let mut foreign = plan("agent", 2, "Agents CA", 5);
    foreign.is_authority = false;
    let (reason, words) = failure(search(&roots, &[foreign.make()]).0);
    assert_eq!(reason, Failure::BadSignature, "{words}");
}

#[test]
fn a_root_that_has_ended_leads_nobody_in_and_another_of_its_key_does() {
    let end = SystemTime::now() + DAY;
    let until = |end: SystemTime| {
        let mut params = named("CA");
        params.not_after = end.into();
        plan("CA", 0, "CA", 0).make_with(params)
    };
    let mut agent = plan("agent", 1, "CA", 0);
    agent.is_authority = false;
    let sent = [agent.make()];
    let ended = roots(&[until(end)]);
    search_at(&ended, &sent, end).0.unwrap();
    let (reason, words) = failure(search_at(&ended, &sent, end + 2 * DAY).0);
    assert_eq!(reason, Failure::Expired);
    assert!(
        words.contains("the CA above it, CN=CA, ended on"),
        "{words}"
    );
    let both = roots(&[until(end), until(end + 10 * DAY)]);
    search_at(&both, &sent, end + 2 * DAY).0.unwrap();
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_read() {
    let roots = roots(&[plan("CA", 0, "CA", 0).make()]);
    let junk = |count: usize, bytes: usize| vec![CertificateDer::from(vec![0x30; bytes]); count];
    for sent in [junk(11, 1), junk(10_000, 1), junk(2, 40_000)] {
        let (found, steps) = search(&roots, &sent);
        assert_eq!(failure(found).0, Failure::ChainTooLarge);
        assert_eq!(steps, Steps::default());
    }
    let mut params = leaf("agent");
    let name = |number| SanType::DnsName(format!("agent-{number}.example.org").try_into().unwrap());
    params.subject_alt_names = (0..2500).map(name).collect();
    let many_names = plan("agent", 1, "CA", 0).make_with(params);
    let (reason, words) = failure(search(&roots, &[many_names]).0);
    assert_eq!(reason, Failure::ChainTooLarge);
    assert!(words.contains("more than 2048 DER values"), "{words}");
}

#[test]
fn names_and_constraints_that_are_too_many_to_compare_are_not_compared() {
    let root = plan("CA", 0, "CA", 0).make();
    let constrained = |count: usize| {
        let mut params = named("branch");
        let subtree = |number| GeneralSubtree::DnsName(format!("{number}.example.org"));
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: (0..count).map(subtree).collect(),
        });
        plan("branch", 1, "CA", 0).make_with(params)
    };
    let mut params = leaf("agent");
    let name = |number| SanType::DnsName(format!("agent-{number}.example.net").try_into().unwrap());
    params.subject_alt_names = (0..500).map(name).collect();
    let agent = plan("agent", 2, "branch", 1).make_with(params);
    let roots = roots(&[root]);
    search(&roots, &[agent.clone(), constrained(10)]).0.unwrap();
    let (reason, words) = failure(search(&roots, &[agent, constrained(500)]).0);
    assert_eq!(reason, Failure::ChainTooLarge);
    assert!(words.contains("too many to compare"), "{words}");
}

fn authority(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = named(name);
    change(&mut params);
    plan(name, 1, "CA", 0).make_with(params)
}

fn agent(params: CertificateParams, issuer: &str, signer: usize) -> CertificateDer<'static> {
    plan("agent", 5, issuer, signer).make_with(params)
}

/// Each of these is refused below a root `CA` of key 0 for this reason, and in words that hold this.
fn assert_refused(cases: &[(Vec<CertificateDer<'static>>, Failure, &str)]) {
    let roots = roots(&[plan("CA", 0, "CA", 0).make()]);
    for (sent, expected, part) in cases {
        let (reason, words) = failure(search(&roots, sent).0);
        assert_eq!(reason, *expected, "{words}");
        assert!(words.contains(part), "{words}");
    }
}

#[test]
fn constraints_and_extensions_that_a_chain_violates_are_reasons_of_their_own() {
    let limited = authority("branch", |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example.org".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    let mut outside = leaf("agent");
    outside.subject_alt_names = vec![SanType::DnsName("a.example.net".try_into().unwrap())];
    let mut critical = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    critical.set_criticality(true);
    let mut with_critical = leaf("agent");
    with_critical.custom_extensions.push(critical);
    let short = authority("branch", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let lower = plan("lower", 2, "branch", 1).make();
    let no_ca = authority("branch", |params| *params = leaf("branch"));
    assert_refused(&[
        (
            vec![agent(outside, "branch", 1), limited],
            Failure::NameConstraint,
            "RFC 5280 section 4.2.1.10",
        ),
        (
            vec![agent(with_critical, "CA", 0)],
            Failure::CriticalExtension,
            "extension 1.2.3.4",
        ),
        (
            vec![agent(leaf("agent"), "lower", 2), lower, short],
            Failure::PathConstraint,
            "path length",
        ),
        (
            vec![agent(leaf("agent"), "branch", 1), no_ca],
            Failure::PathConstraint,
            "CN=branch is not a CA",
        ),
    ]);
}

#[test]
fn usages_signatures_and_issuers_that_are_wrong_are_said_in_words() {
    let mut server = leaf("agent");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert_refused(&[
        (
            vec![agent(server, "CA", 0)],
            Failure::WrongKeyUsage,
            "lacks the clientAuth",
        ),
        (
            vec![agent(named("agent"), "CA", 0)],
            Failure::WrongKeyUsage,
            "certificate of a CA",
        ),
        (
            vec![agent(leaf("agent"), "CA", 3)],
            Failure::BadSignature,
            "a CA of the same name",
        ),
        (
            vec![agent(leaf("agent"), "branch", 1)],
            Failure::UnknownIssuer,
            "\"CN=branch\" is none of the 1 there",
        ),
    ]);
}

/// A CA `branch` of key 1 with name constraints as they are given: tag and base of what is permitted and of what is excluded.
fn constrained(permitted: &[(u8, &[u8])], excluded: &[(u8, &[u8])]) -> CertificateDer<'static> {
    let element = |tag: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 128);
        [&[tag, length], content].concat()
    };
    let lists = [(0xa0, permitted), (0xa1, excluded)];
    let lists = lists
        .into_iter()
        .filter(|(_, subtrees)| !subtrees.is_empty());
    let lists: Vec<u8> = lists
        .flat_map(|(tag, subtrees)| {
            let subtrees = subtrees
                .iter()
                .flat_map(|(tag, base)| element(0x30, &element(*tag, base)));
            element(tag, &subtrees.collect::<Vec<_>>())
        })
        .collect();
    authority("branch", |params| {
        let mut extension =
            CustomExtension::from_oid_content(&[2, 5, 29, 30], element(0x30, &lists));
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    })
}

const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const MAIL: u8 = 0x81;

fn with_name(name: SanType) -> CertificateDer<'static> {
    let mut params = leaf("agent");
    params.subject_alt_names = vec![name];
    agent(params, "branch", 1)
}

fn with_uri(uri: &str) -> CertificateDer<'static> {
    with_name(SanType::URI(uri.try_into().unwrap()))
}

/// Whether a certificate gets in below a CA that is named in the configuration; if not, for its names alone.
fn is_permitted(branch: &CertificateDer<'static>, agent: CertificateDer<'static>) -> bool {
    match search(&roots(std::slice::from_ref(branch)), &[agent]).0 {
        Ok(()) => true,
        Err(refused) => {
            assert_eq!(refused.failure, Failure::NameConstraint, "{refused}");
            false
        }
    }
}

#[test]
fn constraints_on_uris_of_a_ca_that_is_named_are_honoured_by_the_host() {
    let host = constrained(&[(URI, b"example.org"), (DNS, b"agents.example")], &[]);
    let domain = constrained(&[(URI, b".example.org")], &[(URI, b"bad.example.org")]);
    let names_alone = constrained(&[(DNS, b"example.org")], &[]);
    for (branch, uri, expected) in [
        (&host, "spiffe://example.org/agent/1", true),
        (&host, "spiffe://EXAMPLE.org", true),
        (&host, "https://example.org:8443/x?y#z", true),
        (&host, "https://example.org:8443/x/@evil", true),
        (&host, "spiffe://sub.example.org/agent", false),
        (&host, "spiffe://example.org.evil/agent", false),
        (&host, "spiffe://evil/example.org", false),
        (&host, "spiffe://evil/@example.org", false),
        (&host, "spiffe://example.org@evil/agent", false),
        // A rule reads the text, and a user stands where it expects the host.
        (&host, "spiffe://evil@example.org/agent", false),
        (&host, "spiffe://evil:1@example.org/agent", false),
        (&host, "spiffe://@example.org/agent", false),
        (&host, "spiffe://evil\\@example.org/agent", false),
        // RFC 3986 knows none of these, and its readers differ on what they are.
        (&host, "spiffe://example.org\\@evil/agent", false),
        (&host, "spiffe://example.org/a b", false),
        (&host, "spiffe://example.org/\u{7f}", false),
        (&host, "spiffe://example.org/<agent>", false),
        (&host, "://example.org/agent", false),
        (&host, "1://example.org/agent", false),
        (&host, "spiffe://evil#@example.org", false),
        (&host, "spiffe://example.org./agent", false),
        (&host, "spiffe://example%2eorg/agent", false),
        (&host, "spiffe://192.0.2.1/agent", false),
        (&host, "spiffe://[2001:db8::1]/agent", false),
        (&host, "spiffe:///agent", false),
        (&host, "urn:example.org", false),
        (&domain, "spiffe://a.example.org/agent", true),
        (&domain, "spiffe://a.b.example.org/agent", true),
        (&domain, "spiffe://example.org/agent", false),
        (&domain, "spiffe://notexample.org/agent", false),
        (&domain, "spiffe://bad.example.org/agent", false),
        (&domain, "spiffe://BAD.example.org/agent", false),
        (&domain, "spiffe://a.bad.example.org/agent", true),
        (&names_alone, "urn:anything", true),
    ] {
        assert_eq!(is_permitted(branch, with_uri(uri)), expected, "{uri}");
        assert!(gateway_x509::kept_out(branch).is_empty(), "{uri}");
    }
    // Bytes that are no text are no host that is permitted.
    let mut unreadable = leaf("agent");
    let name = CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 3, URI, 1, 0xff]);
    unreadable.custom_extensions.push(name);
    assert!(!is_permitted(&host, agent(unreadable, "branch", 1)));
    // What it says of DNS names is honoured as before.
    let dns = |name: &str| with_name(SanType::DnsName(name.try_into().unwrap()));
    assert!(is_permitted(&host, dns("one.agents.example")));
    assert!(!is_permitted(&host, dns("one.elsewhere.example")));
    // Below an intermediate, too.
    let lower = plan("lower", 2, "branch", 1).make();
    let below = |uri: &str| {
        let mut params = leaf("agent");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let sent = [agent(params, "lower", 2), lower.clone()];
        search(&roots(std::slice::from_ref(&host)), &sent).0
    };
    below("spiffe://example.org/agent").unwrap();
    assert_eq!(
        failure(below("spiffe://example.net/agent")).0,
        Failure::NameConstraint
    );
}

#[test]
fn constraints_on_directory_names_of_a_ca_that_is_named_are_honoured_and_what_is_not_sure_is_refused()
 {
    let name = |parts: &[(DnType, &str)]| {
        let mut name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            name.push(kind.clone(), *value);
        }
        name
    };
    let acme = GeneralSubtree::DirectoryName(name(&[(DnType::OrganizationName, "Acme Ltd")]));
    let limited = |permitted: Vec<GeneralSubtree>, excluded: Vec<GeneralSubtree>| {
        authority("branch", |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: permitted,
                excluded_subtrees: excluded,
            });
        })
    };
    let permitted = limited(vec![acme.clone()], Vec::new());
    let excluded = limited(Vec::new(), vec![acme]);
    let of = |organization: &str| {
        let mut params = leaf("agent");
        params.distinguished_name = name(&[
            (DnType::OrganizationName, organization),
            (DnType::CommonName, "agent"),
        ]);
        agent(params, "branch", 1)
    };
    for (organization, is_within, is_surely_without) in [
        ("Acme Ltd", true, false),
        ("ACME  ltd ", true, false),
        ("Acme Ltd.", false, true),
        // Neither surely the same nor surely another one.
        ("\u{c1}cme Ltd", false, false),
        ("Acme\u{a0}Ltd", false, false),
    ] {
        assert_eq!(
            is_permitted(&permitted, of(organization)),
            is_within,
            "{organization}"
        );
        assert_eq!(
            is_permitted(&excluded, of(organization)),
            is_surely_without,
            "{organization}"
        );
    }
    let mut nameless = leaf("agent");
    nameless.distinguished_name = rcgen::DistinguishedName::new();
    nameless.subject_alt_names = vec![SanType::DnsName("a.example".try_into().unwrap())];
    assert!(is_permitted(&permitted, agent(nameless, "branch", 1)));
    assert!(!is_permitted(&permitted, agent(leaf("agent"), "branch", 1)));
    assert!(is_permitted(&excluded, agent(leaf("agent"), "branch", 1)));
    for branch in [permitted, excluded] {
        assert!(gateway_x509::kept_out(&branch).is_empty());
    }
}

#[test]
fn constraints_that_are_not_honoured_are_warned_of_and_refuse_whom_the_warning_names() {
    let mail = with_name(SanType::Rfc822Name("agent@example.org".try_into().unwrap()));
    let spiffe = || with_uri("spiffe://example.org/agent");
    for (branch, refused, words) in [
        (
            constrained(&[(MAIL, b"example.org")], &[]),
            mail,
            "certificates with an e-mail address",
        ),
        // Neither a host nor a domain.
        (
            constrained(&[(URI, b"spiffe://example.org")], &[]),
            spiffe(),
            "certificates with a URI",
        ),
        (
            constrained(&[], &[(URI, b"")]),
            spiffe(),
            "certificates with a URI",
        ),
    ] {
        let said = gateway_x509::kept_out(&branch);
        assert_eq!(said.len(), 1, "{words}");
        assert!(said[0].contains(words), "{said:?}");
        assert!(!is_permitted(&branch, refused), "{words}");
    }
    // Of an intermediate that a client sends webpki is shown all.
    let branch = constrained(&[(URI, b"example.org")], &[]);
    assert_refused(&[(
        vec![spiffe(), branch.clone()],
        Failure::NameConstraint,
        "name that CA in the configuration",
    )]);
    let root = plan("CA", 0, "CA", 0).make();
    search(&roots(&[root, branch.clone()]), &[spiffe(), branch])
        .0
        .unwrap();
}

/// Whether the names and keys of these plans lead from the first to a root, by trying everything.
fn leads_to_root(plans: &[Plan], roots: &[Plan], head: &Plan, used: &mut Vec<usize>) -> bool {
    let signs = |issuer: &Plan| issuer.subject == head.issuer && issuer.key == head.signer;
    if roots.iter().any(signs) {
        return true;
    }
    for (position, next) in plans.iter().enumerate() {
        if used.contains(&position) || used.len() >= 6 || !signs(next) {
            continue;
        }
        used.push(position);
        let leads = leads_to_root(plans, roots, next, used);
        used.pop();
        if leads {
            return true;
        }
    }
    false
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let parts = (0..4usize, 0..4usize, 0..4usize, 0..4usize, any::<bool>());
    parts.prop_map(|(subject, key, issuer, signer, names_signer)| Plan {
        names_signer,
        ..plan(
            &format!("CA {subject}"),
            key,
            &format!("CA {issuer}"),
            signer,
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The oracle tries every order; the search has to agree with it, unless it has said that it gave up.
    #[test]
    fn a_path_is_found_exactly_where_there_is_one(
        above in proptest::collection::vec(any_plan(), 0..9),
        mut agent in any_plan(),
        root in 0..4usize,
    ) {
        agent.is_authority = false;
        agent.key = 9;
        let root = plan(&format!("CA {root}"), root, &format!("CA {root}"), root);
        let mut sent = vec![agent.make()];
        sent.extend(above.iter().map(Plan::make));
        let (found, _) = search(&roots(&[root.make()]), &sent);
        let expected = leads_to_root(&above, &[root], &agent, &mut Vec::new());
        match found {
            Ok(()) => prop_assert!(expected),
            Err(refused) if refused.failure == Failure::ChainTooLarge => {
                prop_assert!(refused.detail.contains("could each have issued another"));
            }
            Err(refused) => prop_assert!(!expected, "{refused}"),
        }
    }

    /// Who names issuers by their keys, as authorities do, is never refused for what else was sent.
    #[test]
    fn an_orderly_chain_is_found_among_any_others(
        depth in 0..6usize,
        others in proptest::collection::vec(any_plan(), 0..4),
        order in any::<prop::sample::Index>(),
    ) {
        let root = plan("root", 10, "root", 10);
        let mut above: Vec<_> = (0..depth)
            .map(|number| {
                let issuer = match number {
                    0 => "root".to_owned(),
                    _ => format!("CA {}", number - 1),
                };
                plan(&format!("CA {number}"), 11 + number, &issuer, 10 + number)
            })
            .collect();
        let mut agent = match depth {
            0 => plan("agent", 9, "root", 10),
            _ => plan("agent", 9, &format!("CA {}", depth - 1), 10 + depth),
        };
        agent.is_authority = false;
        above.extend(others);
        let mut sent: Vec<_> = above.iter().map(Plan::make).collect();
        let count = sent.len();
        if count > 0 {
            sent.rotate_left(order.index(count));
        }
        sent.insert(0, agent.make());
        let (found, steps) = search(&roots(&[root.make()]), &sent);
        prop_assert!(found.is_ok(), "{found:?}");
        prop_assert_eq!(steps.signatures, depth + 1);
    }

    #[test]
    fn any_bytes_are_refused_within_the_bounds(
        sent in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..12),
    ) {
        let sent: Vec<_> = sent.into_iter().map(CertificateDer::from).collect();
        let (found, _) = search(&roots(&[plan("CA", 0, "CA", 0).make()]), &sent);
        prop_assert!(found.is_err());
    }
}
