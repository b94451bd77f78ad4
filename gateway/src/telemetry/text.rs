//! Text that a peer may have chosen, as log and audit lines take it.
//! In: text of any length. Out: the same up to a bound, escapes counted, so that no peer decides how long a line is. Escapes
//! nothing: that is done by what writes the line, in its own way.

use std::borrow::Cow;

use gateway_core::limits;
use gateway_core::visible;
use serde::{Serialize, Serializer};

/// Text that a peer may have chosen: cut where it is too long.
#[derive(Debug, Clone, Copy)]
pub struct BoundedText<'a>(pub &'a str);

impl<'a> BoundedText<'a> {
    /// As much of it as a line has room for.
    pub fn cut(self) -> Cow<'a, str> {
        visible::cut(self.0, limits::TEXT_BYTES_MAX)
    }
}

impl Serialize for BoundedText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.cut())
    }
}
