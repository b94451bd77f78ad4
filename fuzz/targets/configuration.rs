//! Any text as a configuration file, in a folder that holds the certificates which the documented files name.
//!
//! What must hold: no panic; a text is refused with at least one error, in order, each with the file, a line of the
//! text and a printable message of one line; a text that passes can be served, and has no listener without
//! authorities that clients are verified by.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::str;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use gateway::config::{self, BackendId, Config, ConfigErrors, Destination, ListenerId};
use gateway::tls;
use libfuzzer_sys::{Corpus, fuzz_target};

/// The file that texts are said to come from; the certificates lie beside it.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/configuration");
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("it is ours");
    }
    fuzz::make_certificates(&folder);
    folder.join("portcullis.toml")
});

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(text) = str::from_utf8(bytes) else {
        return Corpus::Reject;
    };
    match config::check(&FILE, text, SystemTime::now()) {
        Ok(loaded) => {
            assert_servable(&loaded.config);
            for warning in &loaded.warnings {
                assert_message(warning);
            }
        }
        Err(errors) => assert_told(&errors, text),
    }
    Corpus::Keep
});

fn assert_servable(config: &Config) {
    assert!(!config.listeners.is_empty());
    for (position, listener) in config.listeners.iter().enumerate() {
        assert!(!listener.client_roots.is_empty(), "{}", listener.name);
        assert!(!listener.certificates.is_empty(), "{}", listener.name);
        let trust = tls::listener_trust(config, ListenerId(position), &Arc::default());
        let server = tls::server_configs(config, listener, &trust, None).expect("it was checked");
        assert_eq!(server.own_order().send_tls13_tickets, 0);
        match &listener.destination {
            Destination::Backend(BackendId(position)) => {
                let backend = &config.backends[*position];
                assert!(!backend.servers.is_empty(), "{}", backend.name);
            }
            Destination::Streams(_) | Destination::Routes(_) => {
                assert!(!listener.backends().is_empty(), "{}", listener.name);
            }
            Destination::Metrics(rules) => assert!(!rules.as_slice().is_empty()),
        }
    }
}

fn assert_told(errors: &ConfigErrors, text: &str) {
    let lines = text.split('\n').count();
    let errors = errors.as_slice();
    assert!(!errors.is_empty());
    assert!(errors.is_sorted_by_key(|error| error.line));
    for error in errors {
        assert_eq!(error.file, *FILE);
        let line = error.line.expect("every error of a text has its line");
        assert!((1..=lines).contains(&line), "{line} of {lines}: {error}");
        assert!(!error.expectation.is_empty(), "{error}");
        assert_message(&error.to_string());
    }
}

/// Messages go to terminals and logs, one to a line.
fn assert_message(message: &str) {
    assert!(
        message.starts_with(&FILE.display().to_string()),
        "{message}"
    );
    assert!(!message.contains(char::is_control), "{message:?}");
}
