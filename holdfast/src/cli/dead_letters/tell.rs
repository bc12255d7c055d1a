//! One dead letter, for people and for programs: where, why, its bytes, and what they mean.

use plumbing::task;
use serde_json::{Value, json};

use super::{Show, draft, error_header, read_one, record_of, time_text};
use crate::{
    json::command_fields,
    log::{Decoder, Record},
};

impl Show {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let letter = read_one(&self.connections, self.offset).await?;
        let decoder = Decoder::connect(&self.connections).await;
        if self.json {
            let decoder = decoder?;
            let told = task::thread("decode", move || as_json(&letter, &decoder)).await??;
            super::super::print(&format!("{}\n", serde_json::to_string_pretty(&told)?));
            return Ok(());
        }
        let meaning = match decoder {
            Err(error) => format!("\nit cannot be said what it means: {error:#}\n"),
            Ok(decoder) => {
                let letter = letter.clone();
                task::thread("decode", move || meaning(&letter, &decoder)).await??
            }
        };
        super::super::print(&(text(&letter) + &meaning));
        Ok(())
    }
}

fn as_json(letter: &Record, decoder: &Decoder) -> anyhow::Result<Value> {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| printable(&String::from_utf8_lossy(bytes)));
    let headers: Vec<Value> = letter
        .headers
        .iter()
        .map(|(name, value)| json!([name, text(value.as_deref())]))
        .collect();
    let (reads_as, still) = match decoder.command(letter.value.as_deref())? {
        Ok(command) => (Some(command.body.name()), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(json!({
        "offset": letter.offset, "buried_at": letter.timestamp_ms, "topic": error_header(letter, "topic"),
        "partition": error_header(letter, "partition"), "record_offset": error_header(letter, "offset"),
        "stage": error_header(letter, "stage"), "message": error_header(letter, "message"),
        "headers": headers, "key": text(letter.key.as_deref()), "bytes": letter.value.as_ref().map(Vec::len),
        "dump": letter.value.as_deref().map(hex_dump), "reads_as": reads_as, "still_unreadable": still,
        "draft": draft::of(letter, decoder)?,
    }))
}

fn text(letter: &Record) -> String {
    let mut out = format!(
        "dead letter {}, buried {}: {}\n\nheaders\n",
        letter.offset,
        letter.timestamp_ms.map(time_text).unwrap_or_default(),
        record_of(letter)
    );
    for (name, value) in &letter.headers {
        let value = value
            .as_deref()
            .map_or_else(|| "(none)".into(), String::from_utf8_lossy);
        out += &format!("  {name}: {}\n", printable(&value));
    }
    let key = letter.key.as_deref().map(String::from_utf8_lossy);
    out += &format!(
        "\nkey\n  {}\n",
        key.map_or_else(|| "(none)".to_owned(), |key| printable(&key))
    );
    match &letter.value {
        Some(value) => out += &format!("\nvalue, {} bytes\n{}", value.len(), hex_dump(value)),
        None => out += "\nvalue\n  (none)\n",
    }
    out
}

fn meaning(letter: &Record, decoder: &Decoder) -> anyhow::Result<String> {
    Ok(match decoder.command(letter.value.as_deref())? {
        Ok(command) => format!(
            "\nit can be read: {}\n{}\n\nholdfast dead-letters send {} gives it to its lane\n",
            command.body.name(),
            serde_json::to_string_pretty(&command_fields(&command))?,
            letter.offset
        ),
        Err(error) => format!(
            "\nit still cannot be read: {error}\n\nto correct a copy of it: holdfast dead-letters show {0} --json | jq .draft.command \
             > copy.json; edit copy.json; holdfast dead-letters send {0} --corrected copy.json\n",
            letter.offset
        ),
    })
}

/// What a stranger wrote must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '.' } else { c }).collect()
}

/// Sixteen bytes a line: offset, hexadecimal, text.
fn hex_dump(bytes: &[u8]) -> String {
    bytes
        .chunks(16)
        .enumerate()
        .map(|(row, chunk)| {
            let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
            let text: String = chunk
                .iter()
                .map(|byte| {
                    if byte.is_ascii_graphic() || *byte == b' ' {
                        char::from(*byte)
                    } else {
                        '.'
                    }
                })
                .collect();
            format!("  {:06x}  {:47}  {text}\n", row * 16, hex.join(" "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_shows_bytes_and_text_and_steers_no_terminal() {
        let dump = hex_dump(b"\x00\x00\x00\x00\x07Hello\x1b[31m world");
        let lines: Vec<&str> = dump.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("  000000  00 00 00 00 07 48 65") && lines[0].ends_with(".....Hello.[31m "));
        assert_eq!(printable("a\u{1b}[31mb"), "a.[31mb");
    }
}
