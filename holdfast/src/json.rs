//! Events and commands as JSON: the fields of the schema, with the body's own fields beside them and its name as `type`.

use domain::{Command, Event};
use schemas::records::{InventoryCommand, InventoryEvent};
use serde::Serialize;
use serde_json::{Map, Value};

/// One event as one line of JSON.
#[derive(Debug, Serialize)]
pub struct EventLine<'a> {
    /// Full topic name.
    pub topic: &'a str,
    /// Lane.
    pub partition: i32,
    /// Offset in the events topic.
    pub offset: i64,
    /// The body's name.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// Only there, and true, for an event that never happened.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub void: bool,
    /// Everything else, or why it cannot be read.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// All fields of an event, those of its body inline.
#[must_use]
pub fn event_fields(event: &Event) -> Map<String, Value> {
    inline_body(serde_json::to_value(InventoryEvent::from(event)))
}

/// All fields of a command, those of its body inline.
#[must_use]
pub fn command_fields(command: &Command) -> Map<String, Value> {
    inline_body(serde_json::to_value(InventoryCommand::from(command)))
}

/// Why a record cannot be read, in place of its fields.
#[must_use]
pub fn error_fields(error: impl std::fmt::Display) -> Map<String, Value> {
    Map::from_iter([("error".to_owned(), Value::String(error.to_string()))])
}

fn inline_body(record: serde_json::Result<Value>) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = record else {
        return error_fields("the record cannot be shown as JSON");
    };
    if let Some(Value::Object(body)) = fields.remove("body") {
        // A union branch: one name with its fields.
        for (_, inner) in body {
            if let Value::Object(inner) = inner {
                fields.extend(inner);
            }
        }
    }
    hex_fingerprints(&mut fields);
    fields
}

/// Bytes come as lists of numbers; people and `jq` want hexadecimal.
fn hex_fingerprints(fields: &mut Map<String, Value>) {
    for (name, value) in fields.iter_mut() {
        match value {
            Value::Object(inner) => hex_fingerprints(inner),
            Value::Array(bytes) if name == "fingerprint" => {
                let hex: String = bytes
                    .iter()
                    .filter_map(Value::as_u64)
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                *value = Value::String(hex);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{EventBody, EventId, EventLine as Line, Fingerprint, Lane, Sku, Tenant, Text};

    use super::*;

    #[test]
    fn a_body_stands_beside_the_envelope_and_fingerprints_are_hexadecimal() {
        let event = Event {
            event_id: EventId::of(Lane::new(1).unwrap(), 4, 9),
            request_id: "r".to_owned(),
            epoch: 4,
            command_offset: 9,
            previous_command_offset: 8,
            command_id: "c".to_owned(),
            tenant: Tenant::parse("default").unwrap(),
            hold_id: None,
            decided_at: 1_000,
            source: None,
            hold: None,
            part: None,
            lines: vec![Line {
                sku: Sku::parse("mug").unwrap(),
                quantity: 0,
                counted: 0,
                on_hand: 5,
                held: 0,
                allocated: 0,
                sku_version: 1,
            }],
            body: EventBody::StockAdjusted {
                change: 5,
                reason: Text::parse("reason", "delivery").unwrap(),
                reference: None,
                actor: Text::parse("actor", "ann").unwrap(),
                fingerprint: Fingerprint::from_bytes(&[0xab; 32]).unwrap(),
            },
        };
        let line = EventLine {
            topic: "t",
            partition: 1,
            offset: 12,
            kind: event.body.name(),
            void: false,
            fields: event_fields(&event),
        };
        let text = serde_json::to_string(&line).unwrap();
        assert!(
            text.starts_with(r#"{"topic":"t","partition":1,"offset":12,"type":"StockAdjusted","#),
            "{text}"
        );
        assert!(
            text.contains(r#""change":5"#) && text.contains(r#""reason":"delivery""#),
            "{text}"
        );
        assert!(
            text.contains(&format!(r#""fingerprint":"{}""#, "ab".repeat(32))),
            "{text}"
        );
        assert!(!text.contains("body") && !text.contains("void"), "{text}");
    }
}
