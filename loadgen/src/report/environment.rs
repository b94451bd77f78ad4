//! The host and the command of a run, for readers who judge its figures or repeat them. In: this process and /proc.
//! Out: text. Once, when the report is written.

use std::fs;

use serde::Serialize;

/// Host and command of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    /// The command line, quoted as a shell takes it.
    pub command: String,
    /// Name of the host.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// Model of the CPUs, where the kernel says, and how many this process may use.
    pub cpus: String,
    /// Load averages of 1, 5 and 15 minutes: what else the host did.
    pub load_average: String,
}

impl Environment {
    /// That of this process.
    pub(super) fn here() -> Self {
        let system = rustix::system::uname();
        let word = |word: &std::ffi::CStr| word.to_string_lossy().into_owned();
        let command: Vec<_> = std::env::args().map(|argument| quoted(&argument)).collect();
        let number = std::thread::available_parallelism().map_or(1, usize::from);
        let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            command: command.join(" "),
            host: word(system.nodename()),
            kernel: word(system.release()),
            cpus: format!("{number} x {}", model(&about).unwrap_or("unknown model")),
            load_average: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
        }
    }
}

/// The first `model name` of /proc/cpuinfo.
fn model(about: &str) -> Option<&str> {
    let mut fields = about.lines().filter_map(|line| line.split_once(':'));
    let (_, model) = fields.find(|(name, _)| name.trim() == "model name")?;
    Some(model.trim())
}

/// An argument between single quotes, unless it needs none.
fn quoted(argument: &str) -> String {
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "-_=+,./:@%".contains(character);
    match !argument.is_empty() && argument.chars().all(is_plain) {
        true => argument.to_owned(),
        false => format!("'{}'", argument.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_a_quoted_argument_for_one() {
        for (argument, shown) in [
            ("--for=2s", "--for=2s"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's", "'it'\\''s'"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(quoted(argument), shown);
        }
    }

    #[test]
    fn the_model_of_the_cpu_is_found_among_other_fields() {
        let about = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!(model(about), Some("Some CPU @ 2 GHz"));
        assert_eq!(model("processor : 0"), None);
    }
}
