//! A wall clock that a test sets while the gateway runs.
//! In: a folder, seconds. Out: variables to start a program with, whose clock then differs by so many seconds.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A clock.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// Compiles it into a folder. It is right until it is set.
    ///
    /// # Panics
    ///
    /// When there is no C compiler.
    pub fn make(folder: &Path) -> Clock {
        let clock = Clock {
            library: folder.join("clock.so"),
            offset: folder.join("offset"),
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/clock.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]);
        compiler.arg(&clock.library).arg(&source);
        let output = compiler.output().expect("a C compiler is installed");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        clock.set(0);
        clock
    }

    /// Lets it differ by so many seconds.
    ///
    /// # Panics
    ///
    /// When the folder cannot be written.
    pub fn set(&self, seconds: i64) {
        // In place and never empty: the gateway has it mapped.
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&self.offset);
        file.and_then(|mut file| file.write_all(&seconds.to_ne_bytes()))
            .expect("the test's folder can be written");
    }

    /// What a program is started with so that it goes by this clock, for `env`.
    pub fn variables(&self) -> [String; 2] {
        [
            format!("LD_PRELOAD={}", self.library.display()),
            format!("CLOCK_OFFSET={}", self.offset.display()),
        ]
    }
}
