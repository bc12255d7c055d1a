//! Evolution: older and newer writers, read by Avro's rules; and what the registry lets nobody register.

use apache_avro::{Schema, writer::datum::GenericDatumWriter};
use schemas::{
    Codec, DecodeError, Registry,
    codec::Learned,
    records::{Cancel, Source},
    registry::RegistryError,
    topics::COMMANDS,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::records::commands;

fn ours() -> Value {
    serde_json::from_str(COMMANDS.schema.expect("it has one")).expect("JSON")
}

fn bodies(schema: &mut Value) -> &mut Vec<Value> {
    let fields = schema["fields"].as_array_mut().expect("fields");
    let body = fields.iter_mut().find(|field| field["name"] == "body").expect("a body");
    body["type"].as_array_mut().expect("a union")
}

struct Subject {
    registry: Registry,
    codec: Codec,
    subject: String,
}

/// A subject of its own in the real registry, with our schema as its first version.
async fn subject() -> Subject {
    let url = plumbing::config::Connections::from_env().registry_url;
    let registry = Registry::new(url.expose()).expect("a URL");
    registry.set_compatibility().await.expect("the registry answers");
    let prefix = format!("evolution-{}.", plumbing::id::random());
    let subject = COMMANDS.subject(&prefix);
    let id = registry
        .register(&subject, COMMANDS.schema.expect("it has one"))
        .await
        .expect("registered");
    Subject {
        codec: Codec::with_ids(registry.clone(), id, u32::MAX),
        registry,
        subject,
    }
}

fn framed<T: Serialize>(id: u32, schema: &Value, record: &T) -> Vec<u8> {
    let schema = Schema::parse(schema).expect("a schema");
    let mut bytes = vec![0];
    bytes.extend(id.to_be_bytes());
    bytes.extend(
        GenericDatumWriter::builder(&schema)
            .build()
            .expect("it resolves")
            .write_ser_to_vec(record)
            .expect("it fits"),
    );
    bytes
}

#[derive(Serialize)]
struct NewerCommand {
    command_id: String,
    request_id: String,
    tenant: String,
    issued_at: i64,
    source: Option<Source>,
    body: NewerBody,
    priority: i32,
}

#[derive(Serialize)]
enum NewerBody {
    Teleport(Teleport),
    Cancel(Cancel),
}

#[derive(Serialize)]
struct Teleport {
    to: String,
}

fn newer(body: NewerBody) -> NewerCommand {
    NewerCommand {
        command_id: "command-1".to_owned(),
        request_id: "request-1".to_owned(),
        tenant: "default".to_owned(),
        issued_at: 1_700_000_000_000,
        source: None,
        body,
        priority: 3,
    }
}

/// The writer's union has other branches in another order, and all empty or alike records resolve by name.
#[tokio::test]
async fn a_newer_writer_is_read_and_its_unknown_body_is_neither_guessed_nor_poison() {
    let subject = subject().await;
    let mut schema = ours();
    let cancel = bodies(&mut schema)
        .iter()
        .find(|body| body["name"] == "Cancel")
        .expect("a Cancel")
        .clone();
    *bodies(&mut schema) = vec![
        json!({"type": "record", "name": "Teleport", "fields": [{"name": "to", "type": "string"}]}),
        cancel,
    ];
    schema["fields"]
        .as_array_mut()
        .expect("fields")
        .push(json!({"name": "priority", "type": "int", "default": 0}));
    let other = format!("other-{}", subject.subject);
    let id = subject
        .registry
        .register(&other, &schema.to_string())
        .await
        .expect("registered");
    let cancel = match &commands()[3].1.body {
        domain::CommandBody::Cancel { hold_id, reason } => Cancel {
            hold_id: hold_id.to_string(),
            reason: reason.to_string(),
        },
        body => panic!("{body:?}"),
    };
    let known = framed(id, &schema, &newer(NewerBody::Cancel(cancel)));
    assert!(matches!(subject.codec.decode_command(&known), Err(DecodeError::UnknownSchema(asked)) if asked == id));
    assert_eq!(
        subject.codec.learn(id).await.expect("the registry answers"),
        Learned::Schema
    );
    assert_eq!(
        subject.codec.decode_command(&known).expect("it decodes"),
        commands()[3].1
    );
    let unknown = framed(
        id,
        &schema,
        &newer(NewerBody::Teleport(Teleport { to: "mars".to_owned() })),
    );
    let error = subject
        .codec
        .decode_command(&unknown)
        .expect_err("this version cannot know it");
    assert!(
        matches!(&error, DecodeError::NewerBody(name) if name == "Teleport"),
        "{error:?}"
    );
}

#[derive(Serialize)]
struct OlderCommand {
    command_id: String,
    request_id: String,
    body: OlderBody,
}

#[derive(Serialize)]
enum OlderBody {
    Confirm(schemas::records::Confirm),
}

#[tokio::test]
async fn an_older_writer_without_the_optional_fields_is_read_with_their_defaults() {
    let subject = subject().await;
    let mut schema = ours();
    let confirm = bodies(&mut schema)
        .iter()
        .find(|body| body["name"] == "Confirm")
        .expect("a Confirm")
        .clone();
    *bodies(&mut schema) = vec![confirm];
    let fields = schema["fields"].as_array_mut().expect("fields");
    fields.retain(|field| ["command_id", "request_id", "body"].contains(&field["name"].as_str().expect("a name")));
    let other = format!("older-{}", subject.subject);
    let id = subject
        .registry
        .register(&other, &schema.to_string())
        .await
        .expect("registered");
    subject.codec.learn(id).await.expect("the registry answers");
    let hold_id = commands()[2].1.body.hold_id().expect("a hold").to_string();
    let record = OlderCommand {
        command_id: "command-1".to_owned(),
        request_id: "request-1".to_owned(),
        body: OlderBody::Confirm(schemas::records::Confirm {
            hold_id,
            payment_ref: "payment-1".to_owned(),
        }),
    };
    let command = subject
        .codec
        .decode_command(&framed(id, &schema, &record))
        .expect("it decodes");
    assert_eq!(
        command,
        domain::Command {
            issued_at: 0,
            ..commands()[2].1.clone()
        }
    );
}

#[tokio::test]
async fn the_registry_refuses_what_would_make_old_records_unreadable() {
    let subject = subject().await;
    let mut dropped = ours();
    bodies(&mut dropped).pop();
    let mut required = ours();
    required["fields"]
        .as_array_mut()
        .expect("fields")
        .push(json!({"name": "priority", "type": "int"}));
    for (name, schema) in [("a dropped body", dropped), ("a field without default", required)] {
        let refused = subject.registry.register(&subject.subject, &schema.to_string()).await;
        assert!(matches!(refused, Err(RegistryError::Refused(_))), "{name}: {refused:?}");
    }
    let mut grown = ours();
    bodies(&mut grown).push(json!({"type": "record", "name": "Teleport", "fields": []}));
    subject
        .registry
        .register(&subject.subject, &grown.to_string())
        .await
        .expect("a new body is allowed");
}

#[tokio::test]
async fn an_id_that_the_registry_does_not_know_is_told_from_a_registry_that_does_not_answer() {
    let subject = subject().await;
    assert_eq!(
        subject.codec.learn(999_999_999).await.expect("it answers"),
        Learned::NoSuchSchema
    );
    let nobody = Registry::new("http://127.0.0.1:1").expect("a URL");
    assert!(matches!(nobody.schema(1).await, Err(RegistryError::Unavailable(_))));
    assert!(matches!(
        nobody.id_of("x-value", "{}").await,
        Err(RegistryError::Unavailable(_))
    ));
    let missing = subject
        .registry
        .id_of("no-such-subject-value", COMMANDS.schema.expect("it has one"))
        .await;
    assert!(matches!(missing, Err(RegistryError::NotRegistered(_))), "{missing:?}");
}
