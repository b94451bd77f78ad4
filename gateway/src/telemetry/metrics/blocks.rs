//! The block list's part of the metrics page, and the answer to the commands that change it.
//! In: which list is in force. Out: samples, and a line of JSON. On the control thread.

use std::sync::PoisonError;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use serde::{Deserialize, Serialize};

use super::{Encoded, Metrics, gauge};

/// Which block list is in force. What `/blocked` of the administration endpoint answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocksInForce {
    /// SHA-256 of the file in hexadecimal; `None` where there was none.
    pub digest: Option<String>,
    /// Entries.
    pub entries: usize,
    /// Connections that were closed when it came into force.
    pub closed: usize,
    /// Why the file that stands there now was refused, if it was.
    pub refused: Option<String>,
    /// Why a change of the list that is in force could not be written, if one could not, and what a restart comes to.
    #[serde(default)]
    pub unwritten: Option<String>,
}

impl Metrics {
    /// Notes which block list is in force.
    pub fn set_blocks(&self, blocks: BlocksInForce) {
        *self.0.blocks.lock().unwrap_or_else(PoisonError::into_inner) = blocks;
    }

    /// Which block list is in force.
    pub fn blocks_in_force(&self) -> BlocksInForce {
        let blocks = self.0.blocks.lock();
        blocks.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which block list is in force, as JSON.
    pub fn blocks(&self) -> String {
        let blocks = self.0.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_string(&*blocks).expect("texts and numbers can be written as JSON") + "\n"
    }

    pub(super) fn encode_blocks(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let blocks = self.0.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let help = "Entries of the block list in force";
        let mut metric =
            encoder.encode_descriptor("blocked_entries", help, None, MetricType::Gauge)?;
        gauge(&mut metric, &[], blocks.entries as i64)?;
        let help = "1 while the block list's file is broken or missing and the last good list stays in force";
        let mut metric =
            encoder.encode_descriptor("block_file_refused", help, None, MetricType::Gauge)?;
        gauge(&mut metric, &[], i64::from(blocks.refused.is_some()))?;
        let help = "1 while a change of the block list is in force that the gateway could not write: a restart forgets it";
        let mut metric =
            encoder.encode_descriptor("block_list_unwritten", help, None, MetricType::Gauge)?;
        gauge(&mut metric, &[], i64::from(blocks.unwritten.is_some()))
    }
}
