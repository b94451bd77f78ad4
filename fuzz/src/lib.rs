//! What several fuzz targets need: certificates made by `pki`, once per process.
//! In: a folder. Out: a configuration file's surroundings. Never part of the gateway.

pub mod chain;
pub mod scene;
pub mod ticket;

use std::path::Path;
use std::time::Duration;

use gateway_pki::{Authority, Profile, Request};

const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Makes an authority in `folder`, and every certificate and key that the documented configurations name.
pub fn make_certificates(folder: &Path) {
    let authority = Authority::init(folder, "Example CA", CENTURY).expect("an empty folder");
    let certificates = [
        ("server", Profile::Server, "server.example.org"),
        ("gateway", Profile::Server, "*.example.org"),
        ("old-name", Profile::Server, "old.example.org"),
        ("gateway-client", Profile::Client, "gateway.example.org"),
    ];
    for (name, profile, dns_name) in certificates {
        let request = Request {
            name: name.to_owned(),
            profile,
            uris: Vec::new(),
            dns_names: vec![dns_name.to_owned()],
            ip_addresses: Vec::new(),
            lifetime: CENTURY,
            not_before: None,
        };
        authority.issue(&request).expect("a plain request");
    }
    for copy in ["agents-ca", "agents-ca-next", "backends-ca"] {
        std::fs::copy(
            authority.certificate_file(),
            folder.join(copy).with_extension("pem"),
        )
        .expect("the folder takes files");
    }
}
