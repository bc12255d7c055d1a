//! `topics`, `schemas`, and what they refuse.

use holdfast::setup::{self, TopicOptions};
use plumbing::kafka::admin::{self, Created, TopicSpec};
use schemas::Registry;

use crate::world::{World, err, holdfast};

const TWO_LANES: TopicOptions = TopicOptions {
    lanes: 2,
    replication: 1,
};

#[tokio::test]
async fn topics_are_made_once_and_never_changed() {
    let connections = World::unprepared();
    let made = setup::topics(&connections, TWO_LANES).await.unwrap();
    assert_eq!(made.len(), 3);
    assert!(made.iter().all(|(_, created)| *created == Created::New), "{made:?}");
    let again = setup::topics(&connections, TWO_LANES).await.unwrap();
    assert!(
        again.iter().all(|(_, created)| *created == Created::Existed),
        "{again:?}"
    );
    let other = TopicOptions {
        lanes: 3,
        replication: 1,
    };
    let refused = setup::topics(&connections, other).await.unwrap_err().to_string();
    assert!(refused.contains("2 partitions, not 3"), "{refused}");
    let refused = holdfast(&connections, &["topics", "--lanes", "5"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("--lanes 2"), "{}", err(&refused));
}

#[tokio::test]
async fn a_topic_that_trusts_its_producers_clock_is_refused() {
    let connections = World::unprepared();
    let spec = TopicSpec {
        name: schemas::topics::COMMANDS.full_name(&connections.topic_prefix),
        partitions: 2,
        settings: vec![("message.timestamp.type", "CreateTime".to_owned())],
    };
    admin::ensure_topic(&connections.kafka_brokers, &spec, 1).await.unwrap();
    let refused = setup::topics(&connections, TWO_LANES).await.unwrap_err().to_string();
    assert!(refused.contains("CreateTime, not LogAppendTime"), "{refused}");
}

#[tokio::test]
async fn schemas_are_registered_once_and_an_incompatible_past_is_refused() {
    let connections = World::unprepared();
    let ids = setup::schemas(&connections).await.unwrap();
    assert_eq!(ids, setup::schemas(&connections).await.unwrap());

    let connections = World::unprepared();
    let registry = Registry::new(connections.registry_url.expose()).unwrap();
    let subject = schemas::topics::COMMANDS.subject(&connections.topic_prefix);
    let stranger = r#"{"type":"record","name":"InventoryCommand","namespace":"holdfast.inventory.v1","fields":[{"name":"command_id","type":"long"}]}"#;
    registry.register(&subject, stranger).await.unwrap();
    let refused = format!("{:#}", setup::schemas(&connections).await.unwrap_err());
    assert!(refused.contains(&subject) && refused.contains("refused"), "{refused}");
    let refused = holdfast(&connections, &["schemas"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));
}
