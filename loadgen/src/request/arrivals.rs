//! Whether what was acknowledged has arrived: the sequence numbers of each sender, at both ends.
//! In: numbers as they are acknowledged or arrive. Out: those that are missing or came twice. Numbers are kept as runs,
//! so that a million of them in order take no more than one.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::limits::{RECONNECT_PAUSE, RESTARTING_MAX, STATS_TIMEOUT};

/// Sequence numbers, as runs from a first to a last one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceSet {
    runs: BTreeMap<u64, u64>,
    /// Numbers that were added although they were there.
    pub repeated: u64,
}

impl SequenceSet {
    /// Adds a number.
    pub fn add(&mut self, number: u64) {
        let before = self.runs.range(..=number).next_back();
        let (mut first, mut last) = (number, number);
        if let Some((&start, &end)) = before {
            if end >= number {
                self.repeated += 1;
                return;
            }
            if end + 1 == number {
                first = start;
            }
        }
        if let Some(end) = number
            .checked_add(1)
            .and_then(|next| self.runs.remove(&next))
        {
            last = end;
        }
        self.runs.insert(first, last);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.runs.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many of these are not in another set.
    pub fn missing_in(&self, other: &Self) -> u64 {
        let covered: u64 = self
            .runs
            .iter()
            .map(|(&first, &last)| other.covered(first, last))
            .sum();
        self.count() - covered
    }

    /// How many numbers from a first to a last one are here.
    fn covered(&self, first: u64, last: u64) -> u64 {
        let from = self
            .runs
            .range(..=first)
            .next_back()
            .map_or(first, |(&start, _)| start);
        self.runs
            .range(from..=last)
            .filter(|(_, end)| **end >= first)
            .map(|(&start, &end)| end.min(last) - start.max(first) + 1)
            .sum()
    }

    /// Adds all numbers of another set; those in both are repeated.
    fn merge(&mut self, other: &Self) {
        self.repeated += other.repeated;
        for (&first, &last) in &other.runs {
            for number in first..=last {
                self.add(number);
            }
        }
    }
}

/// The numbers of each sender.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivedRequests {
    /// By name of the sender.
    pub senders: BTreeMap<String, SequenceSet>,
}

impl ArrivedRequests {
    /// Adds a number of a sender.
    pub fn add(&mut self, sender: &str, number: u64) {
        match self.senders.get_mut(sender) {
            Some(numbers) => numbers.add(number),
            None => {
                let mut numbers = SequenceSet::default();
                numbers.add(number);
                self.senders.insert(sender.to_owned(), numbers);
            }
        }
    }

    /// Reads lines of a number and its sender. One that is not whole was cut off, and never acknowledged.
    pub(crate) fn from_lines(lines: &str) -> Self {
        let mut arrived = Self::default();
        for line in lines.split_inclusive('\n') {
            let whole = line
                .strip_suffix('\n')
                .and_then(|line| line.split_once(' '));
            if let Some((number, sender)) = whole
                && let Ok(number) = number.parse()
            {
                arrived.add(sender, number);
            }
        }
        arrived
    }

    /// Adds what another backend has got.
    pub fn merge(&mut self, other: &Self) {
        for (sender, numbers) in &other.senders {
            self.senders
                .entry(sender.clone())
                .or_default()
                .merge(numbers);
        }
    }

    /// Acknowledged numbers that are not in what arrived.
    pub fn missing_in(&self, arrived: &Self) -> u64 {
        let none = SequenceSet::default();
        let missing = self.senders.iter().map(|(sender, numbers)| {
            numbers.missing_in(arrived.senders.get(sender).unwrap_or(&none))
        });
        missing.sum()
    }
}

/// Asks the backends whose statistics are at these addresses what has arrived.
pub(crate) fn fetch(addresses: &[SocketAddr]) -> Result<ArrivedRequests> {
    let mut all = ArrivedRequests::default();
    for &address in addresses {
        let page = page(address).with_context(|| format!("--arrivals {address}"))?;
        #[derive(Deserialize)]
        struct Page {
            arrivals: Option<ArrivedRequests>,
        }
        let page: Page = serde_json::from_str(&page)
            .with_context(|| format!("--arrivals {address}: no statistics of a backend"))?;
        let arrivals = page.arrivals.with_context(|| {
            format!("--arrivals {address}: the backend reads no content; start it with --read")
        })?;
        all.merge(&arrivals);
    }
    Ok(all)
}

/// What a backend says; one that is just being started again is asked again.
fn page(address: SocketAddr) -> Result<String> {
    let deadline = Instant::now() + RESTARTING_MAX;
    loop {
        match ask(address) {
            Err(_) if Instant::now() < deadline => thread::sleep(RECONNECT_PAUSE),
            answer => return answer,
        }
    }
}

fn ask(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, STATS_TIMEOUT)?;
    stream.set_read_timeout(Some(STATS_TIMEOUT + Duration::from_secs(1)))?;
    stream.write_all(b"GET /stats HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, content) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    ensure!(head.contains(" 200 "), "the answer is {head:?}");
    Ok(content.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &[u64]) -> SequenceSet {
        let mut set = SequenceSet::default();
        for &number in numbers {
            set.add(number);
        }
        set
    }

    #[test]
    fn numbers_in_any_order_become_runs_and_repetitions_are_counted() {
        let numbers = set(&[3, 1, 2, 7, 6, 9, 2, 7]);
        assert_eq!(
            numbers.runs.iter().collect::<Vec<_>>(),
            [(&1, &3), (&6, &7), (&9, &9)]
        );
        assert_eq!((numbers.count(), numbers.repeated), (6, 2));
    }

    #[test]
    fn what_is_missing_is_counted_over_the_borders_of_runs() {
        let sent = set(&(1..=100).collect::<Vec<_>>());
        let cases: [(Vec<u64>, u64); 5] = [
            ((1..=100).collect(), 0),
            ((1..=99).collect(), 1),
            ((2..=200).collect(), 1),
            ((1..=100).filter(|number| number % 10 != 0).collect(), 10),
            (Vec::new(), 100),
        ];
        for (arrived, missing) in cases {
            assert_eq!(sent.missing_in(&set(&arrived)), missing, "{arrived:?}");
        }
    }

    #[test]
    fn what_was_stored_is_read_again_up_to_a_line_that_was_cut_off() {
        let arrived = ArrivedRequests::from_lines("1 a\n2 a b\n3 a\n4 a");
        assert_eq!(arrived.senders["a"], set(&[1, 3]));
        assert_eq!(arrived.senders["a b"], set(&[2]));
    }

    #[test]
    fn what_two_backends_got_is_repeated() {
        let mut one = ArrivedRequests::default();
        let mut other = ArrivedRequests::default();
        for number in 1..=5 {
            one.add("agent", number);
        }
        for number in 5..=9 {
            other.add("agent", number);
        }
        one.merge(&other);
        let numbers = &one.senders["agent"];
        assert_eq!((numbers.count(), numbers.repeated), (9, 1));
    }
}
