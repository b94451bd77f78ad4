//! The tenant of a request, and what its client says of it. In: what the certificate allows, a header list. Out: the
//! tenant that the backend is told, or why the request is refused. Pure.

use std::collections::BTreeSet;

use gateway_common::closed_list;

use super::HeaderList;
use super::reserved::is_spelling_of;
use crate::identity::Tenant;

/// Tenants that a client may speak for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedTenants {
    /// None: the backend is told none.
    None,
    /// This one, whatever the client says.
    One(Tenant),
    /// Those of these that the client names, several with `|` in between, as Cortex has it for queries.
    Among {
        /// These.
        tenants: BTreeSet<Tenant>,
        /// The one of a request that names none.
        default: Option<Tenant>,
    },
    /// Whatever the client names: it is a component of the backend's own system.
    Any,
}

closed_list! {
    /// Why a request has no tenant.
    pub enum TenantRefusal {
        /// The client names none, and may speak for several.
        Missing = "tenant_missing";
        /// The client names one that its certificate does not allow.
        NotAllowed = "tenant_not_allowed";
        /// The client names tenants in two fields, or in another spelling of the name: servers may differ on which
        /// counts.
        Ambiguous = "tenant_ambiguous";
    }
}

impl AllowedTenants {
    /// The tenant that the backend is told for a request. Clients name theirs in the field of this name in lower case.
    ///
    /// # Errors
    ///
    /// The request has no tenant that the client may speak for.
    pub fn of_request<'a>(
        &'a self,
        list: &'a HeaderList,
        name: &[u8],
    ) -> Result<Option<&'a [u8]>, TenantRefusal> {
        match self {
            AllowedTenants::None => Ok(None),
            AllowedTenants::One(tenant) => Ok(Some(tenant.as_str().as_bytes())),
            AllowedTenants::Any => named(list, name),
            AllowedTenants::Among { tenants, default } => {
                let Some(named) = named(list, name)? else {
                    let default = default.as_ref().ok_or(TenantRefusal::Missing)?;
                    return Ok(Some(default.as_str().as_bytes()));
                };
                let is_allowed = |name| {
                    let mut tenants = tenants.iter();
                    tenants.any(|tenant| tenant.as_str().as_bytes() == name)
                };
                match named.split(|byte| *byte == b'|').all(is_allowed) {
                    true => Ok(Some(named)),
                    false => Err(TenantRefusal::NotAllowed),
                }
            }
        }
    }
}

/// The tenant that a client names itself.
fn named<'a>(list: &'a HeaderList, name: &[u8]) -> Result<Option<&'a [u8]>, TenantRefusal> {
    let mut spellings = list.iter().filter(|field| is_spelling_of(field.name, name));
    match (spellings.next(), spellings.next()) {
        (None, _) => Ok(None),
        (Some(field), None) if field.name == name => Ok(Some(field.value)),
        (Some(_), _) => Err(TenantRefusal::Ambiguous),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::{Field, SCOPE_ORG_ID};

    fn list(fields: &[(&str, &str)]) -> HeaderList {
        let mut list = HeaderList::new(1000);
        for (name, value) in fields {
            list.push(Field::new(name.as_bytes(), value.as_bytes()));
        }
        list
    }

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).unwrap()
    }

    #[test]
    fn a_certificate_with_one_tenant_speaks_for_it_alone() {
        for fields in [
            &[][..],
            &[("x-scope-orgid", "blue")],
            &[("X_scope_orgid", "a"), ("x-scope-orgid", "b")],
        ] {
            let list = list(fields);
            let one = AllowedTenants::One(tenant("red"));
            assert_eq!(one.of_request(&list, SCOPE_ORG_ID), Ok(Some(&b"red"[..])));
            assert_eq!(
                AllowedTenants::None.of_request(&list, SCOPE_ORG_ID),
                Ok(None)
            );
        }
    }

    #[test]
    fn a_certificate_with_several_lets_the_client_choose_among_them() {
        let among = |default| AllowedTenants::Among {
            tenants: [tenant("red"), tenant("blue")].into(),
            default,
        };
        let allowed = among(None);
        for (fields, expected) in [
            (&[("x-scope-orgid", "red")][..], Ok(Some(&b"red"[..]))),
            (&[("x-scope-orgid", "blue|red")], Ok(Some(b"blue|red"))),
            (&[], Err(TenantRefusal::Missing)),
            (
                &[("x-scope-orgid", "green")],
                Err(TenantRefusal::NotAllowed),
            ),
            (
                &[("x-scope-orgid", "red|green")],
                Err(TenantRefusal::NotAllowed),
            ),
            (&[("x-scope-orgid", "red|")], Err(TenantRefusal::NotAllowed)),
            (&[("x-scope-orgid", "")], Err(TenantRefusal::NotAllowed)),
            (
                &[("x-scope-orgid", "red, blue")],
                Err(TenantRefusal::NotAllowed),
            ),
            (
                &[("x-scope-orgid", "red"), ("x-scope-orgid", "red")],
                Err(TenantRefusal::Ambiguous),
            ),
            (
                &[("x-scope-orgid", "red"), ("x_scope_orgid", "green")],
                Err(TenantRefusal::Ambiguous),
            ),
            (&[("x_scope_orgid", "red")], Err(TenantRefusal::Ambiguous)),
        ] {
            let list = list(fields);
            let found = allowed.of_request(&list, SCOPE_ORG_ID);
            assert_eq!(found, expected, "{fields:?}");
        }
        let defaulted = among(Some(tenant("red")));
        let of = |fields: &[(&str, &str)]| {
            let list = list(fields);
            let tenant = defaulted.of_request(&list, SCOPE_ORG_ID);
            tenant.map(|tenant| tenant.map(<[u8]>::to_vec))
        };
        assert_eq!(of(&[]), Ok(Some(b"red".to_vec())));
        let wrong = of(&[("x-scope-orgid", "green")]);
        assert_eq!(wrong, Err(TenantRefusal::NotAllowed));
        let misspelt = of(&[("X-Scope-OrgID", "blue")]);
        assert_eq!(misspelt, Err(TenantRefusal::Ambiguous));
    }

    #[test]
    fn a_component_says_what_it_likes_but_only_once() {
        let any = AllowedTenants::Any;
        assert_eq!(any.of_request(&list(&[]), SCOPE_ORG_ID), Ok(None));
        let named = list(&[("x-scope-orgid", "a|b")]);
        assert_eq!(any.of_request(&named, SCOPE_ORG_ID), Ok(Some(&b"a|b"[..])));
        let twice = list(&[("x-scope-orgid", "a"), ("x-scope-orgid", "b")]);
        assert_eq!(
            any.of_request(&twice, SCOPE_ORG_ID),
            Err(TenantRefusal::Ambiguous)
        );
    }
}
