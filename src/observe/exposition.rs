//! The metrics of all cores as one page: `GET /metrics` in the text format of Prometheus, and a group of
//! `/statz`.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::histogram::Snapshot;
use super::metrics::{Kind, Metrics, NUMBERS, TIMES};

/// Type of the content of `/metrics`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the buckets, in nanoseconds: 10 µs to 10 s. Each is a bound of [`Snapshot`]'s own.
const BOUNDS_NS: [u64; 19] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// The page. `log_lines_dropped` is [`super::log::dropped`].
pub fn prometheus(cores: &[Arc<Metrics>], log_lines_dropped: u64) -> String {
    let mut page = String::with_capacity(16 * 1024);
    // Writing to a String does not fail.
    let _ = write_page(&mut page, cores, log_lines_dropped);
    page
}

fn write_page(page: &mut String, cores: &[Arc<Metrics>], log_lines_dropped: u64) -> fmt::Result {
    for series in NUMBERS {
        let values = cores.iter().map(|metrics| (metrics.core(), (series.get)(metrics)));
        let kind = if series.kind == Kind::Counter { "counter" } else { "gauge" };
        head(page, series.name, series.help, kind)?;
        match series.kind {
            Kind::CoreGauge => write_cores(page, series.name, values)?,
            Kind::Time => {
                writeln!(page, "{} {}", series.name, Seconds(values.map(|(_, value)| value).sum()))?;
            }
            _ => writeln!(page, "{} {}", series.name, values.map(|(_, value)| value).sum::<u64>())?,
        }
    }
    head(page, "kelvin_connections_open", "Client connections.", "gauge")?;
    write_cores(
        page,
        "kelvin_connections_open",
        cores.iter().map(|metrics| (metrics.core(), metrics.connections_open())),
    )?;
    head(page, "kelvin_slice_longest_seconds", "Longest run without yielding since the start.", "gauge")?;
    for metrics in cores {
        let seconds = Seconds(metrics.longest_slice_ns());
        writeln!(page, "kelvin_slice_longest_seconds{{core=\"{}\"}} {seconds}", metrics.core())?;
    }
    let help = "Most processor's time of a run without yielding since the start.";
    head(page, "kelvin_slice_cpu_longest_seconds", help, "gauge")?;
    for metrics in cores {
        let seconds = Seconds(metrics.longest_slice_cpu_ns());
        writeln!(page, "kelvin_slice_cpu_longest_seconds{{core=\"{}\"}} {seconds}", metrics.core())?;
    }
    head(page, "kelvin_errors_sent_total", "Errors sent to clients.", "counter")?;
    for (kind, count) in errors(cores) {
        writeln!(page, "kelvin_errors_sent_total{{kind=\"{kind}\"}} {count}")?;
    }
    head(page, "kelvin_log_lines_dropped_total", "Log lines lost to a slow output.", "counter")?;
    writeln!(page, "kelvin_log_lines_dropped_total {log_lines_dropped}")?;
    for times in TIMES {
        let merged = merge(cores, times.get);
        head(page, times.name, times.help, "histogram")?;
        for bound in BOUNDS_NS {
            writeln!(page, "{}_bucket{{le=\"{}\"}} {}", times.name, Seconds(bound), merged.below(bound))?;
        }
        let count = merged.count();
        writeln!(page, "{}_bucket{{le=\"+Inf\"}} {count}", times.name)?;
        writeln!(page, "{}_sum {}", times.name, Seconds(merged.sum()))?;
        writeln!(page, "{}_count {count}", times.name)?;
    }
    Ok(())
}

fn head(page: &mut String, name: &str, help: &str, kind: &str) -> fmt::Result {
    writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn write_cores(page: &mut String, name: &str, values: impl Iterator<Item = (usize, u64)>) -> fmt::Result {
    for (core, value) in values {
        writeln!(page, "{name}{{core=\"{core}\"}} {value}")?;
    }
    Ok(())
}

fn merge(cores: &[Arc<Metrics>], get: fn(&Metrics) -> &super::histogram::Histogram) -> Snapshot {
    let mut merged = Snapshot::default();
    for metrics in cores {
        merged.add(get(metrics));
    }
    merged
}

fn errors(cores: &[Arc<Metrics>]) -> Vec<(&'static str, u64)> {
    let mut sums: Vec<(&'static str, u64)> = Vec::new();
    for (kind, count) in cores.iter().flat_map(|metrics| metrics.errors_sent()) {
        match sums.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, sum)) => *sum += count,
            None => sums.push((kind, count)),
        }
    }
    sums
}

/// The same numbers as names and values for `/statz`; times as quantiles in milliseconds.
pub fn summary(cores: &[Arc<Metrics>]) -> Vec<(String, Json)> {
    let short = |name: &str| name.trim_start_matches("kelvin_").to_owned();
    let mut rows: Vec<(String, Json)> = Vec::new();
    rows.push(("connections_open".into(), cores.iter().map(|m| m.connections_open()).sum::<u64>().into()));
    for series in NUMBERS {
        let sum = cores.iter().map(|m| (series.get)(m)).sum::<u64>();
        let value = if series.kind == Kind::Time { json!(sum as f64 / 1e9) } else { sum.into() };
        rows.push((short(series.name), value));
    }
    let errors: Map<String, Json> =
        errors(cores).into_iter().map(|(kind, count)| (kind.to_owned(), count.into())).collect();
    rows.push(("errors_sent".into(), errors.into()));
    for times in TIMES {
        let merged = merge(cores, times.get);
        let ms = |ns: u64| ns as f64 / 1e6;
        let at = |quantile| ms(merged.quantile(quantile));
        let value = json!({
            "count": merged.count(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999),
            "max": ms(merged.max()),
        });
        rows.push((short(times.name).trim_end_matches("_seconds").to_owned() + "_ms", value));
    }
    rows
}

/// Nanoseconds, shown in seconds without loss.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores() -> Vec<Arc<Metrics>> {
        let (a, b) = (Metrics::new(0), Metrics::new(1));
        a.connection_accepted();
        a.connection_accepted();
        a.socket_handed_over();
        b.socket_received();
        b.pokes_sent(1);
        b.bytes_sent(105);
        a.set_groups(3);
        b.set_groups(4);
        a.set_replica_watermark(77);
        a.slice_done(15_000, 15_000);
        b.slice_done(2_500_000_000, 1_000_000);
        b.error_sent("Internal");
        b.error_sent("SomethingNew");
        a.transform_done(false, 1);
        vec![Arc::new(a), Arc::new(b)]
    }

    #[test]
    fn cores_are_merged_or_shown_each() {
        let page = prometheus(&cores(), 9);
        for line in [
            "kelvin_connections_accepted_total 2",
            "kelvin_connections_open{core=\"0\"} 1",
            "kelvin_connections_open{core=\"1\"} 1",
            "kelvin_bytes_out_total 105",
            "kelvin_pokes_out_total 1",
            "kelvin_client_groups{core=\"1\"} 4",
            "kelvin_replica_watermark_lsn 77",
            "kelvin_slice_seconds_bucket{le=\"0.00001\"} 0",
            "kelvin_slice_seconds_bucket{le=\"0.00002\"} 1",
            "kelvin_slice_seconds_bucket{le=\"+Inf\"} 2",
            "kelvin_slice_seconds_sum 2.500015",
            "kelvin_slice_longest_seconds{core=\"1\"} 2.5",
            "kelvin_errors_sent_total{kind=\"Internal\"} 1",
            "kelvin_errors_sent_total{kind=\"other\"} 1",
            "kelvin_transform_failures_total 1",
            "kelvin_log_lines_dropped_total 9",
        ] {
            assert!(page.lines().any(|own| own == line), "{line}\n{page}");
        }
    }

    #[test]
    fn every_series_has_one_head_and_every_line_a_number() {
        let page = prometheus(&cores(), 0);
        let mut names: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let value = line.rsplit(' ').next().unwrap_or_default();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }

    #[test]
    fn the_summary_shows_quantiles_in_milliseconds() {
        let rows = summary(&cores());
        let slice = &rows.iter().find(|(name, _)| name == "slice_ms").unwrap().1;
        assert_eq!((slice["count"].as_u64(), slice["max"].as_f64()), (Some(2), Some(2500.0)));
    }
}
