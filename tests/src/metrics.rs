//! Reads OpenMetrics text, strictly enough to notice when it is none.
//! In: the body of `/metrics`. Out: values by name and labels.

use std::collections::BTreeMap;

/// Every sample of one scrape.
#[derive(Debug, Clone)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads a scrape.
    ///
    /// # Panics
    ///
    /// When the text breaks the format.
    pub fn parse(text: &str) -> Metrics {
        assert!(
            text.ends_with("# EOF\n"),
            "a scrape ends with # EOF: {text}"
        );
        let samples = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line}")))
            .collect();
        Metrics { samples }
    }

    /// Sum of all samples of that name that carry these labels. What was never counted is 0.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// The sum as a whole number.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum = self.sum(name, labels);
        assert!(sum >= 0.0 && sum.fract() == 0.0, "{name} is {sum}");
        sum as u64
    }

    /// Whether there is such a sample at all.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// The values one label takes, with the sums of their samples; those that are 0 are left out.
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let mut values = BTreeMap::new();
        for sample in self.matching(name, &[]) {
            if let Some(value) = sample.labels.get(label)
                && sample.value > 0.0
            {
                *values.entry(value.clone()).or_default() += sample.value as u64;
            }
        }
        values
    }

    /// All samples of that name but those that are 0, one a line.
    pub fn shown(&self, name: &str) -> String {
        let samples = self.matching(name, &[]);
        let samples = samples.filter(|sample| sample.value != 0.0);
        samples
            .map(|sample| format!("{:?} {}\n", sample.labels, sample.value))
            .collect()
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            let carries = |(label, value): &(&str, &str)| {
                sample.labels.get(*label).is_some_and(|held| held == value)
            };
            sample.name == name && labels.iter().all(carries)
        })
    }
}

/// `name{label="value",…} number`.
fn sample(line: &str) -> Option<Sample> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = BTreeMap::new();
    let value = match rest.strip_prefix('{') {
        None => rest,
        Some(mut rest) => loop {
            if let Some(after) = rest.strip_prefix('}') {
                break after;
            }
            let (label, quoted) = rest.split_once("=\"")?;
            let (value, after) = unquote(quoted)?;
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        },
    };
    let value = value.trim().parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let metrics = Metrics::parse(
            "# TYPE a counter\na_total{listener=\"x\",reason=\"b\\\"c,d\"} 2\na_total{listener=\"x\",reason=\"e\"} 3\nup 1.5\n# EOF\n",
        );
        assert_eq!(metrics.count("a_total", &[("listener", "x")]), 5);
        assert_eq!(metrics.count("a_total", &[("reason", "b\"c,d")]), 2);
        assert_eq!(metrics.sum("up", &[]), 1.5);
        assert_eq!(metrics.count("a_total", &[("listener", "y")]), 0);
        assert_eq!(metrics.by_label("a_total", "reason").len(), 2);
    }

    #[test]
    #[should_panic(expected = "not a sample")]
    fn what_is_no_sample_is_not_passed_over() {
        Metrics::parse("a_total{listener=\"x} 2\n# EOF\n");
    }
}
