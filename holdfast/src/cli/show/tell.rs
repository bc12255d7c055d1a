//! The story as tables.

use super::{Entry, Life};
use crate::cli::{table, time_text};

/// Everything about a hold, for people.
pub(super) fn render(life: &Life) -> String {
    let mut out = format!("hold {}, lane {}\n\n", life.hold_id, life.lane);
    let mut timeline = table(&["time", "topic", "offset", "type", "", "what"]);
    for entry in &life.timeline {
        timeline.add_row([
            entry.time_ms.map(time_text).unwrap_or_default(),
            format!("{}[{}]", entry.topic, entry.partition),
            entry.offset.to_string(),
            entry.kind.clone(),
            entry.counts.to_owned(),
            gist(entry),
        ]);
    }
    out += &format!("{timeline}\n\n");
    let mut sides = table(&["", "state", "user", "lines", "expires", "changed", "payment", "reason"]);
    for (name, side) in [("log", &life.log), ("Redis", &life.redis), ("Postgres", &life.postgres)] {
        let Some(side) = side else {
            sides.add_row([name, "-"]);
            continue;
        };
        sides.add_row([
            name.to_owned(),
            side.state.to_owned(),
            side.user_id.clone(),
            side.lines.clone(),
            time_text(side.expires_at),
            time_text(side.changed_at),
            side.payment_ref.clone().unwrap_or_default(),
            side.reason.clone().unwrap_or_default(),
        ]);
    }
    out += &format!("{sides}\n");
    if !life.parts.is_empty() {
        let mut parts = table(&["lane", "attempt", "lines", "log", "Redis", "Postgres"]);
        for part in &life.parts {
            let state = |state: Option<&'static str>| state.unwrap_or("-").to_owned();
            parts.add_row([
                part.lane.to_string(),
                part.attempt.to_string(),
                part.lines.clone(),
                state(part.log),
                state(part.redis),
                state(part.postgres),
            ]);
        }
        out += &format!("\nits parts in other lanes\n{parts}\n");
    }
    if !life.movements.is_empty() {
        let mut movements = table(&[
            "lane",
            "movement",
            "SKU",
            "on hand",
            "held",
            "allocated",
            "event",
            "decided",
        ]);
        for movement in &life.movements {
            movements.add_row([
                movement.lane.to_string(),
                movement.kind.clone(),
                movement.sku.clone(),
                format!("{:+}", movement.on_hand_change),
                format!("{:+}", movement.held_change),
                format!("{:+}", movement.allocated_change),
                movement.event_offset.to_string(),
                time_text(movement.decided_at),
            ]);
        }
        out += &format!("\n{movements}\n");
    }
    if let Some(order) = &life.order {
        out += &format!("\norder: {order}\n");
    }
    if life.agreement.is_empty() {
        out += "\n✓ the log, Redis and Postgres agree\n";
    }
    for problem in &life.agreement {
        out += &format!("\n✗ {problem}\n");
    }
    out
}

/// The few words of a record that make the story readable.
fn gist(entry: &Entry) -> String {
    const TELLING: [&str; 13] = [
        "user_id",
        "idempotency_key",
        "ttl_ms",
        "payment_ref",
        "cap_ms",
        "reference",
        "quantity",
        "actor",
        "reason",
        "message",
        "command",
        "shortages",
        "error",
    ];
    let mut words: Vec<String> = entry
        .command
        .map(|offset| format!("decides {offset}"))
        .into_iter()
        .collect();
    words.extend(TELLING.iter().filter_map(|name| match entry.fields.get(*name)? {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) if text.is_empty() => None,
        serde_json::Value::String(text) => Some(format!("{name} {text}")),
        other => Some(format!("{name} {other}")),
    }));
    words.join(", ")
}
