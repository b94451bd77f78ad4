//! Name constraints of trusted CAs, as far as webpki does not honour them: those on URIs and on directory names (RFC 5280
//! section 4.2.1.10). In: a CA's certificate; then a path below it that webpki has verified. Out: constraints in two parts,
//! what webpki sees and what is honoured here; a refusal. When a configuration is checked, and inside a call into rustls, on
//! a worker: what it costs there is bounded with webpki's own comparisons.
//!
//! webpki refuses every certificate that such a constraint applies to, and takes a certificate from a peer as a whole or not
//! at all. So only the constraints of the CA at the end of a path can be honoured, which the configuration has read. An
//! intermediate from a peer with such constraints admits no client, unless the configuration itself names that CA.

use gateway_core::anchors::ConstraintsId;
use gateway_core::failure::Failure;
use gateway_core::identity::Pattern;
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, Der};
use x509_parser::asn1_rs::{Any, Class, FromDer, Tag};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_NAME_CONSTRAINTS;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::X509Name;

use super::certificate::{name_text, oid_text};
use super::der;
use super::refusal::{KNOWN, Refused};

const NO_DIRECTORY: &str = "has name constraints on directory names that are not honoured here: every certificate below it is refused \
                            (name_constraint)";
const NO_URI: &str = "has name constraints on URIs that are not honoured here: certificates with a URI below it are refused \
                      (name_constraint)";
const NO_MAIL: &str = "has name constraints on e-mail addresses, which are not honoured here: certificates with an e-mail \
                       address below it are refused (name_constraint)";

/// Tags of GeneralName (RFC 5280 section 4.2.1.6).
const MAIL: u32 = 1;
const DIRECTORY: u32 = 4;
const URI: u32 = 6;

/// The constraints of one CA that are honoured here; of a CA without any, empty.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Constraints {
    uris: Subtrees<Hosts>,
    names: Subtrees<Directory>,
}

/// What may be, and what must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subtrees<T> {
    permitted: Vec<T>,
    excluded: Vec<T>,
}

impl<T> Default for Subtrees<T> {
    fn default() -> Self {
        Subtrees {
            permitted: Vec::new(),
            excluded: Vec::new(),
        }
    }
}

impl<T> Subtrees<T> {
    fn is_empty(&self) -> bool {
        self.permitted.is_empty() && self.excluded.is_empty()
    }
}

/// A host, or the hosts below a domain: lower-case labels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hosts {
    name: String,
    is_domain: bool,
}

impl Hosts {
    /// "The constraint MUST be specified as a fully qualified domain name and MAY specify a host or a domain."
    fn parse(text: &str) -> Option<Self> {
        let (name, is_domain) = match text.strip_prefix('.') {
            Some(domain) => (domain, true),
            None => (text, false),
        };
        let name = host_name(name)?;
        Some(Hosts { name, is_domain })
    }

    /// "When the constraint begins with a period, it MAY be expanded with one or more labels."
    fn have(&self, host: &str) -> bool {
        match self.is_domain {
            true => host
                .strip_suffix(&self.name)
                .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.')),
            false => host == self.name,
        }
    }
}

/// A name in lower case, unless it is an address or no name at all.
fn host_name(text: &str) -> Option<String> {
    let is_label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.bytes().all(fits)
    };
    // What ends in a number is an address, or would be taken for one (WHATWG URL, "ends in a number").
    let ends_in_number = |last: &str| last.bytes().all(|byte| byte.is_ascii_digit());
    let is_name =
        text.split('.').all(is_label) && !text.rsplit('.').next().is_some_and(ends_in_number);
    is_name.then(|| text.to_ascii_lowercase())
}

/// The host of a URI (RFC 3986 section 3.2); `None` where it has none that is a name, and where others could read another one: rules
/// compare the text, in which a user stands where the host is expected.
fn host_of(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once(':')?;
    let is_of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(is_of_scheme);
    // RFC 3986 section 2.
    let is_of_uri =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    if !is_scheme || !rest.bytes().all(is_of_uri) {
        return None;
    }
    let authority = rest.strip_prefix("//")?;
    let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    let host = match authority[..end].split_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) => return None,
        None => &authority[..end],
    };
    // With a user before it, it is no name.
    host_name(host)
}

/// A name in pieces that can be compared: of each relative name its types and values, in their order of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Directory(Vec<Vec<Attribute>>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute {
    kind: String,
    value: AttributeValue,
}

/// A value by what it compares as (RFC 5280 section 7.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum AttributeValue {
    /// Plain text: without case, spaces in a row as one, and none at the ends.
    Plain(String),
    /// Anything else, of which only the same bytes are surely the same, and no others surely different.
    Other(Vec<u8>),
}

impl Directory {
    fn of(name: &X509Name<'_>) -> Self {
        let relative = name.iter_rdn().map(|relative| {
            let mut attributes: Vec<_> = relative
                .iter()
                .map(|attribute| Attribute {
                    kind: attribute.attr_type().to_id_string(),
                    value: AttributeValue::of(attribute.attr_value()),
                })
                .collect();
            attributes.sort();
            attributes
        });
        Directory(relative.collect())
    }

    /// Whether a name is surely within this subtree.
    fn has(&self, name: &Directory) -> bool {
        name.0.starts_with(&self.0)
    }

    /// Whether a name is surely not within this subtree.
    fn lacks(&self, name: &Directory) -> bool {
        let differ = |one: &[Attribute], two: &[Attribute]| {
            let is_plain =
                |attribute: &Attribute| matches!(attribute.value, AttributeValue::Plain(_));
            let are_plain = one.iter().chain(two).all(is_plain);
            !kinds(one).eq(kinds(two)) || (are_plain && one != two)
        };
        let mut pairs = self.0.iter().zip(&name.0);
        name.0.len() < self.0.len() || pairs.any(|(one, two)| differ(one, two))
    }
}

fn kinds(attributes: &[Attribute]) -> impl Iterator<Item = &str> {
    attributes.iter().map(|attribute| attribute.kind.as_str())
}

impl AttributeValue {
    fn of(value: &Any<'_>) -> Self {
        let is_text = matches!(
            value.tag(),
            Tag::Utf8String | Tag::PrintableString | Tag::Ia5String
        );
        let is_plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        match std::str::from_utf8(value.data) {
            Ok(text) if is_text && text.bytes().all(is_plain) => {
                let words: Vec<_> = text.split(' ').filter(|word| !word.is_empty()).collect();
                AttributeValue::Plain(words.join(" ").to_ascii_lowercase())
            }
            _ => AttributeValue::Other([&[value.tag().0 as u8], value.data].concat()),
        }
    }
}

/// One subtree as it is written.
struct Subtree<'d> {
    whole: &'d [u8],
    tag: u32,
    base: &'d [u8],
    /// `minimum` or `maximum` stands there, which RFC 5280 does not use.
    is_bounded: bool,
}

/// Names the constraints of a CA, as webpki has them.
pub(super) fn id(constraints: &[u8]) -> ConstraintsId {
    let hash = digest(&SHA256, constraints);
    let mut id = ConstraintsId([0; 16]);
    let length = id.0.len();
    id.0.copy_from_slice(&hash.as_ref()[..length]);
    id
}

/// Takes the constraints of a CA apart: `constraints`, as webpki has them, in those that it is to be shown and those that are honoured
/// here. What cannot be read beyond doubt stays with webpki, which refuses by it.
pub(super) fn split(constraints: Option<Der<'static>>) -> (Option<Der<'static>>, Constraints) {
    let apart = constraints.as_ref().and_then(|all| apart(all));
    match apart {
        Some((left, ours)) => ((!left.is_empty()).then(|| Der::from(left)), ours),
        None => (constraints, Constraints::default()),
    }
}

fn apart(constraints: &[u8]) -> Option<(Vec<u8>, Constraints)> {
    let [permitted, excluded] = subtrees(constraints)?;
    let ours = Constraints {
        uris: Subtrees {
            permitted: of_kind(&permitted, URI, hosts)?,
            excluded: of_kind(&excluded, URI, hosts)?,
        },
        names: Subtrees {
            permitted: of_kind(&permitted, DIRECTORY, directory)?,
            excluded: of_kind(&excluded, DIRECTORY, directory)?,
        },
    };
    if ours.is_empty() {
        return None;
    }
    let mut left = Vec::new();
    for (tag, subtrees) in [(0xa0, &permitted), (0xa1, &excluded)] {
        let others = subtrees
            .iter()
            .filter(|one| !matches!(one.tag, URI | DIRECTORY));
        let content: Vec<u8> = others.flat_map(|one| one.whole.iter().copied()).collect();
        if !content.is_empty() {
            left.extend(der::element(tag, &content));
        }
    }
    Some((left, ours))
}

/// What is permitted and what is excluded; `None` where it is written otherwise than RFC 5280 says.
fn subtrees(constraints: &[u8]) -> Option<[Vec<Subtree<'_>>; 2]> {
    let mut found = [Vec::new(), Vec::new()];
    let mut rest = constraints;
    let mut last = None;
    while !rest.is_empty() {
        let (after, list) = Any::from_der(rest).ok()?;
        let number = list.tag().0 as usize;
        let is_next = last.is_none_or(|last| last < number);
        if list.class() != Class::ContextSpecific || number > 1 || !is_next || list.data.is_empty()
        {
            return None;
        }
        last = Some(number);
        rest = after;
        let mut elements = list.data;
        while !elements.is_empty() {
            let (after, subtree) = Any::from_der(elements).ok()?;
            let whole = &elements[..elements.len() - after.len()];
            elements = after;
            let (bounds, base) = Any::from_der(subtree.data).ok()?;
            if subtree.tag() != Tag::Sequence || base.class() != Class::ContextSpecific {
                return None;
            }
            found[number].push(Subtree {
                whole,
                tag: base.tag().0,
                base: base.data,
                is_bounded: !bounds.is_empty(),
            });
        }
    }
    Some(found)
}

/// The subtrees of one kind; `None` where one cannot be read beyond doubt.
fn of_kind<T>(
    subtrees: &[Subtree<'_>],
    tag: u32,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Option<Vec<T>> {
    let ours = subtrees.iter().filter(|subtree| subtree.tag == tag);
    let read = ours.map(|subtree| match subtree.is_bounded {
        true => None,
        false => read(subtree.base),
    });
    read.collect()
}

fn hosts(base: &[u8]) -> Option<Hosts> {
    Hosts::parse(std::str::from_utf8(base).ok()?)
}

fn directory(base: &[u8]) -> Option<Directory> {
    // An explicit tag, for a choice has no other (X.680 section 31.2.7).
    let (rest, name) = X509Name::from_der(base).ok()?;
    rest.is_empty().then(|| Directory::of(&name))
}

impl Constraints {
    /// Whether nothing is constrained.
    pub(super) fn is_empty(&self) -> bool {
        self.uris.is_empty() && self.names.is_empty()
    }

    /// Whether a certificate below the CA may have a URI with this host.
    fn permit_host(&self, host: &str) -> bool {
        let Subtrees {
            permitted,
            excluded,
        } = &self.uris;
        (permitted.is_empty() || permitted.iter().any(|hosts| hosts.have(host)))
            && !excluded.iter().any(|hosts| hosts.have(host))
    }

    /// Whether a URI that a pattern matches may have a host that is permitted; also where the pattern leaves the host open.
    pub(super) fn may_permit(&self, uri: &Pattern) -> bool {
        let (begin, is_whole) = match uri {
            Pattern::Exact(text) => (text, true),
            Pattern::Prefix(text) => (text, false),
            Pattern::Segment { before, .. } => (before, false),
        };
        let authority = begin.split_once("://").map(|(_, rest)| rest);
        let is_known = is_whole || authority.is_some_and(|rest| rest.contains('/'));
        if self.uris.is_empty() || !is_known {
            return true;
        }
        host_of(begin).is_some_and(|host| self.permit_host(&host))
    }

    /// Refuses a path whose names are not the CA's to give. `path` begins with the certificate at the end, and goes up to the one that
    /// the CA has issued.
    pub(super) fn check<'p>(
        &self,
        path: impl Iterator<Item = &'p CertificateDer<'p>>,
    ) -> Result<(), Refused> {
        if self.is_empty() {
            return Ok(());
        }
        for (position, der) in path.enumerate() {
            let refuse = |what: &str| {
                let detail = format!(
                    "a CA of its chain may not issue for {what} (name constraints, RFC 5280 section 4.2.1.10): issue it by \
                     another CA"
                );
                Refused::new(Failure::NameConstraint, detail)
            };
            let (_, parsed) =
                X509Certificate::from_der(der).map_err(|_| refuse("what cannot be read"))?;
            // RFC 5280 section 6.1.3: a CA that certifies a new key of its own by its own name is passed over.
            let is_self_issued = parsed.subject().as_raw() == parsed.issuer().as_raw();
            if position > 0 && is_self_issued {
                continue;
            }
            self.check_certificate(&parsed)
                .map_err(|what| refuse(&what))?;
        }
        Ok(())
    }

    fn check_certificate(&self, certificate: &X509Certificate<'_>) -> Result<(), String> {
        let subject = certificate.subject();
        // "when the certificate includes a non-empty subject field"
        if subject.iter_rdn().next().is_some() {
            self.check_name(subject)?;
        }
        let alternative = certificate
            .subject_alternative_name()
            .map_err(|_| "alternative names that cannot be read".to_owned())?;
        for name in alternative
            .iter()
            .flat_map(|names| &names.value.general_names)
        {
            match name {
                GeneralName::URI(uri) => self.check_uri(uri)?,
                GeneralName::DirectoryName(name) => self.check_name(name)?,
                // Of what cannot be read it is not known that it is permitted.
                GeneralName::Invalid(tag, _) if [URI, DIRECTORY].contains(&tag.0) => {
                    return Err("a name that cannot be read".to_owned());
                }
                GeneralName::OtherName(..)
                | GeneralName::RFC822Name(_)
                | GeneralName::DNSName(_)
                | GeneralName::X400Address(_)
                | GeneralName::EDIPartyName(_)
                | GeneralName::IPAddress(_)
                | GeneralName::RegisteredID(_)
                | GeneralName::Invalid(..) => {}
            }
        }
        Ok(())
    }

    fn check_uri(&self, uri: &str) -> Result<(), String> {
        if self.uris.is_empty() {
            return Ok(());
        }
        // "the application MUST reject the certificate"
        let host = host_of(uri).ok_or_else(|| {
            format!("the URI {uri:?}, which has no host by name alone (RFC 3986 section 3.2)")
        })?;
        match self.permit_host(&host) {
            true => Ok(()),
            false => Err(format!("the URI {uri:?}")),
        }
    }

    fn check_name(&self, name: &X509Name<'_>) -> Result<(), String> {
        let Subtrees {
            permitted,
            excluded,
        } = &self.names;
        let read = Directory::of(name);
        let is_permitted =
            permitted.is_empty() || permitted.iter().any(|subtree| subtree.has(&read));
        match is_permitted && excluded.iter().all(|subtree| subtree.lacks(&read)) {
            true => Ok(()),
            false => Err(format!("the name {:?}", name_text(name))),
        }
    }
}

/// The clients that constraints of a CA keep out although they permit them, because neither webpki nor this module honours
/// them.
pub fn kept_out(authority: &CertificateDer<'_>) -> Vec<&'static str> {
    let Some(written) = name_constraints(authority) else {
        return Vec::new();
    };
    // As they are split for the search.
    let is_honoured = apart(&written).is_some();
    let Some([permitted, excluded]) = subtrees(&written) else {
        return vec![NO_DIRECTORY, NO_URI];
    };
    let has = |tag: u32| permitted.iter().chain(&excluded).any(|one| one.tag == tag);
    let directory = (has(DIRECTORY) && !is_honoured).then_some(NO_DIRECTORY);
    let uri = (has(URI) && !is_honoured).then_some(NO_URI);
    let mail = has(MAIL).then_some(NO_MAIL);
    [directory, uri, mail].into_iter().flatten().collect()
}

/// Critical extensions of a CA that count for nothing where it is named in the configuration: there a CA is its name and its key
/// (RFC 5280 section 6.1.1 (d)). Sent by a peer, it is refused for them.
pub fn unheeded_extensions(authority: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(authority) else {
        return Vec::new();
    };
    let extensions = parsed.extensions().iter();
    let unknown = extensions.filter(|one| one.critical && !KNOWN.contains(&one.oid));
    unknown
        .map(|one| {
            format!(
                "has the critical extension {}, which is not understood here: named here, the CA counts by its name and key alone \
                 (RFC 5280 section 6.1.1); a client that sends it in its chain, below another CA, is refused (critical_extension)",
                oid_text(&one.oid)
            )
        })
        .collect()
}

/// The name constraints of a certificate, without the header of their sequence: as webpki keeps them.
fn name_constraints(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut extensions = parsed.extensions().iter();
    let found = extensions.find(|one| one.oid == OID_X509_EXT_NAME_CONSTRAINTS)?;
    if !matches!(
        found.parsed_extension(),
        ParsedExtension::NameConstraints(_)
    ) {
        return None;
    }
    let (_, sequence) = Any::from_der(found.value).ok()?;
    Some(sequence.data.to_vec())
}
