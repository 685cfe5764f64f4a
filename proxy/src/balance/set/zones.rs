//! Endpoints of the own zone before those of others.

use std::sync::Arc;

use rand::Rng;

use crate::balance::below;
use crate::balance::endpoint::Endpoint;
use crate::balance::group::Group;
use crate::balance::settings::{Policy, ZonePreference};
use crate::balance::view::{View, WHOLE};

#[derive(Debug)]
pub(super) struct Zones {
    local: Group,
    remote: Group,
}

impl Zones {
    pub(super) fn new(
        zone: &ZonePreference,
        policy: Policy,
        endpoints: &[Arc<Endpoint>],
    ) -> Option<Zones> {
        if zone.own.is_empty()
            || matches!(
                policy,
                Policy::RingHash | Policy::Maglev | Policy::PrefixAffinity
            )
        {
            return None;
        }
        let (local, remote): (Vec<_>, Vec<_>) = endpoints
            .iter()
            .cloned()
            .partition(|endpoint| endpoint.zone == zone.own);
        if local.is_empty() || remote.is_empty() {
            return None;
        }
        Some(Zones {
            local: Group::new(policy, local),
            remote: Group::new(policy, remote),
        })
    }

    /// Where this request goes. `None`: zones play no part.
    pub(super) fn group(&self, view: View, rng: &mut impl Rng) -> Option<&Group> {
        let share = view.local_share()?;
        let is_local = share >= WHOLE || below(rng, WHOLE) < share;
        Some(if is_local { &self.local } else { &self.remote })
    }

    pub(super) fn other(&self, group: &Group) -> &Group {
        if std::ptr::eq(group, &self.local) {
            &self.remote
        } else {
            &self.local
        }
    }

    /// Of [`WHOLE`], as Envoy spreads over localities: min(1, overprovisioning × available / all of the zone).
    pub(super) fn local_share(
        &self,
        zone: &ZonePreference,
        available: impl Fn(&Endpoint) -> bool,
    ) -> Option<u64> {
        let local = self.local.weight(|_| true);
        let all = local + self.remote.weight(|_| true);
        if local * 100 < all * u64::from(zone.min_local_percent) {
            return None;
        }
        if self.remote.weight(&available) == 0 {
            return Some(WHOLE);
        }
        let factor = u64::from(zone.overprovisioning);
        Some((self.local.weight(&available) * factor * WHOLE / (100 * local)).min(WHOLE))
    }
}
