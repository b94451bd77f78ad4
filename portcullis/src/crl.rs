//! `portcullis crl accept`: takes a revocation list that is older than one that was in force.
//! In: a file of lists. Out: what it comes after. It looks at no signature: the gateway does, when it reads the list, and it
//! reads it as soon as this is done, and notes it in its audit log.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use gateway::control::{self, AcceptedList, AskError, Client};
use gateway_x509::{crl, crl_ranks};

use super::which::Which;

/// Arguments of `portcullis crl`.
#[derive(Debug, Args)]
pub struct Crl {
    #[command(subcommand)]
    command: CrlCommand,
}

#[derive(Debug, Subcommand)]
enum CrlCommand {
    /// Accept a list although it is older than one that was in force: certificates that only the newer one names are
    /// admitted again
    Accept {
        #[command(flatten)]
        which: Which,
        /// The list, in PEM or DER
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

impl Crl {
    /// Notes that the lists of the file are to be taken.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let CrlCommand::Accept { which, file } = self.command;
        let paths = which.paths()?;
        let (mut text, mut accepted) = (String::new(), Vec::new());
        for list in crl::read_unverified(&file).with_context(|| file.display().to_string())? {
            let (name, rank) = (list.issuer_name(), crl_ranks::shown(&list.rank()));
            for before in crl_ranks::accept(&paths.state, &list)? {
                let before = crl_ranks::shown(&before);
                accepted.push(AcceptedList {
                    issuer: name.to_owned(),
                    list: rank.clone(),
                    before: before.clone(),
                    by: super::operator(),
                });
                text += &format!(
                    "{name}: the list with {rank} is taken after the one with {before}, as soon as the configuration names it\n"
                );
            }
        }
        if text.is_empty() {
            anyhow::bail!(
                "{}: no newer list of its CA was in force: there is nothing to accept",
                file.display()
            );
        }
        let told = Client::connect(&paths)
            .and_then(|client| client.post::<()>(control::ACCEPTED, &accepted));
        match told {
            Ok(()) | Err(AskError::NotRunning(_)) => {}
            Err(error) => eprintln!(
                "portcullis: accepted, but the gateway's audit log does not have it: {error}"
            ),
        }
        super::print(&text)
    }
}
