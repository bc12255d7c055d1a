//! What a person corrects: a command as JSON, made of a letter as well as it can be, and a command again afterwards.
//!
//! The letter itself stays as it was buried; a corrected copy names it as its source.

use anyhow::{Context as _, bail};
use domain::{Command, CommandBody, Text};
use schemas::records::{AdjustStock, CommandBody as BodyRecord, InventoryCommand};
use serde::Serialize;
use serde_json::Value;

use crate::log::{Decoder, Record};

/// A command in the making.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct Draft {
    /// What it was made of.
    pub(super) made_of: &'static str,
    /// A command's record as JSON; what stood in the letter where that is JSON of another kind.
    pub(super) command: Value,
}

/// The best that can be made of a letter. Blocks.
pub(super) fn of(letter: &Record, decoder: &Decoder) -> anyhow::Result<Draft> {
    let bytes = letter.value.as_deref().unwrap_or_default();
    if let Ok(command) = decoder.command(Some(bytes))? {
        return drafted("the record, which can be read", &InventoryCommand::from(&command));
    }
    // A value that is not allowed, or a wrong mark or id in front of a sound record.
    if let Ok(record) = decoder.codec().decode_command_record(bytes) {
        return drafted("the record, some value of which is not allowed", &record);
    }
    if let Some((_, body)) = bytes.split_at_checked(5) {
        let ours = [&decoder.codec().command_prefix()[..], body].concat();
        if let Ok(record) = decoder.codec().decode_command_record(&ours) {
            return drafted("the record's bytes, read by the newest schema", &record);
        }
    }
    if let Ok(text @ Value::Object(_)) = serde_json::from_slice(bytes) {
        return Ok(Draft {
            made_of: "the letter's text, which is JSON and not a record",
            command: text,
        });
    }
    drafted("nothing: the letter's bytes say nothing", &blank(letter))
}

fn drafted(made_of: &'static str, record: &InventoryCommand) -> anyhow::Result<Draft> {
    let command = serde_json::to_value(record)?;
    Ok(Draft { made_of, command })
}

/// A form to fill in: a change of stock, under a name that the same letter always gets.
fn blank(letter: &Record) -> InventoryCommand {
    let id = format!("dead-letter-{}", letter.offset);
    InventoryCommand {
        command_id: id.clone(),
        request_id: id,
        tenant: "default".to_owned(),
        issued_at: letter.timestamp_ms.unwrap_or_default(),
        source: None,
        body: BodyRecord::AdjustStock(AdjustStock {
            sku: String::new(),
            change: Some(0),
            set: None,
            expected_on_hand: None,
            reason: String::new(),
            reference: None,
            actor: String::new(),
        }),
    }
}

/// The command that a person made of a draft. A change of stock is theirs.
///
/// # Errors
/// It is no command, a value is not allowed, or only lanes may write it.
pub(super) fn corrected(text: &str, actor: Option<&str>) -> anyhow::Result<Command> {
    let record: InventoryCommand = serde_json::from_str(text).context("the corrected copy is no command")?;
    let mut command = Command::try_from(record).context("the corrected copy is not allowed")?;
    match &mut command.body {
        CommandBody::Relay { .. }
        | CommandBody::RelayDone { .. }
        | CommandBody::RelayFailed { .. }
        | CommandBody::Follow { .. } => {
            bail!(
                "only lanes write {}: it cannot be corrected by hand",
                command.body.name()
            )
        }
        CommandBody::AdjustStock { actor: by, .. } | CommandBody::ReturnStock { actor: by, .. } => {
            if let Some(actor) = actor {
                *by = Text::parse("actor", actor)?;
            }
        }
        CommandBody::Reserve(_)
        | CommandBody::Confirm { .. }
        | CommandBody::Cancel { .. }
        | CommandBody::Extend { .. }
        | CommandBody::Release { .. }
        | CommandBody::ConfigureSku { .. }
        | CommandBody::BeginPayment { .. }
        | CommandBody::AbortPayment { .. }
        | CommandBody::Ship { .. }
        | CommandBody::Unallocate { .. }
        | CommandBody::RequireRefund { .. } => {}
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn adjusting(sku: &str) -> Value {
        json!({"command_id": "c", "request_id": "r", "tenant": "default", "issued_at": 1, "source": null,
            "body": {"AdjustStock": {"sku": sku, "change": 7, "set": null, "expected_on_hand": null,
                "reason": "delivery", "reference": null, "actor": "somebody"}}})
    }

    #[test]
    fn a_corrected_change_of_stock_is_the_persons() {
        let command = corrected(&adjusting("mug").to_string(), Some("console:olga")).unwrap();
        let CommandBody::AdjustStock { actor, sku, .. } = command.body else {
            panic!("another command");
        };
        assert_eq!((actor.as_str(), sku.as_str()), ("console:olga", "mug"));
    }

    #[test]
    fn what_is_no_command_or_a_lanes_own_is_refused() {
        let relay = json!({"command_id": "c", "request_id": "r", "tenant": "default", "issued_at": 1, "source": null,
            "body": {"RelayDone": {"hold_id": "00000000-0000-8000-8000-000000000000", "attempt": 1}}});
        for (text, word) in [
            ("{".to_owned(), "no command"),
            (json!({"sku": "mug", "qty": 1}).to_string(), "no command"),
            (adjusting("not a sku").to_string(), "not allowed"),
            (relay.to_string(), "only lanes"),
        ] {
            let refused = corrected(&text, None).unwrap_err();
            assert!(format!("{refused:#}").contains(word), "{refused:#}");
        }
    }

    #[test]
    fn a_blank_form_wants_to_be_filled_in() {
        let letter = Record {
            partition: 0,
            offset: 3,
            timestamp_ms: Some(9),
            key: None,
            headers: Vec::new(),
            value: None,
        };
        let text = serde_json::to_string(&blank(&letter)).unwrap();
        assert!(corrected(&text, None).is_err(), "an empty SKU is none");
    }
}
