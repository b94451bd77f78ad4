//! The plan of identities: certificates, the shares of them that the server must refuse, rotation in mid-run.
//! In: arguments. Out: a `Target`. On the main thread, before any load; checks every bound.

use anyhow::{Result, bail, ensure};

use super::arguments::{ClientArguments, CommonArguments, Origin, RotationArguments};
use crate::client::{self, Flawed, Target};
use crate::credentials::{self, Identity};
use crate::issuer::{Authority, Edition};
use crate::limits;
use crate::run::Plan;
use crate::tally::Flaw;

/// The target of a run of `plan`.
pub(super) fn target(common: &CommonArguments, plan: &Plan) -> Result<Target> {
    let client = &common.client;
    let mut target = if client.plaintext {
        Target::plaintext(&client.target)?
    } else {
        tls_target(client, plan.connections)?
    };
    ensure!(
        plan.connections >= client.target.len(),
        "--connections {}: must be at least as many as there are targets",
        plan.connections
    );
    target.timeout = client.timeout.into();
    target.may_end_abruptly = client.allow_abrupt_end;
    Ok(match client.sources.clone() {
        None => target,
        Some(Origin::Loopback(number)) => target.with_loopback_sources(number),
        Some(Origin::Addresses(sources)) => target.with_sources(sources)?,
    })
}

/// The target of a run of `plan`, with new identities in mid-run if the arguments name them.
pub(super) fn rotating_target(
    common: &CommonArguments,
    plan: &Plan,
    rotation: &RotationArguments,
) -> Result<Target> {
    let target = target(common, plan)?;
    let Some(after) = rotation.rotate_at else {
        return Ok(target);
    };
    ensure!(
        *after < plan.span,
        "--rotate-at {after}: must be before the end of the run, {}",
        humantime::format_duration(plan.span)
    );
    Ok(target.with_rotation(client::Rotation {
        after: *after,
        identities: new_identities(&common.client, rotation)?.into(),
    }))
}

fn new_identities(client: &ClientArguments, rotation: &RotationArguments) -> Result<Vec<Identity>> {
    if let Some(folder) = &rotation.rotate_identities {
        return Identity::load_folder(folder);
    }
    let other = rotation
        .rotate_authority
        .as_ref()
        .zip(rotation.rotate_authority_key.as_ref());
    let own = client.authority.as_ref().zip(client.authority_key.as_ref());
    let (Some(count), Some((certificate, key))) = (client.issue, other.or(own)) else {
        bail!(
            "--rotate-at: give the new identities with --rotate-identities, or the first ones with --issue"
        );
    };
    let revoked = revoked(client)?;
    Authority::load(certificate, key)?.identities(revoked + 1..=count as u64, Edition::Renewed)
}

fn tls_target(client: &ClientArguments, connections: usize) -> Result<Target> {
    let protocols: Vec<&str> = client.alpn.iter().map(String::as_str).collect();
    let mut identities = Identity::load_pairs(&client.certificate, &client.key)?;
    if let Some(folder) = &client.identities {
        identities.extend(Identity::load_folder(folder)?);
    }
    let mut flawed = Vec::new();
    if let (Some(count), Some(certificate), Some(key)) =
        (client.issue, &client.authority, &client.authority_key)
    {
        ensure!(
            (1..=limits::CONNECTIONS_MAX).contains(&count),
            "--issue {count}: must be 1 to {}",
            limits::CONNECTIONS_MAX
        );
        let authority = Authority::load(certificate, key)?;
        let revoked = revoked(client)?;
        identities.extend(authority.identities(revoked + 1..=count as u64, Edition::First)?);
        flawed = flawed_identities(client, &authority)?;
    }
    let mut target = Target::several(&client.target, credentials::roots(&client.ca)?)?
        .with_identities(identities)
        .with_alpn(&protocols)
        .with_flawed(flawed);
    target.ensure_shares(connections)?;
    if let Some(name) = &client.server_name {
        target = target.with_server_name(name)?;
    }
    if !client.cipher_suite.is_empty() {
        target = target.with_cipher_suites(&client.cipher_suite)?;
    }
    if !client.group.is_empty() {
        target = target.with_groups(&client.group)?;
    }
    Ok(target)
}

/// How many of the issued identities the server's revocation list names: the first ones.
fn revoked(client: &ClientArguments) -> Result<u64> {
    number(client, client.refused.revoked_share, "--revoked-share")
}

/// The number of issued identities for this share of the connections: one at least, if there is a share.
fn number(client: &ClientArguments, share: Option<f64>, option: &str) -> Result<u64> {
    let (Some(share), Some(count)) = (share, client.issue) else {
        return Ok(0);
    };
    ensure!(
        share > 0.0 && share <= 1.0,
        "{option} {share}: must be more than 0 and at most 1"
    );
    Ok((share * count as f64).round().max(1.0) as u64)
}

fn flawed_identities(client: &ClientArguments, authority: &Authority) -> Result<Vec<Flawed>> {
    let refused = &client.refused;
    let parts = [
        (
            Flaw::Revoked,
            refused.revoked_share,
            &refused.revoked_as,
            Edition::First,
            revoked(client)?,
        ),
        (
            Flaw::Expired,
            refused.expired_share,
            &refused.expired_as,
            Edition::Expired,
            number(client, refused.expired_share, "--expired-share")?,
        ),
    ];
    let mut flawed = Vec::new();
    for (flaw, share, expected, edition, count) in parts {
        if let Some(share) = share {
            flawed.push(Flawed {
                flaw,
                share,
                identities: authority.identities(1..=count, edition)?.into(),
                expected: expected.clone(),
            });
        }
    }
    ensure!(
        flawed.iter().map(|one| one.share).sum::<f64>() <= 1.0,
        "--revoked-share and --expired-share: must be at most 1 together"
    );
    Ok(flawed)
}
