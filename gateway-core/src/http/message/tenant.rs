//! The tenant of a request, and what its client says of it. In: what the certificate allows, a header list. Out: the
//! tenant that the backend is told, or why the request is refused. Pure.

use std::collections::BTreeSet;

use gateway_common::closed_list;

use super::reserved::{SCOPE_ORG_ID, is_spelling_of};
use super::{Field, HeaderList};
use crate::identity::Tenant;

/// Tenants that a client may speak for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedTenants {
    /// None: the backend is told none.
    None,
    /// This one, whatever the client says.
    One(Tenant),
    /// Those of these that the client names, several with `|` in between, as Cortex has it for queries.
    Among(BTreeSet<Tenant>),
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
    /// The tenant that the backend is told for a request.
    ///
    /// # Errors
    ///
    /// The request has no tenant that the client may speak for.
    pub fn of_request<'a>(
        &'a self,
        list: &'a HeaderList,
    ) -> Result<Option<&'a [u8]>, TenantRefusal> {
        match self {
            AllowedTenants::None => Ok(None),
            AllowedTenants::One(tenant) => Ok(Some(tenant.as_str().as_bytes())),
            AllowedTenants::Any => named(list),
            AllowedTenants::Among(allowed) => {
                let named = named(list)?.ok_or(TenantRefusal::Missing)?;
                let is_allowed = |name| {
                    allowed
                        .iter()
                        .any(|tenant| tenant.as_str().as_bytes() == name)
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
fn named(list: &HeaderList) -> Result<Option<&[u8]>, TenantRefusal> {
    let mut spellings = list
        .iter()
        .filter(|field| is_spelling_of(field.name, SCOPE_ORG_ID));
    match (spellings.next(), spellings.next()) {
        (None, _) => Ok(None),
        (
            Some(Field {
                name: SCOPE_ORG_ID,
                value,
                ..
            }),
            None,
        ) => Ok(Some(value)),
        (Some(_), _) => Err(TenantRefusal::Ambiguous),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(one.of_request(&list), Ok(Some(&b"red"[..])));
            assert_eq!(AllowedTenants::None.of_request(&list), Ok(None));
        }
    }

    #[test]
    fn a_certificate_with_several_lets_the_client_choose_among_them() {
        let allowed = AllowedTenants::Among([tenant("red"), tenant("blue")].into());
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
            assert_eq!(allowed.of_request(&list), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_component_says_what_it_likes_but_only_once() {
        let any = AllowedTenants::Any;
        assert_eq!(any.of_request(&list(&[])), Ok(None));
        let named = list(&[("x-scope-orgid", "a|b")]);
        assert_eq!(any.of_request(&named), Ok(Some(&b"a|b"[..])));
        let twice = list(&[("x-scope-orgid", "a"), ("x-scope-orgid", "b")]);
        assert_eq!(any.of_request(&twice), Err(TenantRefusal::Ambiguous));
    }
}
