//! The gateway's files: configuration, certificates, CAs, lists, rules.
//! In: their content. Out: files, written in place or renamed over, at random.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tests::{Authority, Request, RevocationList, Usage};

use super::{Issuer, Stage, read, server_request};

/// Ports of the listeners.
pub const LISTENERS: [u16; 2] = [4317, 4318];

/// The CA of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The CA of nearly all agents.
    Agents,
    /// The CA of `season`.
    Season,
    /// The CA of the servers.
    Servers,
}

impl Stage {
    /// The path of one of the gateway's files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes one of the gateway's files: in place, or by renaming another one over it.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn publish(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.file(name);
        let in_place = path.exists() && self.random.once_in(2);
        let target = match in_place {
            true => path.clone(),
            false => self.file(&format!(".{name}.new")),
        };
        fs::write(&target, bytes).with_context(|| format!("writing {}", target.display()))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600))?;
        if !in_place {
            fs::rename(&target, &path)?;
        }
        Ok(())
    }

    pub(super) fn write_all_files(&mut self) -> Result<()> {
        self.publish_server_certificate()?;
        let agents = read(&self.agents.authority.certificate())?;
        self.publish("agents-ca.pem", &agents)?;
        let season = read(&self.season.authority.certificate())?;
        self.publish("season-ca.pem", &season)?;
        self.publish_list(Of::Agents, None)?;
        self.publish_list(Of::Season, None)?;
        self.publish_list(Of::Servers, None)?;
        self.publish_guests(true)?;
        let own = self.gateways.authority.issue(
            "own",
            Request::client("spiffe://soak.test/gateway/1").usage(Usage::Client),
        );
        self.publish("own.pem", &read(&own.certificate)?)?;
        self.publish("own.key", &read(&own.key)?)?;
        self.command(&["keys", "rotate", path(&self.file("ticket.keys"))])?;
        self.publish_configuration()
    }

    /// Another certificate and key for the gateway, one after the other.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn publish_server_certificate(&mut self) -> Result<()> {
        self.issued += 1;
        let name = format!("gateway-{}", self.issued);
        let server = self.gateways.authority.issue(&name, server_request());
        self.publish("server.pem", &read(&server.certificate)?)?;
        self.publish("server.key", &read(&server.key)?)
    }

    /// Makes the next list of a CA, valid for `seconds` if given.
    fn list(&mut self, of: Of, seconds: Option<i64>) -> Result<Vec<u8>> {
        let issuer = match of {
            Of::Agents => &mut self.agents,
            Of::Season => &mut self.season,
            Of::Servers => &mut self.gateways,
        };
        issuer.number += 1;
        let revoked: Vec<&Path> = issuer.revoked.iter().map(PathBuf::as_path).collect();
        let mut list = RevocationList::of(&revoked).numbered(issuer.number);
        if let Some(seconds) = seconds {
            list = list.seconds(seconds);
        }
        read(&issuer.authority.revoke("next.crl", &list))
    }

    /// Publishes the next list of a CA.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn publish_list(&mut self, of: Of, seconds: Option<i64>) -> Result<()> {
        let list = self.list(of, seconds)?;
        self.publish(list_name(of), &list)
    }

    /// Publishes half of the next list.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn publish_half_a_list(&mut self, of: Of) -> Result<()> {
        let list = self.list(of, None)?;
        self.publish(list_name(of), &list[..list.len() / 2])
    }

    /// Makes another CA for `season`, with its list, valid for `seconds` if given.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn publish_season(&mut self, seconds: Option<i64>) -> Result<()> {
        self.issued += 1;
        let name = format!("season-{}", self.issued);
        let authority = match seconds {
            Some(seconds) => Authority::ending_in(&self.folder, &name, seconds),
            None => Authority::create(&self.folder, &name, &name),
        };
        self.season = Issuer::of(authority);
        let season = read(&self.season.authority.certificate())?;
        self.publish("season-ca.pem", &season)?;
        self.publish_list(Of::Season, None)
    }

    /// The rule for guests, or none.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn publish_guests(&mut self, are_welcome: bool) -> Result<()> {
        let rule = match are_welcome {
            true => rule("guest"),
            false => String::new(),
        };
        self.publish("guests.toml", rule.as_bytes())
    }

    /// The configuration.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn publish_configuration(&mut self) -> Result<()> {
        let text = self.configuration();
        self.publish("portcullis.toml", text.as_bytes())
    }

    /// The configuration's text.
    pub fn configuration(&self) -> String {
        let mut text = format!(
            "name = \"soak-{}\"\ndrain_timeout = \"4s\"\nclose_spread = \"2s\"\ninclude = [\"guests.toml\"]\n\n\
             [paths]\nstate = {:?}\nrun = {:?}\n\n[workers]\ncount = 2\n\n[admin]\naddress = \"unix:{}\"\n\n\
             [audit]\nfile = \"audit.jsonl\"\n\n[tls.resumption]\nkey_file = \"ticket.keys\"\n\n\
             [guard]\nmode = \"enforce\"\ninterfaces = [\"gate0\"]\nallow = [\"192.0.2.0/26\"]\n\n\
             [defaults]\nmode = \"stream\"\ncertificate = \"server.pem\"\nkey = \"server.key\"\n\
             client_ca = [\"agents-ca.pem\", \"season-ca.pem\"]\ncrl = [\"agents.crl\", \"season.crl\"]\n\
             handshake_timeout = \"5s\"\nquiet_timeout = \"1s\"\n\n",
            std::process::id(),
            self.file("state"),
            self.file("run"),
            self.file("admin.sock").display(),
        );
        for (name, port) in ["clear", "sealed"].into_iter().zip(LISTENERS) {
            text += &format!(
                "[[listener]]\nname = \"{name}\"\naddress = \"0.0.0.0:{port}\"\nbackend = \"{name}\"\n\
                 first_byte_timeout = \"3s\"\n\n"
            );
        }
        text += "[[backend]]\nname = \"clear\"\nservers = [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]\n\
                 proxy_protocol = true\nconnect_timeout = \"1s\"\n\n\
                 [[backend]]\nname = \"sealed\"\nservers = [\"backend.test:9443\", \"backend.test:9444\"]\nproxy_protocol = \"inside\"\n\
                 tls = { ca = [\"gateways/ca.pem\"], crl = [\"servers.crl\"], certificate = \"own.pem\", key = \"own.key\", server_name = \"backend.test\" }\n\n";
        for group in ["steady", "mortal", "season", "short"] {
            text += &rule(group);
        }
        text
    }

    /// Runs `portcullis` with these arguments.
    ///
    /// # Errors
    ///
    /// When it fails, with what it says.
    pub fn command(&self, arguments: &[&str]) -> Result<()> {
        let output = std::process::Command::new(&self.program)
            .args(arguments)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        // `block` of a client that happens to be away: in force, and about none that is here.
        let is_done = matches!(output.status.code(), Some(0 | 4));
        ensure!(
            is_done,
            "portcullis {}: {}: {said}",
            arguments.join(" "),
            output.status
        );
        Ok(())
    }

    /// The same, of a command that speaks to the gateway.
    ///
    /// # Errors
    ///
    /// When it fails, with what it says.
    pub fn ask(&self, arguments: &[&str]) -> Result<()> {
        let file = self.file("portcullis.toml");
        self.command(&[arguments, &["--config", path(&file)]].concat())
    }
}

fn rule(group: &str) -> String {
    format!(
        "[[identity]]\nmatch = {{ uri = \"spiffe://soak.test/{group}/*\" }}\ntenant = \"{group}\"\n\n"
    )
}

fn list_name(of: Of) -> &'static str {
    match of {
        Of::Agents => "agents.crl",
        Of::Season => "season.crl",
        Of::Servers => "servers.crl",
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the folder's name is text")
}
