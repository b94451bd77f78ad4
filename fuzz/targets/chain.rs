//! Any bytes as the certificates that a peer sends, and any plan of a hierarchy.
//!
//! What must hold: no panic; however the certificates are made, the search looks at no more beginnings of paths, whole
//! paths and signatures than its limits say; a refusal is fit for a terminal and short; and where certificates come from a
//! plan, a path is found exactly where trying every order finds one, unless the search says that it has given up.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use fuzz::chain::{Plan, Repeating, read_raw};
use gateway_core::failure::Failure;
use gateway_core::limits;
use gateway_x509::{AnyPath, Refused, Roots, Search, Usage};
use libfuzzer_sys::fuzz_target;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};

/// In 2027, when the certificates of plans are valid.
const NOW: Duration = Duration::from_secs(1_800_000_000);
/// Refusals name a few certificates, and no more.
const WORDS_MAX: usize = 16 << 10;

static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[&Repeating];

static ROOTS: LazyLock<Roots> = LazyLock::new(|| {
    let root = Plan::root().make(true);
    let mut store = RootCertStore::empty();
    store.add(root.clone()).expect("it is a certificate");
    Roots::new(store, &[root])
});

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((0, raw)) => {
            let _ = find(&read_raw(raw));
        }
        Some((_, plans)) => compare(&Plan::read_all(plans)),
        None => {}
    }
});

fn find(sent: &[CertificateDer<'_>]) -> Result<(), Refused> {
    let search = Search {
        roots: &ROOTS,
        algorithms: ALGORITHMS,
        usage: Usage::Client,
        now: UnixTime::since_unix_epoch(NOW),
    };
    let (found, steps) = search.find_counting(sent, &AnyPath);
    assert!(
        steps.candidates <= limits::CHAIN_CANDIDATES_MAX,
        "{steps:?}"
    );
    assert!(steps.paths <= limits::CHAIN_PATHS_MAX, "{steps:?}");
    assert!(
        steps.signatures <= limits::CHAIN_SIGNATURES_MAX
            && steps.signature_work_us <= limits::CHAIN_SIGNATURE_WORK_US_MAX,
        "{steps:?}"
    );
    assert!(steps.orders <= limits::CHAIN_ORDERS_MAX, "{steps:?}");
    if let Err(refused) = &found {
        assert!(!refused.detail.contains(char::is_control), "{refused:?}");
        assert!(refused.detail.len() <= WORDS_MAX, "{refused:?}");
    }
    found
}

fn compare(plans: &[Plan]) {
    let Some((leaf, above)) = plans.split_first() else {
        return;
    };
    let mut sent = vec![leaf.make(false)];
    sent.extend(above.iter().map(|plan| plan.make(true)));
    // A CA that has the name and the key of the certificate itself is a loop (RFC 4158 section 5.2).
    let is_loop = |plan: &Plan| (plan.subject, plan.key) == (leaf.subject, leaf.key);
    let issuers: Vec<_> = above
        .iter()
        .copied()
        .filter(|plan| !is_loop(plan))
        .collect();
    let leads = || leads_to_root(&issuers, leaf, &mut Vec::new());
    match find(&sent) {
        Ok(()) => assert!(leads(), "{plans:?}"),
        Err(refused) if refused.failure == Failure::ChainTooLarge => {}
        Err(refused) => assert!(!leads(), "{refused}: {plans:?}"),
    }
}

/// Tries every order of at most ten certificates.
fn leads_to_root(above: &[Plan], head: &Plan, used: &mut Vec<usize>) -> bool {
    let signs = |issuer: &Plan| issuer.subject == head.issuer && issuer.key == head.signer;
    if signs(&Plan::root()) {
        return true;
    }
    for (position, next) in above.iter().enumerate() {
        if used.contains(&position) || used.len() + 2 > *limits::CHAIN_DEPTH.end() as usize {
            continue;
        }
        used.push(position);
        let leads = signs(next) && leads_to_root(above, next, used);
        used.pop();
        if leads {
            return true;
        }
    }
    false
}
