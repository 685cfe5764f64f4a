//! Reads Prometheus text, as far as the quickstart needs it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::http::Client;

/// The series of one scrape.
#[derive(Debug, Default)]
pub struct Metrics {
    lines: Vec<String>,
}

impl Metrics {
    /// Scrapes `/metrics`.
    ///
    /// # Errors
    /// Where nobody answers, or not with 200.
    pub async fn scrape(address: SocketAddr) -> anyhow::Result<Self> {
        let answer = Client::new(address, "metrics").get("/metrics").await?;
        anyhow::ensure!(
            answer.status.is_success(),
            "http://{address}/metrics answers {}",
            answer.status
        );
        Ok(Self::parse(&answer.text()))
    }

    fn parse(text: &str) -> Self {
        Self {
            lines: text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .map(str::to_owned)
                .collect(),
        }
    }

    /// The series of a metric that have all of these labels.
    pub fn series(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &str> {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let name = name.to_owned();
        self.lines.iter().map(String::as_str).filter(move |line| {
            line.strip_prefix(&name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        })
    }

    /// The sum of these series.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name, labels)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// The values that a label has in these series.
    pub fn values(&self, name: &str, labels: &[(&str, &str)], label: &str) -> BTreeSet<String> {
        let start = format!("{label}=\"");
        let values = self
            .series(name, labels)
            .filter_map(|line| line.split_once(&start)?.1.split('"').next());
        values.map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_chosen_by_name_and_labels() {
        let metrics = Metrics::parse(
            "# HELP a_total x\na_total{k=\"1\",p=\"x\"} 2\na_total{k=\"1\",p=\"y\"} 3\na_total{k=\"2\"} 5\na_total_more 7\nb 1\n",
        );
        assert_eq!(metrics.sum("a_total", &[("k", "1")]), 5.0);
        assert_eq!(metrics.sum("a_total", &[]), 10.0);
        assert_eq!(metrics.sum("b", &[]), 1.0);
        assert_eq!(
            metrics
                .values("a_total", &[("k", "1")], "p")
                .into_iter()
                .collect::<Vec<_>>(),
            ["x", "y"]
        );
    }
}
