//! Parts of other lanes' carts, through the script: held once an attempt, never by themselves undone, never held too late.

use domain::{CartLine, CommandBody, EventBody, HoldId, Lane, PartId, PartState, PartStep, Reason, Sku, UserId};

use crate::books::{Books, key, lane, reserve, set, tenant};

const UNTIL: i64 = 50_000;

/// An attempt of a cart whose home is another lane.
fn part(attempt: i64) -> PartId {
    PartId {
        hold_id: HoldId::of(Lane::new(9).expect("a lane"), &tenant(), &key("far")),
        attempt,
    }
}

fn relay(attempt: i64, units: i64) -> CommandBody {
    CommandBody::Relay {
        part: part(attempt),
        lane: lane(),
        user_id: UserId::parse("ann").expect("a user"),
        relay_until: UNTIL,
        cart: vec![CartLine {
            lane: lane(),
            sku: Sku::parse("A").expect("a SKU"),
            quantity: units,
        }],
    }
}

fn follow(attempt: i64, step: PartStep) -> CommandBody {
    CommandBody::Follow {
        part: part(attempt),
        lane: lane(),
        relay_until: UNTIL,
        step,
    }
}

fn held(books: &Books) -> (i64, i64) {
    let stock = books.ledger.stock.values().next().expect("one SKU");
    (stock.held, stock.allocated)
}

#[test]
fn a_part_is_held_once_and_settled_once_however_often_it_is_told() {
    let mut books = Books::new();
    books.one(set("A", 5));
    assert_eq!(books.one(relay(1, 2)).body, EventBody::PartHeld);
    assert_eq!(books.one(relay(1, 2)).body, EventBody::RelayIgnored);
    assert_eq!(held(&books), (2, 0));
    books.now = UNTIL * 10;
    assert_eq!(
        books.one(relay(1, 2)).body,
        EventBody::RelayIgnored,
        "a part never ends by itself"
    );
    let settle = EventBody::PartFollowed { step: PartStep::Settle };
    assert_eq!(books.one(follow(1, PartStep::Settle)).body, settle);
    assert_eq!(books.one(follow(1, PartStep::Settle)).body, EventBody::RelayIgnored);
    assert_eq!(
        books.one(follow(1, PartStep::Undo)).body,
        EventBody::RelayIgnored,
        "it is paid"
    );
    assert_eq!(held(&books), (0, 2));
    books.one(follow(1, PartStep::Ship));
    assert_eq!(held(&books), (0, 0));
    assert_eq!(books.ledger.parts[&part(1)].terms.state, PartState::Shipped);
    books.assert_agree();
}

#[test]
fn a_relay_that_comes_after_its_undo_or_its_deadline_holds_nothing() {
    let mut books = Books::new();
    books.one(set("A", 5));
    let undone = EventBody::PartFollowed { step: PartStep::Undo };
    assert_eq!(books.one(follow(1, PartStep::Undo)).body, undone, "a mark");
    assert_eq!(books.one(relay(1, 2)).body, EventBody::RelayIgnored);
    assert_eq!(held(&books), (0, 0));
    // The key was tried again: another attempt is another cart, and the old one's undo is not its own.
    assert_eq!(books.one(relay(7, 2)).body, EventBody::PartHeld);
    assert_eq!(books.one(follow(1, PartStep::Undo)).body, EventBody::RelayIgnored);
    assert_eq!(held(&books), (2, 0));
    assert_eq!(books.one(follow(7, PartStep::Undo)).body, undone);
    assert_eq!(held(&books), (0, 0));
    books.now = UNTIL;
    let late = books.one(relay(8, 2)).body;
    assert!(
        matches!(
            late,
            EventBody::PartRefused {
                reason: Reason::CartTimedOut,
                ..
            }
        ),
        "{late:?}"
    );
    assert_eq!(
        books.one(follow(8, PartStep::Undo)).body,
        EventBody::RelayIgnored,
        "no mark is needed any more"
    );
    books.assert_agree();
}

#[test]
fn a_refusal_says_retry_only_while_units_that_would_do_are_in_an_undecided_cart() {
    let mut books = Books::new();
    books.one(set("A", 3));
    books.one(relay(1, 2));
    let retry = |event: domain::Event| match event.body {
        EventBody::HoldRejected { shortages, .. } => shortages[0].retry,
        other => panic!("{other:?}"),
    };
    let want = |name: &str, units| reserve(name, "bob", &[("A", units)], 1_000);
    assert!(retry(books.one(want("some", 3))));
    assert!(!retry(books.one(want("more", 4))), "more than there would be");
    books.one(follow(1, PartStep::Settle));
    assert!(!retry(books.one(want("paid", 3))));
    books.one(relay(2, 1));
    assert!(retry(books.one(want("again", 1))));
    books.now = UNTIL;
    assert!(!retry(books.one(want("late", 1))), "the relay's deadline is past");
    books.assert_agree();
}
