//! What concerns the process as a whole: workers, draining, the administration endpoint.
//! In: the sections as written. Out: their checked values, `None` where one is wrong.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use gateway_core::endpoint::UNIX_PREFIX;
use gateway_core::limits;

use super::checked::AdminAddress;
use super::diagnostics::{Diagnostics, Location};
use super::listener::CheckedListener;
use super::raw::{RawAdmin, RawAdminTls, RawWorkers, Text};
use super::scalar;
use super::value::{Field, Spanned};

/// The administration endpoint, with the line for later findings.
#[derive(Debug)]
pub struct CheckedAdmin {
    /// Where it listens, if anywhere.
    pub checked: Option<AdminAddress>,
    /// `[admin.tls]` as written.
    pub tls: Option<RawAdminTls>,
    written: Option<(Location, Spanned<Text>)>,
}

/// How many workers: one for each CPU that this process may use, if nothing else is said.
pub fn workers(
    field: Field<RawWorkers>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<NonZeroUsize> {
    let available = cpus_available();
    let Some(raw) = field.given().map(|item| item.value) else {
        return Some(available);
    };
    let line = raw.location.line;
    let check = |count: &i64| {
        let count = scalar::count(*count, &limits::WORKERS, " (leave it out for one per CPU)")?;
        NonZeroUsize::new(count).ok_or("must not be 0".to_owned())
    };
    let count = diagnostics
        .optional(&raw.location, "count", raw.count, check)?
        .unwrap_or(available);
    if count > available {
        let text = format_args!(
            "{count} is more than the {available} CPUs this process may use: some will share one"
        );
        diagnostics.warn(line, "workers: count", text);
    }
    Some(count)
}

/// CPUs that the affinity mask allows, or as many as the CPU quota of the cgroup is worth, rounded up, if that is fewer: more
/// workers than that would only be throttled in turn.
fn cpus_available() -> NonZeroUsize {
    NonZeroUsize::new(num_cpus::get()).unwrap_or(NonZeroUsize::MIN)
}

/// How long connections may take to finish after SIGTERM.
pub fn drain_timeout(
    location: &Location,
    field: Field<Text>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Duration> {
    let check = |text: &Text| scalar::duration(text, &limits::DRAIN_TIMEOUT, "");
    let checked = diagnostics.optional(location, "drain_timeout", field, check)?;
    Some(checked.unwrap_or(limits::DRAIN_TIMEOUT_DEFAULT))
}

/// Where the administration endpoint listens.
pub fn admin(field: Field<RawAdmin>, diagnostics: &mut Diagnostics<'_>) -> CheckedAdmin {
    let Some(raw) = field.given().map(|item| item.value) else {
        return CheckedAdmin {
            checked: None,
            tls: None,
            written: None,
        };
    };
    let written = raw
        .address
        .clone()
        .given()
        .map(|item| (raw.location.clone(), item));
    let has_tls = !matches!(raw.tls, Field::Absent);
    let checked = diagnostics.optional(&raw.location, "address", raw.address, |text| {
        admin_address(text)
    });
    if checked == Some(None) && !has_tls {
        let expectation = "give it one, or [admin.tls], or remove [admin]";
        diagnostics.missing(&raw.location, "address", expectation);
    }
    CheckedAdmin {
        checked: checked.flatten(),
        tls: raw.tls.given().map(|item| item.value),
        written,
    }
}

fn admin_address(text: &str) -> Result<AdminAddress, String> {
    if let Some(path) = text.strip_prefix(UNIX_PREFIX) {
        let path = scalar::unix_path(path)?;
        return Ok(AdminAddress::Unix(PathBuf::from(path.as_str())));
    }
    let expected = "must be a loopback address and a port, such as \"127.0.0.1:9464\", or \"unix:/run/portcullis/admin.sock\"";
    let address: SocketAddr = text.parse().map_err(|_| expected.to_owned())?;
    match (address.ip().to_canonical().is_loopback(), address.port()) {
        (true, 1..) => Ok(AdminAddress::Loopback(address)),
        (true, 0) => Err("must have a port from 1 to 65535".to_owned()),
        (false, _) => Err(format!(
            "{expected}: this endpoint authenticates no client; [admin.tls] serves the metrics to other hosts"
        )),
    }
}

/// Refuses an administration endpoint where a listener already is.
pub fn refuse_shared_address(
    admin: &CheckedAdmin,
    listeners: &[CheckedListener],
    diagnostics: &mut Diagnostics<'_>,
) {
    let (Some(AdminAddress::Loopback(address)), Some((location, item))) =
        (&admin.checked, &admin.written)
    else {
        return;
    };
    let takes = |listener: SocketAddr| {
        let covers = listener.ip() == address.ip() || listener.ip().is_unspecified();
        listener.port() == address.port()
            && covers
            && same_family_or_both(listener.ip(), address.ip())
    };
    for listener in listeners {
        if listener.address.is_some_and(takes) {
            let text = format_args!("is taken by {}", listener.location.label);
            diagnostics.wrong(location, "address", item, text);
        }
    }
}

/// `[::]` takes IPv4 too; `0.0.0.0` takes nothing else.
fn same_family_or_both(listener: IpAddr, other: IpAddr) -> bool {
    listener.is_ipv6() || other.is_ipv4()
}
