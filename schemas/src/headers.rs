//! Record headers: CloudEvents Kafka binding in binary mode, `traceparent`, and the fold's numbers, so that a reader can
//! fold and follow a lane without Avro.

use domain::{Event, EventBody, Stamp};

/// CloudEvents type of a `LaneOpened`.
pub const LANE_OPENED: &str = "holdfast.LaneOpened";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";

/// What an event's headers say, as much as a fold needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHeaders {
    /// The fold's input.
    pub stamp: Stamp,
}

impl EventHeaders {
    /// Reads the fold's numbers from headers; `None` when they are missing or wrong, which makes the record void.
    #[must_use]
    pub fn read<'a>(headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Option<Self> {
        let (mut kind, mut epoch, mut previous, mut command, mut time) = (None, None, None, None, None);
        for (name, value) in headers {
            match name {
                "ce_type" => kind = value,
                "epoch" => epoch = number(value),
                "previous" => previous = number(value),
                "command" => command = number(value),
                "time" => time = number(value),
                _ => {}
            }
        }
        let stamp = if kind? == LANE_OPENED.as_bytes() {
            Stamp::Opened
        } else {
            Stamp::Decision {
                epoch: epoch?,
                command: command?,
                previous: previous?,
                time: time?,
            }
        };
        Some(Self { stamp })
    }
}

fn number(value: Option<&[u8]>) -> Option<i64> {
    std::str::from_utf8(value?).ok()?.parse().ok()
}

/// Every header of an event, in the order in which it is written.
#[must_use]
pub fn of_event(event: &Event, source: &str) -> Vec<(&'static str, String)> {
    let mut headers = cloud_event(&event.event_id.to_string(), source, event.body.name());
    let subject = match (&event.hold_id, event.lines.first()) {
        (Some(hold_id), _) => Some(hold_id.to_string()),
        (None, Some(line)) => Some(line.sku.to_string()),
        (None, None) => None,
    };
    headers.extend(subject.map(|subject| ("ce_subject", subject)));
    let opened = matches!(event.body, EventBody::LaneOpened { .. });
    let or_none = |number: i64| if opened { "-1".to_owned() } else { number.to_string() };
    headers.push(("epoch", or_none(event.epoch)));
    headers.push(("previous", or_none(event.previous_command_offset)));
    headers.push(("command", or_none(event.command_offset)));
    headers.push(("time", event.decided_at.to_string()));
    headers
}

/// The CloudEvents headers of a command: id, source, type, and what it is about.
#[must_use]
pub fn of_command(command_id: &str, source: &str, body: &'static str, subject: &str) -> Vec<(&'static str, String)> {
    let mut headers = cloud_event(command_id, source, body);
    headers.push(("ce_subject", subject.to_owned()));
    headers
}

fn cloud_event(id: &str, source: &str, body: &str) -> Vec<(&'static str, String)> {
    vec![
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", id.to_owned()),
        ("ce_source", source.to_owned()),
        ("ce_type", format!("holdfast.{body}")),
        ("content-type", "application/vnd.confluent.avro".to_owned()),
    ]
}
