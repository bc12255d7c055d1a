//! `dead-letters`.

use domain::{Adjustment, CommandBody};
use sqlx::Row as _;

use crate::world::{World, err, out, sku_in, text};

async fn bury(world: &World, value: &[u8], why: &str) -> i64 {
    let headers = [
        ("holdfast.error.topic", world.topics.commands.clone()),
        ("holdfast.error.partition", "1".to_owned()),
        ("holdfast.error.offset", "7".to_owned()),
        ("holdfast.error.stage", "decode".to_owned()),
        ("holdfast.error.message", why.to_owned()),
    ];
    let topic = world.topics.dead_letters.clone();
    world.produce(&topic, 0, "some-key", Some(value), &headers).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_can_be_read_by_now_counts_once_however_often_it_is_sent() {
    let world = World::new().await;
    let a = sku_in(0, "a");
    let none = world.holdfast(&["dead-letters", "list"]).await;
    assert_eq!(out(&none), "no dead letters\n");
    let garbage = bury(&world, b"\x07garbage \x1b[31m", "the first byte is 0x07").await;
    let command = world.command(CommandBody::AdjustStock {
        sku: a.clone(),
        adjustment: Adjustment::Change(5),
        expected_on_hand: None,
        reason: text("delivery"),
        reference: None,
        actor: text("upstream"),
    });
    let good = bury(
        &world,
        &world.codec.encode_command(&command),
        "schema 999 was not known",
    )
    .await;

    let listed = world.holdfast(&["dead-letters", "list"]).await;
    let text = out(&listed);
    assert!(
        text.contains("the first byte is 0x07") && text.contains("schema 999"),
        "{text}{}",
        err(&listed)
    );
    assert!(text.contains(&format!("{}[1] @ 7", world.topics.commands)), "{text}");
    let listed = world.holdfast(&["dead-letters", "list", "--json"]).await;
    assert_eq!(out(&listed).lines().count(), 2);

    let shown = world.holdfast(&["dead-letters", "show", &garbage.to_string()]).await;
    let text = out(&shown);
    assert!(
        text.contains("07 67 61 72 62") && text.contains("it still cannot be read"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "a stranger's bytes steer no terminal");
    let shown = world.holdfast(&["dead-letters", "show", &good.to_string()]).await;
    assert!(out(&shown).contains("it can be read: AdjustStock"), "{}", out(&shown));

    let refused = world.holdfast(&["dead-letters", "send", &garbage.to_string()]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("still cannot be read"), "{}", err(&refused));
    let missing = world.holdfast(&["dead-letters", "send", "99"]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        err(&missing).contains("there is no dead letter 99"),
        "{}",
        err(&missing)
    );
    for _ in 0..2 {
        let sent = world.holdfast(&["dead-letters", "send", &good.to_string()]).await;
        assert!(sent.status.success(), "{}", err(&sent));
        assert!(out(&sent).contains("of lane 0"), "{}", out(&sent));
    }

    let roles = world.start();
    world.settle().await;
    roles.end().await;
    let (_, events) = world.fold(0).await;
    assert_eq!(events.len(), 2, "each record has its event");
    let row = sqlx::query("SELECT on_hand FROM stock WHERE sku = $1")
        .bind(a.as_str())
        .fetch_one(&mut world.postgres().await)
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>("on_hand"), 5, "applied once");
}
