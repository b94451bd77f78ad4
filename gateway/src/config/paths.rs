//! `name` and `[paths]`: what the gateway is called on its host, and the folders that follow from it.
//! In: the keys as written; or a file in which everything else may be wrong, because the commands for emergencies have to
//! find the gateway all the same. Out: `Paths`. Makes and opens nothing but the configuration file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway_core::endpoint::SOCKET_PATH_BYTES_MAX;
use gateway_core::limits;
use toml::de::DeTable;

use super::checked::Paths;
use super::diagnostics::{ConfigErrors, Diagnostics, Location, without_pem};
use super::raw::{RawPaths, Text};
use super::text_of;
use super::value::Field;

/// The name of a gateway that nothing else is said of.
pub const NAME_DEFAULT: &str = "portcullis";
/// Below it is the state folder of each gateway, unless `[paths] state` says otherwise.
const STATE_DEFAULT: &str = "/var/lib/portcullis";
/// Below it is the run folder of each gateway, unless `[paths] run` says otherwise.
const RUN_DEFAULT: &str = "/run/portcullis";

impl Paths {
    /// The folders of the gateway with this name, where no `[paths]` moves them.
    ///
    /// # Errors
    /// When no gateway can have this name.
    pub fn usual(name: &str) -> Result<Self, String> {
        Self::below(name, Path::new(STATE_DEFAULT), Path::new(RUN_DEFAULT))
    }

    /// The folders beside these of a gateway with another name.
    ///
    /// # Errors
    /// When no gateway can have this name.
    pub fn renamed(&self, name: &str) -> Result<Self, String> {
        let above = |folder: &Path| folder.parent().unwrap_or(Path::new("/")).to_owned();
        Self::below(name, &above(&self.state), &above(&self.run))
    }

    /// The folders of the gateway with this name, below `state` and `run`.
    ///
    /// # Errors
    /// When no gateway can have this name, or its socket's path would be too long.
    pub fn below(name: &str, state: &Path, run: &Path) -> Result<Self, String> {
        let (state, run) = (state.join(check_name(name)?), run.join(name));
        let paths = Paths {
            name: Arc::from(name),
            state,
            run,
        };
        let socket = paths.control_socket();
        match socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            true => Ok(paths),
            false => Err(format!(
                "{} is longer than the {SOCKET_PATH_BYTES_MAX} bytes that a socket's path may have: choose a shorter `[paths] run`",
                socket.display()
            )),
        }
    }
}

/// A name becomes part of paths, of a cgroup and of pins, which take no dots.
fn check_name(name: &str) -> Result<&str, String> {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let begins_well = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let length = name.len();
    if !begins_well || length > limits::GATEWAY_NAME_BYTES_MAX || !name.bytes().all(is_fit) {
        return Err(format!(
            "must be 1 to {} letters, digits, `-` and `_`, and begin with a letter or digit",
            limits::GATEWAY_NAME_BYTES_MAX
        ));
    }
    let digits = name.strip_prefix('v').unwrap_or_default();
    // Pins of earlier versions stand in folders of such names.
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(
            "must not be `v` and a number, which names a layout of the kernel's maps".to_owned(),
        );
    }
    Ok(name)
}

/// The folders of a configuration.
pub(super) fn check(
    location: &Location,
    name: Field<Text>,
    paths: Field<RawPaths>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Paths> {
    let name = diagnostics.optional(location, "name", name, |name: &Text| {
        check_name(name).map(str::to_owned)
    });
    let name = name?.unwrap_or(NAME_DEFAULT.to_owned());
    let base = directory_of(diagnostics.file());
    let folder = |text: &Text| match text.as_str() {
        "" => Err("must name a folder".to_owned()),
        text => Ok(base.join(text)),
    };
    let (mut state, mut run) = (Some(None), Some(None));
    let mut line = location.line;
    match paths {
        Field::Absent => {}
        Field::Wrong => return None,
        Field::Given(item) => {
            let raw = item.value;
            line = raw.location.line;
            state = diagnostics.optional(&raw.location, "state", raw.state, folder);
            run = diagnostics.optional(&raw.location, "run", raw.run, folder);
        }
    }
    let state = state?.unwrap_or(STATE_DEFAULT.into());
    let run = run?.unwrap_or(RUN_DEFAULT.into());
    match Paths::below(&name, &state, &run) {
        Ok(paths) => Some(paths),
        Err(expectation) => {
            diagnostics.refuse(line, "paths: run".to_owned(), expectation);
            None
        }
    }
}

/// Refuses the key that named the block list in earlier versions, and says where the list has to be now.
pub(super) fn refuse_blocks<T>(
    location: &Location,
    field: &Field<T>,
    paths: Option<&Paths>,
    diagnostics: &mut Diagnostics<'_>,
) {
    if let Field::Given(item) = field {
        let list = paths.map_or("the state folder".to_owned(), |paths| {
            paths.block_list().display().to_string()
        });
        let text = format_args!(
            "is no longer read, because the list's place follows from `name` now: move the file to {list}, and remove \
             [blocks]"
        );
        diagnostics.wrong(location, "blocks", item, text);
    }
}

/// The folder that paths of a configuration are relative to, whole: a process that changes its own folder means the same.
fn directory_of(file: &Path) -> PathBuf {
    let whole = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    whole.parent().unwrap_or(Path::new("/")).to_owned()
}

/// Why a gateway is not found by its configuration.
#[derive(Debug)]
pub enum LocateError {
    /// The file cannot be read.
    Unreadable(ConfigErrors),
    /// `name` or `[paths]` themselves are wrong.
    Wrong(PathBuf, String),
}

impl fmt::Display for LocateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocateError::Unreadable(errors) => errors.fmt(formatter),
            LocateError::Wrong(file, why) => {
                write!(
                    formatter,
                    "{}: {}",
                    file.display(),
                    without_pem(why.clone())
                )
            }
        }
    }
}

impl std::error::Error for LocateError {}

/// Finds name and folders in a configuration in which everything else may be wrong, its syntax included: a client that has
/// to be blocked does not wait for a repair.
///
/// # Errors
/// When the file cannot be read, or when it is broken just where it says what the gateway is called.
pub fn locate(file: &Path) -> Result<Paths, LocateError> {
    located(file).map(|(paths, _)| paths)
}

/// As `locate`, and whether the file is whole: of one that is broken what is not found may have been meant.
///
/// # Errors
/// As `locate`.
pub fn located(file: &Path) -> Result<(Paths, bool), LocateError> {
    let (_, text) = text_of(file).map_err(LocateError::Unreadable)?;
    let wrong = |why: String| LocateError::Wrong(file.to_owned(), why);
    // A parser that goes on behind a fault guesses; what it guesses must not choose the gateway.
    let essence = essence_of(&text);
    let whole = DeTable::parse(&text);
    let is_whole = whole.is_ok();
    let table = whole.or_else(|_| DeTable::parse(&essence));
    let table = table.map_err(|error| {
        let why = error.message();
        wrong(format!(
            "is broken where it says `name` or `[paths]`: {why}"
        ))
    })?;
    let table = table.get_ref();
    let name = match table.get("name").map(|name| name.get_ref().as_str()) {
        Some(Some(name)) => name,
        Some(None) => return Err(wrong("name: must be a string in quotes".to_owned())),
        None => NAME_DEFAULT,
    };
    let paths = match table.get("paths").map(|paths| paths.get_ref().as_table()) {
        Some(None) => return Err(wrong("[paths]: must be a table".to_owned())),
        paths => paths.flatten(),
    };
    let moved = |key: &str| {
        let folder = paths.and_then(|paths| paths.get(key));
        match folder.map(|folder| folder.get_ref().as_str()) {
            None => Ok(None),
            Some(Some(folder)) if !folder.is_empty() => Ok(Some(directory_of(file).join(folder))),
            Some(_) => Err(wrong(format!("[paths] {key}: must name a folder"))),
        }
    };
    let state = moved("state")?.unwrap_or(STATE_DEFAULT.into());
    let run = moved("run")?.unwrap_or(RUN_DEFAULT.into());
    let paths = Paths::below(name, &state, &run).map_err(wrong)?;
    Ok((paths, is_whole))
}

/// The lines of a broken file that say which gateway it is, by what they begin with: where a fault is elsewhere, these
/// are whole.
fn essence_of(text: &str) -> String {
    let mut essence = String::new();
    let mut keys: &[&str] = &["name", "paths"];
    for line in text.lines().map(str::trim_start) {
        let is_header = line.starts_with('[');
        if is_header {
            let of_paths = is_key(line.trim_start_matches(['[', ' ', '\t']), "paths");
            keys = if of_paths { &["state", "run"] } else { &[] };
        }
        let is_wanted = match is_header {
            true => !keys.is_empty(),
            false => keys.iter().any(|key| is_key(line, key)),
        };
        if is_wanted {
            essence.extend([line, "\n"]);
        }
    }
    essence
}

/// Whether the first word of a line, in quotes or not, is this.
fn is_key(line: &str, key: &str) -> bool {
    let is_of_word = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_');
    let rest = line.trim_start_matches(['"', '\'']).strip_prefix(key);
    rest.is_some_and(|rest| !rest.starts_with(is_of_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(text: &str) -> Result<(String, PathBuf, PathBuf), String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("portcullis.toml");
        std::fs::write(&file, text).unwrap();
        let paths = locate(&file).map_err(|error| error.to_string())?;
        let short = |path: &Path| {
            let below = path.strip_prefix(folder.path()).map(Path::to_owned);
            below.unwrap_or(path.to_owned())
        };
        Ok((
            paths.name.to_string(),
            short(&paths.state),
            short(&paths.run),
        ))
    }

    fn expected(name: &str, state: &str, run: &str) -> Result<(String, PathBuf, PathBuf), String> {
        Ok((name.to_owned(), state.into(), run.into()))
    }

    #[test]
    fn a_gateway_is_found_by_a_configuration_that_is_broken_elsewhere() {
        let usual = expected(
            "portcullis",
            "/var/lib/portcullis/portcullis",
            "/run/portcullis/portcullis",
        );
        let edge = expected("edge", "/var/lib/portcullis/edge", "/run/portcullis/edge");
        let moved = expected("edge", "state/edge", "/srv/run/edge");
        let paths = "[paths]\nstate = \"state\"\nrun = \"/srv/run\"\n";
        let table = [
            (String::new(), &usual),
            ("name = \"edge\"\n".to_owned(), &edge),
            ("name = \"edge\"\nno_such_key = 1\n".to_owned(), &edge),
            (
                "name = \"edge\"\n[[listener]\nalpn = [\"h2\"\n".to_owned(),
                &edge,
            ),
            ("[[listener]\nname = \"otlp\n".to_owned(), &usual),
            ("drain_timeout = \"5s\nname = \"edge\"\n".to_owned(), &edge),
            (format!("name = \"edge\"\n{paths}"), &moved),
            (
                format!("name = \"edge\"\n{paths}[admin\naddress = 5\n"),
                &moved,
            ),
        ];
        for (text, expected) in table {
            assert_eq!(located(&text), *expected, "{text}");
        }
    }

    #[test]
    fn a_file_that_is_broken_where_it_says_which_gateway_is_taken_for_no_other_one() {
        for text in [
            "name = \"edge\n",
            "name = edge\n",
            "name = 5\n",
            "name\n[admin]\n",
            "[paths]\nrun = \"/srv/run\n",
            "[paths\nstate = \"/srv/state\"\n",
            "[paths]\nstate = 5\n",
            "paths = 5\n",
            "paths.run = \"/srv/run\n",
            "name = \"edge\"\nname = \"hub\"\n",
            "\"name\" = \"edge\n",
        ] {
            let refused = located(text).unwrap_err();
            assert!(
                refused.contains("name") || refused.contains("[paths]"),
                "{text}: {refused}"
            );
        }
    }

    #[test]
    fn names_that_fit_no_path_are_refused() {
        for good in ["portcullis", "edge-1", "Edge_2", "v1-edge", "7"] {
            assert!(Paths::usual(good).is_ok(), "{good}");
        }
        let long = "a".repeat(limits::GATEWAY_NAME_BYTES_MAX + 1);
        for bad in ["", "v1", "v42", "a.b", "a/b", "..", "-a", "a b", "ä", &long] {
            assert!(Paths::usual(bad).is_err(), "{bad}");
        }
    }
}
