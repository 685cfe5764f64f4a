//! Which requests leave a trace, and who gets it.

use rustls_pki_types::CertificateDer;

/// Traces of a mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// `http://host:port` or `https://host:port` of an OTLP receiver (gRPC).
    pub endpoint: Box<str>,
    /// Of requests that begin a trace, 0 to 100. Those that belong to one follow it.
    pub sampling_percent: f64,
    /// For `https`. Empty: the system's.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Tracing {
    /// Whether a request that begins a trace is sampled. `drawn`: evenly from all of its type.
    pub fn samples(&self, drawn: u64) -> bool {
        // The cast saturates: at 100 all but one of 2^64 draws, which is then taken as well.
        let bound = (self.sampling_percent / 100.0 * (u64::MAX as f64)) as u64;
        bound == u64::MAX || drawn < bound
    }
}

#[cfg(test)]
mod tests {
    use super::Tracing;

    #[test]
    fn the_share_is_exact_at_its_ends() {
        let at = |sampling_percent| Tracing {
            endpoint: "http://collector:4317".into(),
            sampling_percent,
            roots: Vec::new(),
        };
        for drawn in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(!at(0.0).samples(drawn), "{drawn}");
            assert!(at(100.0).samples(drawn), "{drawn}");
        }
        assert!(at(50.0).samples(u64::MAX / 4));
        assert!(!at(50.0).samples(u64::MAX / 4 * 3));
        assert!(at(0.001).samples(0));
    }
}
