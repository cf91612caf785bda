//! What one run found: figures, and whether they may be judged.

use serde::{Deserialize, Serialize};

use super::error::BenchError;
use super::meter::Usage;
use super::procfs::TreeUsage;

/// One figure of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// The value.
    pub value: f64,
}

/// Makes a figure.
pub fn figure(name: &str, unit: &str, value: f64) -> Figure {
    Figure { name: name.to_owned(), unit: unit.to_owned(), value }
}

/// Whether the figures of a run may be judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// They may.
    Valid,
    /// The machine was too full for them to say anything of the server.
    Withheld(String),
    /// There are none: the server failed, or was not done in time.
    NotFinished(String),
}

/// What a scenario measured.
#[derive(Debug)]
pub struct Measured {
    /// The figures, the most important one first.
    pub figures: Vec<Figure>,
    /// Whether they may be judged.
    pub verdict: Verdict,
    /// What else a reader should know.
    pub notes: Vec<String>,
}

/// One run, as it is written to a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Name of the scenario with its sizes: runs of one name can be compared.
    pub scenario: String,
    /// Whose server it was: `kelvin` or `reference`.
    pub label: String,
    /// Commit of this repository.
    pub commit: String,
    /// The command, to repeat it.
    pub command: String,
    /// Load average before the run.
    pub load_before: f64,
    /// The figures.
    pub figures: Vec<Figure>,
    /// Whether they may be judged.
    pub verdict: Verdict,
    /// What else a reader should know.
    pub notes: Vec<String>,
}

impl Outcome {
    /// A figure's value.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|f| f.name == name).map(|f| f.value)
    }

    /// As a table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} on {}, commit {}, load before {:.2}\n  {}\n",
            self.scenario, self.label, self.commit, self.load_before, self.command
        );
        for f in &self.figures {
            text += &format!("  {:<22} {:>14} {}\n", f.name, number(f.value), f.unit);
        }
        for note in &self.notes {
            text += &format!("  note: {note}\n");
        }
        match &self.verdict {
            Verdict::Valid => {}
            Verdict::Withheld(why) => text += &format!("  no verdict: {why}\n"),
            Verdict::NotFinished(why) => text += &format!("  {}: did not finish: {why}\n", self.label),
        }
        text
    }

    /// Writes it to a file as JSON.
    pub fn write(&self, path: &str) -> Result<(), BenchError> {
        let text = serde_json::to_string_pretty(self).map_err(|e| BenchError::at(path, e))?;
        std::fs::write(path, text + "\n").map_err(|e| BenchError::at(path, e))
    }

    /// Reads it from a file.
    pub fn read(path: &str) -> Result<Outcome, BenchError> {
        let text = std::fs::read_to_string(path).map_err(|e| BenchError::at(path, e))?;
        serde_json::from_str(&text).map_err(|e| BenchError::at(path, e))
    }
}

/// A number with three or so digits that matter.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The figures that every scenario has: CPU and memory of all sides, and the cores.
pub fn usage_figures(usage: &Usage) -> Vec<Figure> {
    let mut out = Vec::new();
    for side in &usage.sides {
        out.extend(side.cpu_s.map(|cpu| figure(&format!("{}_cpu", side.name), "s", cpu)));
    }
    for side in &usage.sides {
        let own = |t: TreeUsage| megabytes(t.pss_anon_kib + t.pss_shmem_kib);
        out.extend(side.tree.map(|tree| figure(&format!("{}_pss", side.name), "MB", own(tree))));
    }
    out.extend(usage.server().tree.map(|tree| figure("server_rss", "MB", megabytes(tree.rss_kib))));
    out.extend(
        usage.cores.iter().enumerate().map(|(i, b)| figure(&format!("core_{i}_busy"), "%", b * 100.0)),
    );
    out
}

/// KiB as megabytes of 10^6 bytes.
pub fn megabytes(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

/// For a run that is made to fill a core: which side filled it.
pub fn who_was_full(usage: &Usage) -> String {
    let wall = usage.wall.as_secs_f64();
    let busy = usage.sides.iter().filter_map(|side| Some((side.name, side.cpu_s? / wall * 100.0)));
    let text: Vec<String> = busy.map(|(name, share)| format!("{name} {share:.0} %")).collect();
    format!("of one core: {}", text.join(", "))
}

/// The verdict on a latency run.
pub fn latency_verdict(usage: &Usage) -> Verdict {
    match usage.full_core() {
        Some((core, busy)) => Verdict::Withheld(format!("core {core} at {:.0} %", busy * 100.0)),
        None => Verdict::Valid,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::meter::Side;
    use super::*;

    fn usage(cores: &[f64]) -> Usage {
        let side = |name, cpu_s| Side { name, cpu_s, tree: None };
        let sides = [
            side("server", Some(1.9)),
            side("postgres", None),
            side("backend", Some(0.1)),
            side("generator", Some(0.5)),
        ];
        Usage { wall: Duration::from_secs(2), sides, cores: cores.to_vec() }
    }

    #[test]
    fn a_full_core_takes_the_verdict_away() {
        assert_eq!(latency_verdict(&usage(&[0.5, 0.94])), Verdict::Valid);
        assert_eq!(latency_verdict(&usage(&[0.5, 0.97])), Verdict::Withheld("core 1 at 97 %".to_owned()));
    }

    #[test]
    fn full_sides_are_named() {
        assert_eq!(who_was_full(&usage(&[])), "of one core: server 95 %, backend 5 %, generator 25 %");
    }

    #[test]
    fn numbers_keep_their_meaning() {
        let texts: Vec<String> = [123_456.7, 12.34, 1.234, 0.01234, 0.0].map(number).into();
        assert_eq!(texts, ["123457", "12.3", "1.23", "0.0123", "0.00"]);
    }
}
