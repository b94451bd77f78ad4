//! Reading of certificates, chains, lists, requests and keys: what the bytes are, without deciding what they are good for.
//! And the search for the path from a certificate to a CA, at a bounded price.
//! In: files, or the bytes that a peer sends. Out: typed values, paths, or why there are none. Files are read on the main thread
//! and on `reload`; a worker searches for paths, inside a call into rustls, and reads no file.
#![forbid(unsafe_code)]

mod algorithm_names;
mod candidate;
pub mod certificate;
pub mod chain;
pub mod client_certificate;
mod constraints;
pub mod crl;
pub mod crl_cache;
mod crl_parts;
pub mod crl_ranks;
mod date;
pub mod der;
pub mod file;
mod ledger;
pub mod misplaced;
mod name;
mod path;
pub mod pem;
mod points;
mod refusal;
mod roots;
pub mod signed;
mod trust_settings;
mod twin;

pub use chain::{anchors, authority_id, authority_key};
pub use constraints::{kept_out, unheeded_extensions};
pub use crl_parts::{ListError, ListParts};
pub use date::date;
pub use name::is_same as is_same_name;
pub use path::{AnyPath, PathPolicy, Search, Steps, Usage, Verified, within_bounds};
pub use points::named_by_certificate;
pub use refusal::Refused;
pub use roots::{Root, Roots};
pub use trust_settings::{Certificate, Usable};
