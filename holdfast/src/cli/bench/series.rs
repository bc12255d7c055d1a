//! Series: the same work while one thing grows. What should be flat is shown to be, or not.

use std::time::Duration;

use bench::plot;

use super::{meter::Sample, plan::Plan, report::whole};

/// What all series take together, about: rounds leave them so much of a limited run.
pub const TIME: Duration = Duration::from_secs(270);

/// One thing that grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grows {
    Lines,
    /// Lines and lanes of a cart: 100 times the lines, and the lanes.
    Carts,
    Batch,
    Lanes,
    Appendfsync,
    HeldWhileOthersExpire,
    Held,
    Skus,
}

impl Grows {
    /// Measured with every role at work, in one world.
    pub fn is_over_http(self) -> bool {
        matches!(self, Self::Carts | Self::Appendfsync)
    }
}

/// A value that is drawn.
#[derive(Debug, Clone, Copy)]
pub enum Value {
    Rate,
    /// Processor time of one process, in microseconds an operation.
    Cpu(&'static str),
    CpuOfAll,
    P50,
    P99,
    More(&'static str),
}

impl Value {
    pub fn of(self, sample: &Sample) -> Option<f64> {
        match self {
            Self::Rate => Some(sample.rate),
            Self::Cpu(name) => sample.cpu_us.get(name).copied(),
            Self::CpuOfAll => Some(sample.cpu_of_all()),
            Self::P50 => sample.latency.map(|latency| latency.p50),
            Self::P99 => sample.latency.map(|latency| latency.p99),
            Self::More(name) => sample.more.get(name).copied(),
        }
    }
}

/// A picture of a series: its y axis and its lines.
#[derive(Debug, Clone, Copy)]
pub struct Picture {
    pub file: &'static str,
    pub y: &'static str,
    pub curves: &'static [(&'static str, Value)],
}

/// A series and how it is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    pub name: &'static str,
    pub title: &'static str,
    pub x: &'static str,
    pub grows: Grows,
    pub pictures: &'static [Picture],
}

/// One point.
#[derive(Debug, Clone)]
pub struct Point {
    /// As it is written along the bottom.
    pub at: String,
    pub sample: Sample,
}

const RATE_AND_COST: [Picture; 2] = [
    Picture {
        file: "rate",
        y: "a second",
        curves: &[("reservations a second", Value::Rate)],
    },
    Picture {
        file: "cost",
        y: "µs of processor time each",
        curves: &[
            ("all processes but the load", Value::CpuOfAll),
            ("Redis", Value::Cpu("redis")),
        ],
    },
];

/// All of them, the longest last: they are what a limited run may leave out.
pub const ALL: [Series; 8] = [
    Series {
        name: "flat-lines",
        title: "A cart costs by its lines",
        x: "lines of each cart, in one lane",
        grows: Grows::Lines,
        pictures: &[Picture {
            file: "cost",
            y: "µs a cart",
            curves: &[
                ("script", Value::More("script µs each")),
                ("all processes but the load", Value::CpuOfAll),
            ],
        }],
    },
    Series {
        name: "carts",
        title: "A cart costs by its lanes, over HTTP, 100 carts a second",
        x: "lines, lanes of each cart",
        grows: Grows::Carts,
        pictures: &[
            Picture {
                file: "latency",
                y: "ms",
                curves: &[("median", Value::P50), ("p99", Value::P99)],
            },
            Picture {
                file: "cost",
                y: "µs of processor time a cart",
                curves: &[
                    ("all processes but the load", Value::CpuOfAll),
                    ("roles", Value::Cpu("holdfast")),
                ],
            },
            Picture {
                file: "events",
                y: "events a cart",
                curves: &[("events", Value::More("events each"))],
            },
        ],
    },
    Series {
        name: "flat-batch",
        title: "A command costs less in a larger batch",
        x: "commands in one script call, at most",
        grows: Grows::Batch,
        pictures: &[Picture {
            file: "cost",
            y: "µs a command",
            curves: &[
                ("script", Value::More("script µs each")),
                ("all processes but the load", Value::CpuOfAll),
            ],
        }],
    },
    Series {
        name: "flat-lanes",
        title: "Reservations over HTTP by lanes, 256 connections, 1,000 SKUs",
        x: "lanes",
        grows: Grows::Lanes,
        pictures: &RATE_AND_COST,
    },
    Series {
        name: "redis-appendfsync",
        title: "Redis' append-only file, 64 connections, 1,000 SKUs",
        x: "appendfsync",
        grows: Grows::Appendfsync,
        pictures: &[
            Picture {
                file: "rate",
                y: "a second",
                curves: &[("reservations a second", Value::Rate)],
            },
            Picture {
                file: "p99",
                y: "p99, ms",
                curves: &[("p99", Value::P99)],
            },
        ],
    },
    Series {
        name: "flat-expirer",
        title: "Expiring costs by what expires, not by what is held",
        x: "live holds beside those that expire",
        grows: Grows::HeldWhileOthersExpire,
        pictures: &[Picture {
            file: "cost",
            y: "µs of processor time for each that expires",
            curves: &[
                ("all processes but the load", Value::CpuOfAll),
                ("Redis", Value::Cpu("redis")),
            ],
        }],
    },
    Series {
        name: "flat-holds",
        title: "A reservation beside live holds",
        x: "live holds",
        grows: Grows::Held,
        pictures: &[Picture {
            file: "cost",
            y: "µs a reservation",
            curves: &[
                ("script", Value::More("script µs each")),
                ("Redis' processor time", Value::Cpu("redis")),
            ],
        }],
    },
    Series {
        name: "flat-skus",
        title: "Reservations from Kafka by SKUs in stock",
        x: "SKUs",
        grows: Grows::Skus,
        pictures: &RATE_AND_COST,
    },
];

/// All series, or those whose name contains one of `only`.
pub fn named(only: &[String]) -> Vec<Series> {
    let wanted = |series: &&Series| only.is_empty() || only.iter().any(|part| series.name.contains(part.as_str()));
    ALL.iter().filter(wanted).copied().collect()
}

/// Policies of the append-only file, one without a break in rewriting it.
pub const POLICIES: [&str; 4] = ["no", "everysec", "everysec, rewriting", "always"];

impl Series {
    /// Where it is measured, with about how many seconds that takes.
    pub fn places(&self, plan: &Plan) -> Vec<(u64, u64)> {
        let most = u64::from(plan.most);
        let up_to_most = |all: &[(u64, u64)]| all.iter().copied().filter(|(at, _)| *at <= most).collect();
        let steady = |all: &[u64], seconds| all.iter().map(|at| (*at, seconds)).collect();
        let http = u64::from(plan.seconds);
        match self.grows {
            Grows::Lines => steady(&[1, 2, 5, 10, 20, 50], 5),
            Grows::Carts => {
                let all = [(1, 1), (20, 1), (50, 1), (20, 2), (20, 3), (20, 4), (50, 4)];
                let there = all.iter().filter(|(_, lanes)| *lanes <= plan.lanes);
                there
                    .map(|(lines, lanes)| (lines * 100 + u64::from(*lanes), http + 2))
                    .collect()
            }
            Grows::Batch => steady(&[1, 8, 32, 128], 5),
            Grows::Lanes => steady(&[1, 2, 4, 8, 16], http + 12),
            Grows::Appendfsync => steady(&[0, 1, 2, 3], http + 2),
            Grows::HeldWhileOthersExpire => up_to_most(&[(1_000, 6), (10_000, 8), (100_000, 15)]),
            Grows::Held => up_to_most(&[(1_000, 4), (10_000, 5), (100_000, 10), (300_000, 20), (1_000_000, 60)]),
            Grows::Skus => up_to_most(&[(1, 4), (1_000, 5), (10_000, 5), (100_000, 12), (1_000_000, 75)]),
        }
    }

    pub fn name_of(&self, at: u64) -> String {
        match self.grows {
            Grows::Carts => format!("{}, {}", at / 100, at % 100),
            Grows::Appendfsync => POLICIES[usize::try_from(at).unwrap_or(0)].to_owned(),
            _ => whole(at as f64),
        }
    }

    /// Places that have no point.
    pub fn left_out<'a>(&'a self, points: &'a [Point], plan: &Plan) -> impl Iterator<Item = String> + use<'a> {
        let all = self.places(plan).into_iter().map(|(at, _)| self.name_of(at));
        all.filter(|name| points.iter().all(|point| point.at != *name))
    }

    /// What it measured at a point, each value once.
    pub fn words(&self, point: &Point) -> Vec<String> {
        let curves = self.pictures.iter().flat_map(|picture| picture.curves);
        curves
            .filter_map(|(name, value)| Some(format!("{name} {}", plot::short(value.of(&point.sample)?))))
            .collect()
    }

    /// Its pictures, by file name.
    pub fn plots(&self, points: &[Point]) -> Vec<(String, plot::Plot)> {
        let draw = |picture: &Picture| {
            let curve = |(name, value): &(&str, Value)| plot::Curve {
                name: (*name).to_owned(),
                values: points.iter().map(|point| value.of(&point.sample)).collect(),
            };
            let plot = plot::Plot {
                title: self.title.to_owned(),
                x: self.x.to_owned(),
                y: picture.y.to_owned(),
                places: points.iter().map(|point| point.at.clone()).collect(),
                curves: picture.curves.iter().map(curve).collect(),
            };
            (format!("{}-{}.svg", self.name, picture.file), plot)
        };
        self.pictures.iter().map(draw).collect()
    }
}
