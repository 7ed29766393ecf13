//! What processes cost, read from `/proc`: CPU time (user and system, children included) and memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// CPU time in `/proc` is counted in hundredths of a second, whatever the kernel's own clock is (`USER_HZ`).
const TICK_MS: f64 = 10.0;

/// Memory of a group of processes, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// What is resident; memory shared by several processes counts for each.
    pub rss: u64,
    /// The proportional share, which may be added up.
    pub pss: u64,
}

/// The CPU time in milliseconds of these processes and all that descend from them.
pub fn cpu(roots: &[u32]) -> f64 {
    family(roots).into_iter().filter_map(ticks).sum::<u64>() as f64 * TICK_MS
}

/// The memory of these processes and all that descend from them.
pub fn memory(roots: &[u32]) -> Memory {
    let mut sum = Memory::default();
    for pid in family(roots) {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        sum.rss += kilobytes(&text, "Rss:");
        sum.pss += kilobytes(&text, "Pss:");
    }
    sum
}

fn kilobytes(text: &str, field: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(field));
    let number = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|number| number.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

/// Time of the process itself, and of those of its children that have ended.
fn ticks(pid: u32) -> Option<u64> {
    let fields = stat(pid)?;
    // utime, stime, cutime, cstime: the 14th to 17th field, of which two stand before the name.
    fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}

/// The fields of `/proc/pid/stat` after the name, which may itself contain spaces.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = &text[text.rfind(')')? + 1..];
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn family(roots: &[u32]) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let parent = stat(pid).and_then(|fields| fields.get(1)?.parse::<u32>().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    let (mut found, mut open) = (BTreeSet::new(), roots.to_vec());
    while let Some(pid) = open.pop() {
        if found.insert(pid) {
            open.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_and_memory_is_used() {
        let own = [std::process::id()];
        let before = cpu(&own);
        let mut sum = 1_u64;
        while cpu(&own) < before + 3.0 * TICK_MS {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        assert!(cpu(&own) > before);
        assert!(memory(&own).pss > 100_000 && memory(&own).rss >= memory(&own).pss);
    }
}
