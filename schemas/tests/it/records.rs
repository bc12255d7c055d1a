//! One record of every body, as the domain has it.

use domain::{
    Adjustment, Cart, CartLine, Command, CommandBody, Event, EventBody, EventId, EventLine, Fingerprint, HoldId,
    HoldState, HoldTerms, Key, Lane, Line, Lines, PartId, PartState, PartStep, PartTerms, Policy, Quantity, Reason,
    Reserve, Shortage, Sku, SkuPolicy, Source, Tenant, Text, UserId,
};

fn key(text: &str) -> Key {
    Key::parse("key", text).expect("a key")
}

fn text(text: &str) -> Text {
    Text::parse("text", text).expect("a text")
}

fn sku(name: &str) -> Sku {
    Sku::parse(name).expect("a SKU")
}

fn lane() -> Lane {
    Lane::new(2).expect("a lane")
}

fn tenant() -> Tenant {
    Tenant::parse("default").expect("a tenant")
}

fn hold_id() -> HoldId {
    HoldId::of(lane(), &tenant(), &key("order-1"))
}

fn source() -> Source {
    Source {
        topic: "inventory.commands.v1".to_owned(),
        partition: 3,
        offset: 17,
        log_time: 1_700_000_000_001,
    }
}

fn part_id() -> PartId {
    PartId {
        hold_id: hold_id(),
        attempt: 40,
    }
}

fn cart() -> Vec<CartLine> {
    let line = |lane, name, quantity| CartLine {
        lane: Lane::new(lane).expect("a lane"),
        sku: sku(name),
        quantity,
    };
    vec![line(2, "mug", 2), line(3, "shirt", 1)]
}

fn followed(step: PartStep) -> EventBody {
    EventBody::PartFollowed { step }
}

fn reserve() -> Reserve {
    let line = |name: &str, units| Line {
        sku: sku(name),
        quantity: Quantity::parse(units).expect("a quantity"),
    };
    Reserve {
        idempotency_key: key("order-1"),
        user_id: UserId::parse("ann").expect("a user"),
        lines: Lines::parse(vec![line("mug", 2), line("shirt", 1)]).expect("lines"),
        ttl_ms: Some(60_000),
        policy: Policy::AllOrNothing,
        external_ref: Some(text("basket-9")),
    }
}

/// A command of every body, with a name for its example file.
pub fn commands() -> Vec<(&'static str, Command)> {
    let command = |body| Command {
        command_id: key("command-1"),
        request_id: key("request-1"),
        tenant: tenant(),
        issued_at: 1_700_000_000_000,
        source: None,
        body,
    };
    let hold_id = hold_id();
    let mut all = vec![
        ("reserve", command(CommandBody::Reserve(reserve()))),
        (
            "reserve-plain",
            command(CommandBody::Reserve(Reserve {
                ttl_ms: None,
                external_ref: None,
                ..reserve()
            })),
        ),
        (
            "confirm",
            command(CommandBody::Confirm {
                hold_id,
                payment_ref: text("payment-1"),
            }),
        ),
        (
            "cancel",
            command(CommandBody::Cancel {
                hold_id,
                reason: text("changed my mind"),
            }),
        ),
        (
            "extend",
            command(CommandBody::Extend {
                hold_id,
                ttl_ms: 120_000,
            }),
        ),
        (
            "release",
            command(CommandBody::Release {
                hold_id,
                attempt: Some(4),
            }),
        ),
        (
            "adjust-stock",
            command(CommandBody::AdjustStock {
                sku: sku("mug"),
                adjustment: Adjustment::Change(-3),
                expected_on_hand: Some(10),
                reason: text("broken"),
                reference: Some(text("delivery-7")),
                actor: text("warehouse"),
            }),
        ),
        (
            "configure-sku",
            command(CommandBody::ConfigureSku {
                sku: sku("mug"),
                policy: SkuPolicy {
                    safety_stock: 5,
                    max_per_user: Some(2),
                },
            }),
        ),
        (
            "begin-payment",
            command(CommandBody::BeginPayment {
                hold_id,
                payment_ref: text("payment-1"),
                cap_ms: 900_000,
            }),
        ),
        (
            "abort-payment",
            command(CommandBody::AbortPayment {
                hold_id,
                payment_ref: text("payment-1"),
                reason: text("card declined"),
            }),
        ),
        (
            "ship",
            command(CommandBody::Ship {
                hold_id,
                reference: text("parcel-5"),
            }),
        ),
        (
            "unallocate",
            command(CommandBody::Unallocate {
                hold_id,
                reason: text("refunded"),
                actor: text("support"),
            }),
        ),
        (
            "return-stock",
            command(CommandBody::ReturnStock {
                sku: sku("mug"),
                quantity: Quantity::parse(2).expect("a quantity"),
                hold_id: Some(hold_id),
                reason: text("too small"),
                reference: Some(text("return-3")),
                actor: text("warehouse"),
            }),
        ),
        (
            "require-refund",
            command(CommandBody::RequireRefund {
                hold_id,
                payment_ref: text("payment-1"),
                reason: text("the hold had expired"),
            }),
        ),
    ];
    let (part, lane) = (part_id(), Lane::new(3).expect("a lane"));
    all.extend([
        (
            "relay",
            command(CommandBody::Relay {
                part,
                lane,
                user_id: UserId::parse("ann").expect("a user"),
                relay_until: 1_700_000_010_000,
                cart: cart(),
            }),
        ),
        ("relay-done", command(CommandBody::RelayDone { part })),
        (
            "relay-failed",
            command(CommandBody::RelayFailed {
                part,
                reason: Reason::InsufficientStock,
                shortages: vec![Shortage {
                    sku: sku("shirt"),
                    requested: 1,
                    available: 0,
                    retry: true,
                }],
            }),
        ),
    ]);
    let steps = ["settle", "undo", "ship-part", "unallocate-part"];
    all.extend(steps.into_iter().zip(PartStep::ALL).map(|(name, step)| {
        let follow = CommandBody::Follow {
            part,
            lane,
            relay_until: 1_700_000_010_000,
            step,
        };
        (name, command(follow))
    }));
    all.push((
        "forwarded",
        Command {
            source: Some(source()),
            ..all[0].1.clone()
        },
    ));
    all
}

/// An event of every body, with a name for its example file.
pub fn events() -> Vec<(&'static str, Event)> {
    let fingerprint = Fingerprint::of_reserve(&reserve());
    let nonce = EventId::of(lane(), 1, 1).uuid();
    let bodies = vec![
        (
            "lane-opened",
            EventBody::LaneOpened {
                nonce,
                owner: text("host/1"),
            },
        ),
        ("hold-created", EventBody::HoldCreated),
        (
            "hold-rejected",
            EventBody::HoldRejected {
                reason: Reason::InsufficientStock,
                shortages: vec![Shortage {
                    sku: sku("mug"),
                    requested: 2,
                    available: 1,
                    retry: false,
                }],
            },
        ),
        ("hold-confirmed", EventBody::HoldConfirmed),
        ("hold-cancelled", EventBody::HoldCancelled),
        ("hold-expired", EventBody::HoldExpired),
        ("hold-extended", EventBody::HoldExtended { fingerprint }),
        ("hold-replayed", EventBody::HoldReplayed),
        (
            "stock-adjusted",
            EventBody::StockAdjusted {
                change: -3,
                reason: text("broken"),
                reference: Some(text("delivery-7")),
                actor: text("warehouse"),
                fingerprint,
            },
        ),
        ("stock-replayed", EventBody::StockReplayed),
        (
            "sku-configured",
            EventBody::SkuConfigured {
                policy: SkuPolicy {
                    safety_stock: 5,
                    max_per_user: None,
                },
                fingerprint,
            },
        ),
        ("command-forwarded", EventBody::CommandForwarded { to_lane: 3 }),
        ("offsets-skipped", EventBody::OffsetsSkipped),
        (
            "command-refused",
            EventBody::CommandRefused {
                reason: Reason::NotDue,
                message: text(""),
            },
        ),
        ("hold-pending", EventBody::HoldPending),
        ("relay-ignored", EventBody::RelayIgnored),
        ("payment-begun", EventBody::PaymentBegun),
        (
            "payment-aborted",
            EventBody::PaymentAborted {
                reason: text("card declined"),
            },
        ),
        (
            "hold-shipped",
            EventBody::HoldShipped {
                reference: text("parcel-5"),
            },
        ),
        (
            "hold-unallocated",
            EventBody::HoldUnallocated {
                reason: text("refunded"),
                actor: text("support"),
            },
        ),
        (
            "stock-returned",
            EventBody::StockReturned {
                quantity: 2,
                hold_id: Some(hold_id()),
                reason: text("too small"),
                reference: None,
                actor: text("warehouse"),
                fingerprint,
            },
        ),
        (
            "refund-required",
            EventBody::RefundRequired {
                payment_ref: text("payment-1"),
                reason: text("the hold had expired"),
                fingerprint,
            },
        ),
    ];
    let part_bodies = [
        ("part-held", EventBody::PartHeld, PartState::Held),
        (
            "part-refused",
            EventBody::PartRefused {
                reason: Reason::CartTimedOut,
                shortages: Vec::new(),
            },
            PartState::Undone,
        ),
        ("part-settled", followed(PartStep::Settle), PartState::Settled),
        ("part-undone", followed(PartStep::Undo), PartState::Undone),
        ("part-shipped", followed(PartStep::Ship), PartState::Shipped),
        (
            "part-unallocated",
            followed(PartStep::Unallocate),
            PartState::Unallocated,
        ),
    ];
    let mut all: Vec<_> = bodies
        .into_iter()
        .map(|(name, body)| (name, event(body, fingerprint)))
        .collect();
    all.extend(part_bodies.map(|(name, body, state)| {
        let mut event = event(body, fingerprint);
        event.hold = None;
        event.part = Some(PartTerms {
            attempt: 40,
            state,
            user_id: Some(UserId::parse("ann").expect("a user")),
            relay_until: 1_700_000_010_002,
            changed_at: 1_700_000_000_002,
            cart: cart(),
        });
        (name, event)
    }));
    for (name, event) in &mut all {
        if let ("hold-pending", Some(terms)) = (*name, &mut event.hold) {
            terms.state = HoldState::Pending;
            terms.cart = Some(Cart {
                relay_until: 1_700_000_010_002,
                ttl_ms: 60_000,
                lines: cart(),
            });
            terms.asked = vec![(sku("mug"), 3)];
        }
        if let ("payment-begun", Some(terms)) = (*name, &mut event.hold) {
            terms.state = HoldState::Paying;
            terms.payment_ref = Some(text("payment-1"));
            terms.remaining_ms = Some(41_000);
        }
    }
    all
}

fn event(body: EventBody, fingerprint: Fingerprint) -> Event {
    Event {
        event_id: EventId::of(lane(), 7, 42),
        request_id: "request-1".to_owned(),
        epoch: 7,
        command_offset: 42,
        previous_command_offset: 41,
        command_id: "command-1".to_owned(),
        tenant: tenant(),
        hold_id: Some(hold_id()),
        decided_at: 1_700_000_000_002,
        source: Some(source()),
        part: None,
        hold: Some(HoldTerms {
            attempt: 40,
            state: HoldState::Held,
            user_id: UserId::parse("ann").expect("a user"),
            idempotency_key: key("order-1"),
            fingerprint,
            created_at: 1_700_000_000_002,
            expires_at: 1_700_000_060_002,
            changed_at: 1_700_000_000_002,
            policy: Policy::AllOrNothing,
            external_ref: Some(text("basket-9")),
            payment_ref: None,
            reason: None,
            remaining_ms: None,
            cart: None,
            asked: Vec::new(),
        }),
        lines: vec![EventLine {
            sku: sku("mug"),
            quantity: 2,
            counted: 2,
            on_hand: 10,
            held: 2,
            allocated: 0,
            sku_version: 3,
        }],
        body,
    }
}
