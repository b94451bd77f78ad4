//! Reading of certificates, chains, lists, requests and keys: what the bytes are, without deciding what they are good for.
//! And the search for the path from a certificate to a CA, at a bounded price, on a worker inside a call into rustls.

mod constraints;
pub mod der;
mod ledger;
mod list;
mod name;
mod path;
pub mod pem;
mod points;
mod read;
mod roots;
mod trust_settings;
mod words;

pub use constraints::{kept_out, unheeded_extensions};
pub use list::{ListError, ListParts};
pub(crate) use name::is_same as is_same_name;
pub use path::{AnyPath, Judge, Search, Steps, Usage, Verified, within_bounds};
pub use points::named_by_certificate;
pub use roots::{Root, Roots};
pub use trust_settings::{Certificate, Usable};
pub use words::Refused;
