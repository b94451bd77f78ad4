//! What the worst known inputs of a peer cost a worker in one step. In: certificates, hellos and records that no honest peer
//! sends. Out: times by Criterion; docs/architecture.md says that none takes more than 5 ms. Of a handshake's first message
//! it is rustls' part alone, without a socket.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gateway_core::limits;
use gateway_x509::{AnyPath, Roots, Search, Usage};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, GeneralSubtree, IsCa, Issuer,
    KeyPair, NameConstraints, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SanType,
    SignatureAlgorithm,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ServerConnection;
use rustls::{RootCertStore, ServerConfig};

/// Certificates of one hierarchy, whose keys are all of one kind.
struct Hierarchy {
    keys: Vec<KeyPair>,
}

impl Hierarchy {
    fn new(kind: &'static SignatureAlgorithm, count: usize) -> Self {
        let key = |_| KeyPair::generate_for(kind).expect("a key can be made");
        Hierarchy {
            keys: (0..count).map(key).collect(),
        }
    }

    fn authority(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    fn leaf() -> CertificateParams {
        let mut params = Hierarchy::authority("agent");
        params.is_ca = IsCa::NoCa;
        params
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: usize,
        issuer: &str,
        signer: usize,
    ) -> CertificateDer<'static> {
        let above = Hierarchy::authority(issuer);
        let issuer = Issuer::from_params(&above, &self.keys[signer]);
        let signed = params.signed_by(&self.keys[key], &issuer);
        signed.expect("an authority can sign").der().clone()
    }

    /// So many CAs of one name, and a certificate of the last one that does not say whose key has signed it.
    fn namesakes(&self, count: usize) -> (Roots, Vec<CertificateDer<'static>>) {
        let authority = Hierarchy::authority("CA");
        let last = self.keys.len() - 1;
        let certificates: Vec<_> = (0..count)
            .map(|number| self.sign(&authority, number % last, "CA", number % last))
            .collect();
        (
            roots(&certificates),
            vec![self.sign(&Hierarchy::leaf(), 0, "CA", last)],
        )
    }
}

fn roots(certificates: &[CertificateDer<'static>]) -> Roots {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.clone()).expect("it is a certificate");
    }
    Roots::new(store, certificates)
}

fn search(
    criterion: &mut Criterion,
    name: &str,
    provider: &CryptoProvider,
    roots: &Roots,
    sent: &[CertificateDer<'_>],
) {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let search = Search {
        roots,
        algorithms: provider.signature_verification_algorithms.all,
        usage: Usage::Client,
        now: UnixTime::since_unix_epoch(since_epoch.unwrap_or_default()),
    };
    let (_, steps) = search.find_counting(sent, &AnyPath);
    let name = format!("{name}, {} signatures", steps.signatures);
    criterion
        .benchmark_group("certificate")
        .bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| black_box(search.find(black_box(sent), &AnyPath)))
        });
}

fn certificate(criterion: &mut Criterion) {
    let small = Hierarchy::new(&PKCS_ECDSA_P256_SHA256, 20);
    let large = Hierarchy::new(&PKCS_ECDSA_P384_SHA384, 20);
    let (with_ring, with_aws) = (ring::default_provider(), aws_lc_rs::default_provider());
    let root = [small.sign(&Hierarchy::authority("CA"), 0, "CA", 0)];
    let one = roots(&root);

    let many = vec![small.sign(&Hierarchy::authority("0"), 1, "1", 2); 490];
    search(criterion, "490 interchangeable", &with_ring, &one, &many);

    let mut few = vec![small.sign(&Hierarchy::leaf(), 10, "0", 11)];
    few.extend((1..10).map(|key| small.sign(&Hierarchy::authority("0"), key, "0", key)));
    search(criterion, "10 interchangeable", &with_ring, &one, &few);

    for (name, hierarchy, provider) in [
        ("1000 CAs of one name, P-256, ring", &small, &with_ring),
        ("1000 CAs of one name, P-384, ring", &large, &with_ring),
        ("1000 CAs of one name, P-384, aws-lc-rs", &large, &with_aws),
    ] {
        let (roots, sent) = hierarchy.namesakes(1000);
        search(criterion, name, provider, &roots, &sent);
    }

    let name = |number: usize| {
        let name = format!("{number}.example.org");
        SanType::DnsName(name.try_into().expect("plain ASCII"))
    };
    let mut params = Hierarchy::authority("CA");
    params.subject_alt_names = (0..limits::CERTIFICATE_VALUES_MAX - 60).map(name).collect();
    let full = small.sign(&params, 3, "CA", 4);
    // As many as fit: the message is bounded in bytes as well.
    let count = (limits::CHAIN_BYTES_MAX / full.len()).min(limits::CHAIN_CERTIFICATES_MAX);
    search(
        criterion,
        "of all values that are read",
        &with_ring,
        &one,
        &vec![full; count],
    );

    let subtree = |number: usize| GeneralSubtree::DnsName(format!("{number}.example.net"));
    let mut branch = Hierarchy::authority("branch");
    branch.name_constraints = Some(NameConstraints {
        permitted_subtrees: Vec::new(),
        excluded_subtrees: (0..90).map(subtree).collect(),
    });
    let mut leaf = Hierarchy::leaf();
    leaf.subject_alt_names = (0..90).map(name).collect();
    let sent = [
        small.sign(&leaf, 5, "branch", 6),
        small.sign(&branch, 6, "CA", 0),
    ];
    search(
        criterion,
        "names against constraints",
        &with_ring,
        &one,
        &sent,
    );
}

/// A handshake message in records of so many bytes each.
fn records(message: &[u8], record_bytes: usize) -> Vec<u8> {
    let record = |content: &[u8]| {
        let [high, low] = (content.len() as u16).to_be_bytes();
        [&[22, 3, 3, high, low], content].concat()
    };
    message.chunks(record_bytes).flat_map(record).collect()
}

/// A ClientHello with these extensions, of which rustls reads all.
fn hello(extensions: &[u8]) -> Vec<u8> {
    let length = (extensions.len() as u16).to_be_bytes();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0, 0, 2, 0x13, 1, 1, 0],
        &length,
        extensions,
    ]
    .concat();
    let length = (body.len() as u32).to_be_bytes();
    [&[1][..], &length[1..], &body].concat()
}

/// As many empty extensions of unknown types as fit.
fn extensions() -> Vec<u8> {
    let unknown = |number: u16| [(0x1000 + number).to_be_bytes(), [0, 0]].concat();
    (0..14_000).flat_map(unknown).collect()
}

fn client_hello(criterion: &mut Criterion) {
    let key = KeyPair::generate().expect("a key can be made");
    let certificate = Hierarchy::authority("gateway").self_signed(&key);
    let chain = vec![certificate.expect("a key can sign").der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("it is PKCS #8");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider speaks TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("the key is the certificate's");
    let config = Arc::new(config);
    let bytes_max = limits::HANDSHAKE_BYTES_MAX;
    let piecemeal = records(&hello(&extensions())[..bytes_max / 6], 1);
    let whole = records(&hello(&extensions()), 1 << 14);
    for (name, bytes) in [
        ("in records of one byte", piecemeal),
        ("of extensions", whole),
    ] {
        let read = || {
            let mut server = ServerConnection::new(Arc::clone(&config)).expect("it is complete");
            let mut left = &bytes[..];
            while !left.is_empty() {
                // Refused at the end, as a rule.
                if server.read_tls(&mut left).is_err() || server.process_new_packets().is_err() {
                    break;
                }
            }
            server.wants_write()
        };
        criterion
            .benchmark_group("client_hello")
            .bench_function(name, |bencher| bencher.iter(|| black_box(read())));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(2));
    targets = certificate, client_hello
}
criterion_main!(benches);
