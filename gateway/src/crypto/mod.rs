//! What is chosen among cryptographic algorithms and keys: which keys a policy takes, which cipher seals a record, which keys
//! seal the tickets, and how the field calls them.
//! In: the configuration's words, files of keys. Out: policies and keys. Files are read on the thread that reads the
//! configuration, never on a worker.

mod cipher;
mod key_policy;
mod names;
mod ticket_key_file;
mod ticket_keys;

pub use cipher::{Cipher, key_of_secret, next_secret, record_cipher, traffic_key};
pub use key_policy::{KeyKind, KeyPolicy};
pub use names::{cipher_suite_name, group_name};
pub use ticket_key_file::{
    KeyFileError, RotateError, Rotated, load as load_ticket_keys, rotate as rotate_ticket_keys,
};
pub use ticket_keys::{KeyId, KeyRing};
