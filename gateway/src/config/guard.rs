//! `[guard]`: what becomes of clients that have not authenticated. In: the section as written, and the listeners, whose
//! handshakes must fit into what the kernel allows. Out: checked settings, with every time as the kernel counts it.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::{Listed, Reason, Settings, mode};
use gateway_core::limits;
use gateway_core::sources::{Lists, Policy};
use ipnet::IpNet;

use super::checked::{Destination, GuardMode, GuardSettings};
use super::diagnostics::{Diagnostics, Location};
use super::listener::CheckedListener;
use super::raw::{RawGuard, Text, Texts, Weights};
use super::scalar;
use super::value::Field;

/// The kernel guard: off unless it is asked for.
pub fn check(
    field: Field<RawGuard>,
    listeners: &[CheckedListener],
    diagnostics: &mut Diagnostics<'_>,
) -> Option<GuardSettings> {
    let Some(raw) = field.given().map(|item| item.value) else {
        return Some(GuardSettings {
            mode: GuardMode::Off,
            interfaces: Vec::new(),
            required: false,
            is_lasting: true,
            policy: Arc::new(Policy {
                settings: Settings::new(mode::OFF),
                lists: Lists::default(),
            }),
        });
    };
    let location = raw.location.clone();
    let mode =
        diagnostics.optional(&location, "mode", raw.mode.clone(), |text| guard_mode(text))?;
    let mode = mode.unwrap_or(GuardMode::Off);
    let interfaces = interfaces(&raw, mode, diagnostics);
    let check = |required: &bool| match (mode, required) {
        (GuardMode::Off, true) => {
            Err("must be false with mode = \"off\": what is off cannot be required".to_owned())
        }
        _ => Ok(*required),
    };
    let required = diagnostics.optional(&location, "required", raw.required.clone(), check);
    let lists = lists(&raw, diagnostics);
    let settings = settings(raw, mode, listeners, diagnostics);
    Some(GuardSettings {
        mode,
        interfaces: interfaces?,
        required: required?.unwrap_or(false),
        is_lasting: true,
        policy: Arc::new(Policy {
            settings: settings?,
            lists,
        }),
    })
}

fn guard_mode(text: &str) -> Result<GuardMode, String> {
    [GuardMode::Off, GuardMode::Monitor, GuardMode::Enforce]
        .into_iter()
        .find(|mode| mode.name() == text)
        .ok_or_else(|| "must be \"off\", \"monitor\" or \"enforce\"".to_owned())
}

fn interfaces(
    raw: &RawGuard,
    mode: GuardMode,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Vec<String>> {
    let location = &raw.location;
    let list = match raw.interfaces.clone() {
        Field::Absent if mode == GuardMode::Off => return Some(Vec::new()),
        Field::Absent => {
            let text = "name the interfaces whose packets the guard checks, or [] for none: it then follows flows, \
                        and bans act when connections are accepted";
            diagnostics.missing(location, "interfaces", text);
            return None;
        }
        given => given.given()?,
    };
    let mut names = Vec::new();
    for item in &list.value {
        match scalar::interface(&item.value) {
            Ok(name) if names.contains(&name) => {
                diagnostics.wrong(location, "interfaces", item, "is named twice")
            }
            Ok(name) => names.push(name),
            Err(expectation) => diagnostics.wrong(location, "interfaces", item, expectation),
        }
    }
    if mode == GuardMode::Off && !names.is_empty() {
        let text = "nothing is attached with mode = \"off\"; say mode = \"monitor\"";
        diagnostics.warn(location.line, "guard: interfaces", text);
    } else if names.iter().any(|name| name == "lo") {
        let text = "\"lo\" loses about half of the loopback's bulk throughput";
        diagnostics.warn(location.line, "guard: interfaces", text);
    }
    Some(names)
}

/// Networks, or single addresses.
fn networks(
    location: &Location,
    key: &'static str,
    field: Field<Texts>,
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for item in field.given().map(|list| list.value).unwrap_or_default() {
        let network = item.value.parse::<IpNet>();
        let address = || item.value.parse::<IpAddr>().map(IpNet::from);
        match network.or_else(|_| address()) {
            Ok(network) if network.addr() != network.network() => {
                let text = format_args!("has bits beyond its prefix: say \"{}\"", network.trunc());
                diagnostics.wrong(location, key, &item, text);
            }
            Ok(network) if networks.contains(&network) => {
                diagnostics.wrong(location, key, &item, "is named twice");
            }
            Ok(network) => networks.push(network),
            Err(_) => {
                let text =
                    "must be a network or an address, such as \"10.0.0.0/8\" or \"2001:db8::1\"";
                diagnostics.wrong(location, key, &item, text);
            }
        }
    }
    networks
}

/// The sources that always pass, and those that never do.
fn lists(raw: &RawGuard, diagnostics: &mut Diagnostics<'_>) -> Lists {
    let location = &raw.location;
    let allow = networks(location, "allow", raw.allow.clone(), diagnostics);
    let deny = networks(location, "deny", raw.deny.clone(), diagnostics);
    if let Some(both) = allow.iter().find(|network| deny.contains(network)) {
        let text = format_args!("\"{both}\" is allowed and denied");
        diagnostics.refuse(location.line, location.key("deny"), text);
    }
    let entries = allow.len() + deny.len();
    if entries > limits::GUARD_LIST_ENTRIES_MAX {
        let text = format_args!(
            "allow and deny have {entries} entries together: there is room for {}",
            limits::GUARD_LIST_ENTRIES_MAX
        );
        diagnostics.refuse(location.line, location.key("allow"), text);
    }
    let allowed = allow.into_iter().map(|network| (network, Listed::Allowed));
    Lists::new(allowed.chain(deny.into_iter().map(|network| (network, Listed::Denied))))
}

/// Bounds and weights, as the kernel reads them.
fn settings(
    raw: RawGuard,
    mode: GuardMode,
    listeners: &[CheckedListener],
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Settings> {
    let location = raw.location;
    let defaults = Settings::new(match mode {
        GuardMode::Off => mode::OFF,
        GuardMode::Monitor => mode::MONITOR,
        GuardMode::Enforce => mode::ENFORCE,
    });
    let mut count = |key, field, range: &RangeInclusive<u64>| {
        let check = |number: &i64| scalar::count(*number, range, "").map(|count| count as u64);
        diagnostics.optional(&location, key, field, check)
    };
    let pending_max = count("max_pending", raw.max_pending, &limits::GUARD_PENDING);
    let points = count("ban_threshold", raw.ban_threshold, &limits::GUARD_POINTS);
    let mut time = |key, field: Field<Text>, range: &RangeInclusive<Duration>| {
        let check = |text: &Text| scalar::duration(text, range, "");
        let given = diagnostics.optional(&location, key, field, check)?;
        Some(given.map(|given| given.as_nanos() as u64))
    };
    let lifetime = &limits::GUARD_POINT_LIFETIME;
    let point_ns = time("point_lifetime", raw.point_lifetime, lifetime);
    let first_ns = time("ban_first", raw.ban_first, &limits::GUARD_BAN);
    let longest_ns = time("ban_longest", raw.ban_longest, &limits::GUARD_BAN);
    let budget = diagnostics.optional(&location, "byte_budget", raw.byte_budget, |text: &Text| {
        scalar::size(text, &limits::GUARD_BYTE_BUDGET)
    });
    let weights = weights(&location, raw.weights, diagnostics);
    let point_ns = point_ns?.unwrap_or(defaults.point_ns);
    let ban_first_ns = first_ns?.unwrap_or(defaults.ban_first_ns);
    let ban_longest_ns = longest_ns?.unwrap_or(defaults.ban_longest_ns);
    if ban_first_ns > ban_longest_ns {
        diagnostics.refuse(
            location.line,
            location.key("ban_first"),
            "is longer than ban_longest",
        );
    }
    Some(Settings {
        deadline_ns: deadline(listeners).as_nanos() as u64,
        pending_max: pending_max?.unwrap_or_else(|| pending_default(listeners)),
        point_ns,
        ban_debt_ns: points?.unwrap_or(limits::GUARD_POINTS_DEFAULT) * point_ns,
        ban_first_ns,
        ban_longest_ns,
        ban_memory_ns: ban_longest_ns,
        budget_bytes: budget?.map_or(defaults.budget_bytes, |bytes| bytes as u32),
        weights: weights?,
        ..defaults
    })
}

/// How many unauthenticated connections one source may have: a small part of the handshakes of any listener.
fn pending_default(listeners: &[CheckedListener]) -> u64 {
    let fewest = listeners
        .iter()
        .filter_map(|listener| listener.checked.as_ref())
        // The one for metrics has places for scrapers, and says nothing of how many agents share an address.
        .filter(|listener| !matches!(listener.destination, Destination::Metrics(_)))
        .map(|listener| listener.max_handshakes)
        .min();
    let part = fewest.unwrap_or(limits::HANDSHAKES_DEFAULT) / limits::GUARD_SOURCES_PER_LISTENER;
    let bounds = limits::GUARD_PENDING_DEFAULT;
    (part as u64).clamp(*bounds.start(), *bounds.end())
}

/// When the kernel gives a flow up: some time after the gateway should have.
fn deadline(listeners: &[CheckedListener]) -> Duration {
    let longest = listeners
        .iter()
        .filter_map(|listener| listener.checked.as_ref())
        .map(|listener| listener.times.first_byte_timeout + listener.times.handshake_timeout)
        .max();
    let usual = limits::FIRST_BYTE_TIMEOUT_DEFAULT + limits::HANDSHAKE_TIMEOUT_DEFAULT;
    longest.unwrap_or(usual) + limits::GUARD_DEADLINE_MARGIN
}

/// Points by reason: the usual ones, but for those that are written.
fn weights(
    location: &Location,
    field: Field<Weights>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<[u16; gateway_common::COUNTERS]> {
    let mut weights = Settings::new(mode::OFF).weights;
    let Weights(written) = match field {
        Field::Absent => return Some(weights),
        given => given.given()?.value,
    };
    for (label, item) in written {
        let key = format!("weights: {label}");
        let reason = Reason::ALL
            .into_iter()
            .find(|reason| reason.label() == label && *reason != Reason::Authenticated);
        let Some(reason) = reason else {
            let known: Vec<_> = Reason::ALL
                .iter()
                .skip(1)
                .map(|reason| reason.label())
                .collect();
            let text = format_args!("unknown reason (there are {})", known.join(", "));
            diagnostics.wrong(location, &key, &item, text);
            continue;
        };
        match item.value.and_then(|number| u16::try_from(number).ok()) {
            Some(points) if points <= limits::GUARD_WEIGHT_MAX => weights[reason.index()] = points,
            _ => {
                let text = format_args!("must be 0 to {} points", limits::GUARD_WEIGHT_MAX);
                diagnostics.wrong(location, &key, &item, text);
            }
        }
    }
    Some(weights)
}
