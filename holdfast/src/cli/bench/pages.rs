//! A report as files: a page in Markdown and a picture for each series.

use std::fmt::Write as _;

use bench::plot;

use super::{
    report::Report,
    series::{Point, Series},
    targets,
};

const ABOUT: &str = "\
# Measurements

Written by `holdfast bench --report docs/bench`, with [bench.json](bench.json), from which every number and picture here comes. What it
means, and how it is measured: [PERFORMANCE.md](../PERFORMANCE.md). Engines, roles and load share the machine.
";

/// Every file, by name.
pub fn all(report: &Report) -> Vec<(String, String)> {
    let plots = measured(report).flat_map(|(series, points)| series.plots(points));
    let mut files: Vec<_> = plots.map(|(name, plot)| (name, plot.svg())).collect();
    files.push(("README.md".to_owned(), page(report)));
    files
}

/// The series with something to show. What there was no time for is named as trouble.
fn measured(report: &Report) -> impl Iterator<Item = &(Series, Vec<Point>)> {
    report.series().iter().filter(|(_, points)| !points.is_empty())
}

fn page(report: &Report) -> String {
    let mut page = format!(
        "{ABOUT}\n{}. {}, {} rounds of {} s, {} records, {} lanes.\n",
        report.about("machine"),
        report.about("at"),
        report.about("rounds"),
        report.about("seconds"),
        report.about("records"),
        report.about("lanes"),
    );
    for line in report.trouble() {
        let _ = writeln!(page, "\n**{}**", line.replace('\n', " "));
    }
    targets(report, &mut page);
    scenarios(report, &mut page);
    for (series, points) in measured(report) {
        let _ = writeln!(page, "\n## {}\n", series.title);
        for (name, _) in series.plots(points) {
            let _ = writeln!(page, "![{}]({name})", series.title);
        }
        let curves = || series.pictures.iter().flat_map(|picture| picture.curves);
        let titles: Vec<&str> = curves().map(|(name, _)| *name).collect();
        let _ = writeln!(page, "\n| {} | {} |", series.x, titles.join(" | "));
        let _ = writeln!(page, "|---|{}", "---|".repeat(titles.len()));
        for point in points {
            let values: Vec<String> = curves()
                .map(|(_, value)| value.of(&point.sample).map_or_else(String::new, plot::short))
                .collect();
            let _ = writeln!(page, "| {} | {} |", point.at, values.join(" | "));
        }
    }
    page
}

fn targets(report: &Report, page: &mut String) {
    let _ = writeln!(
        page,
        "\n## Targets\n\n| what | target | measured | |\n|---|---|---|---|"
    );
    for target in targets::all(report) {
        let met = match target.met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {met} |",
            target.what, target.target, target.measured
        );
    }
}

fn scenarios(report: &Report, page: &mut String) {
    page.push_str(
        "\n## Scenarios\n\nMedians over the rounds; ± is half the distance between the slowest and the fastest round.\n\n\
         | scenario | a second | ± | p50 ms | p99 ms | p99.9 ms | failed | processor time each, µs |\n|---|---|---|---|---|---|---|---|\n",
    );
    for scenario in report.scenarios() {
        let _ = writeln!(page, "| {} |", report.row(scenario).join(" | "));
    }
    page.push('\n');
    for scenario in report.scenarios() {
        let remarks = report.remarks(scenario);
        if !remarks.is_empty() {
            let _ = writeln!(page, "- {scenario}: {}", remarks.join(", "));
        }
    }
}
