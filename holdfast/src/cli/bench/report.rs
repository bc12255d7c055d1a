//! Rounds into a table for people and JSON for plots: medians with their spread, each beside its ceiling.

use std::{collections::BTreeMap, fmt::Write as _};

use bench::cpu;
use serde_json::{Value, json};

use super::{meter::Sample, plan::Plan};

/// All samples of a run.
pub struct Report {
    about: Value,
    /// Scenarios in the order in which they were measured.
    order: Vec<String>,
    samples: BTreeMap<String, Vec<Sample>>,
    ceilings: BTreeMap<&'static str, &'static str>,
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

fn whole(number: f64) -> String {
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
        }
    }

    pub fn take(&mut self, sample: Sample) {
        if !self.order.contains(&sample.scenario) {
            self.order.push(sample.scenario.clone());
        }
        self.samples.entry(sample.scenario.clone()).or_default().push(sample);
    }

    fn of(&self, scenario: &str) -> &[Sample] {
        self.samples.get(scenario).map_or(&[], Vec::as_slice)
    }

    fn rate(&self, scenario: &str) -> f64 {
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
        let all = || self.samples.values().flatten();
        all().all(|sample| sample.failures == 0 && sample.differences.unwrap_or(0) == 0)
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
            let samples = self.of(scenario);
            let rates: Vec<f64> = samples.iter().map(|sample| sample.rate).collect();
            let latency = |pick: fn(&bench::tally::Latency) -> f64| {
                let all: Vec<f64> = samples
                    .iter()
                    .filter_map(|sample| sample.latency.as_ref().map(pick))
                    .collect();
                if all.is_empty() {
                    String::new()
                } else {
                    format!("{:.1}", median(all.into_iter()))
                }
            };
            let used = medians(samples.iter().map(|sample| &sample.cpu_us));
            let used: Vec<String> = used.iter().map(|(name, us)| format!("{name} {us:.1}")).collect();
            table.add_row([
                scenario.clone(),
                whole(self.rate(scenario)),
                format!("{:.0} %", 100.0 * spread(&rates)),
                latency(|latency| latency.p50),
                latency(|latency| latency.p99),
                latency(|latency| latency.p999),
                samples.iter().map(|sample| sample.failures).sum::<u64>().to_string(),
                used.join(", "),
            ]);
            if let Some((ceiling, share)) = self.share(scenario) {
                let _ = writeln!(notes, "  {scenario}: {:.0} % of {ceiling}", 100.0 * share);
            }
            let more: std::collections::BTreeSet<_> = samples.iter().flat_map(|sample| sample.more.keys()).collect();
            for name in more {
                let value = median(samples.iter().filter_map(|sample| sample.more.get(name).copied()));
                let _ = writeln!(notes, "  {scenario}: {name} {value:.2}");
            }
        }
        let checked = self.samples.values().flatten().filter_map(|sample| sample.differences);
        let books = match checked.clone().count() {
            0 => "nothing to verify".to_owned(),
            _ => format!("{} differences found by verify", checked.sum::<u64>()),
        };
        let machine = self.about["machine"].as_str().unwrap_or_default();
        format!("{machine}\n{table}\n{notes}  {books}\n")
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
        json!({
            "about": self.about,
            "scenarios": self.order.iter().map(scenario).collect::<Vec<_>>(),
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
