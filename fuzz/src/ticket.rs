//! A listener that shares its ticket keys by a file. The file is always the same, so that a seed's ticket opens in every
//! process; the authority is a new one each time, so that it is never worth anything.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use gateway::config::{self, Config};
use gateway::tls;
use gateway_core::trust::Trust;
use rustls::ServerConfig;

/// The key file of the listener.
pub const KEY_FILE: &str = r#"epoch = 3
distrusted = ["00000000000000aa"]

[[key]]
id = "00000000000000bb"
made_at = "2026-01-02T00:00:00Z"
made_by = "root"
secret = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI="

[[key]]
id = "00000000000000cc"
made_at = "2026-01-01T00:00:00Z"
made_by = "uid 1000"
secret = "Q0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0M="
"#;

const CONFIGURATION: &str = r#"
[tls.resumption]
key_file = "tickets.toml"

[[listener]]
name = "edge"
address = "127.0.0.1:4317"
certificate = "gateway.pem"
key = "gateway.key"
client_ca = ["agents-ca.pem"]
backend = "collector"

[[backend]]
name = "collector"
servers = ["127.0.0.1:14317"]

[[identity]]
match = { uri = "spiffe://example.org/*" }
"#;

/// A listener, and what it believes.
pub struct Edge {
    /// The configuration it stands in.
    pub config: Config,
    /// What it believes.
    pub trust: Arc<Trust>,
    /// What its handshakes are started with.
    pub server: Arc<ServerConfig>,
}

/// Makes the listener in `folder`, which `make_certificates` has filled.
pub fn edge(folder: &Path) -> Edge {
    write_secret(&folder.join("tickets.toml"), KEY_FILE.as_bytes());
    let file = folder.join("portcullis.toml");
    fs::write(&file, CONFIGURATION).expect("the folder takes files");
    let config = config::load(&file).expect("it is right").config;
    let resumption = config.resumption.as_ref().expect("it is on");
    let keys = resumption.keys.as_deref().expect("there is a key file");
    let trust = tls::listener_trust(&config, config::ListenerId(0), &Arc::default());
    let server = tls::server_configs(&config, &config.listeners[0], &trust, Some(keys));
    let server = server.expect("it was checked");
    Edge {
        config,
        trust,
        server: Arc::clone(server.own_order()),
    }
}

/// Writes a file that belongs to its user alone.
pub fn write_secret(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("the folder takes files");
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("the file is ours");
}
