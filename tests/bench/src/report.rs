//! What came out: JSON for machines, a Markdown table for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One line of the results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The operation.
    pub operation: String,
    /// How often it was done.
    pub count: usize,
    /// What `value` is: `ms CPU`, `MB`, `kB`, `ms`.
    pub unit: String,
    /// Per operation.
    pub value: f64,
    /// Milliseconds that half of the operations took at most.
    pub p50: Option<f64>,
    /// Milliseconds that 99 of 100 operations took at most.
    pub p99: Option<f64>,
}

/// The results of one homeserver.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The homeserver.
    pub name: String,
    /// The operations, in order.
    pub lines: Vec<Line>,
    /// How many checks passed.
    pub passed: usize,
    /// The checks that failed, and why.
    pub failed: Vec<String>,
}

impl Report {
    /// A result of any unit.
    pub fn add(&mut self, operation: &str, unit: &str, count: usize, value: f64) {
        let operation = operation.to_owned();
        self.lines.push(Line { operation, count, unit: unit.to_owned(), value, p50: None, p99: None });
    }

    /// CPU time per operation, and how long the operations took.
    pub fn cpu(&mut self, operation: &str, count: usize, cpu_ms: f64, times: &mut [Duration]) {
        self.add(operation, "ms CPU", count, cpu_ms / count.max(1) as f64);
        times.sort_unstable();
        let at = |part: f64| {
            let index = ((times.len() as f64 * part).ceil() as usize).clamp(1, times.len().max(1)) - 1;
            times.get(index).map(|time| time.as_secs_f64() * 1000.0)
        };
        if let Some(line) = self.lines.last_mut() {
            (line.p50, line.p99) = (at(0.5), at(0.99));
        }
    }

    /// Writes the JSON.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, serde_json::to_vec_pretty(self)?)
    }
}

/// Reads reports.
pub fn read(files: &[PathBuf]) -> Result<Vec<Report>, String> {
    let one = |path: &PathBuf| {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
    };
    files.iter().map(one).collect()
}

/// A table of all reports, with ratios to the first.
pub fn table(reports: &[Report]) -> String {
    let Some(first) = reports.first() else { return String::new() };
    let mut out = String::from("| operation | unit |");
    for report in reports {
        let _ = write!(out, " {} | p50/p99 ms |", report.name);
    }
    for other in &reports[1..] {
        let _ = write!(out, " {} / {} |", other.name, first.name);
    }
    let columns = 2 + reports.len() * 2 + reports.len() - 1;
    let _ = write!(out, "\n|{}\n", "---|".repeat(columns));
    let mut seen = BTreeSet::new();
    for operation in reports.iter().flat_map(|report| &report.lines).map(|line| &line.operation) {
        if seen.insert(operation) {
            row(&mut out, reports, operation);
        }
    }
    out
}

fn row(out: &mut String, reports: &[Report], operation: &str) {
    let lines: Vec<Option<&Line>> =
        reports.iter().map(|report| report.lines.iter().find(|line| line.operation == operation)).collect();
    let unit = lines.iter().flatten().next().map(|line| line.unit.as_str()).unwrap_or_default();
    let _ = write!(out, "| {operation} | {unit} |");
    for line in &lines {
        let _ = match line {
            Some(line) => write!(out, " {} | {} |", figure(Some(line.value)), times(line)),
            None => write!(out, " - | - |"),
        };
    }
    for other in lines.iter().skip(1) {
        let ratio = match (lines[0], other) {
            (Some(first), Some(other)) if first.value > 0.0 => Some(other.value / first.value),
            _ => None,
        };
        let _ = write!(out, " {} |", figure(ratio));
    }
    out.push('\n');
}

fn times(line: &Line) -> String {
    match (line.p50, line.p99) {
        (None, None) => "-".to_owned(),
        (half, most) => format!("{} / {}", figure(half), figure(most)),
    }
}

fn figure(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) if value >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_ratios_to_the_first() {
        let mut one = Report { name: "one".to_owned(), ..Report::default() };
        one.cpu("send", 100, 50.0, &mut [Duration::from_millis(2), Duration::from_millis(1)]);
        let mut two = Report { name: "two".to_owned(), ..Report::default() };
        two.cpu("send", 10, 50.0, &mut []);
        let text = table(&[one, two]);
        assert!(text.contains("| send | ms CPU | 0.500 | 1.00 / 2.00 | 5.00 | - | 10.0 |"), "{text}");
    }
}
