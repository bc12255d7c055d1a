//! Payments, shipping and returns through the whole system: each fact once, and the same in the log, Redis and Postgres.

use std::time::Duration;

use domain::{CommandBody, Event, EventBody, HoldId, Lane, Text};
use plumbing::id;
use serde_json::json;
use sqlx::Connection as _;

use crate::{
    crash::flush,
    wire::{Wire, command, refusal},
    world::{Setup, World, play, times},
};

fn text(text: &str) -> Text {
    Text::parse("text", text).expect("a text")
}

fn begin(hold_id: HoldId, payment: &str, cap_ms: i64) -> CommandBody {
    CommandBody::BeginPayment {
        hold_id,
        payment_ref: text(payment),
        cap_ms,
    }
}

fn abort(hold_id: HoldId, payment: &str) -> CommandBody {
    CommandBody::AbortPayment {
        hold_id,
        payment_ref: text(payment),
        reason: text("card declined"),
    }
}

fn ship(hold_id: HoldId) -> CommandBody {
    CommandBody::Ship {
        hold_id,
        reference: text("parcel-1"),
    }
}

fn unallocate(hold_id: HoldId) -> CommandBody {
    CommandBody::Unallocate {
        hold_id,
        reason: text("refunded"),
        actor: text("support"),
    }
}

fn require_refund(hold_id: HoldId, payment: &str) -> CommandBody {
    CommandBody::RequireRefund {
        hold_id,
        payment_ref: text(payment),
        reason: text("the hold was gone"),
    }
}

impl Wire<'_> {
    /// Sends a command into a hold's lane.
    async fn send(&self, lane: Lane, body: &CommandBody) -> i64 {
        let record = command(&id::random().to_string(), body.into());
        self.write_command(lane, &record).await
    }

    /// Sends a command about a hold, and waits for its event.
    async fn ask(&self, hold_id: HoldId, body: CommandBody) -> Event {
        let offset = self.send(hold_id.lane(), &body).await;
        self.decision(hold_id.lane(), offset).await
    }
}

/// A hold of one unit that lives so many seconds.
async fn held(world: &World, sku: &str, seconds: i64) -> HoldId {
    let mut body = World::wanting(sku, 1, "ann");
    body["ttl_seconds"] = seconds.into();
    let answer = world.post("/v1/holds", &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    HoldId::parse(&answer.hold_id()).expect("a hold id")
}

/// Waits until the ingress says that a hold is in a state.
async fn becomes(world: &World, hold_id: HoldId, state: &str) {
    world
        .eventually("the hold's state", async || {
            let answer = world.get(&format!("/v1/holds/{hold_id}")).await;
            if answer.state() == state {
                Ok(())
            } else {
                Err(format!("{answer:?} is not {state}"))
            }
        })
        .await;
}

/// Rows of a query that counts.
async fn count(world: &World, query: &'static str) -> i64 {
    let mut postgres = sqlx::PgConnection::connect(world.connections.postgres_url.expose())
        .await
        .expect("Postgres answers");
    sqlx::query_scalar(query)
        .fetch_one(&mut postgres)
        .await
        .expect("a number")
}

#[test]
fn a_payment_keeps_the_units_past_the_deadline_and_its_end_decides() {
    play(async {
        let world = Setup::new().start().await;
        let wire = Wire::of(&world).await;
        world.stock("paid", 10).await;
        let [confirmed, aborted, expired] = [
            held(&world, "paid", 1).await,
            held(&world, "paid", 1).await,
            held(&world, "paid", 1).await,
        ];
        for (hold_id, cap_ms) in [(confirmed, 60_000), (aborted, 60_000), (expired, 2_000)] {
            assert_eq!(
                wire.ask(hold_id, begin(hold_id, "pay-1", cap_ms)).await.body,
                EventBody::PaymentBegun
            );
            becomes(&world, hold_id, "paying").await;
        }
        // The one whose cap is past is released; the deadlines of the others were earlier.
        becomes(&world, expired, "expired").await;
        for hold_id in [confirmed, aborted] {
            becomes(&world, hold_id, "paying").await;
        }
        for path in ["confirm", "cancel", "extend"] {
            let body = match path {
                "confirm" => json!({"payment_ref": "another"}),
                "extend" => json!({"ttl_seconds": 60}),
                _ => json!({}),
            };
            let refused = world.post(&format!("/v1/holds/{confirmed}/{path}"), &body).await;
            assert_eq!(
                (refused.status, refused.code()),
                (409, "payment_in_progress"),
                "{refused:?}"
            );
        }
        let body = json!({"payment_ref": "pay-1"});
        let answer = world.post(&format!("/v1/holds/{confirmed}/confirm"), &body).await;
        assert_eq!((answer.status, answer.state()), (200, "confirmed"), "{answer:?}");
        let event = wire.ask(aborted, abort(aborted, "pay-1")).await;
        assert!(matches!(event.body, EventBody::PaymentAborted { .. }), "{event:?}");
        // What was left of its second.
        becomes(&world, aborted, "expired").await;
        assert_eq!(world.counters("paid").await, (10, 0, 1, 9));
        let required = wire.ask(expired, require_refund(expired, "pay-1")).await;
        assert!(
            matches!(required.body, EventBody::RefundRequired { .. }),
            "{required:?}"
        );
        let served = wire.ask(confirmed, require_refund(confirmed, "pay-1")).await;
        assert_eq!(refusal(&served), "already_confirmed");
        world.assert_verified().await;
        assert_eq!(count(&world, "SELECT count(*) FROM required_refunds").await, 1);
        let list = world.get("/v1/holds?state=paying").await;
        assert_eq!(list.body["holds"].as_array().map(Vec::len), Some(0), "{list:?}");
    });
}

#[test]
fn confirm_abort_and_expiry_at_the_same_moment_leave_exactly_one_end() {
    play(async {
        let world = Setup::new().start().await;
        let wire = Wire::of(&world).await;
        let rounds = times(12, 200);
        world.stock("races", rounds as i64).await;
        let mut holds = Vec::new();
        for round in 0..rounds {
            let hold_id = held(&world, "races", 1).await;
            wire.send(hold_id.lane(), &begin(hold_id, "pay-1", 400)).await;
            tokio::time::sleep(Duration::from_millis(380 + (round as u64 * 7) % 40)).await;
            let both = [
                abort(hold_id, "pay-1"),
                CommandBody::Confirm {
                    hold_id,
                    payment_ref: text("pay-1"),
                },
            ];
            wire.send(hold_id.lane(), &both[round % 2]).await;
            wire.send(hold_id.lane(), &both[(round + 1) % 2]).await;
            holds.push(hold_id);
        }
        let report = world.assert_verified().await;
        assert!(report.holds()["paying"] == 0, "{:?}", report.holds());
        for hold_id in holds {
            let events = wire.decisions(hold_id.lane()).await;
            let ends = events.iter().filter(|event| {
                event.hold_id == Some(hold_id)
                    && matches!(event.body, EventBody::HoldConfirmed | EventBody::HoldExpired)
            });
            let held = world.get(&format!("/v1/holds/{hold_id}")).await.state() == "held";
            assert_eq!(ends.count(), usize::from(!held), "{hold_id}");
        }
    });
}

#[test]
fn sales_are_shipped_once_or_taken_back_and_returns_are_movements() {
    play(async {
        let world = Setup::new().start().await;
        let wire = Wire::of(&world).await;
        world.stock("sold", 10).await;
        let [shipped, undone] = [held(&world, "sold", 60).await, held(&world, "sold", 60).await];
        for hold_id in [shipped, undone] {
            assert_eq!(world.confirm(&hold_id.to_string()).await.status, 200);
        }
        for turn in 0..5 {
            let event = wire.ask(shipped, ship(shipped)).await;
            assert_eq!(event.body == EventBody::HoldReplayed, turn > 0, "{event:?}");
            let event = wire.ask(undone, unallocate(undone)).await;
            assert_eq!(event.body == EventBody::HoldReplayed, turn > 0, "{event:?}");
        }
        assert_eq!(
            refusal(&wire.ask(shipped, unallocate(shipped)).await),
            "already_shipped"
        );
        assert_eq!(refusal(&wire.ask(undone, ship(undone)).await), "already_unallocated");
        becomes(&world, shipped, "shipped").await;
        becomes(&world, undone, "unallocated").await;
        assert_eq!(world.counters("sold").await, (9, 0, 0, 9));
        let body = json!({"sku": "sold", "quantity": 1, "reason": "too small", "hold_id": shipped.to_string()});
        for status in [None, Some("true")] {
            let answer = world.post_keyed("/v1/stock/returns", "return-1", &body).await;
            assert_eq!(
                (answer.status, answer.header("idempotent-replayed")),
                (200, status),
                "{answer:?}"
            );
        }
        assert_eq!(world.counters("sold").await, (10, 0, 0, 10));
        let typo = json!({"sku": "typo", "quantity": 1, "reason": "too small"});
        let answer = world.post("/v1/stock/returns", &typo).await;
        assert_eq!((answer.status, answer.code()), (404, "unknown_sku"));
        let hold = shipped.to_string();
        let arguments = [
            "stock",
            "return",
            "sold",
            "2",
            "--reason",
            "too small",
            "--hold",
            hold.as_str(),
        ];
        let (code, out, error) = world.run(&arguments).await;
        assert_eq!(code, 0, "{out}{error}");
        assert_eq!(world.counters("sold").await, (12, 0, 0, 12));
        world.assert_verified().await;
        for (kind, expected) in [
            (
                "SELECT count(*) FROM stock_movements WHERE kind = 'HoldShipped' AND reference = 'parcel-1'",
                1,
            ),
            (
                "SELECT count(*) FROM stock_movements WHERE kind = 'HoldUnallocated' AND actor = 'support'",
                1,
            ),
            (
                "SELECT count(*) FROM stock_movements WHERE kind = 'StockReturned' AND hold_id IS NOT NULL",
                2,
            ),
            ("SELECT count(*) FROM orders", 2),
        ] {
            assert_eq!(count(&world, kind).await, expected, "{kind}");
        }
        let (code, out, error) = world.run(&["show", &shipped.to_string()]).await;
        assert_eq!(code, 0, "{out}{error}");
        assert!(
            out.contains("HoldShipped") && out.contains("parcel-1") && out.contains("StockReturned"),
            "{out}"
        );
    });
}

/// I8: a rebuild brings back payments that are being made, with the time that their holds have left.
#[test]
fn redis_flushed_while_payments_are_made_is_rebuilt_with_them() {
    play(async {
        let world = Setup::new().start().await;
        let wire = Wire::of(&world).await;
        world.stock("night", 10).await;
        let [paying, other, shipped, undone] = [
            held(&world, "night", 300).await,
            held(&world, "night", 300).await,
            held(&world, "night", 300).await,
            held(&world, "night", 300).await,
        ];
        for hold_id in [paying, other] {
            wire.ask(hold_id, begin(hold_id, "pay-1", 600_000)).await;
        }
        for hold_id in [shipped, undone] {
            world.confirm(&hold_id.to_string()).await;
        }
        wire.ask(shipped, ship(shipped)).await;
        wire.ask(undone, unallocate(undone)).await;
        let before = wire.ask(paying, begin(paying, "pay-1", 1)).await;
        world.assert_verified().await;
        flush(&world);
        let after = wire.ask(paying, begin(paying, "pay-1", 1)).await;
        assert_eq!((&after.body, &after.hold), (&EventBody::HoldReplayed, &before.hold));
        assert_eq!(
            refusal(&wire.ask(other, begin(other, "pay-2", 1)).await),
            "payment_in_progress"
        );
        assert_eq!(wire.ask(shipped, ship(shipped)).await.body, EventBody::HoldReplayed);
        assert_eq!(refusal(&wire.ask(undone, ship(undone)).await), "already_unallocated");
        let aborted = wire.ask(paying, abort(paying, "pay-1")).await;
        let terms = aborted.hold.expect("a hold");
        let left = terms.expires_at - terms.changed_at;
        assert_eq!(Some(left), before.hold.and_then(|hold| hold.remaining_ms));
        world.assert_verified().await;
    });
}

/// I7: the lane cannot know that a payment of a hold that is still held is given back; `verify` sees it.
#[test]
fn a_hold_that_is_confirmed_by_a_payment_that_has_to_be_given_back_is_found() {
    play(async {
        let other = Setup::new().start().await;
        let wire = Wire::of(&other).await;
        other.stock("both", 1).await;
        let hold_id = held(&other, "both", 60).await;
        wire.ask(hold_id, require_refund(hold_id, "payment-1")).await;
        other.assert_verified().await;
        assert_eq!(other.confirm(&hold_id.to_string()).await.status, 200);
        let report = holdfast::verify::run(&other.connections, holdfast::verify::Options::at_rest())
            .await
            .expect("verify can look");
        let found = report
            .differences
            .iter()
            .any(|difference| difference.what.contains("has to be given back"));
        assert!(found && report.differences.len() == 1, "{:?}", report.differences);
    });
}
