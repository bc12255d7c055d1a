//! Records that a producer wrote twice: what was refused is not done a moment later by the second of them.

use std::time::Duration;

use domain::EventBody;
use holdfast::torture::proxy::Proxy;
use plumbing::kafka::producer::{Producer, Record};

use crate::{
    crash::flush,
    wire::{Wire, adjusting, lane, refusal, reserving},
    world::{Setup, play},
};

#[test]
fn a_refused_record_that_comes_twice_is_refused_twice_though_units_came_back_and_redis_was_lost() {
    play(async {
        let world = Setup::new().start().await;
        let (sku, wire) = (world.sku_in(lane(1), "twice"), Wire::of(&world).await);
        world.stock(&sku, 2).await;
        let taken = world.reserve("taken", &sku, 2, "ann").await;
        assert_eq!(taken.status, 201, "{taken:?}");
        let (wanted, less) = (reserving("wanted", &sku, 1, "bob"), adjusting("less", &sku, -1));
        let first = wire.write_command(lane(1), &wanted).await;
        let event = wire.decision(lane(1), first).await;
        assert!(matches!(event.body, EventBody::HoldRejected { .. }), "{event:?}");
        let first = wire.write_command(lane(1), &less).await;
        assert_eq!(refusal(&wire.decision(lane(1), first).await), "stock_committed");
        // Both could be done now. Whoever asked was told "no", and has gone.
        assert_eq!(world.cancel(&taken.hold_id()).await.status, 200);

        for round in 0..3 {
            // By the log's tail, then by Postgres' rows.
            if round == 2 {
                world.assert_verified().await;
            }
            if round > 0 {
                flush(&world);
            }
            for command in [&wanted, &less] {
                let again = wire.write_command(lane(1), command).await;
                let event = wire.decision(lane(1), again).await;
                assert_eq!(refusal(&event), "already_applied", "round {round}: {event:?}");
            }
            assert_eq!(world.counters(&sku).await, (2, 0, 0, 2), "round {round}");
        }
        // The same key in a request of its own is as good as any other.
        let asked = world.reserve("wanted", &sku, 1, "bob").await;
        assert_eq!(asked.status, 201, "{asked:?}");
        world.assert_verified().await;
    });
}

/// Why records come twice at all. A producer numbers its records, so that the broker knows those that it has; once one of them has
/// timed out it begins to number anew, and what it did not see acknowledged is written again as if it were new.
#[test]
fn a_producer_writes_a_record_twice_after_another_timed_out_and_the_unseen_hold_is_not_made() {
    play(async {
        let world = Setup::new().start().await;
        let (sku, elsewhere) = (world.sku_in(lane(1), "unseen"), world.sku_in(lane(1), "seen"));
        let wire = Wire::of(&world).await;
        world.stock(&sku, 0).await;
        let proxy = Proxy::kafka(&world.connections.kafka_brokers.addresses)
            .await
            .expect("a port");
        let producer = Producer::new(&proxy.address.to_string().into(), "test-twice", "0").expect("legal options");
        let send = |command: &_| {
            let record = Record {
                topic: &wire.topics.commands,
                partition: Some(1),
                key: None,
                value: Some(&wire.codec.encode_command_record(command)),
                headers: &[],
            };
            producer.send(record).expect("queued")
        };
        let (warm, other) = (adjusting("warm", &elsewhere, 1), adjusting("other", &elsewhere, 1));
        let wanted = reserving("wanted", &sku, 1, "bob");
        send(&warm).await.expect("acknowledged");

        proxy.mute();
        let timed_out = send(&other);
        tokio::time::sleep(Duration::from_secs(4)).await;
        let written_twice = send(&wanted);
        let event = world
            .eventually(
                "it is written and refused, which the producer does not see",
                async || {
                    let decisions = wire.decisions(lane(1)).await;
                    let found = decisions
                        .into_iter()
                        .find(|event| event.request_id == wanted.request_id);
                    found.ok_or_else(|| "not yet".to_owned())
                },
            )
            .await;
        assert!(matches!(event.body, EventBody::HoldRejected { .. }), "{event:?}");
        proxy.cut();
        assert!(timed_out.await.is_err(), "nobody knows what became of it");
        world.stock(&sku, 5).await;
        proxy.heal();
        let second = written_twice.await.expect("acknowledged").offset;
        assert!(second > event.command_offset, "it is in the log twice");

        let event = wire.decision(lane(1), second).await;
        assert_eq!(event.request_id, wanted.request_id);
        assert_eq!(refusal(&event), "already_applied");
        assert_eq!(world.counters(&sku).await, (5, 0, 0, 5), "nothing is held for anybody");
        world.assert_verified().await;
    });
}
