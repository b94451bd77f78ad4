//! When connections are closed that are not over: how such closes are spread, and what happens as a certificate ends.
//! In: `close_spread` of the file, `at_expiry` and `expiry_drain` of a listener. Out: their checked values, `None` where one
//! is wrong.

use std::time::Duration;

use gateway_core::limits;

use super::diagnostics::{Diagnostics, Location};
use super::raw::Text;
use super::scalar;
use super::value::Field;

/// The time over which closes are spread that are not urgent.
pub fn spread(
    location: &Location,
    field: Field<Text>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Duration> {
    let check = |text: &Text| scalar::duration(text, &limits::CLOSE_SPREAD, "");
    let checked = diagnostics.optional(location, "close_spread", field, check)?;
    Some(checked.unwrap_or(limits::CLOSE_SPREAD_DEFAULT))
}

/// How long before the end of a client's certificate its connection begins to look for a quiet moment to end; `Some(None)`
/// where it goes on to the end.
pub fn expiry_drain(
    location: &Location,
    (at_expiry, period): (Field<Text>, Field<Text>),
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<Duration>> {
    let drains = diagnostics.optional(location, "at_expiry", at_expiry, |text| {
        match text.as_str() {
            "close" => Ok(false),
            "drain" => Ok(true),
            _ => Err("must be \"close\" or \"drain\"".to_owned()),
        }
    });
    let drains = drains?.unwrap_or(false);
    let check = |text: &Text| match drains {
        true => scalar::duration(text, &limits::EXPIRY_DRAIN, ""),
        false => Err("has no effect without at_expiry = \"drain\"".to_owned()),
    };
    let period = diagnostics.optional(location, "expiry_drain", period, check)?;
    Some(drains.then(|| period.unwrap_or(limits::EXPIRY_DRAIN_DEFAULT)))
}
