//! Follows the gateway's audit log, through every rotation, and its log.
//! In: a folder. Out: facts, each line once, soon after it was written. On a thread of its own.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::journal::{Fact, Journal};

const PAUSE: Duration = Duration::from_millis(50);

/// A reader of logs.
pub struct Watch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Begins to read.
    pub fn begin(folder: &Path, journal: &Journal) -> Watch {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut reader = Reader {
            folder: folder.to_owned(),
            journal: journal.clone(),
            read: HashMap::new(),
        };
        let told = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::SeqCst) {
                reader.look();
                thread::sleep(PAUSE);
            }
            reader.look();
        });
        Watch { is_over, thread }
    }

    /// Reads what is left.
    pub fn end(self) {
        self.is_over.store(true, Ordering::SeqCst);
        // A reader that panicked has said so.
        let _ = self.thread.join();
    }
}

struct Reader {
    folder: PathBuf,
    journal: Journal,
    /// How far each file was read, by its inode: a rotation renames files.
    read: HashMap<u64, u64>,
}

impl Reader {
    fn look(&mut self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        // The rotated ones first: their lines are older. `audit.jsonl` sorts before `audit.jsonl.1`.
        names.sort_by_key(|name| (name == "audit.jsonl", name.clone()));
        for name in names {
            if name.starts_with("audit.jsonl") {
                self.read(&name, |_, line| {
                    let line = serde_json::from_str(line);
                    let line = line.unwrap_or_else(|error| {
                        serde_json::json!({"event": "unreadable", "detail": error.to_string()})
                    });
                    Some(Fact::Audit { line })
                });
            } else if name.starts_with("gateway-") && name.ends_with(".log") {
                self.read(&name, |name, line| {
                    let words = [" ERROR ", " WARN ", "panic"];
                    let is_told = words.iter().any(|word| line.contains(word));
                    is_told.then(|| Fact::Log {
                        process: name.trim_end_matches(".log").to_owned(),
                        line: line.to_owned(),
                    })
                });
            }
        }
    }

    fn read(&mut self, name: &str, fact: impl Fn(&str, &str) -> Option<Fact>) {
        let Some((inode, from, text)) = self.rest(name) else {
            return;
        };
        // A line is whole once its end is there.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.read.insert(inode, from + whole as u64);
        for line in text[..whole].lines() {
            if let Some(fact) = fact(name, line) {
                self.journal.note(fact);
            }
        }
    }

    /// What is new in a file, if it can be read.
    fn rest(&self, name: &str) -> Option<(u64, u64, String)> {
        let mut file = File::open(self.folder.join(name)).ok()?;
        let inode = file.metadata().ok()?.ino();
        let from = self.read.get(&inode).copied().unwrap_or(0);
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        Some((inode, from, String::from_utf8_lossy(&bytes).into_owned()))
    }
}
