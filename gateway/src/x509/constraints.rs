//! Name constraints of a CA that keep out those it was made for, because webpki does not know how to honour them.
//! In: a CA's certificate. Out: who cannot get in below it, in words. When a configuration is checked.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, GeneralSubtree};
use x509_parser::prelude::{FromDer, X509Certificate};

const NOBODY: &str = "has name constraints on directory names, which are not honoured here: every certificate below it is refused \
                      (name_constraint)";
const NO_URI: &str = "has name constraints on URIs, which are not honoured here: certificates with a URI below it are refused \
                      (name_constraint)";
const NO_MAIL: &str = "has name constraints on e-mail addresses, which are not honoured here: certificates with an e-mail \
                       address below it are refused (name_constraint)";

/// Whom a CA's name constraints keep out, whatever they permit.
pub fn kept_out(authority: &CertificateDer<'_>) -> Vec<&'static str> {
    let Ok((_, parsed)) = X509Certificate::from_der(authority) else {
        return Vec::new();
    };
    let Ok(Some(constraints)) = parsed.name_constraints() else {
        return Vec::new();
    };
    let constraints = constraints.value;
    let permitted = constraints.permitted_subtrees.iter().flatten();
    let subtrees: Vec<_> = permitted
        .chain(constraints.excluded_subtrees.iter().flatten())
        .collect();
    let has = |kind: fn(&GeneralName<'_>) -> bool| {
        let mut subtrees = subtrees.iter();
        subtrees.any(|subtree: &&GeneralSubtree<'_>| kind(&subtree.base))
    };
    // Those that keep out everybody keep out the others as well.
    if has(|name| matches!(name, GeneralName::DirectoryName(_))) {
        return vec![NOBODY];
    }
    let uri = has(|name| matches!(name, GeneralName::URI(_))).then_some(NO_URI);
    let mail = has(|name| matches!(name, GeneralName::RFC822Name(_))).then_some(NO_MAIL);
    uri.into_iter().chain(mail).collect()
}
