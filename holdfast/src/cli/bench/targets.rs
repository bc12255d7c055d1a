//! What this machine should reach, and whether it did: judged from a report alone.

use super::{
    meter::Sample,
    report::{Report, whole},
    series::{Grows, Value},
};

/// One target, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    pub what: &'static str,
    pub target: String,
    pub measured: String,
    /// `None`: it was not measured.
    pub met: Option<bool>,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

fn judge(what: &'static str, unit: &str, bound: Bound, measured: Option<f64>) -> Judged {
    let number = |value: f64| {
        if value >= 100.0 {
            whole(value)
        } else {
            format!("{value:.1}")
        }
    };
    let (sign, limit, met) = match bound {
        Bound::AtLeast(limit) => ("≥", limit, measured.map(|value| value >= limit)),
        Bound::AtMost(limit) => ("≤", limit, measured.map(|value| value <= limit)),
    };
    Judged {
        what,
        target: format!("{sign} {}{unit}", number(limit)),
        measured: measured.map_or_else(|| "not measured".to_owned(), |value| format!("{}{unit}", number(value))),
        met,
    }
}

/// Every target.
pub fn all(report: &Report) -> Vec<Judged> {
    use Bound::{AtLeast, AtMost};
    let rate = |name: &str| Some(report.rate(name)).filter(|rate| *rate > 0.0);
    let ratio = |name: &str, of: &str| Some(rate(name)? / rate(of)?);
    let share = |name: &str, of: &str| Some(100.0 * ratio(name, of)?);
    let p50 = |name: &str| report.median_of(name, |sample| Some(sample.latency?.p50));
    let p99 = |name: &str| report.median_of(name, |sample| Some(sample.latency?.p99));
    let p999 = |name: &str| report.median_of(name, |sample| Some(sample.latency?.p999));
    let more =
        |name: &str, what: &'static str| report.median_of(name, |sample: &Sample| sample.more.get(what).copied());
    let best_hot = if report.rate("postgres-cte-hot") >= report.rate("postgres-row-hot") {
        "postgres-cte-hot"
    } else {
        "postgres-row-hot"
    };
    let storms = |name: &str| report.median_of(name, |sample| Some(sample.failures as f64));
    let mut judged = vec![
        judge(
            "HTTP, one hot SKU, 256 connections",
            " a second",
            AtLeast(22_000.0),
            rate("http-hot-256"),
        ),
        judge(
            "... beside axum on Postgres' best form",
            " times",
            AtLeast(7.0),
            ratio("http-hot-256", best_hot),
        ),
        judge(
            "... beside axum on Redis alone",
            " %",
            AtLeast(40.0),
            share("http-hot-256", "redis-hot"),
        ),
        judge(
            "HTTP, 1,000 SKUs, 256 connections",
            " a second",
            AtLeast(18_000.0),
            rate("http-many-256"),
        ),
        judge(
            "HTTP, 1,000 SKUs, 64 connections",
            " a second",
            AtLeast(10_000.0),
            rate("http-many-64"),
        ),
        judge("... median", " ms", AtMost(5.0), p50("http-many-64")),
        judge("... p99", " ms", AtMost(15.0), p99("http-many-64")),
        judge(
            "open loop at 1,000 a second, median",
            " ms",
            AtMost(2.5),
            p50("http-open-1000"),
        ),
        judge("... p99", " ms", AtMost(12.0), p99("http-open-1000")),
        judge("... p99.9", " ms", AtMost(40.0), p999("http-open-1000")),
        judge(
            "commands from Kafka to valid events",
            " a second",
            AtLeast(75_000.0),
            rate("log"),
        ),
        judge(
            "... beside the bare loop",
            " %",
            AtLeast(70.0),
            share("log", "bare-loop"),
        ),
        judge(
            "persister, sustained",
            " events a second",
            AtLeast(50_000.0),
            rate("persister"),
        ),
        judge(
            "rows behind when a full load ends (hot, 256)",
            " s",
            AtMost(2.0),
            more("http-hot-256", "rows behind at the end, s"),
        ),
        judge(
            "carts of 20 lines from Kafka, one lane",
            " a second",
            AtLeast(5_000.0),
            rate("carts-20"),
        ),
        judge(
            "... each over four lanes",
            " a second",
            AtLeast(2_000.0),
            rate("carts-20-over-4"),
        ),
        judge(
            "Redis memory of a live hold",
            " bytes",
            AtMost(400.0),
            more("log", "Redis bytes a hold"),
        ),
        judge(
            "memory of all roles at rest",
            " MiB",
            AtMost(150.0),
            more("http-hot-256", "roles at rest, MiB"),
        ),
        judge(
            "... at full load",
            " MiB",
            AtMost(500.0),
            more("http-hot-256", "roles at most, MiB"),
        ),
        judge(
            "storm: buyers without an answer, or units too many or few",
            "",
            AtMost(0.0),
            storms("storm"),
        ),
        judge(
            "storm: all units sold within",
            " s",
            AtMost(1.0),
            more("storm", "sold out after, s"),
        ),
        judge(
            "storm: refusals from events",
            " a second",
            AtLeast(15_000.0),
            more("storm", "refusals a second"),
        ),
        judge(
            "storm: refusals with those from the tail's state",
            " a second",
            AtLeast(30_000.0),
            more("storm-from-tail", "refusals a second"),
        ),
    ];
    judged.extend(flat(report));
    judged
}

/// The worst point of a series beside its best, or its last beside its first.
fn flat(report: &Report) -> Vec<Judged> {
    let values = |grows: Grows, value: Value| -> Vec<f64> {
        let found = report.series().iter().find(|(series, _)| series.grows == grows);
        let points = found.map_or(&[][..], |(_, points)| points);
        points.iter().filter_map(|point| value.of(&point.sample)).collect()
    };
    let low = |all: &[f64]| all.iter().copied().reduce(f64::min);
    let high = |all: &[f64]| all.iter().copied().reduce(f64::max);
    let growth = |all: &[f64]| Some(high(all)? / low(all)?);
    let skus = values(Grows::Skus, Value::Rate);
    let held = values(Grows::Held, Value::More("script µs each"));
    let lanes = values(Grows::Lanes, Value::CpuOfAll);
    let expiry = values(Grows::HeldWhileOthersExpire, Value::CpuOfAll);
    let batch = values(Grows::Batch, Value::CpuOfAll);
    let best = high(&skus);
    vec![
        judge(
            "rate with any number of SKUs beside the best",
            " %",
            Bound::AtLeast(85.0),
            low(&skus).and_then(|low| Some(100.0 * low / best?)),
        ),
        judge(
            "script time with any number of live holds beside the least",
            " times",
            Bound::AtMost(1.5),
            growth(&held),
        ),
        judge(
            "cost of a reservation with 1 to 16 lanes beside the least",
            " times",
            Bound::AtMost(2.0),
            growth(&lanes),
        ),
        judge(
            "cost of an expiry beside any number of live holds",
            " times",
            Bound::AtMost(1.5),
            growth(&expiry),
        ),
        judge(
            "cost of a command in batches of 128 beside batches of one",
            " times",
            Bound::AtMost(1.0),
            batch.first().zip(batch.last()).map(|(first, last)| last / first),
        ),
    ]
}
