//! Rounds into a table for people and JSON for plots: medians with their spread, each beside its ceiling.

use std::{collections::BTreeMap, fmt::Write as _};

use bench::{cpu, plot, tally::Latency};
use serde_json::{Value, json};

use super::{
    meter::Sample,
    plan::Plan,
    series::{self, Point, Series},
};

/// All samples of a run.
pub struct Report {
    about: Value,
    /// Scenarios in the order in which they were measured.
    order: Vec<String>,
    samples: BTreeMap<String, Vec<Sample>>,
    ceilings: BTreeMap<&'static str, &'static str>,
    series: Vec<(Series, Vec<Point>)>,
    /// What could not be measured, and why.
    failed: Vec<String>,
    /// What was left out.
    notes: Vec<String>,
}

/// The middle of some numbers; 0 of none.
fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// Half the distance between the fastest and the slowest, as a share of the median.
fn spread(rates: &[f64]) -> f64 {
    let (low, high) = rates.iter().fold((f64::MAX, f64::MIN), |(low, high), rate| {
        (low.min(*rate), high.max(*rate))
    });
    (high - low) / 2.0 / median(rates.iter().copied()).max(1e-9)
}

fn medians<'a>(maps: impl Iterator<Item = &'a BTreeMap<String, f64>> + Clone) -> BTreeMap<String, f64> {
    let names: std::collections::BTreeSet<&String> = maps.clone().flat_map(BTreeMap::keys).collect();
    names
        .into_iter()
        .map(|name| {
            (
                name.clone(),
                median(maps.clone().filter_map(|map| map.get(name).copied())),
            )
        })
        .collect()
}

/// A number of things, in groups of three digits.
pub fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

impl Report {
    pub fn new(plan: &Plan) -> Self {
        Self {
            about: json!({
                "machine": cpu::machine(),
                "version": env!("CARGO_PKG_VERSION"),
                "at": super::super::time_text(plumbing::time::now_ms()),
                "rounds": plan.rounds,
                "seconds": plan.seconds,
                "records": plan.records,
                "buyers": plan.buyers,
                "lanes": plan.lanes,
                "settings": plan.settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            }),
            order: Vec::new(),
            samples: BTreeMap::new(),
            ceilings: plan
                .scenarios
                .iter()
                .filter_map(|scenario| Some((scenario.name, scenario.ceiling()?)))
                .collect(),
            series: Vec::new(),
            failed: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub fn take_series(&mut self, name: &str, points: Vec<Point>) {
        let series = series::ALL.into_iter().find(|series| series.name == name);
        self.series.extend(series.map(|series| (series, points)));
    }

    pub fn fail(&mut self, what: String) {
        self.failed.push(what);
    }

    pub fn note(&mut self, what: String) {
        self.notes.push(what);
    }

    pub fn take(&mut self, sample: Sample) {
        if !self.order.contains(&sample.scenario) {
            self.order.push(sample.scenario.clone());
        }
        self.samples.entry(sample.scenario.clone()).or_default().push(sample);
    }

    /// All samples of a scenario.
    pub fn of(&self, scenario: &str) -> &[Sample] {
        self.samples.get(scenario).map_or(&[], Vec::as_slice)
    }

    /// Its rate in the median round; 0 when it was not measured.
    pub fn rate(&self, scenario: &str) -> f64 {
        median(self.of(scenario).iter().map(|sample| sample.rate))
    }

    /// The share of its ceiling that a scenario reaches, where both were measured.
    fn share(&self, scenario: &str) -> Option<(&'static str, f64)> {
        let ceiling = match scenario {
            "persister" => "postgres-batches",
            other => self.ceilings.get(other).copied()?,
        };
        let of = self.rate(ceiling);
        (of > 0.0).then(|| (ceiling, self.rate(scenario) / of))
    }

    /// Nobody was left without an answer, and every world's books agreed.
    pub fn is_clean(&self) -> bool {
        let points = self
            .series
            .iter()
            .flat_map(|(_, points)| points.iter().map(|point| &point.sample));
        let mut all = self.samples.values().flatten().chain(points);
        self.failed.is_empty() && all.all(|sample| sample.failures == 0 && sample.differences.unwrap_or(0) == 0)
    }

    /// A median over the rounds of a scenario, where it was measured.
    pub fn median_of(&self, scenario: &str, pick: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let all: Vec<f64> = self.of(scenario).iter().filter_map(pick).collect();
        (!all.is_empty()).then(|| median(all.into_iter()))
    }

    /// The table.
    pub fn text(&self) -> String {
        let mut table = super::super::table(&[
            "scenario",
            "a second",
            "±",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "failed",
            "CPU µs each",
        ]);
        let mut notes = String::new();
        for scenario in &self.order {
            table.add_row(self.row(scenario));
            for line in self.remarks(scenario) {
                let _ = writeln!(notes, "  {scenario}: {line}");
            }
        }
        for (series, points) in &self.series {
            let _ = writeln!(notes, "  {} ({})", series.name, series.x);
            for point in points {
                let _ = writeln!(notes, "    {:>20}  {}", point.at, series.words(point).join(", "));
            }
        }
        let trouble = self
            .failed
            .iter()
            .map(|what| format!("FAILED {what}"))
            .chain(self.notes.iter().cloned());
        for line in trouble {
            let _ = writeln!(notes, "  {line}");
        }
        let checked = self.samples.values().flatten().filter_map(|sample| sample.differences);
        let books = match checked.clone().count() {
            0 => "nothing to verify".to_owned(),
            _ => format!("{} differences found by verify", checked.sum::<u64>()),
        };
        let machine = self.about["machine"].as_str().unwrap_or_default();
        format!("{machine}\n{table}\n{notes}  {books}\n")
    }

    /// Scenarios in the order in which they were measured.
    pub fn scenarios(&self) -> &[String] {
        &self.order
    }

    pub fn series(&self) -> &[(Series, Vec<Point>)] {
        &self.series
    }

    /// What failed, and what was left out.
    pub fn trouble(&self) -> impl Iterator<Item = String> + '_ {
        let failed = self.failed.iter().map(|what| format!("Failed: {what}"));
        failed.chain(self.notes.iter().cloned())
    }

    /// One of the facts about the run.
    pub fn about(&self, name: &str) -> String {
        match &self.about[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// A line of the table: name, rate, spread, three latencies, failures, processor time.
    pub fn row(&self, scenario: &str) -> [String; 8] {
        let samples = self.of(scenario);
        let rates: Vec<f64> = samples.iter().map(|sample| sample.rate).collect();
        let latency = |pick: fn(&Latency) -> f64| {
            let median = self.median_of(scenario, |sample| sample.latency.as_ref().map(pick));
            median.map_or_else(String::new, |ms| format!("{ms:.1}"))
        };
        let used = medians(samples.iter().map(|sample| &sample.cpu_us));
        let used: Vec<String> = used.iter().map(|(name, us)| format!("{name} {us:.1}")).collect();
        [
            scenario.to_owned(),
            whole(self.rate(scenario)),
            format!("{:.0} %", 100.0 * spread(&rates)),
            latency(|latency| latency.p50),
            latency(|latency| latency.p99),
            latency(|latency| latency.p999),
            samples.iter().map(|sample| sample.failures).sum::<u64>().to_string(),
            used.join(", "),
        ]
    }

    /// What else is to be said of a scenario.
    pub fn remarks(&self, scenario: &str) -> Vec<String> {
        let samples = self.of(scenario);
        let share = self.share(scenario);
        let share = share.map(|(ceiling, share)| format!("{:.0} % of {ceiling}", 100.0 * share));
        let names: std::collections::BTreeSet<_> = samples.iter().flat_map(|sample| sample.more.keys()).collect();
        let more = names.into_iter().filter_map(|name| {
            let value = self.median_of(scenario, |sample| sample.more.get(name).copied())?;
            Some(format!("{name} {}", plot::short(value)))
        });
        share.into_iter().chain(more).collect()
    }

    /// Everything, each round too.
    pub fn json(&self) -> Value {
        let scenario = |name: &String| {
            let samples = self.of(name);
            let rates: Vec<f64> = samples.iter().map(|sample| sample.rate).collect();
            json!({
                "name": name,
                "per_second": self.rate(name),
                "spread": spread(&rates),
                "share": self.share(name).map(|(of, share)| json!({"of": of, "share": share})),
                "failures": samples.iter().map(|sample| sample.failures).sum::<u64>(),
                "differences": samples.iter().filter_map(|sample| sample.differences).sum::<u64>(),
                "cpu_us": medians(samples.iter().map(|sample| &sample.cpu_us)),
                "threads_us": medians(samples.iter().map(|sample| &sample.threads_us)),
                "rounds": samples.iter().map(|sample| json!({
                    "per_second": sample.rate,
                    "latency_ms": sample.latency,
                    "more": sample.more,
                })).collect::<Vec<_>>(),
            })
        };
        let point = |point: &Point| {
            json!({
                "at": point.at,
                "per_second": point.sample.rate,
                "latency_ms": point.sample.latency,
                "failures": point.sample.failures,
                "cpu_us": point.sample.cpu_us,
                "more": point.sample.more,
            })
        };
        let series = |(series, points): &(Series, Vec<Point>)| json!({ "name": series.name, "x": series.x, "points": points.iter().map(point).collect::<Vec<_>>() });
        json!({
            "about": self.about,
            "scenarios": self.order.iter().map(scenario).collect::<Vec<_>>(),
            "series": self.series.iter().map(series).collect::<Vec<_>>(),
            "failed": self.failed,
            "notes": self.notes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_and_a_spread_half_the_width() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
        assert!((spread(&[90.0, 100.0, 110.0]) - 0.1).abs() < 1e-9);
        assert_eq!(whole(1_234_567.4), "1,234,567");
        assert_eq!(whole(999.0), "999");
    }
}
