//! The rights of certificates over time, by what was published and not by what the gateway says.
//! In: the journal. Out: answers about a certificate and a time, with the time that the gateway may take. Pure.

use std::collections::HashMap;

use crate::journal::{Disturbance, Entry, Fact, Milliseconds, Why};

/// How long the gateway may take to act by a right that is restored; and how much earlier than the journal says it may
/// act by a publication, which the journal writes after it.
pub const SETTLES: Milliseconds = 6000;

/// How long after its end a disturbance may still act: TCP retransmits more and more slowly.
const ECHO: Milliseconds = 10_000;

/// A span of time. Its end is open while it goes on.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Its beginning.
    pub from: Milliseconds,
    /// Its end.
    pub until: Milliseconds,
}

impl Span {
    fn overlaps(self, from: Milliseconds, until: Milliseconds) -> bool {
        self.from <= until && from <= self.until
    }
}

/// A time in which a certificate had no right.
#[derive(Debug, Clone, Copy)]
pub struct Spell {
    /// Why.
    pub why: Why,
    /// From its publication to just before the one that ends it.
    pub span: Span,
    /// How long after its beginning the gateway must have acted.
    pub within: Milliseconds,
    /// Whether open connections must end.
    pub closes: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Rights {
    spells: HashMap<String, Vec<Spell>>,
    disturbances: Vec<(Disturbance, Span)>,
}

impl Rights {
    /// Reads a journal.
    pub fn of(entries: &[Entry]) -> Self {
        let mut rights = Self::default();
        for entry in entries {
            rights.learn(entry);
        }
        rights
    }

    fn learn(&mut self, entry: &Entry) {
        let open = Span {
            from: entry.at,
            until: Milliseconds::MAX,
        };
        match &entry.fact {
            Fact::Forbidden(forbidden) => {
                for serial in &forbidden.serials {
                    self.spells.entry(serial.clone()).or_default().push(Spell {
                        why: forbidden.why,
                        span: open,
                        within: forbidden.within,
                        closes: forbidden.closes,
                    });
                }
            }
            Fact::Allowed { serials, why } => {
                for serial in serials {
                    let spells = self.spells.entry(serial.clone()).or_default();
                    let ended = spells.iter_mut().rev().find(|spell| spell.why == *why);
                    if let Some(spell) = ended {
                        spell.span.until = entry.at;
                    }
                }
            }
            Fact::Disturbed { what } => self.disturbances.push((*what, open)),
            Fact::Calmed { what } => {
                let mut open = self.disturbances.iter_mut().rev();
                if let Some((_, span)) = open.find(|(other, _)| other == what) {
                    span.until = entry.at;
                }
            }
            _ => {}
        }
    }

    /// Everything that was ever forbidden to a certificate.
    pub fn spells(&self, serial: &str) -> &[Spell] {
        self.spells.get(serial).map_or(&[], Vec::as_slice)
    }

    /// Every certificate that was ever forbidden anything.
    pub fn forbidden(&self) -> impl Iterator<Item = (&str, &Spell)> {
        let all = self.spells.iter();
        all.flat_map(|(serial, spells)| spells.iter().map(|spell| (serial.as_str(), spell)))
    }

    /// The time from which the gateway must act by a spell: a gateway without descriptors cannot read what was
    /// published.
    pub fn acts_from(&self, spell: &Spell) -> Milliseconds {
        let due = spell.span.from + spell.within;
        let mut lacking = self
            .disturbances
            .iter()
            .filter(|(what, _)| *what == Disturbance::Descriptors)
            .map(|(_, span)| *span);
        match lacking.find(|span| span.overlaps(spell.span.from, due)) {
            None => due,
            Some(span) => due.max(span.until.saturating_add(spell.within)),
        }
    }

    /// A spell by which the gateway had to refuse a new connection with this certificate at that time.
    pub fn bars(&self, serial: &str, at: Milliseconds) -> Option<&Spell> {
        let mut spells = self.spells(serial).iter();
        spells.find(|spell| self.acts_from(spell) < at && at < spell.span.until)
    }

    /// The reasons for which the gateway may have refused or closed a connection of the certificate in that time.
    pub fn reasons(&self, serial: &str, from: Milliseconds, until: Milliseconds) -> Vec<Why> {
        let spells = self.spells(serial).iter();
        spells
            .filter(|spell| {
                let (begins, ends) = (spell.span.from, spell.span.until);
                let span = Span {
                    from: begins.saturating_sub(SETTLES),
                    until: ends.saturating_add(SETTLES),
                };
                span.overlaps(from, until)
            })
            .map(|spell| spell.why)
            .collect()
    }

    /// The disturbances of that time.
    pub fn disturbed(&self, from: Milliseconds, until: Milliseconds) -> Vec<Disturbance> {
        let spans = self.disturbances.iter();
        spans
            .filter(|(_, span)| {
                let span = Span {
                    from: span.from,
                    until: span.until.saturating_add(ECHO),
                };
                span.overlaps(from, until)
            })
            .map(|(what, _)| *what)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Forbidden;

    fn entry(at: Milliseconds, fact: Fact) -> Entry {
        Entry { at, fact }
    }

    fn forbidden(at: Milliseconds) -> Entry {
        let forbidden = Forbidden {
            serials: vec!["01".into()],
            why: Why::Blocked,
            within: 5000,
            closes: true,
        };
        entry(at, Fact::Forbidden(forbidden))
    }

    fn allowed(at: Milliseconds) -> Entry {
        let serials = vec!["01".into()];
        let why = Why::Blocked;
        entry(at, Fact::Allowed { serials, why })
    }

    #[test]
    fn a_spell_bars_from_when_the_gateway_must_act_to_when_it_is_lifted() {
        let rights = Rights::of(&[forbidden(1000), allowed(20_000)]);
        let barred = |at| rights.bars("01", at).is_some();
        assert_eq!(
            [5000, 7000, 19_000, 20_000, 30_000].map(barred),
            [false, true, true, false, false]
        );
        assert!(rights.bars("02", 10_000).is_none());
    }

    #[test]
    fn near_a_spell_a_refusal_has_a_reason_and_far_from_it_it_has_none() {
        let rights = Rights::of(&[forbidden(50_000), allowed(60_000)]);
        assert!(rights.reasons("01", 1000, 2000).is_empty());
        assert_eq!(rights.reasons("01", 49_000, 49_500), [Why::Blocked]);
        assert_eq!(rights.reasons("01", 61_000, 62_000), [Why::Blocked]);
        assert!(rights.reasons("01", 70_000, 80_000).is_empty());
    }

    #[test]
    fn a_gateway_without_descriptors_acts_once_it_has_some() {
        let what = Disturbance::Descriptors;
        let rights = Rights::of(&[
            entry(500, Fact::Disturbed { what }),
            forbidden(1000),
            entry(9000, Fact::Calmed { what }),
        ]);
        assert!(rights.bars("01", 13_000).is_none());
        assert!(rights.bars("01", 14_001).is_some());
    }
}
