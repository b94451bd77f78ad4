//! The jobs that servers are started for. In: nothing. Out: a choice that every server is configured by, and what is the
//! same in all of their configurations.

/// What a server does with the connections of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Passes their bytes to a backend over plain TCP.
    Relay,
    /// Passes their requests to a backend, by TLS with certificates on both sides, and says whose they are.
    Requests {
        /// The version that clients speak.
        clients: Http,
        /// The version that the backend speaks.
        backend: Http,
    },
}

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
}

impl Http {
    /// Its name in ALPN, and what the load generator calls it.
    pub fn alpn(self) -> &'static str {
        match self {
            Self::One => "http/1.1",
            Self::Two => "h2",
        }
    }

    /// The scenario of the load generator that speaks it.
    pub fn scenario(self) -> &'static str {
        match self {
            Self::One => "h1",
            Self::Two => "h2",
        }
    }
}

/// The header field that a server sets. What a client sends under its name must not arrive.
pub const TENANT_FIELD: &str = "X-Scope-OrgID";

/// What it sets it to.
pub const TENANT: &str = "team-a";

/// What the client sends instead.
pub const FORGED_TENANT: &str = "forged";

/// Files by which a server is a client of the backend, in the workspace's folder.
pub const PROXY_CERTIFICATE: &str = "pki/proxy.pem";

/// The key of that certificate.
pub const PROXY_KEY: &str = "pki/proxy.key";
