//! Says beforehand what will end: certificates, authorities and revocation lists of the configuration.
//! In: the configuration in force, the clock. Out: log lines, each once, when a third, a sixth and a twentieth of a
//! lifetime is left. On the control thread.

use std::time::SystemTime;

use gateway_core::expiry::{Band, Crossings};

use super::metrics::Metrics;
use crate::config::{Config, Mortal, mortals, shown_time};
use crate::limits;

/// Looks every minute until dropped.
pub async fn watch_expiry(metrics: Metrics) {
    let mut crossings = Crossings::default();
    let mut looks = tokio::time::interval(limits::EXPIRY_LOOK_INTERVAL);
    loop {
        looks.tick().await;
        look(&metrics.config(), &mut crossings, SystemTime::now());
    }
}

fn look(config: &Config, crossings: &mut Crossings<Mortal>, now: SystemTime) {
    let known = mortals(config)
        .into_iter()
        .map(|mortal| (mortal.clone(), mortal.lifetime));
    for (mortal, band) in crossings.look(known, now) {
        say(&mortal, band, now);
    }
}

fn say(mortal: &Mortal, band: Band, now: SystemTime) {
    let Mortal {
        usage,
        file,
        subject,
        lifetime,
    } = mortal;
    let ends = shown_time(lifetime.ends, now);
    let left = band.label();
    match band {
        Band::Good => {}
        Band::Third => {
            tracing::info!(%usage, %file, %subject, %ends, left, "a third of a lifetime is left");
        }
        Band::Sixth => {
            tracing::warn!(%usage, %file, %subject, %ends, left, "a sixth of a lifetime is left: renew it");
        }
        Band::Twentieth => {
            tracing::error!(%usage, %file, %subject, %ends, left, "a twentieth of a lifetime is left: renew it now");
        }
        Band::Ended => tracing::error!(%usage, %file, %subject, %ends, left, "has ended"),
    }
}
