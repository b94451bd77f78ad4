//! Says beforehand what will end: certificates, authorities and revocation lists of the configuration.
//! In: the configuration in force, the clock. Out: log lines, each once, when a third, a sixth and a twentieth of a
//! lifetime is left. On the control thread.

use std::time::SystemTime;

use gateway_core::expiry::{Band, Crossings};
use gateway_core::limits;

use super::metrics::Metrics;
use crate::config::{Config, Dependents, Expiring, expiring, shown_time};

/// What was said: once for as long as the end of something matters, once for as long as it does not.
type Said = Crossings<(Expiring, bool)>;

/// Looks every minute until dropped.
pub async fn watch_expiry(metrics: Metrics) {
    let mut said = Said::default();
    let mut looks = tokio::time::interval(limits::EXPIRY_LOOK_INTERVAL);
    loop {
        looks.tick().await;
        let dependents = metrics.dependents();
        look(&metrics.config(), &dependents, &mut said, SystemTime::now());
    }
}

fn look(config: &Config, dependents: &Dependents, said: &mut Said, now: SystemTime) {
    let bands = expiring(config).into_iter().flat_map(|expiring| {
        let band = expiring.lifetime.band(now);
        let matters = expiring.matters(dependents);
        // Both are there all the time: what goes from one to the other and back is not said again.
        [true, false].map(|key| match key == matters {
            true => ((expiring.clone(), key), band),
            false => ((expiring.clone(), key), Band::Good),
        })
    });
    for ((expiring, matters), band) in said.look(bands) {
        say(&expiring, matters, band, now);
    }
}

/// Logs that `expiring` is about to end. `matters` is false of a CA with a successor: no connected client stands on it alone.
fn say(expiring: &Expiring, matters: bool, band: Band, now: SystemTime) {
    let Expiring {
        usage,
        file,
        subject,
        lifetime,
        authority: _,
    } = expiring;
    let ends = shown_time(lifetime.ends, now);
    let left = band.label();
    match (band, matters) {
        (Band::Good, _) => {}
        (Band::Third | Band::Sixth | Band::Twentieth | Band::Ended, false) => {
            tracing::info!(%usage, %file, %subject, %ends, left, "a CA that has a successor is about to end");
        }
        (Band::Third, true) => {
            tracing::info!(%usage, %file, %subject, %ends, left, "a third of a lifetime is left");
        }
        (Band::Sixth, true) => {
            tracing::warn!(%usage, %file, %subject, %ends, left, "a sixth of a lifetime is left: renew it");
        }
        (Band::Twentieth, true) => {
            tracing::error!(%usage, %file, %subject, %ends, left, "a twentieth of a lifetime is left: renew it now");
        }
        (Band::Ended, true) => tracing::error!(%usage, %file, %subject, %ends, left, "has ended"),
    }
}
