//! What is called: paths below a prefix by some methods, or a gRPC service or method. In: text of the configuration,
//! then a request. Out: whether it is one of these calls. Pure.

use crate::http::message::{PathPrefix, grpc_method};

/// Paths, or a gRPC service or method of one: gRPC's path is `/service/method`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What its paths begin with.
    prefix: PathPrefix,
    /// Its methods; none is any.
    methods: Vec<Box<[u8]>>,
    is_rpc: bool,
}

/// The text is no name of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a gRPC service with its package, such as \"opentelemetry.proto.collector.trace.v1.TraceService\", or such a \
     service, a slash and a method"
)]
pub struct ServiceNameError;

impl Target {
    /// Paths below a prefix, by these methods; none is any method.
    pub fn path(prefix: PathPrefix, methods: Vec<Box<[u8]>>) -> Self {
        Target {
            prefix,
            methods,
            is_rpc: false,
        }
    }

    /// A gRPC service, or `service/method`.
    ///
    /// # Errors
    ///
    /// The text is neither.
    pub fn service(name: &str) -> Result<Self, ServiceNameError> {
        let with_method = match name.contains('/') {
            true => format!("/{name}"),
            false => format!("/{name}/Any"),
        };
        let is_good = grpc_method(with_method.as_bytes()).is_some();
        let prefix = PathPrefix::parse(&format!("/{name}"));
        match prefix {
            Ok(prefix) if is_good => Ok(Target {
                prefix,
                methods: vec![b"POST"[..].into()],
                is_rpc: true,
            }),
            Ok(_) | Err(_) => Err(ServiceNameError),
        }
    }

    /// The prefix of its paths.
    pub fn prefix(&self) -> &PathPrefix {
        &self.prefix
    }

    /// Whether it is of gRPC.
    pub fn is_rpc(&self) -> bool {
        self.is_rpc
    }

    /// Whether all calls of another target are calls of this one.
    pub(super) fn covers(&self, other: &Target) -> bool {
        let has_all_methods = !other.methods.is_empty()
            && other
                .methods
                .iter()
                .all(|method| self.methods.contains(method));
        self.prefix.rest(other.prefix.as_bytes()).is_some()
            && (self.methods.is_empty() || has_all_methods)
            && (!self.is_rpc || other.is_rpc)
    }

    /// Whether a call whose path is below the prefix is one of these.
    pub(super) fn takes(&self, method: &[u8], path: &[u8]) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|known| **known == *method))
            && (!self.is_rpc || grpc_method(path).is_some())
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_rpc {
            let name = self.prefix.as_bytes().strip_prefix(b"/");
            return write!(
                formatter,
                "gRPC {}",
                name.unwrap_or_default().escape_ascii()
            );
        }
        for method in &self.methods {
            write!(formatter, "{} ", method.escape_ascii())?;
        }
        write!(formatter, "{}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_called_by_post_and_by_paths_of_two_names() {
        let service = Target::service("a.b.C").unwrap();
        let method = Target::service("a.b.C/Do").unwrap();
        for (target, http_method, path, expected) in [
            (&service, "POST", "/a.b.C/Do", true),
            (&service, "POST", "/a.b.C/Else", true),
            (&service, "GET", "/a.b.C/Do", false),
            (&service, "POST", "/a.b.C", false),
            (&service, "POST", "/a.b.C/Do/more", false),
            (&service, "POST", "/a.b.C/Do?more", false),
            (&method, "POST", "/a.b.C/Do", true),
            (&method, "POST", "/a.b.C/Do/more", false),
        ] {
            let is_below = target.prefix().rest(path.as_bytes()).is_some();
            let takes = target.takes(http_method.as_bytes(), path.as_bytes());
            assert_eq!(is_below && takes, expected, "{target} {http_method} {path}");
        }
        for text in ["", "/", "a/", "/a", "a/b/c", "a b", "a/b?c", "a..%2e", "."] {
            let parsed = Target::service(text);
            assert_eq!(parsed, Err(ServiceNameError), "{text}");
        }
    }
}
