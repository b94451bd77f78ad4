//! The promises, each a rule: a pure function of the journal that says how often the promise was at stake and held, and
//! when it broke. A promise that was never at stake counts as broken.

mod health;
mod service;
mod trust;

use crate::evidence::Evidence;
use crate::journal::{Entry, Milliseconds};

/// A promise and its check.
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// The promise.
    pub promise: &'static str,
    /// The check.
    pub judge: fn(&Evidence<'_>) -> Finding,
}

/// The result of a check.
#[derive(Debug, Default)]
pub struct Finding {
    /// How often the promise was at stake, and held.
    pub held: u64,
    /// When it broke, and how.
    pub broken: Vec<Breach>,
}

/// A promise that broke.
#[derive(Debug, Clone)]
pub struct Breach {
    /// When.
    pub at: Milliseconds,
    /// How.
    pub what: String,
}

impl Finding {
    /// One case more: `breach` says how it broke, if it did.
    pub fn count(&mut self, at: Milliseconds, breach: Option<String>) {
        match breach {
            None => self.held += 1,
            Some(what) => self.broken.push(Breach { at, what }),
        }
    }

    /// The promise was at stake, and never broke.
    pub fn is_good(&self) -> bool {
        self.held > 0 && self.broken.is_empty()
    }
}

/// Every promise.
pub fn all() -> Vec<Rule> {
    [trust::RULES, service::RULES, health::RULES]
        .into_iter()
        .flatten()
        .map(|(name, promise, judge)| Rule {
            name,
            promise,
            judge: *judge,
        })
        .collect()
}

/// A table of rules as a file holds it.
type Rules = &'static [(&'static str, &'static str, fn(&Evidence<'_>) -> Finding)];

/// Judges a journal by every rule.
pub fn judge(entries: &[Entry]) -> Vec<(Rule, Finding)> {
    let evidence = Evidence::of(entries);
    let rules = all().into_iter();
    rules
        .map(|rule| {
            let finding = (rule.judge)(&evidence);
            (rule, finding)
        })
        .collect()
}

#[cfg(test)]
mod sample;
