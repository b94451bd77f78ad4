//! `servers` of a backend: addresses, and the share of requests that each takes. In: the key as written. Out: addresses and
//! shares, in the same order.

use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gateway_core::balance::ServerShare;
use gateway_core::endpoint::Endpoint;
use gateway_core::http::limits as http_limits;
use gateway_core::names::Name;

use super::checked::ServerAddress;
use super::diagnostics::{Diagnostics, Location};
use super::http_mode::mark;
use super::raw::{RawServer, RawServerEntry, RawServers};
use super::scalar;
use super::value::{Field, Spanned};

/// The servers of a backend.
#[derive(Debug, Default)]
pub(super) struct CheckedServers {
    pub(super) addresses: Vec<ServerAddress>,
    pub(super) shares: Vec<ServerShare>,
    /// Where `weight` and `backup` stand, which are for HTTP listeners.
    pub(super) marks: Vec<(&'static str, Spanned<()>)>,
}

/// Checks `servers`.
pub(super) fn check(
    location: &Location,
    field: Field<RawServers>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<CheckedServers> {
    let example = "name at least one server, such as \"10.0.0.11:4317\"";
    if matches!(field, Field::Absent) {
        diagnostics.missing(location, "servers", example);
    }
    let list = field.given()?;
    if list.value.is_empty() {
        diagnostics.wrong(location, "servers", &list, format_args!("must {example}"));
        return None;
    }
    let mut servers = CheckedServers::default();
    let mut sound = true;
    for entry in &list.value {
        match server(location, entry, &mut servers, diagnostics) {
            Some((address, share)) => {
                servers.addresses.push(address);
                servers.shares.push(share);
            }
            None => sound = false,
        }
    }
    if sound && servers.shares.iter().all(|share| share.is_backup) {
        let text = "must name a server that is no backup: it would be the one to use";
        diagnostics.wrong(location, "servers", &list, text);
        return None;
    }
    sound.then_some(servers)
}

fn server(
    location: &Location,
    entry: &RawServerEntry,
    known: &mut CheckedServers,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(ServerAddress, ServerShare)> {
    let (key, address, share) = match entry {
        RawServerEntry::Address(item) => ("servers", item.clone(), Some(ServerShare::default())),
        RawServerEntry::Table(raw) => {
            known.marks.extend(marks(raw));
            let share = share(raw, diagnostics);
            if matches!(raw.address, Field::Absent) {
                let text = "give its address and port, such as \"10.0.0.11:4317\"";
                diagnostics.missing(&raw.location, "address", text);
            }
            ("servers: address", raw.address.clone().given()?, share)
        }
    };
    let checked = scalar::server_address(&address.value).and_then(|server| {
        match known.addresses.contains(&server) {
            true => Err("is named twice".to_owned()),
            false => Ok(server),
        }
    });
    match checked {
        Ok(server) => {
            if let (RawServerEntry::Table(raw), ServerAddress::Name(Name::Service(_))) =
                (entry, &server)
                && let Some((key, item)) = marks(raw).next()
            {
                let text = "must not stand beside a service: its records say it";
                diagnostics.wrong(location, key, &item, text);
                return None;
            }
            warn_of_open_folder(location, &address, &server, diagnostics);
            Some((server, share?))
        }
        Err(expectation) => {
            diagnostics.wrong(location, key, &address, expectation);
            None
        }
    }
}

/// Users who may write to the folder of a Unix socket can put another one there, and get what is meant for the server.
fn warn_of_open_folder(
    location: &Location,
    written: &Spanned<String>,
    server: &ServerAddress,
    diagnostics: &mut Diagnostics<'_>,
) {
    let ServerAddress::Address(Endpoint::Unix(path)) = server else {
        return;
    };
    let folder = Path::new(path.as_str()).parent();
    let mode = folder.and_then(|folder| Some(fs::metadata(folder).ok()?.permissions().mode()));
    if let (Some(folder), Some(mode)) = (folder, mode)
        && mode & 0o002 != 0
    {
        let folder = folder.display();
        let text = format!(
            "{server}: every user of this host may write to {folder}, and can put a socket there in the server's place: \
             use a folder that only the server's user may write to"
        );
        diagnostics.warn(written.line, &location.key("servers"), &text);
    }
}

fn marks(raw: &RawServer) -> impl Iterator<Item = (&'static str, Spanned<()>)> {
    let all = [
        ("servers: weight", mark(&raw.weight)),
        ("servers: backup", mark(&raw.backup)),
    ];
    let given = all.into_iter();
    given.filter_map(|(key, mark)| Some((key, mark?)))
}

fn share(raw: &RawServer, diagnostics: &mut Diagnostics<'_>) -> Option<ServerShare> {
    let default = ServerShare::default();
    let weight = raw.weight.clone();
    let weight = diagnostics.optional(&raw.location, "weight", weight, |weight| {
        let weight = scalar::count(*weight, &http_limits::SERVER_WEIGHT, "")?;
        let weight = u32::try_from(weight).map_err(|error| error.to_string())?;
        NonZeroU32::new(weight).ok_or_else(|| "must not be 0".to_owned())
    });
    let backup = raw.backup.clone();
    let backup = diagnostics.optional(&raw.location, "backup", backup, |backup| Ok(*backup));
    Some(ServerShare {
        weight: weight?.unwrap_or(default.weight),
        is_backup: backup?.unwrap_or(default.is_backup),
    })
}
