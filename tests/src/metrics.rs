use std::collections::BTreeMap;

/// What a `/metrics` page said, in Prometheus' text format.
#[derive(Debug, Clone, Default)]
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
    /// # Panics
    /// Where a line is neither a comment nor a sample.
    pub fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines
            .map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line:?}")))
            .collect();
        Self { samples }
    }

    /// Sum of the samples of this name that carry all of these labels; 0 where there is none, as a counter that was
    /// never touched.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).map(|sample| sample.value).sum()
    }

    /// The value of the only sample with this name and these labels.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.select(name, labels);
        let value = found.next()?.value;
        assert!(
            found.next().is_none(),
            "more than one {name} with {labels:?}"
        );
        Some(value)
    }

    /// The values that a label has in the samples of this name.
    pub fn label_values<'a>(&'a self, name: &'a str, label: &str) -> Vec<&'a str> {
        let samples = self.select(name, &[]);
        let mut values: Vec<&str> = samples
            .filter_map(|sample| sample.labels.get(label))
            .map(String::as_str)
            .collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            let carries = |(key, value): &(&str, &str)| {
                sample.labels.get(*key).is_some_and(|found| found == value)
            };
            sample.name == name && labels.iter().all(carries)
        })
    }
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(key.to_string(), value);
            rest = after;
        }
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_string(),
        labels,
        value,
    })
}

/// Reads up to the closing quote; returns the text and what follows the quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn finds_samples_by_name_and_labels() {
        let metrics = Metrics::parse(
            "# HELP a_total Something.\n# TYPE a_total counter\n\
             a_total{peer=\"spiffe://x/ns/a\",code=\"2xx\"} 3\na_total{peer=\"q\\\"{} \\\\\",code=\"5xx\"} 1.5 1700000000\n\
             up 1\nbig +Inf\n",
        );
        assert_eq!(metrics.sum("a_total", &[]), 4.5);
        assert_eq!(metrics.get("a_total", &[("code", "2xx")]), Some(3.0));
        assert_eq!(metrics.get("a_total", &[("peer", "q\"{} \\")]), Some(1.5));
        assert_eq!(metrics.get("up", &[]), Some(1.0));
        assert_eq!(metrics.get("big", &[]), Some(f64::INFINITY));
        assert_eq!(metrics.get("missing", &[]), None);
        assert_eq!(metrics.label_values("a_total", "code"), ["2xx", "5xx"]);
    }
}
