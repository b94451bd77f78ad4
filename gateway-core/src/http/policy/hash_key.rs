//! What requests are kept together by, when the server of a backend is chosen by a hash. In: a call, the client's
//! identity. Out: the bytes to hash. Pure.

use super::RequestContext;

/// What the servers of a backend are shared out by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The tenant, as the backend is told it.
    Tenant,
    /// The name of the client's identity.
    Identity,
    /// A field of this name in lower case: ours, or else the client's.
    Header(Box<[u8]>),
}

impl HashKey {
    /// The bytes of a request; `None` if it has none, and any server is as good as another.
    pub fn of_request<'a>(
        &self,
        context: &RequestContext<'a>,
        identity: &'a str,
    ) -> Option<&'a [u8]> {
        match self {
            HashKey::Tenant => context.tenant,
            HashKey::Identity => Some(identity.as_bytes()),
            HashKey::Header(name) => {
                let mut fields = context.told.iter().chain(context.list.iter());
                let found = fields.find(|field| field.name == &**name);
                found.map(|field| field.value)
            }
        }
    }
}
