//! A report for people.

use comfy_table::{CellAlignment, Table};

use super::report::{LaneSummary, Report};
use crate::cli::table;

/// The report as a table, the differences a line each, and a last line that says which it was.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = format!("{}\n", lanes(&report.lanes));
    for note in &report.notes {
        out += &format!("note: {note}\n");
    }
    for difference in &report.differences {
        out += &format!(
            "✗ lane {} {}: {}\n",
            difference.lane,
            difference.place.name(),
            difference.what
        );
    }
    if report.more_differences > 0 {
        out += &format!("✗ and {} more\n", report.more_differences);
    }
    let valid: u64 = report.lanes.iter().map(|lane| lane.valid).sum();
    let skus: u64 = report.lanes.iter().map(|lane| lane.skus).sum();
    let holds: u64 = report.holds().values().sum();
    out += &if report.agrees() {
        format!("✓ the log, Redis and Postgres agree: {valid} events, {skus} SKUs, {holds} holds\n")
    } else {
        let count = report.differences.len() as u64 + report.more_differences;
        format!("✗ {count} {}\n", if count == 1 { "difference" } else { "differences" })
    };
    out
}

fn lanes(lanes: &[LaneSummary]) -> Table {
    let mut table = table(&[
        "lane",
        "commands",
        "events\nvalid",
        "\nvoid",
        "SKUs",
        "units\non hand",
        "\nheld",
        "\nallocated",
        "holds\nheld",
        "\npaying",
        "\nconfirmed",
        "\nshipped",
        "\nended",
        "the log\ndecides",
        "Redis\nat",
        "Postgres\nat event",
    ]);
    for lane in lanes {
        let holds = |state: &str| lane.holds.get(state).copied().unwrap_or(0);
        let or_dash = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        table.add_row([
            lane.lane.to_string(),
            lane.commands.to_string(),
            lane.valid.to_string(),
            lane.void.to_string(),
            lane.skus.to_string(),
            lane.units.on_hand.to_string(),
            lane.units.held.to_string(),
            lane.units.allocated.to_string(),
            holds("held").to_string(),
            holds("paying").to_string(),
            holds("confirmed").to_string(),
            holds("shipped").to_string(),
            (holds("unallocated") + holds("cancelled") + holds("expired")).to_string(),
            lane.last_decided.to_string(),
            or_dash(lane.redis.map(|cell| cell.fence)),
            or_dash(lane.checkpoint),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::report::{Difference, Place};
    use super::*;

    #[test]
    fn the_last_line_says_whether_everything_agrees() {
        let mut report = Report {
            lanes: vec![LaneSummary {
                lane: 3,
                valid: 7,
                ..LaneSummary::default()
            }],
            ..Report::default()
        };
        let clean = text(&report);
        assert!(clean.lines().last().unwrap().starts_with('✓'), "{clean}");
        report.differences.push(Difference {
            lane: 3,
            place: Place::Redis,
            what: "stock of default/a: 1 in Redis, 2 in the log".to_owned(),
        });
        report.more_differences = 4;
        let differs = text(&report);
        assert!(differs.contains("✗ lane 3 redis: stock of default/a"), "{differs}");
        assert_eq!(differs.lines().last().unwrap(), "✗ 5 differences");
    }
}
