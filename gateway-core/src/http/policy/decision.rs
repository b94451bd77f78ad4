//! The decision on a request: may its client make it, and where does it go? In: routes of the listener, rights of the
//! rule, the call. Out: the choice, the path as the backend gets it; or a refusal. The one place for the order of
//! these questions. Pure.

use super::{Choice, RequestContext, Rights, RouteTable};
use crate::http::answer::RequestRefusal;
use crate::http::message::is_plain;

/// What becomes of a request that may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Where it goes.
    pub choice: Choice<'a>,
    /// Position of the grant that permits it.
    pub grant: usize,
}

/// Decides on a request. The path that its route makes of its own is appended to `path`; nothing is, if it stays.
///
/// Rights hold for the path as the backend gets it: what a client may do there does not depend on where it is mounted
/// here.
///
/// # Errors
///
/// The request is not passed on.
pub fn decide<'a>(
    routes: &'a RouteTable,
    rights: &Rights,
    call: &RequestContext<'_>,
    path: &mut Vec<u8>,
) -> Result<Decision<'a>, RequestRefusal> {
    let request = call.request;
    if !is_plain(request.path) {
        return Err(RequestRefusal::PathNotPlain);
    }
    let choice = routes.find(call).ok_or(RequestRefusal::NoRoute)?;
    let start = path.len();
    if let Some((before, after)) = choice.rewritten {
        let is_below = after.replace(before, request.path, path);
        debug_assert!(is_below, "the route matched by this prefix");
    }
    let sent = match &path[start..] {
        [] => request.path,
        rewritten => rewritten,
    };
    let grant = rights.permitting(request, sent, call.address);
    let grant = grant.ok_or(RequestRefusal::NotAllowed)?;
    Ok(Decision { choice, grant })
}
