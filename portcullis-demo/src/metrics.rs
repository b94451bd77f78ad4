//! Reads back the gateway's own metrics page, as a monitoring system would. In: OpenMetrics text. Out: sums.

/// A metrics page.
pub struct Page(String);

impl Page {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The sum of all samples of `metric`, or of those with the label given as name and value.
    pub fn sum(&self, metric: &str, label: Option<(&str, &str)>) -> u64 {
        let wanted = label.map(|(name, value)| format!("{name}=\"{value}\""));
        let samples = self.0.lines().filter_map(|line| {
            let (labels, value) = line
                .strip_prefix(metric)?
                .strip_prefix('{')?
                .rsplit_once("} ")?;
            let matches = wanted
                .as_ref()
                .is_none_or(|wanted| labels.split(',').any(|label| label == wanted));
            matches.then(|| value.parse::<u64>().ok()).flatten()
        });
        samples.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_whole_names_and_labels() {
        let page = Page::new(
            "# TYPE a counter\n\
             a_total{listener=\"x\",reason=\"reset\"} 3\n\
             a_total{listener=\"y\",reason=\"reset\"} 4\n\
             a_total{listener=\"y\",reason=\"reset_twice\"} 50\n\
             a_total_more{listener=\"x\"} 600\n\
             # EOF\n"
                .to_owned(),
        );
        assert_eq!(page.sum("a_total", None), 57);
        assert_eq!(page.sum("a_total", Some(("reason", "reset"))), 7);
        assert_eq!(page.sum("a_total", Some(("reason", "other"))), 0);
    }
}
