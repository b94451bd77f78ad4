//! Reading of certificates, chains, lists, requests and keys: what the bytes are, without deciding what they are good for.

pub mod pem;
mod trust_settings;

pub use trust_settings::{Certificate, Usable};
