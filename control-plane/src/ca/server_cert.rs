//! The control plane's own certificate: made by its CA, in memory, and replaced long before it ends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rcgen::KeyPair;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;

use super::{Ca, CaError, SpiffeId, leaf};

/// How often the clock is looked at. Timers stand still while a machine sleeps; certificates do not.
const CHECK: Duration = Duration::from_secs(30);

/// Hands the current certificate to TLS handshakes.
#[derive(Debug)]
pub struct ServerCert {
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
    not_after: SystemTime,
}

impl ServerCert {
    /// Makes the first certificate.
    pub fn new(ca: &Ca) -> Result<ServerCert, CaError> {
        Ok(ServerCert {
            current: ArcSwap::from_pointee(make(ca, SystemTime::now())?),
        })
    }

    /// When the current certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.current.load().not_after
    }

    /// Replaces the certificate where half of its life is over. Handshakes under way keep the old one.
    pub fn renew_if_due(&self, ca: &Ca, now: SystemTime) -> Result<bool, CaError> {
        if now < self.current.load().renew_at {
            return Ok(false);
        }
        self.current.store(Arc::new(make(ca, now)?));
        Ok(true)
    }

    /// Keeps the certificate fresh for as long as the program runs.
    pub async fn keep_fresh(self: Arc<Self>, ca: Arc<Ca>) {
        loop {
            let left = self
                .current
                .load()
                .renew_at
                .duration_since(SystemTime::now());
            tokio::time::sleep(left.unwrap_or(Duration::from_secs(1)).min(CHECK)).await;
            match self.renew_if_due(&ca, SystemTime::now()) {
                Ok(true) => tracing::info!("renewed the control plane's own certificate"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot renew the control plane's own certificate");
                }
            }
        }
    }
}

impl ResolvesServerCert for ServerCert {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().key.clone())
    }
}

fn make(ca: &Ca, now: SystemTime) -> Result<Current, CaError> {
    let key = KeyPair::generate()?;
    let id = SpiffeId::control_plane(ca.trust_domain())?;
    let dns = [format!("control-plane.{}", ca.trust_domain())];
    let leaf = leaf::sign(ca, &key, &id, &dns, Duration::ZERO, now)?;
    let mut chain = leaf.chain;
    // A joiner that has only the root's fingerprint finds the root in here.
    chain.push(ca.roots()[0].clone());
    let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&PrivateKeyDer::from(key))
        .map_err(|error| CaError::Inconsistent(error.to_string()))?;
    let life = leaf.not_after.duration_since(now).unwrap_or_default();
    Ok(Current {
        key: Arc::new(CertifiedKey::new(chain, key)),
        renew_at: now + life / 2,
        not_after: leaf.not_after,
    })
}
