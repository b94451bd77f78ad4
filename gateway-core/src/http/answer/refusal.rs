//! Why a request is refused, and what each protocol calls that: one table, a row a refusal. In: a refusal. Out: what
//! follows from it. Pure.

use gateway_common::closed_list;

use GrpcStatus::{PermissionDenied, ResourceExhausted, Unavailable, Unimplemented};

/// Whether the same request may be sent again, and succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// After a while.
    Later,
    /// It would be refused again.
    Never,
}
use Again::{Later, Never};

closed_list! {
    /// Statuses of gRPC that refusals have. Labels are their names.
    pub enum GrpcStatus: u8 {
        /// Too late for the deadline of the client.
        DeadlineExceeded = "DEADLINE_EXCEEDED", 4;
        /// The client may not do this.
        PermissionDenied = "PERMISSION_DENIED", 7;
        /// Something is used up.
        ResourceExhausted = "RESOURCE_EXHAUSTED", 8;
        /// Nobody serves this.
        Unimplemented = "UNIMPLEMENTED", 12;
        /// The request itself is wrong.
        Internal = "INTERNAL", 13;
        /// Not now.
        Unavailable = "UNAVAILABLE", 14;
    }
}

impl GrpcStatus {
    /// Its number in `grpc-status`.
    pub const fn number(self) -> u8 {
        self.row()
    }
}

closed_list! {
    /// Why the gateway answers a request itself: what gRPC calls it, the status of HTTP, whether to send it again, and
    /// the words for the client.
    pub enum RequestRefusal: (GrpcStatus, u16, Again, &'static str) {
        /// No server of the backend could be reached.
        BackendUnreachable = "backend_unreachable",
            (Unavailable, 503, Later, "no server of the backend can be reached");
        /// No server of the backend passes its health checks.
        BackendUnhealthy = "backend_unhealthy",
            (Unavailable, 503, Later, "every server of the backend fails its health checks");
        /// The backend broke off before the response was complete.
        BackendBroke = "backend_broke", (Unavailable, 502, Later, "the backend broke off");
        /// The backend's response is malformed.
        BackendMalformed = "backend_malformed",
            (Unavailable, 502, Later, "the backend sent a malformed response");
        /// The backend does not speak the version of HTTP that the request needs.
        BackendVersion = "backend_version",
            (Unimplemented, 502, Never, "the backend does not speak the version of http that this needs");
        /// The backend did not respond in time.
        BackendTimeout = "backend_timeout",
            (GrpcStatus::DeadlineExceeded, 504, Later, "the backend did not respond in time");
        /// The client's own deadline has passed.
        DeadlineExceeded = "deadline_exceeded",
            (GrpcStatus::DeadlineExceeded, 504, Later, "the deadline has passed");
        /// Nothing of the request or the response has passed for too long.
        RequestTimeout = "request_timeout",
            (Unavailable, 408, Later, "nothing has passed for too long");
        /// Too many requests wait for the backend, or have waited for too long.
        BackendBusy = "backend_busy",
            (Unavailable, 503, Later, "too many requests wait for the backend");
        /// The gateway is shutting down.
        Draining = "draining", (Unavailable, 503, Later, "the gateway is shutting down");
        /// The identity is at a limit in time.
        OverLimit = "over_limit", (ResourceExhausted, 429, Later, "over the limit");
        /// The tenant is at a limit in time, whatever the identity.
        TenantOverLimit = "tenant_over_limit",
            (ResourceExhausted, 429, Later, "the tenant is over its limit");
        /// No rule allows the request.
        NotAllowed = "not_allowed", (PermissionDenied, 403, Never, "no rule allows this request");
        /// The client names no tenant that it may speak for.
        TenantNotAllowed = "tenant_not_allowed",
            (PermissionDenied, 403, Never, "the certificate does not allow this tenant");
        /// No route leads to a backend.
        NoRoute = "no_route", (Unimplemented, 404, Never, "no route leads to a backend");
        /// Servers read the path in several ways: no rule can rely on it.
        PathNotPlain = "path_not_plain",
            (GrpcStatus::Internal, 400, Never, "servers read this path in several ways");
        /// The authority needs a certificate or a trust that the connection does not have (RFC 9110 section 15.5.20).
        Misdirected = "misdirected",
            (Unavailable, 421, Later, "this connection does not serve that authority");
        /// The header list is too large.
        HeaderListTooLarge = "header_list_too_large",
            (ResourceExhausted, 431, Never, "the header list is too large");
        /// The content is too large.
        ContentTooLarge = "content_too_large",
            (ResourceExhausted, 413, Never, "the content is too large");
        /// A fault of the gateway. Exporters give up what gets INTERNAL or 500, and this was not their fault.
        Internal = "internal", (Unavailable, 503, Later, "a fault of the gateway");
    }
}

impl RequestRefusal {
    /// What gRPC calls it.
    pub const fn grpc_status(self) -> GrpcStatus {
        let (status, ..) = self.row();
        status
    }

    /// The status of HTTP.
    pub const fn http_status(self) -> u16 {
        let (_, status, ..) = self.row();
        status
    }

    /// Whether to send the same request again.
    pub const fn again(self) -> Again {
        let (_, _, again, _) = self.row();
        again
    }

    /// Whether the backend has failed the request.
    pub const fn is_backends_fault(self) -> bool {
        match self {
            Self::BackendBroke | Self::BackendMalformed | Self::BackendTimeout => true,
            Self::BackendUnreachable
            | Self::BackendUnhealthy
            | Self::DeadlineExceeded
            | Self::RequestTimeout
            | Self::BackendBusy
            | Self::BackendVersion
            | Self::Draining
            | Self::OverLimit
            | Self::TenantOverLimit
            | Self::NotAllowed
            | Self::TenantNotAllowed
            | Self::NoRoute
            | Self::PathNotPlain
            | Self::Misdirected
            | Self::HeaderListTooLarge
            | Self::ContentTooLarge
            | Self::Internal => false,
        }
    }

    /// In words, for the client.
    pub const fn message(self) -> &'static str {
        let (.., message) = self.row();
        message
    }
}
