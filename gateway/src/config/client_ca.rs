//! `client_ca`: the files of a listener's authorities, and what those that are bound to a trust domain may speak for.
//! In: paths and tables as written, then the authorities that were read from them. Out: a scope for each that is bound, and a
//! warning where two may issue the same name. What a scope means is decided in `gateway_core::authority`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gateway_core::authority::{Scope, TrustDomain};
use gateway_core::identity::Pattern;
use gateway_core::revocation::AuthorityKey;

use super::identity::dns_pattern;
use super::keys;
use super::raw::{self, RawAuthority, Texts, WrittenAuthority};
use super::report::{Place, Report};
use super::value::{Field, Item};

/// Scopes by authority; an authority without one may issue any name.
pub type Scopes = HashMap<AuthorityKey, Arc<Scope>>;

/// One element of `client_ca`.
#[derive(Debug)]
pub struct Element {
    file: String,
    line: usize,
    scope: Option<Arc<Scope>>,
}

/// Takes the elements apart: their paths, for reading, and what they say beside. No elements where one is wrong.
pub fn split(
    place: &Place,
    field: Field<raw::Authorities>,
    report: &mut Report<'_>,
) -> (Field<Texts>, Option<Vec<Element>>) {
    let list = match field {
        Field::Absent => return (Field::Absent, None),
        Field::Wrong => return (Field::Wrong, None),
        Field::Given(list) => list,
    };
    let (mut files, mut elements) = (Vec::new(), Vec::new());
    for written in list.value {
        let (file, scope) = match written {
            WrittenAuthority::Path(file) => (Some(file), Some(None)),
            WrittenAuthority::Table(raw) => bound(place, raw, report),
        };
        elements.push(file.as_ref().zip(scope).map(|(file, scope)| Element {
            file: file.value.clone(),
            line: file.line,
            scope,
        }));
        files.extend(file);
    }
    let is_whole = files.len() == elements.len();
    let files = Field::Given(Item {
        value: files,
        written: list.written,
        line: list.line,
    });
    let files = if is_whole { files } else { Field::Wrong };
    (files, elements.into_iter().collect())
}

/// A file and what its authorities may speak for.
fn bound(
    place: &Place,
    raw: RawAuthority,
    report: &mut Report<'_>,
) -> (Option<Item<String>>, Option<Option<Arc<Scope>>>) {
    let place = Place {
        label: place.key("client_ca"),
        line: raw.place.line,
    };
    if matches!(raw.file, Field::Absent) {
        report.missing(&place, "file", "name the file of the CAs");
    }
    let file = raw.file.given();
    let expectation = "say what the CAs may speak for, or write the path alone";
    let domain = report.required(
        &place,
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
                    .map_err(|error| report.wrong(&place, "dns", item, error))
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
pub struct Origin {
    /// Its key.
    pub key: AuthorityKey,
    /// The position of its file.
    pub file: usize,
    /// Whether it is in use: not one that has ended, or that begins later.
    pub in_use: bool,
}

/// What the key of each of the authorities may speak for. One that stands in two files, under whatever name, must be bound in the
/// same way in both. One that is not used for its dates is bound as well: another authority may have certified its key.
pub fn scopes(
    place: &Place,
    elements: &[Element],
    authorities: &keys::Authorities,
    report: &mut Report<'_>,
) -> Option<Arc<Scopes>> {
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
            report.refuse(element.line, place.key("client_ca"), text);
            return None;
        }
        if let Some(scope) = &element.scope {
            scopes.insert(origin.key, Arc::clone(scope));
        }
    }
    let in_use: BTreeSet<usize> = authorities
        .origins
        .iter()
        .filter(|origin| origin.in_use)
        .map(|origin| origin.file)
        .collect();
    let in_use: Vec<_> = in_use.into_iter().map(|index| &elements[index]).collect();
    warn_of_overlap(place, &in_use, report);
    Some(Arc::new(scopes))
}

/// Tells of the first two files whose authorities may issue the same name. Those in one file count as one authority: that is
/// how a CA is followed by its successor.
fn warn_of_overlap(place: &Place, elements: &[&Element], report: &mut Report<'_>) {
    let pairs = elements.iter().enumerate().flat_map(|(index, later)| {
        let earlier = elements[..index].iter();
        earlier.map(move |earlier| (earlier, later))
    });
    let mut overlapping = pairs.filter(|(earlier, later)| match (&earlier.scope, &later.scope) {
        (Some(earlier), Some(later)) => earlier.overlaps(later),
        _ => earlier.file != later.file,
    });
    if let Some((earlier, later)) = overlapping.next() {
        let text = format_args!(
            "the CAs in {} and in {} may issue the same names, and a rule admits either: bind them with trust_domain, or put \
             a CA and its successor into one file",
            earlier.file, later.file
        );
        report.warn(later.line, &place.key("client_ca"), text);
    }
}
