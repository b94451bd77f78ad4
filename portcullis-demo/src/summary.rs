//! The verdict on a demo. In: the last snapshot. Out: sentences, and whether all of them are good news.

use crate::snapshot::{Kernel, Snapshot};

/// One line of the verdict.
pub struct Finding {
    pub good: bool,
    pub text: String,
}

/// Whether every agent delivered and every impostor was refused for the right reason.
pub fn is_good(last: &Snapshot) -> bool {
    findings(last).iter().all(|finding| finding.good)
}

/// The verdict, line by line.
pub fn findings(last: &Snapshot) -> Vec<Finding> {
    let agents = last.agents.iter().map(|agent| {
        let (state, arrived) = (&agent.state, agent.arrived);
        let acknowledged = state.acknowledged;
        let failure = match &state.last_failure {
            Some(failure) => format!("; last failure: {failure}"),
            None => String::new(),
        };
        let claim = match agent.claimed {
            Some(claimed) => format!(", {} as of another ({claimed} was claimed)", agent.forged),
            None => String::new(),
        };
        Finding {
            // An acknowledgement without arrival would be a lie of the gateway's making.
            good: acknowledged > 0
                && arrived >= acknowledged
                && agent.forged == 0
                && state.failed_exports == 0,
            text: format!(
                "{}: {acknowledged} records acknowledged, {arrived} arrived as of tenant {}{claim}{failure}",
                state.name, agent.tenant
            ),
        }
    });
    let impostors = last.impostors.iter().map(|impostor| {
        let (attempts, refused) = (impostor.attempts, impostor.refused);
        let counted = last.refused_for(impostor.reason);
        Finding {
            good: attempts > 0 && refused == attempts && counted >= attempts,
            text: format!(
                "{}: {refused} of {attempts} attempts refused, {counted} counted as {} (last: {})",
                impostor.name,
                impostor.reason.label(),
                impostor.said
            ),
        }
    });
    agents.chain(impostors).collect()
}

/// What the kernel saw, in a line.
pub fn kernel_line(kernel: &Kernel) -> String {
    match kernel {
        Kernel::Counts(counts) => {
            let ports: Vec<_> = counts
                .iter()
                .map(|count| {
                    format!(
                        "port {}: {} packets, {}",
                        count.port,
                        count.packets,
                        bytesize::ByteSize(count.bytes)
                    )
                })
                .collect();
            ports.join("; ")
        }
        Kernel::Silent(reason) => format!("not counting: {reason}"),
    }
}
