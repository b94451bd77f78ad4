//! What the cryptography of the gateway's work takes in memory: the limit of any server that does it with these libraries.
//! In: a CA, a server's and a client's certificate with their keys, as PEM files. Out: JSON by library and kind of work,
//! in the units of `cargo xtask bench compare`, which runs this. On one thread, without sockets or anything of the gateway.

mod clock;
mod handshake;
mod records;

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rustls::crypto::{aws_lc_rs, ring};
use serde_json::{Value, json};

use handshake::{Identities, Identity, Kind};

/// Handshakes that are measured of each kind.
const HANDSHAKES: u32 = 500;

/// Bytes that pass through a cipher for each size of record.
const BYTES: usize = 256 << 20;

fn main() -> Result<()> {
    let identities = identities()?;
    let libraries = json!({
        "ring": ring(&identities)?,
        "aws-lc-rs": aws_lc(&identities)?,
    });
    println!("{libraries}");
    Ok(())
}

fn identities() -> Result<Identities> {
    let files: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [authority, server, server_key, client, client_key] = files.as_slice() else {
        bail!("must be given CA, server certificate, its key, client certificate, its key");
    };
    Ok(Identities {
        authority: handshake::certificates(authority)?,
        server: Identity::read(server, server_key)?,
        client: Identity::read(client, client_key)?,
    })
}

fn ring(identities: &Identities) -> Result<Value> {
    let library = handshake::Library {
        provider: ring::default_provider(),
        group: ring::kx_group::X25519,
        suite: ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ticketer: ring::Ticketer::new()?,
    };
    let mut figures = records_of(records::ring)?;
    handshakes_of(&mut figures, identities, &library)?;
    Ok(figures)
}

fn aws_lc(identities: &Identities) -> Result<Value> {
    let mut library = handshake::Library {
        provider: aws_lc_rs::default_provider(),
        group: aws_lc_rs::kx_group::X25519,
        suite: aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ticketer: aws_lc_rs::Ticketer::new()?,
    };
    let mut figures = records_of(records::aws_lc)?;
    handshakes_of(&mut figures, identities, &library)?;
    library.group = aws_lc_rs::kx_group::X25519MLKEM768;
    figures["hybrid"] = handshake::measure(identities, &library, Kind::Full, HANDSHAKES)?.into();
    Ok(figures)
}

fn handshakes_of(
    figures: &mut Value,
    identities: &Identities,
    library: &handshake::Library,
) -> Result<()> {
    for (name, kind) in [("full", Kind::Full), ("resumed", Kind::Resumed)] {
        figures[name] = handshake::measure(identities, library, kind, HANDSHAKES)?.into();
    }
    Ok(())
}

/// A stream is opened towards the backend and sealed towards the client, an echo both.
fn records_of(measure: fn(usize, usize) -> Option<records::Spent>) -> Result<Value> {
    let measure = |size| measure(size, BYTES).context("a cipher refused its own record");
    let (small, large) = (measure(1 << 10)?, measure(16 << 10)?);
    Ok(json!({
        "up": large.open.as_secs_f64() * 1e3 * large.share_of_gibibyte(),
        "down": large.seal.as_secs_f64() * 1e3 * large.share_of_gibibyte(),
        "echo-1k": (small.open + small.seal).as_secs_f64() * 1e6 / f64::from(small.records),
        "echo-16k": (large.open + large.seal).as_secs_f64() * 1e6 / f64::from(large.records),
    }))
}
