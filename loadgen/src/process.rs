//! What the measured server costs: CPU time and memory of its processes, read from /proc.
//! In: process ids from `--server-pid`. Out: `Sample`s whose differences the report divides by the work done.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Cost of a set of processes at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// User and system time of all threads, past ones included; the kernel reports it in steps of 10 ms.
    pub(crate) cpu: Duration,
    /// Resident memory in KiB.
    pub(crate) rss_kib: u64,
    /// Proportional share of resident memory in KiB, where the kernel lets us read it.
    pub(crate) pss_kib: Option<u64>,
}

/// Reads the sum over all `pids`; `None` when there are none.
pub(crate) fn sample(pids: &[u32]) -> Result<Option<Sample>> {
    let mut sum: Option<Sample> = None;
    for &pid in pids {
        let one = sample_one(pid)?;
        sum = Some(match sum {
            None => one,
            Some(sum) => Sample {
                cpu: sum.cpu + one.cpu,
                rss_kib: sum.rss_kib + one.rss_kib,
                pss_kib: sum.pss_kib.zip(one.pss_kib).map(|(a, b)| a + b),
            },
        });
    }
    Ok(sum)
}

/// CPU time of this process, to tell when the generator is the bottleneck.
pub(crate) fn own_cpu() -> Result<Duration> {
    cpu(std::process::id())
}

fn sample_one(pid: u32) -> Result<Sample> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} of --server-pid"))?;
    // Needs the same user or CAP_SYS_PTRACE; without it resident memory has to do.
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    Ok(Sample {
        cpu: cpu(pid)?,
        rss_kib: field_kib(&status, "VmRSS:")
            .with_context(|| format!("process {pid}: no VmRSS; has it ended?"))?,
        pss_kib: rollup.and_then(|text| field_kib(&text, "Pss:")),
    })
}

fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} of --server-pid"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("/proc/{pid}/stat: unknown format"))?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// Fields 14 and 15 of proc_pid_stat(5): utime and stime. The name in field 2 may itself hold spaces and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))?
        .trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_hostile_process_name() {
        let stat = "7 (a) R 1) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 9 9 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(300));
    }

    #[test]
    fn this_process_has_memory_and_burns_cpu() {
        let pids = [std::process::id()];
        let before = sample(&pids).unwrap().unwrap();
        assert!(before.rss_kib > 0 && before.pss_kib.is_some_and(|pss| pss > 0));
        // However little of the CPU the machine gives us.
        let mut sum = 0_u64;
        while sample(&pids).unwrap().unwrap().cpu - before.cpu < Duration::from_millis(50) {
            for _ in 0..1_000_000 {
                sum = std::hint::black_box(sum.wrapping_add(1));
            }
        }
    }

    #[test]
    fn process_that_does_not_exist_is_an_error_that_names_it() {
        let error = sample(&[u32::MAX]).unwrap_err();
        assert!(error.to_string().contains("4294967295"), "{error}");
    }
}
