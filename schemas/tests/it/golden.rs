//! Golden examples: bytes that this version wrote once must be read the same for ever.
//!
//! `examples/<name>.avro` has a record's bytes, `examples/<name>.json` its fields. They are added, never edited; with
//! `HOLDFAST_WRITE_EXAMPLES=1` the tests add those that are missing. The id in a record's first bytes names the schema that
//! wrote it: `examples/writers/<id>.avsc`, or our own. A change of a schema that moves bytes (a new field; a branch at the end
//! of a union moves none) leaves the old one there and takes the next id.

use std::{fs, path::PathBuf};

use schemas::{
    Codec, Registry,
    records::{InventoryCommand, InventoryEvent},
};

use serde_json::Value;

use crate::records::{commands, events};

/// The ids with which the examples are framed.
const COMMAND_ID: u32 = 3;
const EVENT_ID: u32 = 5;
/// The schemas that wrote older examples.
const OLDER_IDS: [u32; 3] = [1, 2, 4];

fn codec() -> Codec {
    let registry = Registry::new("http://127.0.0.1:1").expect("a URL");
    let codec = Codec::with_ids(registry, COMMAND_ID, EVENT_ID);
    for id in OLDER_IDS {
        let writer = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("examples/writers/{id}.avsc"));
        codec.teach(id, &fs::read_to_string(writer).expect("each id has its schema"));
    }
    codec
}

/// Whether a record says what an example says; what later versions have added to it is absent.
fn says(read: &Value, expected: &Value) -> bool {
    match (read, expected) {
        (Value::Object(read), Value::Object(expected)) => {
            expected.keys().all(|name| read.contains_key(name))
                && read.iter().all(|(name, value)| {
                    expected
                        .get(name)
                        .map_or_else(|| is_absent(value), |expected| says(value, expected))
                })
        }
        (Value::Array(read), Value::Array(expected)) => {
            read.len() == expected.len() && read.iter().zip(expected).all(|(read, expected)| says(read, expected))
        }
        (read, expected) => read == expected,
    }
}

/// What a field that a record does not have is read as.
fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Array(all) => all.is_empty(),
        Value::Number(_) | Value::String(_) | Value::Object(_) => false,
    }
}

fn fields(json: &str) -> Value {
    serde_json::from_str(json).expect("JSON")
}

fn example(name: &str, ending: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(format!("{name}.{ending}"))
}

fn check(name: &str, bytes: &[u8], json: &str, decode: impl Fn(&[u8]) -> String) {
    let (avro, text) = (example(name, "avro"), example(name, "json"));
    if !avro.exists() && std::env::var_os("HOLDFAST_WRITE_EXAMPLES").is_some() {
        fs::write(&avro, bytes).expect("written");
        fs::write(&text, format!("{json}\n")).expect("written");
    }
    let golden = fs::read(&avro).unwrap_or_else(|error| panic!("{}: {error}", avro.display()));
    let expected = fs::read_to_string(&text).expect("an example has its fields beside it");
    let (read, expected) = (fields(&decode(&golden)), fields(&expected));
    assert!(
        says(&read, &expected),
        "{name} is read as it was written: {read} is not {expected}"
    );
    assert_eq!(decode(bytes), json, "{name} survives the way through bytes");
}

#[test]
fn golden_commands_are_read_as_they_were_written() {
    let codec = codec();
    for (name, command) in commands() {
        let json = serde_json::to_string_pretty(&InventoryCommand::from(&command)).expect("JSON");
        check(
            &format!("command-{name}"),
            &codec.encode_command(&command),
            &json,
            |bytes| {
                let command = codec.decode_command(bytes).expect("it decodes");
                serde_json::to_string_pretty(&InventoryCommand::from(&command)).expect("JSON")
            },
        );
    }
}

#[test]
fn golden_events_are_read_as_they_were_written() {
    let codec = codec();
    for (name, event) in events() {
        let json = serde_json::to_string_pretty(&InventoryEvent::from(&event)).expect("JSON");
        check(&format!("event-{name}"), &codec.encode_event(&event), &json, |bytes| {
            let event = codec.decode_event(bytes).expect("it decodes");
            serde_json::to_string_pretty(&InventoryEvent::from(&event)).expect("JSON")
        });
    }
}

#[test]
fn bytes_that_are_no_record_are_malformed_with_a_reason() {
    let codec = codec();
    let whole = codec.encode_command(&commands()[0].1);
    let mut longer = whole.clone();
    longer.push(0);
    let mut wrong_magic = whole.clone();
    wrong_magic[0] = 7;
    for (name, bytes) in [
        ("empty", &[][..]),
        ("cut id", &whole[..3]),
        ("cut", &whole[..20]),
        ("longer", &longer),
        ("magic", &wrong_magic),
    ] {
        let error = codec.decode_command(bytes).expect_err(name);
        assert!(matches!(error, schemas::DecodeError::Malformed(_)), "{name}: {error:?}");
    }
}

/// An event that was written before holds could be paying.
#[test]
fn an_older_hold_is_one_that_is_not_paying() {
    let golden = fs::read(example("event-hold-created", "avro")).expect("an example");
    assert_eq!(golden[..5], [0, 0, 0, 0, 2], "written with the second schema");
    let event = codec().decode_event(&golden).expect("it decodes");
    assert_eq!(event.hold.expect("a hold").remaining_ms, None);
}
