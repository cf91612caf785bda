//! What Kelvin has set itself, and how a measurement stands to it.

/// What is asked of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// So many times better than the reference.
    TimesBetter(f64),
    /// No more than this, in the figure's unit.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// No more than so many times the same figure of another scenario.
    TimesOf(f64, &'static str),
}

/// One goal.
#[derive(Debug)]
pub struct Goal {
    /// The scenario, with its sizes.
    pub scenario: &'static str,
    /// The figure.
    pub figure: &'static str,
    /// What is asked of it.
    pub limit: Limit,
}

const fn goal(scenario: &'static str, figure: &'static str, limit: Limit) -> Goal {
    Goal { scenario, figure, limit }
}

/// All the goals that `make bench` judges.
pub const GOALS: &[Goal] = &[
    goal("hydrate 1 x 100000 different", "rows_rate", Limit::TimesBetter(10.0)),
    goal("hydrate 20 x 1000 different", "rows_rate", Limit::TimesBetter(10.0)),
    goal("hydrate 20 x 1000 same", "rows_rate", Limit::TimesBetter(20.0)),
    goal("hydrate 1 x 100000 different", "rows_per_cpu", Limit::AtLeast(300_000.0)),
    goal("hydrate 1 x 100000 further", "rows_rate", Limit::AtLeast(400_000.0)),
    goal("hydrate board 50 x 20 different", "rows_rate", Limit::AtLeast(120_000.0)),
    goal("hydrate board 50 x 20 different", "hydrations", Limit::AtLeast(600.0)),
    goal("hydrate board 100 x 20 same", "hydrations", Limit::AtLeast(4_000.0)),
    goal("fanout 100 clients 5/s update", "latency_p99", Limit::AtMost(50.0)),
    goal("fanout 500 clients 10/s update", "latency_p99", Limit::AtMost(100.0)),
    goal("fanout 1000 clients 10/s update", "latency_p50", Limit::AtMost(8.0)),
    goal("fanout 1000 clients 10/s update", "latency_p99", Limit::AtMost(20.0)),
    goal("fanout 1000 clients 100/s update", "alone", Limit::AtLeast(95.0)),
    goal("fanout 1000 clients 150/s update", "latency_p99", Limit::AtMost(100.0)),
    goal("fanout 1000 clients 150/s update", "behind_last", Limit::AtMost(200.0)),
    goal("fanout 1000 clients 150/s update", "server_per_poke", Limit::AtMost(7.0)),
    goal("fanout 1000 clients 150/s update", "receive_per_poke", Limit::AtMost(5.0)),
    goal("fanout 100 clients 800/s update", "latency_p99", Limit::AtMost(100.0)),
    goal("distinct 100 x 100 key", "server_per_commit", Limit::TimesOf(1.2, "distinct 100 x 1 key")),
    goal("distinct 100 x 100 key", "server_per_commit", Limit::AtMost(300.0)),
    goal("distinct 100 x 100 key", "latency_p99", Limit::AtMost(20.0)),
    goal("distinct 100 x 10 related", "server_per_commit", Limit::TimesOf(1.2, "distinct 100 x 1 related")),
    goal("distinct 100 x 10 exists", "server_per_commit", Limit::TimesOf(1.2, "distinct 100 x 1 exists")),
    goal("write 100000 rows in 1", "rows_rate", Limit::AtLeast(30_000.0)),
    goal("write 20000 rows in 2000", "rows_rate", Limit::AtLeast(15_000.0)),
    goal("live 100 clients 50/s beside 500000 rows", "p99_of_bound", Limit::AtMost(100.0)),
    goal("live 100 clients 50/s beside 500000 rows", "longest_slice_cpu", Limit::AtMost(2.0)),
    goal("live 100 clients 50/s beside 500000 rows, evicted", "p99_of_bound", Limit::AtMost(100.0)),
    goal("window 50 of 1000000 issues unindexed", "rows_rate", Limit::AtLeast(20_000.0)),
    goal("window 50 of 1000000 issues miss", "rows_rate", Limit::AtLeast(8_000.0)),
    goal("window 50 of 1000000 issues hit", "rows_rate", Limit::AtLeast(4_000.0)),
    goal("reconnect 1000 clients drop", "wall", Limit::AtMost(1.5)),
    goal("reconnect 1000 clients drop", "refused", Limit::AtMost(0.0)),
    goal("reconnect 1000 clients restart", "wall", Limit::AtMost(5.0)),
    goal("reconnect 1000 clients restart", "refused", Limit::AtMost(0.0)),
    goal("reconnect 1000 clients restart", "started_over", Limit::AtMost(0.0)),
    goal("crowd of 2000 x 20 x 1000 rows", "latency_p99", Limit::AtMost(100.0)),
    goal("crowd of 2000 x 20 x 1000 rows", "most_memory", Limit::AtMost(1_073.0)),
    goal("initial-sync 1000000 issues", "rows_rate", Limit::AtLeast(100_000.0)),
    goal("idle 200 x 5", "memory", Limit::TimesBetter(15.0)),
    goal("idle 200 x 5", "memory", Limit::AtMost(120.0)),
    goal("idle 500 x 5 shared, 1000 more", "per_further_group", Limit::AtMost(8.0)),
];

impl Limit {
    /// Whether it is kept, by Kelvin's figure, how many times better than the reference that is,
    /// and Kelvin's figure of the other scenario. `None`: there is nothing to judge by.
    pub fn kept(self, kelvin: f64, times_better: Option<f64>, other: Option<f64>) -> Option<bool> {
        match self {
            Limit::TimesBetter(least) => times_better.map(|t| t >= least),
            Limit::AtMost(most) => Some(kelvin <= most),
            Limit::AtLeast(least) => Some(kelvin >= least),
            Limit::TimesOf(most, _) => other.map(|other| kelvin <= most * other),
        }
    }

    /// In words.
    pub fn text(self, unit: &str) -> String {
        match self {
            Limit::TimesBetter(n) => format!("at least {n} times better than the reference"),
            Limit::AtMost(n) => format!("at most {n} {unit}"),
            Limit::AtLeast(n) => format!("at least {n} {unit}"),
            Limit::TimesOf(n, scenario) => format!("at most {n} times that of {scenario}"),
        }
    }
}

/// Whether more of this unit is better.
pub fn more_is_better(unit: &str) -> bool {
    unit == "% of deliveries" || unit.split(' ').next().is_some_and(|word| word.ends_with("/s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares_are_better_when_they_are_more() {
        for unit in ["rows/s", "rows/s of CPU", "hydrations/s", "% of deliveries"] {
            assert!(more_is_better(unit), "{unit}");
        }
        assert!(!more_is_better("ms") && !more_is_better("us CPU") && !more_is_better(""));
    }

    #[test]
    fn limits() {
        assert_eq!(Limit::AtMost(50.0).kept(50.0, None, None), Some(true));
        assert_eq!(Limit::AtMost(50.0).kept(50.1, None, None), Some(false));
        assert_eq!(Limit::AtLeast(30.0).kept(29.0, None, None), Some(false));
        assert_eq!(Limit::TimesBetter(10.0).kept(1.0, Some(10.0), None), Some(true));
        assert_eq!(Limit::TimesBetter(10.0).kept(1.0, None, None), None);
        let twice = Limit::TimesOf(2.0, "other");
        assert_eq!(twice.kept(10.0, None, Some(5.0)), Some(true));
        assert_eq!(twice.kept(10.1, None, Some(5.0)), Some(false));
        assert_eq!(twice.kept(10.0, None, None), None);
    }
}
