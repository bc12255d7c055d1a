//! Bytes <-> records <-> domain: Confluent framing (0x00, 4-byte schema id, Avro) with our schemas as writer, and any
//! compatible schema of the registry as reader.
//!
//! A record written with our own schema is read straight into its mirror. Any other schema goes the long way round,
//! by Avro's resolution rules, with the `body` branch found by its name.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, RwLock},
};

use apache_avro::{
    Schema, reader::datum::GenericDatumReader, schema::ResolvedSchema, types::Value, writer::datum::GenericDatumWriter,
};
use domain::{Command, Event, Invalid};
use serde::de::DeserializeOwned;

use crate::{
    records::{COMMAND_BODIES, EVENT_BODIES, InventoryCommand, InventoryEvent},
    registry::{Registry, RegistryError},
    topics::{COMMANDS, EVENTS},
};

/// No record is larger: what a broker takes by default, and a bound for lengths read from bytes.
const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// Why bytes are not a record, and so what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They never will be: bury them.
    #[error("{0}")]
    Malformed(String),
    /// Ask the registry for this id ([`Codec::learn`]) and try again.
    #[error("schema {0} is not known yet")]
    UnknownSchema(u32),
    /// A newer version wrote it: pause, and upgrade this one.
    #[error("this version does not know the body `{0}`: upgrade it; nothing is lost meanwhile")]
    NewerBody(String),
    /// It is a record, but a value in it is not allowed; the record's ids, so that the refusal finds its way.
    #[error("{invalid}")]
    Illegal {
        /// The record's `command_id`.
        command_id: String,
        /// The record's `request_id`.
        request_id: String,
        /// What is wrong.
        invalid: Invalid,
    },
}

/// What the registry said of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// Its records can be decoded now.
    Schema,
    /// There is no such schema.
    NoSuchSchema,
}

struct Parsed {
    schema: &'static Schema,
    /// The schema's named types: a field may refer to one that another field defines.
    names: ResolvedSchema<'static>,
    writer: GenericDatumWriter<'static>,
    reader: Arc<Reader>,
    bodies: &'static [&'static str],
}

enum Reader {
    Direct(GenericDatumReader<'static>),
    Resolving {
        writer: &'static Schema,
        reader: GenericDatumReader<'static>,
    },
    Unusable(String),
}

static COMMAND: LazyLock<Parsed> = LazyLock::new(|| Parsed::new(COMMANDS.schema, &COMMAND_BODIES));
static EVENT: LazyLock<Parsed> = LazyLock::new(|| Parsed::new(EVENTS.schema, &EVENT_BODIES));

impl Parsed {
    fn new(text: Option<&'static str>, bodies: &'static [&'static str]) -> Self {
        apache_avro::util::max_allocation_bytes(MAX_RECORD_BYTES);
        let schema = Schema::parse_str(text.expect("the topic has a schema")).expect("our own schema parses");
        // Lives as long as the process: one per topic.
        let schema: &'static Schema = Box::leak(Box::new(schema));
        let writer = GenericDatumWriter::builder(schema)
            .build()
            .expect("our own schema resolves");
        let reader = GenericDatumReader::builder(schema)
            .build()
            .expect("our own schema resolves");
        Self {
            schema,
            names: ResolvedSchema::try_from(schema).expect("our own schema resolves"),
            writer,
            reader: Arc::new(Reader::Direct(reader)),
            bodies,
        }
    }

    /// A reader of records that were written with another schema.
    fn reader_of(&self, text: &str) -> Arc<Reader> {
        let schema = match Schema::parse_str(text) {
            Ok(schema) => schema,
            Err(error) => return Arc::new(Reader::Unusable(error.to_string())),
        };
        if schema == *self.schema {
            return self.reader.clone();
        }
        // Lives as long as the process: one per id that the registry knows, each asked for once.
        let writer: &'static Schema = Box::leak(Box::new(schema));
        Arc::new(match GenericDatumReader::builder(writer).build() {
            Ok(reader) => Reader::Resolving { writer, reader },
            Err(error) => Reader::Unusable(error.to_string()),
        })
    }

    fn decode<T: DeserializeOwned>(&self, reader: &Reader, avro: &[u8]) -> Result<T, DecodeError> {
        let malformed = |error: apache_avro::Error| DecodeError::Malformed(error.to_string());
        let mut rest = avro;
        let record = match reader {
            Reader::Direct(reader) => reader.read_deser(&mut rest).map_err(malformed)?,
            Reader::Resolving { writer, reader } => {
                let value = reader.read_value(&mut rest).map_err(malformed)?;
                let resolved = resolve_record(value, writer, self)?;
                apache_avro::from_value(&resolved).map_err(malformed)?
            }
            Reader::Unusable(why) => {
                return Err(DecodeError::Malformed(format!("its schema cannot be used: {why}")));
            }
        };
        if rest.is_empty() {
            Ok(record)
        } else {
            Err(DecodeError::Malformed(format!(
                "{} bytes are left after the record",
                rest.len()
            )))
        }
    }
}

/// Avro's resolution of a record, field by field, with the branch of `body` found by its name: the library goes by
/// structure there, and all empty records look alike.
fn resolve_record(value: Value, writer: &Schema, parsed: &Parsed) -> Result<Value, DecodeError> {
    let malformed = |why: String| DecodeError::Malformed(why);
    let (Value::Record(written), Schema::Record(writer), Schema::Record(ours)) = (value, writer, parsed.schema) else {
        return Err(malformed("its schema is not a record".to_owned()));
    };
    if writer.name.name() != ours.name.name() {
        return Err(malformed(format!(
            "its schema is {}, not {}",
            writer.name.name(),
            ours.name.name()
        )));
    }
    let mut written: HashMap<String, Value> = written.into_iter().collect();
    let mut fields = Vec::with_capacity(ours.fields.len());
    for field in &ours.fields {
        let value = match (written.remove(&field.name), &field.default) {
            (Some(value), _) if field.name == "body" => {
                let body_schema = writer
                    .fields
                    .iter()
                    .find(|field| field.name == "body")
                    .map(|field| &field.schema);
                resolve_body(value, body_schema, &field.schema, parsed)?
            }
            (Some(value), _) => value
                .resolve_with_names(&field.schema, parsed.names.get_names())
                .map_err(|error| malformed(error.to_string()))?,
            (None, Some(default)) => default_of(default, &field.schema, parsed)?,
            (None, None) => return Err(malformed(format!("it has no field `{}`", field.name))),
        };
        fields.push((field.name.clone(), value));
    }
    Ok(Value::Record(fields))
}

fn default_of(default: &serde_json::Value, schema: &Schema, parsed: &Parsed) -> Result<Value, DecodeError> {
    Value::try_from(default.clone())
        .and_then(|value| value.resolve_with_names(schema, parsed.names.get_names()))
        .map_err(|error| DecodeError::Malformed(error.to_string()))
}

fn resolve_body(value: Value, writer: Option<&Schema>, ours: &Schema, parsed: &Parsed) -> Result<Value, DecodeError> {
    let malformed = |why: String| DecodeError::Malformed(why);
    let (Value::Union(branch, inner), Some(Schema::Union(writer)), Schema::Union(ours)) = (value, writer, ours) else {
        return Err(malformed("its `body` is not a union".to_owned()));
    };
    let name = writer
        .variants()
        .get(branch as usize)
        .and_then(Schema::name)
        .map(|name| name.name().to_owned())
        .ok_or_else(|| malformed("its `body` has a branch without a name".to_owned()))?;
    let index = parsed
        .bodies
        .iter()
        .position(|body| *body == name)
        .ok_or(DecodeError::NewerBody(name))?;
    let branch_schema = &ours.variants()[index];
    let inner = match inner
        .resolve_with_names(branch_schema, parsed.names.get_names())
        .map_err(|error| malformed(error.to_string()))?
    {
        // A body without fields is a unit variant of the mirror, which serde reads from nothing.
        Value::Record(fields) if fields.is_empty() => Value::Null,
        inner => inner,
    };
    Ok(Value::Union(
        u32::try_from(index).expect("a union has few branches"),
        Box::new(inner),
    ))
}

/// Encodes with our schemas; decodes with any schema that the registry knows.
#[derive(Clone)]
pub struct Codec {
    registry: Registry,
    command_id: u32,
    event_id: u32,
    command_readers: Readers,
    event_readers: Readers,
}

type Readers = Arc<RwLock<HashMap<u32, Arc<Reader>>>>;

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec")
            .field("command_id", &self.command_id)
            .field("event_id", &self.event_id)
            .finish_non_exhaustive()
    }
}

impl Codec {
    /// Finds our schemas' ids under a topic prefix.
    ///
    /// # Errors
    /// [`RegistryError`] when the registry does not answer, or has no such subject yet.
    pub async fn connect(registry: Registry, topic_prefix: &str) -> Result<Self, RegistryError> {
        let id_of = async |topic: crate::Topic| {
            let schema = topic.schema.expect("the topic has a schema");
            registry.id_of(&topic.subject(topic_prefix), schema).await
        };
        let command_id = id_of(COMMANDS).await?;
        let event_id = id_of(EVENTS).await?;
        Ok(Self::with_ids(registry, command_id, event_id))
    }

    /// A codec whose schema ids are known, for instance from a test.
    #[must_use]
    pub fn with_ids(registry: Registry, command_id: u32, event_id: u32) -> Self {
        let own = |id, parsed: &Parsed| Arc::new(RwLock::new(HashMap::from([(id, parsed.reader.clone())])));
        Self {
            registry,
            command_id,
            event_id,
            command_readers: own(command_id, &COMMAND),
            event_readers: own(event_id, &EVENT),
        }
    }

    /// What stands in front of every command that this encodes: the mark and our schema's id.
    #[must_use]
    pub fn command_prefix(&self) -> [u8; 5] {
        let [a, b, c, d] = self.command_id.to_be_bytes();
        [0, a, b, c, d]
    }

    /// Encodes a command.
    #[must_use]
    pub fn encode_command(&self, command: &Command) -> Vec<u8> {
        self.encode_command_record(&InventoryCommand::from(command))
    }

    /// Encodes a command's mirror.
    ///
    /// # Panics
    /// Never: the mirror is the schema, field for field, which a test holds.
    #[must_use]
    pub fn encode_command_record(&self, record: &InventoryCommand) -> Vec<u8> {
        encode(self.command_id, &COMMAND.writer, record)
    }

    /// Encodes an event.
    #[must_use]
    pub fn encode_event(&self, event: &Event) -> Vec<u8> {
        encode(self.event_id, &EVENT.writer, &InventoryEvent::from(event))
    }

    /// Decodes a command.
    ///
    /// # Errors
    /// [`DecodeError`] says what to do with the record.
    pub fn decode_command(&self, bytes: &[u8]) -> Result<Command, DecodeError> {
        let record: InventoryCommand = decode(&COMMAND, &self.command_readers, bytes)?;
        let (command_id, request_id) = (record.command_id.clone(), record.request_id.clone());
        Command::try_from(record).map_err(|invalid| DecodeError::Illegal {
            command_id,
            request_id,
            invalid,
        })
    }

    /// Decodes a command's mirror, whatever its values.
    ///
    /// # Errors
    /// [`DecodeError`], but never `Illegal`.
    pub fn decode_command_record(&self, bytes: &[u8]) -> Result<InventoryCommand, DecodeError> {
        decode(&COMMAND, &self.command_readers, bytes)
    }

    /// Decodes an event.
    ///
    /// # Errors
    /// [`DecodeError`] says what to do with the record.
    pub fn decode_event(&self, bytes: &[u8]) -> Result<Event, DecodeError> {
        let record: InventoryEvent = decode(&EVENT, &self.event_readers, bytes)?;
        Event::try_from(record).map_err(|invalid| DecodeError::Malformed(invalid.to_string()))
    }

    /// Asks the registry once what an id means, and remembers it.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not answer: that says nothing about the record.
    pub async fn learn(&self, id: u32) -> Result<Learned, RegistryError> {
        let Some(text) = self.registry.schema(id).await? else {
            return Ok(Learned::NoSuchSchema);
        };
        self.teach(id, &text);
        Ok(Learned::Schema)
    }

    /// Records of this id were written with this schema.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    pub fn teach(&self, id: u32, text: &str) {
        for (parsed, readers) in [(&*COMMAND, &self.command_readers), (&*EVENT, &self.event_readers)] {
            let reader = parsed.reader_of(text);
            readers
                .write()
                .expect("no holder of this lock panics")
                .entry(id)
                .or_insert(reader);
        }
    }
}

fn encode<T: serde::Serialize>(id: u32, writer: &GenericDatumWriter<'static>, record: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    bytes.push(0);
    bytes.extend(id.to_be_bytes());
    writer
        .write_ser(&mut bytes, record)
        .expect("the mirror is the schema, field for field");
    bytes
}

fn decode<T: DeserializeOwned>(parsed: &Parsed, readers: &Readers, bytes: &[u8]) -> Result<T, DecodeError> {
    let malformed = |why: &str| DecodeError::Malformed(why.to_owned());
    let (magic, rest) = bytes.split_first().ok_or_else(|| malformed("the value is empty"))?;
    if *magic != 0 {
        return Err(DecodeError::Malformed(format!(
            "the first byte is {magic:#04x}, not the magic byte 0x00"
        )));
    }
    let (id, avro) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| malformed("the schema id is cut off"))?;
    let id = u32::from_be_bytes(*id);
    let reader = readers.read().expect("no holder of this lock panics").get(&id).cloned();
    let reader = reader.ok_or(DecodeError::UnknownSchema(id))?;
    parsed.decode(&reader, avro)
}
