//! `[tls]`: the cryptography, pinned by name. In: the section as written. Out: a provider that has the pinned suites and groups only.
//! An unknown name is refused: it must never come to mean a default.

use std::sync::Arc;

use gateway_core::limits;
use rustls::SupportedCipherSuite;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs, ring};

use super::checked::Resumption;
use super::diagnostics::{Diagnostics, Location};
use super::raw::{RawResumption, RawTls, Text, Texts};
use super::scalar;
use super::value::Field;
use crate::crypto;
use crate::crypto::{KeyPolicy, cipher_suite_name};

/// Suites of TLS 1.3 in our order of preference: AES-128 first, for it is the fastest where the CPU knows AES.
const CIPHER_SUITES: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];
/// Groups that both providers have.
const GROUPS: [&str; 3] = ["X25519", "secp256r1", "secp384r1"];
/// The hybrid with ML-KEM that only aws-lc-rs has.
const HYBRID_GROUP: &str = "X25519MLKEM768";

/// The provider by its name in the configuration.
#[derive(Debug, Clone)]
pub struct CheckedTls {
    /// Reduced to the pinned suites and groups.
    pub provider: Arc<CryptoProvider>,
    /// `ring` or `aws-lc-rs`.
    pub name: &'static str,
    /// The operator has named the suites.
    pub suites_are_pinned: bool,
    /// What clients may come with.
    pub key_policy: KeyPolicy,
    /// Whether and how clients may resume.
    pub resumption: Option<Resumption>,
}

/// Which library computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Library {
    Ring,
    AwsLcRs,
}

impl Library {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "ring" => Ok(Library::Ring),
            "aws-lc-rs" => Ok(Library::AwsLcRs),
            _ => Err("must be \"ring\" or \"aws-lc-rs\"".to_owned()),
        }
    }

    fn provider(self) -> (CryptoProvider, &'static str) {
        match self {
            Library::Ring => (ring::default_provider(), "ring"),
            Library::AwsLcRs => (aws_lc_rs::default_provider(), "aws-lc-rs"),
        }
    }

    /// Groups in our order of preference.
    fn groups(self) -> Vec<&'static dyn SupportedKxGroup> {
        use aws_lc_rs::kx_group as aws;
        use ring::kx_group;
        match self {
            Library::Ring => vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
            Library::AwsLcRs => {
                vec![
                    aws::X25519MLKEM768,
                    aws::X25519,
                    aws::SECP256R1,
                    aws::SECP384R1,
                ]
            }
        }
    }
}

/// Checks the section. Even a wrong one yields a provider, so that keys can be tried with it.
pub fn check(field: Field<RawTls>, diagnostics: &mut Diagnostics<'_>) -> CheckedTls {
    let raw = field.given().map(|item| item.value);
    let Some(raw) = raw else {
        return CheckedTls {
            resumption: resumption(Field::Absent, diagnostics),
            ..assemble(Library::Ring, None, None)
        };
    };
    let resumption = resumption(raw.resumption, diagnostics);
    let library = diagnostics.optional(&raw.location, "provider", raw.provider, |text| {
        Library::parse(text)
    });
    let library = library.flatten().unwrap_or(Library::Ring);
    let all_suites = library.provider().0.cipher_suites;
    let suites = pick(
        &raw.location,
        "cipher_suites",
        raw.cipher_suites,
        diagnostics,
        |name| find_suite(&all_suites, name),
    );
    let groups = pick(&raw.location, "groups", raw.groups, diagnostics, |name| {
        find_group(library, name)
    });
    let mut checked = CheckedTls {
        resumption,
        ..assemble(library, suites, groups)
    };
    let lists = (raw.client_keys, raw.client_signatures);
    pin(&mut checked.key_policy, &raw.location, lists, diagnostics);
    let depth = |depth: &i64| scalar::count(*depth, &limits::CHAIN_DEPTH, "");
    let depth = diagnostics.optional(&raw.location, "max_chain_depth", raw.max_chain_depth, depth);
    if let Some(depth) = depth.flatten() {
        checked.key_policy.limit_depth(depth);
    }
    checked
}

/// Reduces the policy to the named keys and signatures.
fn pin(
    policy: &mut KeyPolicy,
    location: &Location,
    (keys, signatures): (Field<Texts>, Field<Texts>),
    diagnostics: &mut Diagnostics<'_>,
) {
    let keys = pick(location, "client_keys", keys, diagnostics, |name| {
        policy.find_key(name)
    });
    let written = signatures.clone().given();
    let signatures = pick(
        location,
        "client_signatures",
        signatures,
        diagnostics,
        |name| policy.find_signature(name),
    );
    if let Some(keys) = keys {
        policy.pin_keys(keys);
    }
    // A list in which nothing is right has been reported already.
    let signatures = signatures.filter(|schemes| !schemes.is_empty());
    if let (Some(schemes), Some(written)) = (signatures, written)
        && let Err(expectation) = policy.pin_signatures(schemes)
    {
        diagnostics.wrong(location, "client_signatures", &written, expectation);
    }
}

fn assemble(
    library: Library,
    suites: Option<Vec<SupportedCipherSuite>>,
    groups: Option<Vec<&'static dyn SupportedKxGroup>>,
) -> CheckedTls {
    let (mut provider, name) = library.provider();
    let suites_are_pinned = suites.is_some();
    provider.cipher_suites = suites.unwrap_or_else(|| {
        let all = provider.cipher_suites;
        CIPHER_SUITES
            .iter()
            .filter_map(|name| find_suite(&all, name).ok())
            .collect()
    });
    provider.kx_groups = groups.unwrap_or_else(|| library.groups());
    CheckedTls {
        key_policy: KeyPolicy::of(&provider),
        provider: Arc::new(provider),
        name,
        suites_are_pinned,
        resumption: None,
    }
}

/// The named elements, each once and at least one; `None` for the default.
fn pick<T>(
    location: &Location,
    key: &str,
    field: Field<Texts>,
    diagnostics: &mut Diagnostics<'_>,
    find: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let list = field.given()?;
    if list.value.is_empty() {
        diagnostics.wrong(
            location,
            key,
            &list,
            "must name at least one, or be left out for the default",
        );
    }
    let mut picked = Vec::new();
    for (index, item) in list.value.iter().enumerate() {
        if list.value[..index]
            .iter()
            .any(|earlier| earlier.value == item.value)
        {
            diagnostics.wrong(location, key, item, "is named twice");
        }
        match find(&item.value) {
            Ok(found) => picked.push(found),
            Err(expectation) => diagnostics.wrong(location, key, item, expectation),
        }
    }
    Some(picked)
}

fn find_suite(all: &[SupportedCipherSuite], name: &str) -> Result<SupportedCipherSuite, String> {
    let found = all
        .iter()
        .find(|suite| cipher_suite_name(suite.suite()) == name);
    found
        .copied()
        .ok_or_else(|| format!("must be one of {}", CIPHER_SUITES.join(", ")))
}

fn find_group(library: Library, name: &str) -> Result<&'static dyn SupportedKxGroup, String> {
    let found = library
        .groups()
        .into_iter()
        .find(|group| format!("{:?}", group.name()) == name);
    if let Some(found) = found {
        return Ok(found);
    }
    match name {
        HYBRID_GROUP => Err("needs provider = \"aws-lc-rs\": ring does not have it".to_owned()),
        _ => Err(format!(
            "must be one of {}, or {HYBRID_GROUP} with provider = \"aws-lc-rs\"",
            GROUPS.join(", ")
        )),
    }
}

/// `[tls.resumption]`: on, with keys in memory, unless something else is said.
fn resumption(
    field: Field<RawResumption>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Resumption> {
    let default = Resumption {
        max_authentication_age: limits::AUTHENTICATION_AGE_DEFAULT,
        keys: None,
    };
    let Some(raw) = field.given().map(|item| item.value) else {
        return Some(default);
    };
    let location = raw.location;
    let age = |text: &Text| scalar::duration(text, &limits::AUTHENTICATION_AGE, "");
    let written_age = raw.max_authentication_age;
    let age = diagnostics.optional(&location, "max_authentication_age", written_age, age);
    let key_file = raw.key_file.clone();
    let path = |path: &Text| Ok(path.clone());
    let keys = match diagnostics.optional(&location, "key_file", raw.key_file, path)? {
        None => None,
        Some(path) => {
            let path = diagnostics.resolve(&path);
            let load =
                |_: &Text| crypto::load_ticket_keys(&path).map_err(|error| error.to_string());
            diagnostics.optional(&location, "key_file", key_file, load)?
        }
    };
    let enabled =
        diagnostics.optional(&location, "enabled", raw.enabled, |enabled| Ok(*enabled))?;
    if enabled == Some(false) {
        return None;
    }
    Some(Resumption {
        max_authentication_age: age?.unwrap_or(default.max_authentication_age),
        keys: keys.map(Arc::new),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_exists_in_its_provider() {
        for library in [Library::Ring, Library::AwsLcRs] {
            let provider = assemble(library, None, None).provider;
            let suites: Vec<_> = provider
                .cipher_suites
                .iter()
                .map(|suite| cipher_suite_name(suite.suite()))
                .collect();
            assert_eq!(suites, CIPHER_SUITES);
            let groups: Vec<_> = provider
                .kx_groups
                .iter()
                .map(|group| format!("{:?}", group.name()))
                .collect();
            let hybrid = (library == Library::AwsLcRs).then_some(HYBRID_GROUP);
            let expected: Vec<_> = hybrid.into_iter().chain(GROUPS).collect();
            assert_eq!(groups, expected);
        }
    }
}
