//! What a rule says of requests: what its clients may call, and what backends are told of them. In: the rule as written, the
//! listeners that it holds for. Out: rights and fields. A rule that holds for an HTTP listener has rights; another one says nothing
//! of requests.

use std::sync::Arc;

use gateway_core::http::limits as http_limits;
use gateway_core::http::message::ToldFields;
use gateway_core::http::policy::Rights;
use gateway_core::identity::{Rule, TenantLimits};

use super::diagnostics::Diagnostics;
use super::http_mode::mark;
use super::identity::KnownListener;
use super::raw::RawIdentity;
use super::value::Field;
use super::{allow, headers, scalar};

/// What a rule says of requests.
pub(super) struct RuleRequests {
    pub(super) rights: Option<Arc<Rights>>,
    pub(super) told: Option<Arc<ToldFields>>,
    pub(super) tenant_limits: TenantLimits,
}

/// Checks the keys of a rule that are for requests. `holding` are positions of its listeners; `None` for all.
pub(super) fn check(
    raw: &mut RawIdentity,
    holding: Option<&[usize]>,
    listeners: &[KnownListener<'_>],
    diagnostics: &mut Diagnostics<'_>,
) -> Option<RuleRequests> {
    let mut held = listeners
        .iter()
        .enumerate()
        .filter(|(position, _)| holding.is_none_or(|positions| positions.contains(position)));
    let http = held
        .clone()
        .find(|(_, listener)| listener.is_http == Some(true));
    let may_be_http = held.any(|(_, listener)| listener.is_http != Some(false));
    if !may_be_http {
        refuse_all(raw, diagnostics);
    }
    let location = raw.location.clone();
    let allow = std::mem::replace(&mut raw.allow, Field::Absent);
    let rights = match (allow, http) {
        (Field::Absent, Some((_, listener))) => {
            let text = format!(
                "say what its clients may call on listener \"{}\", such as allow = [\"otlp\"]; else nothing is let through",
                listener.name.unwrap_or_default()
            );
            diagnostics.missing(&location, "allow", &text);
            None
        }
        (Field::Absent, None) => Some(None),
        (given, _) => {
            let list = given.given();
            list.and_then(|list| allow::check(&location, list, diagnostics))
                .map(Some)
        }
    };
    let headers = std::mem::replace(&mut raw.headers, Field::Absent);
    let told = headers::check(headers, diagnostics);
    let tenant_limits = tenant_limits(raw, diagnostics);
    Some(RuleRequests {
        rights: rights?.map(Arc::new),
        told: told?.map(Arc::new),
        tenant_limits: tenant_limits?,
    })
}

/// What each tenant of the rule's clients may use.
fn tenant_limits(raw: &mut RawIdentity, diagnostics: &mut Diagnostics<'_>) -> Option<TenantLimits> {
    let has_tenant = !matches!(
        (&raw.tenant, &raw.tenant_from, &raw.tenants, &raw.component),
        (Field::Absent, Field::Absent, Field::Absent, Field::Absent)
    );
    let item = match std::mem::replace(&mut raw.per_tenant, Field::Absent) {
        Field::Absent => return Some(TenantLimits::default()),
        given => given.given()?,
    };
    if !has_tenant {
        let text = "has no effect: clients of the rule have no tenant; say which by tenant, tenant_from or tenants";
        diagnostics.wrong(&raw.location, "per_tenant", &item, text);
        return None;
    }
    let raw = item.value;
    let location = raw.location;
    let requests = raw.requests_per_second;
    let requests = diagnostics.optional(&location, "requests_per_second", requests, |count| {
        let range = &http_limits::TENANT_REQUESTS_PER_SECOND;
        let count = scalar::count(*count, range, " (leave it out for no limit)")?;
        u32::try_from(count).map_err(|error| error.to_string())
    });
    let bytes = raw.bytes_per_second;
    let bytes = diagnostics.optional(&location, "bytes_per_second", bytes, |text| {
        scalar::size(text, &http_limits::TENANT_BYTES)
    });
    let burst = diagnostics.optional(
        &location,
        "bytes_burst",
        raw.bytes_burst,
        |text| match bytes {
            Some(None) => Err("has no effect without bytes_per_second".to_owned()),
            Some(Some(_)) | None => scalar::size(text, &http_limits::TENANT_BYTES),
        },
    );
    Some(TenantLimits {
        requests_per_second: requests?,
        bytes_per_second: bytes?,
        bytes_burst: burst?,
    })
}

/// Refuses every key that is for requests: no listener of the rule has any.
fn refuse_all(raw: &RawIdentity, diagnostics: &mut Diagnostics<'_>) {
    let location = &raw.location;
    // Beside tenant_from, tenants bound what a certificate may name.
    let tenants = match &raw.tenant_from {
        Field::Absent => mark(&raw.tenants),
        Field::Wrong | Field::Given(_) => None,
    };
    let keys = [
        ("allow", mark(&raw.allow)),
        ("tenants", tenants),
        ("default_tenant", mark(&raw.default_tenant)),
        ("component", mark(&raw.component)),
        ("headers", mark(&raw.headers)),
        ("requests_per_second", mark(&raw.requests_per_second)),
        ("max_requests_in_flight", mark(&raw.max_requests_in_flight)),
        ("per_tenant", mark(&raw.per_tenant)),
    ];
    for (key, mark) in keys {
        let Some(item) = mark else {
            continue;
        };
        let text = match key {
            "tenants" => {
                "needs tenant_from, or a listener of mode \"http\", where a client names one of them itself"
            }
            _ => "is for listeners of mode \"http\", and the rule holds for none: remove it",
        };
        diagnostics.wrong(location, key, &item, text);
    }
}

/// Lets rules that say the same of requests share it: ten thousand rules may have one ready set.
pub(super) fn share(rules: &mut [Rule]) {
    let mut last: Option<Arc<Rights>> = None;
    for rule in rules {
        let Some(own) = &mut rule.rights else {
            continue;
        };
        match &last {
            Some(last) if **last == **own => *own = Arc::clone(last),
            Some(_) | None => last = Some(Arc::clone(own)),
        }
    }
}
