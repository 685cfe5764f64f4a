//! How the health of a service's endpoints is watched.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Duration;

/// Outlier detection: endpoints that fail requests are taken out for a time. The defaults are Envoy's. A service's takes
/// the place of the mesh's as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutlierDetection {
    /// Default true; false is for a service that does not want the mesh's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Failed requests in a row, of any kind, that take an endpoint out. 0: however many. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive5xx: Option<u32>,
    /// Of those: 502, 503, 504, timeouts, connections that broke, failed connects. 0: however many. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_gateway_failures: Option<u32>,
    /// Of those: failed connects. 0: however many. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_connect_failures: Option<u32>,
    /// Between two sweeps. Default 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Length of the first ejection; the n-th in a row is n times as long. Default 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_ejection_time: Option<Duration>,
    /// Longest ejection. Default 300 s, or the base if that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ejection_time: Option<Duration>,
    /// Most endpoints that may be out, percent; one may be, whatever this says. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ejection_percent: Option<u32>,
    /// So many must be left, percent of all; one must be, whatever this says. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_healthy_percent: Option<u32>,
    /// Comparison of success rates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
}

impl OutlierDetection {
    /// The value in effect.
    pub fn enabled(self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// The value in effect.
    pub fn consecutive5xx(self) -> u32 {
        self.consecutive5xx.unwrap_or(5)
    }

    /// The value in effect.
    pub fn consecutive_gateway_failures(self) -> u32 {
        self.consecutive_gateway_failures.unwrap_or(5)
    }

    /// The value in effect.
    pub fn consecutive_connect_failures(self) -> u32 {
        self.consecutive_connect_failures.unwrap_or(5)
    }

    /// The value in effect.
    pub fn interval(self) -> Duration {
        self.interval.unwrap_or(Duration::from_secs(10))
    }

    /// The value in effect.
    pub fn base_ejection_time(self) -> Duration {
        self.base_ejection_time.unwrap_or(Duration::from_secs(30))
    }

    /// The value in effect.
    pub fn max_ejection_time(self) -> Duration {
        self.max_ejection_time
            .unwrap_or_else(|| Duration::from_secs(300).max(self.base_ejection_time()))
    }

    /// The value in effect.
    pub fn max_ejection_percent(self) -> u32 {
        self.max_ejection_percent.unwrap_or(10)
    }

    /// The value in effect.
    pub fn min_healthy_percent(self) -> u32 {
        self.min_healthy_percent.unwrap_or(0)
    }

    /// The value in effect.
    pub fn success_rate(self) -> SuccessRate {
        self.success_rate.unwrap_or_default()
    }
}

/// Takes out what is below mean − factor × standard deviation of the success rates in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SuccessRate {
    /// Endpoints with enough requests that there must be. 0: success rates are not compared. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_hosts: Option<u32>,
    /// Requests in the interval that an endpoint must have had. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_volume: Option<u32>,
    /// Default 1.9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdev_factor: Option<Thousandths>,
}

impl SuccessRate {
    /// The value in effect.
    pub fn minimum_hosts(self) -> u32 {
        self.minimum_hosts.unwrap_or(5)
    }

    /// The value in effect.
    pub fn request_volume(self) -> u32 {
        self.request_volume.unwrap_or(100)
    }

    /// The value in effect.
    pub fn stdev_factor(self) -> Thousandths {
        self.stdev_factor.unwrap_or(Thousandths(1900))
    }
}

/// A decimal number with three digits after the point, written as one: `1.9`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thousandths(pub u32);

impl std::fmt::Display for Thousandths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1e3)
    }
}

impl Serialize for Thousandths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1e3)
    }
}

impl<'de> Deserialize<'de> for Thousandths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Thousandths, D::Error> {
        let number = f64::deserialize(deserializer)?;
        let thousandths = (number * 1e3).round();
        if !(0.0..=f64::from(u32::MAX)).contains(&thousandths) {
            return Err(serde::de::Error::custom("the number is out of range"));
        }
        // Checked just above.
        Ok(Thousandths(thousandths as u32))
    }
}

/// An active check: sidecars that call the service ask its endpoints. One of `http`, `grpc` and `tcp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// `grpc.health.v1.Health/Check`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    /// A connection is accepted and stays open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// Port of the service. Default: the one that is meant where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Between two checks of an endpoint. Default 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// For the connection and the answer. Default 1 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Failures in a row that make an endpoint unhealthy. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_threshold: Option<u32>,
    /// Successes in a row that make it healthy again. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_threshold: Option<u32>,
}

impl HealthCheck {
    /// The value in effect.
    pub fn interval(&self) -> Duration {
        self.interval.unwrap_or(Duration::from_secs(10))
    }

    /// The value in effect.
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(1))
    }

    /// The value in effect.
    pub fn unhealthy_threshold(&self) -> u32 {
        self.unhealthy_threshold.unwrap_or(3)
    }

    /// The value in effect.
    pub fn healthy_threshold(&self) -> u32 {
        self.healthy_threshold.unwrap_or(2)
    }
}

/// What is asked over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheck {
    /// With a leading slash, and a query if one is needed.
    pub path: String,
    /// Default `<service>.<namespace>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Statuses and ranges of them: `"204"`, `"200-299"`. Default `200-299`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected_statuses: Vec<String>,
}

impl HttpCheck {
    /// The ranges in effect; both ends are included.
    pub fn expected(&self) -> Vec<(u16, u16)> {
        let read = self
            .expected_statuses
            .iter()
            .filter_map(|text| statuses(text));
        let ranges: Vec<_> = read.collect();
        if ranges.is_empty() {
            vec![(200, 299)]
        } else {
            ranges
        }
    }
}

/// `204` or `200-299`, within 100 to 599.
pub(super) fn statuses(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number: u16 = text.parse().ok()?;
        (digits && (100..600).contains(&number)).then_some(number)
    };
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some((first, last))
}

/// What is asked over gRPC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcCheck {
    /// Name of the service that is asked about. Default: the server as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Default `<service>.<namespace>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// Nothing to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpCheck {}
