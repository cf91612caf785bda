//! `bench compare`: the table of the day, from the files of single runs.

use super::args::{Args, Flag};
use super::error::BenchError;
use super::goals::{GOALS, Goal, Limit, more_is_better};
use super::outcome::{Outcome, Verdict, number};
use super::statistics::{Spread, ratio};

/// Flags of `bench compare`.
pub const FLAGS: &[Flag] =
    &[Flag { name: "json", value: "FILE", default: None, help: "also write the table there, as JSON" }];

/// One figure over the runs of one scenario, of both servers.
#[derive(Debug, serde::Serialize)]
struct Line {
    scenario: String,
    figure: String,
    unit: String,
    kelvin: Option<[f64; 4]>,
    reference: Option<[f64; 4]>,
    times_better: Option<f64>,
}

/// Runs `bench compare`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let outcomes: Vec<Outcome> =
        args.rest().iter().map(|path| Outcome::read(path)).collect::<Result<_, _>>()?;
    if outcomes.is_empty() {
        return Err(BenchError::Usage("name the JSON files of the runs".to_owned()));
    }
    let lines = lines(&outcomes);
    print!("{}", table(&lines));
    print!("{}", remarks(&outcomes));
    let (text, all_kept) = judgement(&lines, &outcomes);
    print!("{text}");
    print!("{}", commands(&outcomes));
    if let Some(path) = args.optional("json") {
        let text = serde_json::to_string_pretty(&lines).map_err(|e| BenchError::at(path, e))?;
        std::fs::write(path, text + "\n").map_err(|e| BenchError::at(path, e))?;
    }
    if all_kept { Ok(()) } else { Err(BenchError::Failed("not all goals are reached".to_owned())) }
}

/// Names in the order in which they first appear.
fn in_order<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut out: Vec<&str> = Vec::new();
    for name in names {
        if !out.contains(&name) {
            out.push(name);
        }
    }
    out
}

fn runs<'a>(outcomes: &'a [Outcome], scenario: &'a str, label: &'a str) -> impl Iterator<Item = &'a Outcome> {
    outcomes.iter().filter(move |o| o.scenario == scenario && o.label == label)
}

/// The spread of a figure over the runs that may be judged.
fn spread(outcomes: &[Outcome], scenario: &str, label: &str, figure: &str) -> Option<Spread> {
    let valid = runs(outcomes, scenario, label).filter(|o| o.verdict == Verdict::Valid);
    let values: Vec<f64> = valid.filter_map(|o| o.value(figure)).collect();
    Spread::of(&values)
}

fn lines(outcomes: &[Outcome]) -> Vec<Line> {
    let mut out = Vec::new();
    for scenario in in_order(outcomes.iter().map(|o| o.scenario.as_str())) {
        let figures = || outcomes.iter().filter(|o| o.scenario == scenario).flat_map(|o| &o.figures);
        for name in in_order(figures().map(|f| f.name.as_str())).into_iter().filter(|n| !SIZES.contains(n)) {
            let unit = figures().find(|f| f.name == name).map(|f| f.unit.clone()).unwrap_or_default();
            let kelvin = spread(outcomes, scenario, "kelvin", name);
            let reference = spread(outcomes, scenario, "reference", name);
            let times_better = kelvin.zip(reference).and_then(|(k, r)| {
                if more_is_better(&unit) { ratio(k.median, r.median) } else { ratio(r.median, k.median) }
            });
            let columns = |s: Spread| [s.n as f64, s.min, s.median, s.max];
            out.push(Line {
                scenario: scenario.to_owned(),
                figure: name.to_owned(),
                times_better: times_better.filter(|_| comparable(name)),
                unit,
                kelvin: kelvin.map(columns),
                reference: reference.map(columns),
            });
        }
    }
    out
}

/// Figures that only say how large the run was; they are in the files of the runs.
const SIZES: [&str; 5] = ["rows", "received", "deliveries", "pokes", "processes"];

/// Whether a figure says how good a server is; the others say how the run went.
fn comparable(figure: &str) -> bool {
    let circumstance = ["poke_size", "commit_late_max", "receive_per_poke", "postgres_wall"];
    !circumstance.contains(&figure)
        && !["core_", "generator_", "backend_"].iter().any(|p| figure.starts_with(p))
}

fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "| scenario | figure | reference n; min / median / max | Kelvin n; min / median / max | times better |\n\
         |---|---|---|---|---|\n",
    );
    let cell = |s: Option<[f64; 4]>| match s {
        Some([n, min, median, max]) => {
            format!("{n}; {} / **{}** / {}", number(min), number(median), number(max))
        }
        None => "-".to_owned(),
    };
    for line in lines {
        text += &format!(
            "| {} | {} {} | {} | {} | {} |\n",
            line.scenario,
            line.figure,
            line.unit,
            cell(line.reference),
            cell(line.kelvin),
            line.times_better.map_or("-".to_owned(), |t| format!("{t:.1}")),
        );
    }
    text
}

/// Runs that gave no number, and the notes of the others.
fn remarks(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for o in outcomes {
        match &o.verdict {
            Verdict::Valid => {}
            Verdict::Withheld(why) => text += &format!("- {}, {}: no verdict: {why}\n", o.scenario, o.label),
            Verdict::NotFinished(why) => {
                text += &format!("- {}, {}: did not finish: {why}\n", o.scenario, o.label)
            }
        }
        for note in &o.notes {
            text += &format!("- {}, {}: {note}\n", o.scenario, o.label);
        }
    }
    if text.is_empty() { text } else { format!("\nRemarks:\n\n{text}") }
}

/// The goals whose scenarios were run; and whether all of them are reached.
fn judgement(lines: &[Line], outcomes: &[Outcome]) -> (String, bool) {
    let mut text = String::from("\n| goal | measured | verdict |\n|---|---|---|\n");
    let mut all = true;
    for goal in GOALS {
        if runs(outcomes, goal.scenario, "kelvin").next().is_none() {
            continue;
        }
        let line = lines.iter().find(|l| l.scenario == goal.scenario && l.figure == goal.figure);
        let unit = line.map(|l| l.unit.clone()).unwrap_or_default();
        let (measured, verdict, kept) = judge(goal, line, other(goal, lines), outcomes);
        all &= kept;
        text += &format!(
            "| {}, {}: {} | {measured} | {verdict} |\n",
            goal.scenario,
            goal.figure,
            goal.limit.text(&unit)
        );
    }
    (text, all)
}

/// Kelvin's figure of the scenario that a goal compares with.
fn other(goal: &Goal, lines: &[Line]) -> Option<f64> {
    let Limit::TimesOf(_, scenario) = goal.limit else { return None };
    let line = lines.iter().find(|l| l.scenario == scenario && l.figure == goal.figure);
    line.and_then(|l| Some(l.kelvin?[2]))
}

fn judge(
    goal: &Goal,
    line: Option<&Line>,
    other: Option<f64>,
    outcomes: &[Outcome],
) -> (String, String, bool) {
    let figure = line.and_then(|l| Some((l, l.kelvin?[2])));
    let measured = figure.map_or("-".to_owned(), |(line, median)| {
        let times = line.times_better.map(|t| format!(", {t:.1} times better")).unwrap_or_default();
        let of_other = other.and_then(|other| ratio(median, other));
        let of_other = of_other.map(|t| format!(", {t:.2} times the other")).unwrap_or_default();
        format!("{} {}{times}{of_other}", number(median), line.unit)
    });
    // One run that fails is enough: a goal is for a server that works.
    let failed = |o: &&Outcome| matches!(o.verdict, Verdict::NotFinished(_));
    let failures = runs(outcomes, goal.scenario, "kelvin").filter(failed).count();
    if failures > 0 {
        return (measured, format!("**missed**: {failures} runs did not finish"), false);
    }
    let Some((line, median)) = figure else {
        return (measured, format!("no verdict: {}", why_not(goal, "kelvin", outcomes)), false);
    };
    match (goal.limit.kept(median, line.times_better, other), goal.limit) {
        (Some(true), _) => (measured, "reached".to_owned(), true),
        (Some(false), _) => (measured, "**missed**".to_owned(), false),
        (None, Limit::TimesOf(_, scenario)) => {
            (measured, format!("no verdict: no figure of {scenario}"), false)
        }
        // No ratio can be formed: the absolute figure stands alone, and nothing is claimed.
        (None, _) => {
            (measured, format!("no ratio; reference: {}", why_not(goal, "reference", outcomes)), true)
        }
    }
}

/// Why a server has no figure for a goal.
fn why_not(goal: &Goal, label: &str, outcomes: &[Outcome]) -> String {
    let reasons = runs(outcomes, goal.scenario, label).filter_map(|o| match &o.verdict {
        Verdict::Valid => None,
        Verdict::Withheld(why) => Some(why.clone()),
        Verdict::NotFinished(why) => Some(format!("did not finish: {why}")),
    });
    reasons.last().unwrap_or_else(|| "not run".to_owned())
}

fn commands(outcomes: &[Outcome]) -> String {
    let mut text = String::from("\nCommits and commands:\n\n");
    let all: Vec<String> = outcomes
        .iter()
        .map(|o| format!("- {}, {}, commit {}: `{}`", o.scenario, o.label, o.commit, o.command))
        .collect();
    for line in in_order(all.iter().map(String::as_str)) {
        text += line;
        text += "\n";
    }
    let load = outcomes.iter().map(|o| o.load_before).fold(0.0, f64::max);
    text + &format!("\nGreatest load average before a run: {load:.2}\n")
}

#[cfg(test)]
mod tests {
    use super::super::outcome::figure;
    use super::*;

    fn outcome(label: &str, value: f64, verdict: Verdict) -> Outcome {
        Outcome {
            scenario: "idle 200 x 5".to_owned(),
            label: label.to_owned(),
            commit: "abc".to_owned(),
            command: "kelvin-bench idle".to_owned(),
            load_before: 0.1,
            figures: vec![figure("memory", "MB", value)],
            verdict,
            notes: Vec::new(),
        }
    }

    #[test]
    fn medians_and_ratios_of_alternated_runs() {
        let values = [("reference", 1600.0), ("kelvin", 100.0), ("reference", 1500.0), ("kelvin", 90.0)];
        let all: Vec<Outcome> = values.map(|(l, v)| outcome(l, v, Verdict::Valid)).into();
        let lines = lines(&all);
        assert_eq!(lines[0].kelvin, Some([2.0, 90.0, 95.0, 100.0]));
        assert!((lines[0].times_better.unwrap() - 16.3).abs() < 0.1);
        let (text, all_reached) = judgement(&lines, &all);
        assert!(all_reached, "{text}");
        assert_eq!(text.matches("| reached |").count(), 2, "{text}");
    }

    #[test]
    fn a_run_without_verdict_is_not_counted() {
        let all = [
            outcome("kelvin", 90.0, Verdict::Valid),
            outcome("kelvin", 500.0, Verdict::Withheld("core 1 at 99 %".to_owned())),
        ];
        assert_eq!(lines(&all)[0].kelvin, Some([1.0, 90.0, 90.0, 90.0]));
    }

    #[test]
    fn a_reference_that_did_not_finish_is_not_a_number() {
        let all = [
            outcome("kelvin", 90.0, Verdict::Valid),
            outcome("reference", 1.0, Verdict::NotFinished("it closed".to_owned())),
        ];
        let (text, _) = judgement(&lines(&all), &all);
        assert!(text.contains("no ratio; reference: did not finish: it closed"), "{text}");
        assert!(text.contains("at most 120 MB | 90.0 MB | reached"), "{text}");
    }

    #[test]
    fn a_run_that_fails_misses_the_goal() {
        let all = [
            outcome("kelvin", 90.0, Verdict::Valid),
            outcome("kelvin", 0.0, Verdict::NotFinished("it closed".to_owned())),
        ];
        let (text, all_reached) = judgement(&lines(&all), &all);
        assert!(!all_reached && text.contains("90.0 MB | **missed**: 1 runs did not finish"), "{text}");
    }

    #[test]
    fn a_goal_between_two_scenarios_of_one_server() {
        let run = |scenario: &str, value: f64| Outcome {
            scenario: scenario.to_owned(),
            figures: vec![figure("server_per_commit", "us CPU", value)],
            ..outcome("kelvin", 0.0, Verdict::Valid)
        };
        let (one, many) = ("distinct 100 x 1 related", "distinct 100 x 10 related");
        let judged = |all: &[Outcome]| judgement(&lines(all), all);
        let (text, reached) = judged(&[run(one, 100.0), run(many, 119.0)]);
        assert!(reached && text.contains("119 us CPU, 1.19 times the other | reached"), "{text}");
        assert!(!judged(&[run(one, 100.0), run(many, 121.0)]).1);
        let (text, reached) = judged(&[run(many, 121.0)]);
        assert!(!reached && text.contains("no figure of distinct 100 x 1 related"), "{text}");
    }

    #[test]
    fn a_missed_goal_fails_the_command() {
        let all = [outcome("kelvin", 200.0, Verdict::Valid)];
        assert!(!judgement(&lines(&all), &all).1);
    }
}
