//! `client_ca`: the files of a listener's authorities, and what those that are bound to a trust domain may speak for.
//! In: paths and tables as written, then the authorities that were read from them. Out: a scope for each that is bound, and a
//! warning where two may issue the same name and a rule admits it. What a scope means is decided in `gateway_core::authority`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gateway_core::authority::{Scope, TrustDomain};
use gateway_core::identity::{Pattern, Rule, Rules};
use gateway_core::limits;
use gateway_core::revocation::AuthorityKey;
use gateway_x509::authority_key;

use super::credentials;
use super::diagnostics::{Diagnostics, Location};
use super::identity::dns_pattern;
use super::listener::CheckedListener;
use super::raw::{self, RawAuthority, RawAuthorityEntry, Texts};
use super::value::{Field, Spanned};

/// Scopes by authority; an authority without one may issue any name.
pub type Scopes = HashMap<AuthorityKey, Arc<Scope>>;

/// One element of `client_ca`.
#[derive(Debug, Clone)]
pub struct Element {
    file: String,
    line: usize,
    scope: Option<Arc<Scope>>,
}

/// Takes the elements apart: their paths, for reading, and what they say beside. No elements where one is wrong.
pub fn split(
    location: &Location,
    field: Field<raw::RawAuthorities>,
    diagnostics: &mut Diagnostics<'_>,
) -> (Field<Texts>, Option<Vec<Element>>) {
    let list = match field {
        Field::Absent => return (Field::Absent, None),
        Field::Wrong => return (Field::Wrong, None),
        Field::Given(list) => list,
    };
    let (mut files, mut elements) = (Vec::new(), Vec::new());
    for written in list.value {
        let (file, scope) = match written {
            RawAuthorityEntry::Path(file) => (Some(file), Some(None)),
            RawAuthorityEntry::Table(raw) => bound(location, raw, diagnostics),
        };
        elements.push(file.as_ref().zip(scope).map(|(file, scope)| Element {
            file: file.value.clone(),
            line: file.line,
            scope,
        }));
        files.extend(file);
    }
    let is_whole = files.len() == elements.len();
    let files = Field::Given(Spanned {
        value: files,
        written: list.written,
        line: list.line,
    });
    let files = if is_whole { files } else { Field::Wrong };
    (files, elements.into_iter().collect())
}

/// A file and what its authorities may speak for.
fn bound(
    location: &Location,
    raw: RawAuthority,
    diagnostics: &mut Diagnostics<'_>,
) -> (Option<Spanned<String>>, Option<Option<Arc<Scope>>>) {
    let location = Location {
        label: location.key("client_ca"),
        line: raw.location.line,
    };
    if matches!(raw.file, Field::Absent) {
        diagnostics.missing(&location, "file", "name the file of the CAs");
    }
    let file = raw.file.given();
    let expectation = "say what the CAs may speak for, or write the path alone";
    let domain = diagnostics.required(
        &location,
        "trust_domain",
        raw.trust_domain,
        expectation,
        |text| TrustDomain::parse(text).map_err(|error| error.to_string()),
    );
    let dns = match raw.dns {
        Field::Absent => Some(Vec::new()),
        given => given.given().and_then(|list| {
            let patterns = list.value.iter().map(|item| {
                let pattern = dns_pattern(&item.value);
                pattern
                    .map_err(|error| diagnostics.wrong(&location, "dns", item, error))
                    .ok()
            });
            // All of them are looked at, so that each wrong one is told of.
            let patterns: Vec<Option<Pattern>> = patterns.collect();
            patterns.into_iter().collect()
        }),
    };
    let scope = domain
        .zip(dns)
        .map(|(trust_domain, dns)| Some(Arc::new(Scope { trust_domain, dns })));
    (file, scope)
}

/// Where an authority was read.
#[derive(Debug, Clone, Copy)]
pub struct AuthorityOrigin {
    /// Its key.
    pub key: AuthorityKey,
    /// The position of its file.
    pub file: usize,
    /// Whether it is in use: not one that has ended, or that begins later.
    pub in_use: bool,
}

/// What the key of each of the authorities may speak for, and the elements of which some authority is in use. One that stands in
/// two files, under whatever name, must be bound in the same way in both. One that is not used for its dates is bound as well:
/// another authority may have certified its key.
pub fn scopes(
    location: &Location,
    elements: Vec<Element>,
    authorities: &credentials::Authorities,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(Arc<Scopes>, Vec<Element>)> {
    let mut first_in: HashMap<AuthorityKey, usize> = HashMap::new();
    let mut scopes = Scopes::new();
    for origin in &authorities.origins {
        let element = &elements[origin.file];
        let first = &elements[*first_in.entry(origin.key).or_insert(origin.file)];
        if first.scope != element.scope {
            let text = format_args!(
                "a CA in {} stands in {} as well, and is bound to something else there",
                element.file, first.file
            );
            diagnostics.refuse(element.line, location.key("client_ca"), text);
            return None;
        }
        if let Some(scope) = &element.scope {
            scopes.insert(origin.key, Arc::clone(scope));
        }
    }
    let in_use = authorities.origins.iter().filter(|origin| origin.in_use);
    let in_use: BTreeSet<usize> = in_use.map(|origin| origin.file).collect();
    let elements = elements.into_iter().enumerate();
    let elements = elements.filter(|(index, _)| in_use.contains(index));
    let elements = elements.map(|(_, element)| element).collect();
    Some((Arc::new(scopes), elements))
}

/// Tells, for each listener, of the first two files whose authorities may issue the same name for one of its rules. Those in one file
/// count as one authority: that is how a CA is followed by its successor.
pub fn warn_of_overlap(
    listeners: &[CheckedListener],
    rules: &Rules,
    diagnostics: &mut Diagnostics<'_>,
) {
    for (position, listener) in listeners.iter().enumerate() {
        let elements = representatives(&listener.authorities);
        let rules = rules.as_slice().iter();
        let mut rules = rules
            .filter(|rule| rule.holds_for(position))
            .take(limits::OVERLAP_RULES_MAX);
        let overlap = rules.find_map(|rule| overlap(&elements, rule));
        if let Some((earlier, later)) = overlap {
            let text = format_args!(
                "the CAs in {} and in {} may issue the same names, and a rule admits either: bind them with trust_domain, or put \
                 a CA and its successor into one file",
                earlier.file, later.file
            );
            let key = listener.location.key("client_ca");
            diagnostics.warn(later.line, &key, text);
        }
    }
}

/// Warns of each CA of a listener that admits no client, because no rule of that listener matches what it may issue.
pub fn warn_of_useless(
    listeners: &[CheckedListener],
    rules: &Rules,
    diagnostics: &mut Diagnostics<'_>,
) {
    let rules = rules.as_slice();
    // Without rules another warning says that no client gets in; so many take too long to try.
    if rules.is_empty() || rules.len() > limits::OVERLAP_RULES_MAX {
        return;
    }
    for (position, listener) in listeners.iter().enumerate() {
        let Some(checked) = &listener.checked else {
            continue;
        };
        for root in checked.client_roots.iter() {
            let scope = checked.client_scopes.get(&authority_key(&root.anchor));
            let may_satisfy = |rule: &Rule| {
                let is_in_scope = match scope {
                    // It may have certified the key of one that is bound.
                    None => rule
                        .trust_domain
                        .as_ref()
                        .is_none_or(|domain| listener.may_bind_to(domain)),
                    Some(scope) => scope.may_satisfy(rule),
                };
                is_in_scope && rule.uri.as_ref().is_none_or(|uri| root.may_certify(uri))
            };
            let mut held = rules.iter().filter(|rule| rule.holds_for(position));
            if !held.any(may_satisfy) {
                let text = format_args!(
                    "{} admits no client: no rule of this listener matches what it may issue (its trust domain, its \
                     name constraints)",
                    root.subject
                );
                let key = listener.location.key("client_ca");
                diagnostics.warn(listener.location.line, &key, text);
            }
        }
    }
}

/// At most two elements of each scope: more of them add no other pair.
fn representatives(elements: &[Element]) -> Vec<&Element> {
    let mut kept: Vec<&Element> = Vec::new();
    for element in elements {
        let like = kept.iter().filter(|known| known.scope == element.scope);
        if like.clone().count() < 2 && !like.clone().any(|known| known.file == element.file) {
            kept.push(element);
        }
    }
    kept
}

/// The first two elements of which each may issue a certificate with a name of the other's that the rule admits.
fn overlap<'e>(elements: &[&'e Element], rule: &Rule) -> Option<(&'e Element, &'e Element)> {
    // One certificate has one issuer, which is known.
    if rule.fingerprints.is_some() {
        return None;
    }
    let able = |element: &&&Element| match &element.scope {
        None => rule.trust_domain.is_none(),
        Some(scope) => scope.may_satisfy(rule),
    };
    let able: Vec<_> = elements.iter().filter(able).copied().collect();
    let pairs = able.iter().enumerate().flat_map(|(index, later)| {
        let earlier = able[..index].iter();
        earlier.map(move |earlier| (*earlier, *later))
    });
    let mut overlapping = pairs.filter(|(earlier, later)| match (&earlier.scope, &later.scope) {
        (Some(earlier), Some(later)) => earlier.overlaps(later),
        _ => earlier.file != later.file,
    });
    overlapping.next()
}
