//! Messages: what header and trailer sections say (RFC 9110, RFC 9113 section 8), and what passes to backends.
//!
//! In: header lists, what is known of the client. Out: requests and responses that are well-formed, and the fields
//! that the gateway vouches for. Knows nothing of frames, streams or connections.

pub(in crate::http) mod character;
mod content_length;
mod header_list;
mod identity;
mod malformed;
mod path;
mod reserved;
mod section;
mod tenant;
mod trace;

pub use character::{is_authority, is_method, is_name, is_value};
pub use content_length::ContentLeft;
pub use header_list::{FIELD_OVERHEAD_BYTES, Field, HeaderList};
pub use identity::{FixedField, ForwardedFormat, Part, ToldFields};
pub use malformed::Malformed;
pub use path::{PathPrefix, PathPrefixError, grpc_method, is_plain};
pub use reserved::{
    FORWARDED, FORWARDED_CLIENT_CERT, FORWARDED_FOR, FORWARDED_PROTO, ReservedNames,
    SCOPE_CLIENT_ID, SCOPE_ORG_ID,
};
pub(in crate::http) use section::number;
pub use section::{
    Request, RequestParts, Response, check_trailers, is_connection_specific, read_request,
    read_response,
};
pub use tenant::{AllowedTenants, TenantRefusal};
pub use trace::trace_id;
