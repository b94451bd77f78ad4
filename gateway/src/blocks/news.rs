//! What the process that changes the block list has to tell the others of its gateway.
//! In: a change, and how far the file knows of it. Out: a message. Where the file knows of all, it alone says what is in force;
//! what it does not know of is told here.

use serde::{Deserialize, Serialize};

use super::file::Change;

/// A change of the list, as another process of the gateway is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// The change.
    pub change: Change,
    /// Changes that the file has by now, this one among them, in their order.
    pub written: Vec<Change>,
    /// Changes that are in force and that the file has not, in their order.
    pub unwritten: Vec<Change>,
    /// Why it has not.
    pub unwritten_because: Option<String>,
}

impl News {
    /// Brings `unwritten`, what this process knows to be in force and not in the file, up to date. What several processes could
    /// not write adds up.
    pub fn add_to(&self, unwritten: &mut Vec<Change>) {
        unwritten.retain(|change| !self.written.contains(change));
        for change in &self.unwritten {
            if !unwritten.contains(change) {
                unwritten.push(change.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use gateway_core::block::Block;
    use gateway_core::certificate::Fingerprint;

    use super::*;
    use crate::blocks::Entry;

    fn entry(number: u8) -> Entry {
        Entry {
            block: Block::Fingerprint(Fingerprint([number; 32])),
            reason: None,
            by: "kim".to_owned(),
            at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_two_processes_could_not_write_adds_up_and_ends_when_one_has_written_it() {
        let [one, two, end] = [
            Change::Block(entry(1)),
            Change::Block(entry(2)),
            Change::Unblock(entry(1)),
        ];
        let news = |change: &Change, written: &[&Change], unwritten: &[&Change]| {
            let all = |changes: &[&Change]| changes.iter().copied().cloned().collect();
            let news = News {
                change: change.clone(),
                written: all(written),
                unwritten: all(unwritten),
                unwritten_because: None,
            };
            // As another process hears it.
            let text = serde_json::to_string(&news).unwrap();
            let heard: News = serde_json::from_str(&text).unwrap();
            assert_eq!(heard, news);
            heard
        };
        let mut known = vec![two.clone()];
        news(&one, &[], &[&one]).add_to(&mut known);
        news(&one, &[], &[&one]).add_to(&mut known);
        assert_eq!(known, [two.clone(), one.clone()]);
        news(&end, &[&one, &end], &[]).add_to(&mut known);
        assert_eq!(known, [two]);
    }
}
