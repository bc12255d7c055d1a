//! Payments, shipping and returns, as the scripts decide them.

use domain::{Event, EventBody, HoldState, Reason};

use crate::{
    books::{
        Books, RULES, abort, begin, cancel, confirm_by, extend, hold_id, key, release, require_refund, reserve, set,
        ship, take_back, text, unallocate,
    },
    scripts::refusal,
};

/// Five units of A, of which ann holds two under the key "a" for a second.
fn held() -> Books {
    let mut books = Books::new();
    books.one(set("A", 5));
    assert_eq!(
        books.one(reserve("a", "ann", &[("A", 2)], 1_000)).body,
        EventBody::HoldCreated
    );
    books
}

fn confirmed() -> Books {
    let mut books = held();
    assert_eq!(books.one(confirm_by("a", "pay-1")).body, EventBody::HoldConfirmed);
    books
}

/// State, deadline and remaining time of an event's hold.
fn clock(event: &Event) -> (HoldState, i64, Option<i64>) {
    let terms = event.hold.as_ref().expect("a hold");
    (terms.state, terms.expires_at, terms.remaining_ms)
}

/// (on hand, held, allocated) of A, and what ann has of it.
fn counters(books: &Books) -> ((i64, i64, i64), i64) {
    let stock = books.ledger.stock.values().next().expect("A");
    let counted = books.ledger.counted.values().next().copied().unwrap_or(0);
    ((stock.on_hand, stock.held, stock.allocated), counted)
}

#[test]
fn while_a_payment_is_made_the_clock_of_the_hold_stands_still_and_then_goes_on() {
    let mut books = held();
    let deadline = books.now + 1_000;
    books.now += 400;
    let begun = books.one(begin("a", "pay-1", 30_000));
    assert_eq!(begun.body, EventBody::PaymentBegun);
    assert_eq!(clock(&begun), (HoldState::Paying, books.now + 30_000, Some(600)));
    books.assert_agree();
    books.now = deadline + 5_000;
    assert_eq!(refusal(&books.one(release("a")).body), Some(Reason::NotDue));
    let again = books.one(begin("a", "pay-1", 60_000));
    assert_eq!(again.body, EventBody::HoldReplayed);
    assert_eq!(clock(&again), clock(&begun), "a repetition moves no deadline");
    let aborted = books.one(abort("a", "pay-1"));
    assert!(matches!(&aborted.body, EventBody::PaymentAborted { reason } if reason.as_str() == "card declined"));
    assert_eq!(clock(&aborted), (HoldState::Held, books.now + 600, None));
    assert_eq!(books.one(abort("a", "pay-1")).body, EventBody::HoldReplayed);
    assert_eq!(refusal(&books.one(abort("a", "pay-2")).body), Some(Reason::NotPaying));
    books.assert_agree();
    books.now += 600;
    assert_eq!(books.one(release("a")).body, EventBody::HoldExpired);
    assert_eq!(refusal(&books.one(abort("a", "pay-1")).body), Some(Reason::HoldExpired));
    assert_eq!(counters(&books), ((5, 0, 0), 0));
    books.assert_agree();
}

#[test]
fn a_payment_that_passes_its_cap_loses_the_hold_to_a_release_and_to_nothing_else() {
    let mut books = held();
    books.one(begin("a", "pay-1", 5_000));
    books.now += 5_000;
    assert_eq!(books.one(release("a")).body, EventBody::HoldExpired);
    assert_eq!(
        refusal(&books.one(confirm_by("a", "pay-1")).body),
        Some(Reason::HoldExpired)
    );
    books.one(reserve("b", "bob", &[("A", 5)], 1_000));
    books.one(begin("b", "pay-2", 5_000));
    books.now += 60_000;
    assert_eq!(
        books.one(confirm_by("b", "pay-2")).body,
        EventBody::HoldConfirmed,
        "the units are still there"
    );
    books.assert_agree();
}

#[test]
fn only_its_own_payment_ends_the_payment_of_a_hold() {
    let mut books = held();
    books.one(begin("a", "pay-1", 5_000));
    for body in [
        begin("a", "pay-2", 5_000),
        abort("a", "pay-2"),
        confirm_by("a", "pay-2"),
        cancel("a"),
        extend("a", 5_000),
        ship("a"),
        unallocate("a"),
        require_refund("a", "pay-1"),
    ] {
        let name = body.name();
        let refused = books.one(body);
        assert_eq!(refusal(&refused.body), Some(Reason::PaymentInProgress), "{name}");
        assert_eq!(clock(&refused).0, HoldState::Paying, "{name}");
    }
    let confirmed = books.one(confirm_by("a", "pay-1"));
    assert_eq!(confirmed.body, EventBody::HoldConfirmed);
    assert_eq!(clock(&confirmed).2, None);
    assert_eq!(books.one(confirm_by("a", "pay-1")).body, EventBody::HoldReplayed);
    assert_eq!(
        refusal(&books.one(confirm_by("a", "pay-2")).body),
        Some(Reason::AlreadyConfirmed)
    );
    books.assert_agree();
}

/// A hold that is due but not released yet still has its units: a payment may begin, with no time left behind it.
#[test]
fn a_payment_may_begin_past_the_deadline_and_leaves_no_time_when_it_is_aborted() {
    let mut books = held();
    books.now += 2_000;
    assert_eq!(clock(&books.one(begin("a", "pay-1", 5_000))).2, Some(0));
    books.now += 1_000;
    assert_eq!(clock(&books.one(abort("a", "pay-1"))).1, books.now);
    assert_eq!(books.one(release("a")).body, EventBody::HoldExpired);
}

#[test]
fn payments_that_begin_and_fail_do_not_keep_units_for_ever() {
    let mut books = held();
    books.now += RULES.max_hold_ms;
    assert_eq!(books.one(begin("a", "pay-1", 1_000)).body, EventBody::PaymentBegun);
    books.one(abort("a", "pay-1"));
    books.now += 1;
    assert_eq!(
        refusal(&books.one(begin("a", "pay-2", 1_000)).body),
        Some(Reason::LifetimeExceeded)
    );
    books.assert_agree();
}

#[test]
fn a_sale_is_shipped_once_and_its_units_leave_the_warehouse() {
    let mut books = confirmed();
    assert_eq!(counters(&books), ((5, 0, 2), 2));
    let shipped = books.one(ship("a"));
    assert!(matches!(&shipped.body, EventBody::HoldShipped { reference } if reference.as_str() == "parcel-1"));
    for _ in 0..2 {
        assert_eq!(books.one(ship("a")).body, EventBody::HoldReplayed);
    }
    assert_eq!(counters(&books), ((3, 0, 0), 2), "what was bought counts on");
    for body in [
        unallocate("a"),
        cancel("a"),
        begin("a", "pay-1", 1_000),
        confirm_by("a", "pay-2"),
    ] {
        assert_eq!(refusal(&books.one(body).body), Some(Reason::AlreadyShipped));
    }
    let paid_late = books.one(confirm_by("a", "pay-1"));
    assert_eq!(
        (paid_late.body.clone(), clock(&paid_late).0),
        (EventBody::HoldReplayed, HoldState::Shipped)
    );
    books.assert_agree();
}

#[test]
fn a_sale_that_is_taken_back_before_it_is_shipped_frees_its_units() {
    let mut books = confirmed();
    let event = books.one(unallocate("a"));
    assert!(matches!(&event.body, EventBody::HoldUnallocated { actor, .. } if actor.as_str() == "support"));
    assert_eq!(event.hold.expect("a hold").reason, Some(text("refunded")));
    assert_eq!(books.one(unallocate("a")).body, EventBody::HoldReplayed);
    assert_eq!(counters(&books), ((5, 0, 0), 0));
    for body in [ship("a"), confirm_by("a", "pay-1"), cancel("a")] {
        assert_eq!(refusal(&books.one(body).body), Some(Reason::AlreadyUnallocated));
    }
    books.assert_agree();
}

#[test]
fn nothing_is_shipped_or_taken_back_that_is_not_paid() {
    let mut books = held();
    for body in [ship("a"), unallocate("a")] {
        assert_eq!(refusal(&books.one(body).body), Some(Reason::NotConfirmed));
    }
    for body in [ship("b"), unallocate("b"), begin("b", "pay-1", 1), abort("b", "pay-1")] {
        assert_eq!(refusal(&books.one(body).body), Some(Reason::HoldNotFound));
    }
    books.one(cancel("a"));
    assert_eq!(refusal(&books.one(ship("a")).body), Some(Reason::AlreadyCancelled));
}

#[test]
fn a_shipped_hold_is_forgotten_and_what_was_bought_is_not() {
    let mut books = confirmed();
    books.one(ship("a"));
    books.now += RULES.remember_ms;
    assert_eq!(
        books.one(reserve("a", "ann", &[("A", 1)], 1_000)).body,
        EventBody::HoldCreated,
        "its key may be used again"
    );
    assert_eq!(counters(&books), ((3, 1, 0), 3));
    books.one(confirm_by("a", "pay-2"));
    books.now += 10 * RULES.remember_ms;
    books.one(set("B", 1));
    assert!(
        matches!(books.one(ship("a")).body, EventBody::HoldShipped { .. }),
        "a sale that waits to be shipped is never forgotten"
    );
    books.assert_agree();
}

#[test]
fn a_return_counts_once_per_command_id() {
    let mut books = held();
    for turn in 0..3 {
        let entry = books.entry_named(key("return-1"), take_back("A", 2), None);
        let event = books.apply(&[entry]).remove(0);
        assert_eq!(event.body == EventBody::StockReplayed, turn > 0, "{event:?}");
    }
    assert_eq!(counters(&books), ((7, 2, 0), 2));
    let entry = books.entry_named(key("return-1"), take_back("A", 3), None);
    assert_eq!(
        refusal(&books.apply(&[entry])[0].body),
        Some(Reason::IdempotencyKeyReused)
    );
    assert_eq!(
        refusal(&books.one(take_back("typo", 1)).body),
        Some(Reason::UnknownSku),
        "a typing error makes no SKU"
    );
    books.one(set("A", 1_000_000_000_000));
    assert_eq!(
        refusal(&books.one(take_back("A", 1)).body),
        Some(Reason::InvalidRequest)
    );
    books.assert_agree();
}

/// I7: paid means served or refunded, never both.
#[test]
fn a_refund_is_required_once_and_never_of_a_payment_that_is_served() {
    let mut books = confirmed();
    assert_eq!(
        refusal(&books.one(require_refund("a", "pay-1")).body),
        Some(Reason::AlreadyConfirmed)
    );
    let other = books.one(require_refund("a", "pay-2"));
    assert!(
        matches!(other.body, EventBody::RefundRequired { .. }),
        "a second payment of the same hold"
    );
    let before = books.ledger.stock.clone();
    for turn in 0..2 {
        let entry = books.entry_named(key("refund-1"), require_refund("gone", "pay-3"), None);
        let event = books.apply(&[entry]).remove(0);
        assert_eq!(event.body == EventBody::HoldReplayed, turn > 0, "{event:?}");
        assert_eq!((event.hold_id, event.hold), (Some(hold_id("gone")), None));
    }
    let entry = books.entry_named(key("refund-1"), require_refund("gone", "pay-4"), None);
    assert_eq!(
        refusal(&books.apply(&[entry])[0].body),
        Some(Reason::IdempotencyKeyReused)
    );
    assert_eq!(books.ledger.stock, before, "it moves nothing");
    books.one(ship("a"));
    assert_eq!(
        refusal(&books.one(require_refund("a", "pay-1")).body),
        Some(Reason::AlreadyConfirmed)
    );
    books.assert_agree();
}
