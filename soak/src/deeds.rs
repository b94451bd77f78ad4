//! Everything that the director does to a gateway in a day.
//! In: the stage. Out: facts in the journal, and later steps, the last of which undoes the deed. A deed writes that
//! certificates lose a right after it has published that, and that they regain it before it publishes that.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::Answering;

use crate::journal::{Disturbance, Fact, Why, server_key};
use crate::stage::{
    ACTS_WITHIN, AGENTS_INTERFACE, Of, SHORT_SECONDS, SPREADS_WITHIN, Stage, known,
};

/// A resource that two deeds must not use at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// A configuration that a reload takes as a whole.
    Configuration,
    /// The list of the agents' CA.
    List,
    /// The CA of `season`, and its list.
    Season,
    /// The gateway's clock.
    Clock,
    /// The process that serves.
    Process,
    /// The network between agents and gateway.
    Network,
    /// The servers.
    Servers,
    /// The resolver.
    Names,
    /// The control socket.
    Control,
}

/// A later step of a deed.
pub type Step = Box<dyn FnOnce(&mut Stage) -> Result<()>>;

/// The later steps of a deed, each with its delay from the beginning. The last one undoes the deed.
pub type Plan = Vec<(Duration, Step)>;

/// One kind of trouble for the gateway.
pub struct Deed {
    /// Its name.
    pub name: &'static str,
    /// The resources that it needs for itself.
    pub needs: &'static [Need],
    /// Does it.
    pub begin: fn(&mut Stage) -> Result<Plan>,
}

/// Every deed.
pub const DEEDS: &[Deed] = &[
    deed("a certificate is revoked", &[Need::List], revoke),
    deed(
        "half a list is published",
        &[Need::List, Need::Configuration],
        half_a_list,
    ),
    deed("an identity is blocked", &[Need::Control], block),
    deed("a certificate ends", &[Need::Clock], certificate_ends),
    deed(
        "a CA ends",
        &[Need::Season, Need::Clock, Need::Configuration],
        season_ends,
    ),
    deed(
        "a list ends",
        &[Need::Season, Need::Clock, Need::Configuration],
        list_ends,
    ),
    deed("a rule goes", &[Need::Configuration], rule_goes),
    deed("the clock is set", &[Need::Clock], clock_steps),
    deed(
        "a configuration is wrong",
        &[Need::Configuration, Need::List],
        wrong_configuration,
    ),
    deed(
        "the gateway's certificate is renewed",
        &[Need::Configuration],
        own_certificate,
    ),
    deed(
        "files are written anew without a change",
        &[Need::Configuration],
        same_files,
    ),
    deed("the audit log is rotated", &[], rotate_audit),
    deed(
        "ticket keys are rotated",
        &[Need::Configuration],
        rotate_keys,
    ),
    deed("a reload is asked for", &[], hang_up),
    deed(
        "the interface is removed",
        &[Need::Network, Need::Process],
        interface,
    ),
    deed(
        "no descriptor is left for clients",
        &[Need::Process],
        few_descriptors,
    ),
    deed(
        "no descriptor is left",
        &[
            Need::Process,
            Need::Configuration,
            Need::Season,
            Need::Control,
        ],
        no_descriptors,
    ),
    deed("a server swallows SYNs", &[Need::Servers], swallow),
    deed("servers reset everything", &[Need::Servers], reset),
    deed(
        "a server is revoked",
        &[Need::Servers, Need::Configuration],
        revoke_server,
    ),
    deed("DNS is away", &[Need::Names], names_away),
];

/// The deed between chapters, alone: the roll calls before and after it compare what one process has counted.
pub const INTERLUDE: Deed = deed("another process takes over", &[], take_over);

const fn deed(
    name: &'static str,
    needs: &'static [Need],
    begin: fn(&mut Stage) -> Result<Plan>,
) -> Deed {
    Deed { name, needs, begin }
}

fn after(stage: &mut Stage, seconds: std::ops::Range<u64>) -> Duration {
    let milliseconds = stage
        .random
        .between(seconds.start * 1000, seconds.end * 1000);
    Duration::from_millis(milliseconds)
}

fn step(step: impl FnOnce(&mut Stage) -> Result<()> + 'static) -> Step {
    Box::new(step)
}

/// Gives an agent another certificate, and ends its deed.
fn restore(member: usize) -> Step {
    step(move |stage| {
        stage.renew(member, None)?;
        stage.members[member].is_busy = false;
        Ok(())
    })
}

fn revoke(stage: &mut Stage) -> Result<Plan> {
    let member = stage.take_mortal().context("every mortal is busy")?;
    let certificate = stage.members[member].credentials.certificate.clone();
    stage.agents.revoked.push(certificate);
    stage.publish_list(Of::Agents, None)?;
    stage.forbid(vec![stage.serial(member)], Why::Revoked, ACTS_WITHIN);
    Ok(vec![(after(stage, 9..14), restore(member))])
}

fn half_a_list(stage: &mut Stage) -> Result<Plan> {
    let member = stage.take_mortal().context("every mortal is busy")?;
    let certificate = stage.members[member].credentials.certificate.clone();
    stage.agents.revoked.push(certificate);
    stage.publish_half_a_list(Of::Agents)?;
    stage.journal.note(Fact::Spoilt);
    let whole = step(move |stage| {
        stage.publish_list(Of::Agents, None)?;
        stage.forbid(vec![stage.serial(member)], Why::Revoked, ACTS_WITHIN);
        Ok(())
    });
    Ok(vec![
        (Duration::from_secs(3), whole),
        (after(stage, 11..13), restore(member)),
    ])
}

fn block(stage: &mut Stage) -> Result<Plan> {
    let member = stage.take_mortal().context("every mortal is busy")?;
    let serial = stage.serial(member);
    let [option, name] = match stage.random.once_in(2) {
        true => [
            "--identity".to_owned(),
            stage.members[member].identity.clone(),
        ],
        false => ["--serial".to_owned(), serial.clone()],
    };
    stage.ask(&["block", &option, &name])?;
    stage.forbid(vec![serial.clone()], Why::Blocked, ACTS_WITHIN);
    let unblock = step(move |stage| {
        stage.allow(vec![serial], Why::Blocked);
        stage.ask(&["unblock", &option, &name])?;
        stage.members[member].is_busy = false;
        Ok(())
    });
    Ok(vec![(after(stage, 9..14), unblock)])
}

fn certificate_ends(stage: &mut Stage) -> Result<Plan> {
    let member = stage.take_mortal().context("every mortal is busy")?;
    let seconds = stage.random.between(5, 10);
    stage.renew(member, Some(seconds as i64))?;
    let serial = stage.serial(member);
    let ended = step(move |stage| {
        stage.forbid(vec![serial], Why::Expired, ACTS_WITHIN);
        Ok(())
    });
    // The last second counts.
    let end = Duration::from_secs(seconds + 1);
    Ok(vec![
        (end, ended),
        (end + after(stage, 8..11), restore(member)),
    ])
}

/// Replaces the CA of `season`, and the certificates of its agents at once. Certificates of the CA before lose their
/// right.
fn change_season(stage: &mut Stage, seconds: Option<i64>) -> Result<()> {
    let before = stage.serials("season");
    stage.publish_season(seconds)?;
    stage.forbid(before, Why::Untrusted, SPREADS_WITHIN);
    for member in stage.group("season") {
        stage.renew(member, None)?;
    }
    // Refused until the gateway has taken the CA.
    let now = stage.serials("season");
    stage.forbid(now.clone(), Why::Untrusted, u64::from(u32::MAX));
    stage.allow(now, Why::Untrusted);
    Ok(())
}

fn season_ends(stage: &mut Stage) -> Result<Plan> {
    let seconds = stage.random.between(5, 8);
    change_season(stage, Some(seconds as i64))?;
    let ended = step(move |stage| {
        stage.forbid(stage.serials("season"), Why::CaEnded, SPREADS_WITHIN);
        Ok(())
    });
    let end = Duration::from_secs(seconds + 1);
    Ok(vec![
        (end, ended),
        (
            end + after(stage, 8..11),
            step(|stage| change_season(stage, None)),
        ),
    ])
}

fn list_ends(stage: &mut Stage) -> Result<Plan> {
    let seconds = stage.random.between(3, 6);
    stage.publish_list(Of::Season, Some(seconds as i64))?;
    let ended = step(|stage| {
        stage.forbid(stage.serials("season"), Why::StaleList, ACTS_WITHIN);
        Ok(())
    });
    let fresh = step(|stage| {
        stage.allow(stage.serials("season"), Why::StaleList);
        stage.publish_list(Of::Season, None)
    });
    let end = Duration::from_secs(seconds + 1);
    Ok(vec![(end, ended), (end + after(stage, 8..11), fresh)])
}

fn rule_goes(stage: &mut Stage) -> Result<Plan> {
    stage.publish_guests(false)?;
    stage.forbid(stage.serials("guest"), Why::NotAuthorized, SPREADS_WITHIN);
    let back = step(|stage| {
        stage.allow(stage.serials("guest"), Why::NotAuthorized);
        stage.publish_guests(true)
    });
    Ok(vec![(after(stage, 9..11), back)])
}

fn clock_steps(stage: &mut Stage) -> Result<Plan> {
    stage.clock.set(SHORT_SECONDS + 100);
    stage.forbid(stage.serials("short"), Why::Expired, ACTS_WITHIN);
    let back = step(|stage| {
        stage.allow(stage.serials("short"), Why::Expired);
        stage.clock.set(0);
        for member in stage.group("short") {
            stage.renew(member, None)?;
        }
        Ok(())
    });
    Ok(vec![(after(stage, 9..12), back)])
}

/// Makes a mistake in the configuration, and revokes a certificate all the same.
fn wrong_configuration(stage: &mut Stage) -> Result<Plan> {
    let good = stage.configuration();
    let mistakes = [
        good.replace("drain_timeout", "drain_time_out"),
        good.replace("\"4s\"", "\"4s"),
        good.replace("own.key", "server.key"),
    ];
    let wrong = stage.random.choice(&mistakes).clone();
    stage.publish("portcullis.toml", wrong.as_bytes())?;
    stage.journal.note(Fact::Spoilt);
    let revoke_meanwhile = step(|stage| {
        let Some(member) = stage.take_mortal() else {
            return Ok(());
        };
        let certificate = stage.members[member].credentials.certificate.clone();
        stage.agents.revoked.push(certificate);
        stage.publish_list(Of::Agents, None)?;
        stage.forbid(vec![stage.serial(member)], Why::Revoked, ACTS_WITHIN);
        stage.renew(member, None)?;
        stage.members[member].is_busy = false;
        Ok(())
    });
    let mend = step(|stage| stage.publish_configuration());
    Ok(vec![
        (Duration::from_secs(2), revoke_meanwhile),
        (after(stage, 9..11), mend),
    ])
}

fn own_certificate(stage: &mut Stage) -> Result<Plan> {
    stage.publish_server_certificate()?;
    Ok(Plan::new())
}

fn same_files(stage: &mut Stage) -> Result<Plan> {
    for name in [
        "agents-ca.pem",
        "agents.crl",
        "guests.toml",
        "server.key",
        "portcullis.toml",
    ] {
        let bytes = fs::read(stage.file(name))?;
        stage.publish(name, &bytes)?;
    }
    Ok(Plan::new())
}

fn rotate_audit(stage: &mut Stage) -> Result<Plan> {
    let log = stage.file("audit.jsonl");
    let number = stage.journal.now();
    fs::rename(&log, stage.file(&format!("audit.jsonl.{number}")))?;
    stage.hang_up();
    Ok(Plan::new())
}

fn rotate_keys(stage: &mut Stage) -> Result<Plan> {
    let file = stage.file("ticket.keys");
    let file = file.to_str().context("the folder's name is text")?;
    let distrust: &[&str] = match stage.random.once_in(2) {
        true => &["--distrust"],
        false => &[],
    };
    stage.command(&[&["keys", "rotate", file], distrust].concat())?;
    Ok(Plan::new())
}

fn hang_up(stage: &mut Stage) -> Result<Plan> {
    stage.hang_up();
    Ok(Plan::new())
}

fn interface(stage: &mut Stage) -> Result<Plan> {
    stage.disturb(Disturbance::Interface);
    let hosts = &stage.topology.agents_host;
    hosts.ip(&["link", "delete", "dev", AGENTS_INTERFACE]);
    let again = step(|stage| {
        stage.topology.connect();
        stage.calm(Disturbance::Interface);
        Ok(())
    });
    Ok(vec![(after(stage, 2..4), again)])
}

/// Leaves fewer descriptors than the gateway keeps for administration: clients wait, and everything else works as ever.
fn few_descriptors(stage: &mut Stage) -> Result<Plan> {
    let open = stage.gateway().descriptors() as u64;
    limit_descriptors(stage, open + 100, Disturbance::Budget)
}

/// Leaves no descriptor at all.
fn no_descriptors(stage: &mut Stage) -> Result<Plan> {
    limit_descriptors(stage, 8, Disturbance::Descriptors)
}

fn limit_descriptors(stage: &mut Stage, below: u64, what: Disturbance) -> Result<Plan> {
    stage.disturb(what);
    let before = stage.gateway().limit_descriptors(below);
    let freed = step(move |stage| {
        stage.gateway().limit_descriptors(before);
        stage.calm(what);
        Ok(())
    });
    Ok(vec![(after(stage, 3..6), freed)])
}

fn swallow(stage: &mut Stage) -> Result<Plan> {
    let server = stage.random.between(0, 2) as usize;
    let Stage {
        topology, servers, ..
    } = &mut *stage;
    topology.gateway_host.enter(|| servers[server].go_away())?;
    let back = step(move |stage| {
        stage.servers[server].come_back();
        Ok(())
    });
    Ok(vec![(after(stage, 4..7), back)])
}

fn reset(stage: &mut Stage) -> Result<Plan> {
    stage.disturb(Disturbance::Servers);
    for server in &stage.servers {
        server.reset_all();
    }
    let calm = step(|stage| {
        stage.calm(Disturbance::Servers);
        Ok(())
    });
    Ok(vec![(Duration::from_secs(1), calm)])
}

fn revoke_server(stage: &mut Stage) -> Result<Plan> {
    let certificate = stage.server_certificate.clone();
    stage.gateways.revoked.push(certificate);
    stage.publish_list(Of::Servers, None)?;
    let key = server_key(stage.last_server().name());
    stage.forbid(vec![key.clone()], Why::ServerRevoked, ACTS_WITHIN);
    let back = step(move |stage| {
        stage.allow(vec![key], Why::ServerRevoked);
        stage.renew_server()
    });
    Ok(vec![(after(stage, 8..10), back)])
}

fn names_away(stage: &mut Stage) -> Result<Plan> {
    let answers = [Answering::Silent, Answering::Failing];
    let answering = stage.random.choice(&answers).clone();
    stage.resolver.answer(answering);
    let back = step(|stage| {
        stage.resolver.answer(known());
        Ok(())
    });
    Ok(vec![(after(stage, 8..16), back)])
}

fn take_over(stage: &mut Stage) -> Result<Plan> {
    stage.disturb(Disturbance::Takeover);
    stage.start_gateway()?;
    let drained = step(|stage| {
        let is_alone = stage.is_alone()?;
        stage.calm(Disturbance::Takeover);
        ensure!(is_alone, "a process that was taken over from does not end");
        Ok(())
    });
    // `drain_timeout`, and room.
    Ok(vec![(Duration::from_secs(9), drained)])
}
