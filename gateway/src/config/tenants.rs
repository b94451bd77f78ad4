//! Which tenants the clients of a rule speak for. In: the rule as written, and its patterns. Out: a `TenantSource`.

use std::collections::BTreeSet;

use gateway_core::identity::{Pattern, Rule, Tenant, TenantPart, TenantSource};

use super::diagnostics::{Diagnostics, Location};
use super::raw::{RawIdentity, Texts};
use super::value::Field;

/// Where the tenant comes from. `rule` has the patterns that a part of the certificate is found by.
pub(super) fn check(
    raw: RawIdentity,
    rule: Option<&Rule>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<TenantSource> {
    let location = raw.location;
    let literal = diagnostics.optional(&location, "tenant", raw.tenant, |text| {
        Tenant::parse(text).map_err(|error| error.to_string())
    });
    let written = raw.tenant_from.clone().given();
    let part = diagnostics.optional(&location, "tenant_from", raw.tenant_from, |text| {
        tenant_part(text)
    });
    let among = tenants_of(&location, raw.tenants, diagnostics);
    let default = diagnostics.optional(&location, "default_tenant", raw.default_tenant, |text| {
        let tenant = Tenant::parse(text).map_err(|error| error.to_string())?;
        let is_choice = matches!((&literal, &part), (Some(None), Some(None)));
        match &among {
            Some(Some(among)) if is_choice && !among.contains(&tenant) => {
                Err("must be one of tenants".to_owned())
            }
            Some(None) => Err("needs tenants, one of which a client may leave unsaid".to_owned()),
            Some(Some(_)) if !is_choice => Err(
                "must not stand beside tenant or tenant_from: these clients have one tenant"
                    .to_owned(),
            ),
            Some(Some(_)) | None => Ok(tenant),
        }
    });
    let component = raw.component.given().filter(|item| item.value);
    let (literal, part, among, default) = (literal?, part?, among?, default?);
    if let Some(written) = component {
        if literal.is_some() || part.is_some() || among.is_some() {
            let text = "must not stand beside tenant, tenant_from or tenants: a component speaks for all tenants";
            diagnostics.wrong(&location, "component", &written, text);
            return None;
        }
        return Some(TenantSource::Component);
    }
    if let (Some(_), Some(written)) = (&literal, &written) {
        diagnostics.wrong(
            &location,
            "tenant_from",
            written,
            "must not stand beside tenant",
        );
        return None;
    }
    if let (Some(_), Some(_)) = (&literal, &among) {
        let text = "must not stand beside tenant: write all of them into tenants";
        diagnostics.refuse(location.line, location.key("tenants"), text);
        return None;
    }
    let has_star = |rule: &Rule| rule.uri.as_ref().is_some_and(Pattern::has_star);
    if let (Some(TenantPart::Uri), Some(written), Some(rule)) = (part, &written, rule)
        && !has_star(rule)
    {
        let text = "needs a match with uri = \"…*\": the tenant is what the first `*` stands for, up to the next `/`";
        diagnostics.wrong(&location, "tenant_from", written, text);
        return None;
    }
    Some(match (literal, part, among) {
        (Some(tenant), _, _) => TenantSource::Literal(tenant),
        (None, Some(part), among) => TenantSource::Certificate { part, among },
        (None, None, Some(tenants)) => TenantSource::Request { tenants, default },
        (None, None, None) => TenantSource::Nowhere,
    })
}

/// A closed set of tenants; `Some(None)` for any.
fn tenants_of(
    location: &Location,
    field: Field<Texts>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<BTreeSet<Tenant>>> {
    let list = match field {
        Field::Absent => return Some(None),
        given => given.given()?,
    };
    if list.value.is_empty() {
        let text = "must name at least one, or be left out for any";
        diagnostics.wrong(location, "tenants", &list, text);
        return None;
    }
    let mut tenants = BTreeSet::new();
    for item in &list.value {
        match Tenant::parse(&item.value) {
            Ok(tenant) if tenants.contains(&tenant) => {
                diagnostics.wrong(location, "tenants", item, "is named twice");
            }
            Ok(tenant) => {
                tenants.insert(tenant);
            }
            Err(error) => diagnostics.wrong(location, "tenants", item, error),
        }
    }
    Some(Some(tenants))
}

fn tenant_part(text: &str) -> Result<TenantPart, String> {
    match text {
        "uri" => Ok(TenantPart::Uri),
        "dns" => Ok(TenantPart::Dns),
        "cn" => Ok(TenantPart::CommonName),
        "ou" => Ok(TenantPart::OrganizationalUnit),
        _ => Err("must be \"uri\", \"dns\", \"cn\" or \"ou\"".to_owned()),
    }
}
