//! What a gateway says of itself: one page over HTTP, and the metrics on it.
//! In: a connection to its administration endpoint. Out: numbers, added up over labels.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for a page.
pub fn page(mut stream: TcpStream, path: &str) -> Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer of HTTP has a head")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
    Ok(body.to_owned())
}

/// The sum of a metric over all samples that have every one of `labels`; `None` when there is no such sample.
pub fn sum(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let values: Vec<f64> = page
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let rest = rest.strip_prefix('{').unwrap_or(rest);
            let (found, value) = rest.rsplit_once(' ')?;
            let is_meant = labels.iter().all(|label| found.contains(label));
            is_meant.then(|| value.parse().ok())?
        })
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_added_up_over_its_labels() {
        let page = "# TYPE a counter\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"2\",y=\"2\"} 4\nab_total 9\n";
        assert_eq!(sum(page, "a_total", &[]), Some(7.0));
        assert_eq!(sum(page, "a_total", &["x=\"2\""]), Some(4.0));
        assert_eq!(sum(page, "a_total", &["x=\"2\"", "y=\"2\""]), Some(4.0));
        assert_eq!(sum(page, "a_total", &["x=\"2\"", "y=\"1\""]), None);
        assert_eq!(sum(page, "ab_total", &[]), Some(9.0));
        assert_eq!(sum(page, "b_total", &[]), None);
    }
}
