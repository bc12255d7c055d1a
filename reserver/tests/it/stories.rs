//! Random stories: whatever is asked, the ledger follows, and Redis agrees with it.

use domain::Adjustment;
use proptest::prelude::*;

use crate::books::{
    Books, abort, adjust, begin, cancel, configure, confirm, confirm_by, extend, release, require_refund, reserve, set,
    ship, take_back, unallocate,
};

/// One step of a random story.
#[derive(Debug, Clone)]
enum Op {
    Reserve {
        name: u8,
        user: u8,
        lines: Vec<(u8, u8)>,
        ttl_ms: i64,
    },
    Confirm(u8),
    Cancel(u8),
    Release(u8),
    Extend(u8, i64),
    Set(u8, i64),
    Change(u8, i64),
    Configure(u8, i64, Option<i64>),
    Begin(u8, u8, i64),
    Abort(u8, u8),
    ConfirmBy(u8, u8),
    Ship(u8),
    Unallocate(u8),
    TakeBack(u8, i64),
    RequireRefund(u8, u8),
    Wait(i64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..12u8, 0..3u8, prop::collection::vec((0..3u8, 1..4u8), 1..4), 1..3_000i64)
            .prop_map(|(name, user, lines, ttl_ms)| Op::Reserve { name, user, lines, ttl_ms }),
        3 => (0..12u8).prop_map(Op::Confirm),
        3 => (0..12u8).prop_map(Op::Cancel),
        3 => (0..12u8).prop_map(Op::Release),
        1 => (0..12u8, 1..10_000i64).prop_map(|(name, ttl)| Op::Extend(name, ttl)),
        2 => (0..3u8, 0..20i64).prop_map(|(sku, units)| Op::Set(sku, units)),
        1 => (0..3u8, -5..5i64).prop_map(|(sku, units)| Op::Change(sku, if units == 0 { 1 } else { units })),
        1 => (0..3u8, 0..3i64, prop::option::of(1..6i64)).prop_map(|(sku, safety, max)| Op::Configure(sku, safety, max)),
        3 => (0..12u8, 0..2u8, 1..5_000i64).prop_map(|(name, payment, cap)| Op::Begin(name, payment, cap)),
        2 => (0..12u8, 0..2u8).prop_map(|(name, payment)| Op::Abort(name, payment)),
        2 => (0..12u8, 0..2u8).prop_map(|(name, payment)| Op::ConfirmBy(name, payment)),
        3 => (0..12u8).prop_map(Op::Ship),
        2 => (0..12u8).prop_map(Op::Unallocate),
        1 => (0..3u8, 1..4i64).prop_map(|(sku, units)| Op::TakeBack(sku, units)),
        1 => (0..12u8, 0..2u8).prop_map(|(name, payment)| Op::RequireRefund(name, payment)),
        2 => (1..60_000i64).prop_map(Op::Wait),
    ]
}

const SKUS: [&str; 3] = ["A", "B", "C"];
const PAYMENTS: [&str; 2] = ["pay-1", "pay-2"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// I1, I4, I5: whatever is asked in whatever batches, the ledger follows and Redis agrees with it.
    #[test]
    fn random_stories_keep_the_books(ops in prop::collection::vec(op(), 1..80), batch in 1..9usize) {
        let mut books = Books::new();
        let mut waiting = Vec::new();
        for op in ops {
            let name = |name: u8| format!("key-{name}");
            let body = match &op {
                Op::Reserve { name: n, user, lines, ttl_ms } => {
                    let lines: Vec<_> = lines.iter().map(|(sku, units)| (SKUS[*sku as usize], i64::from(*units))).collect();
                    reserve(&name(*n), &format!("user-{user}"), &lines, *ttl_ms)
                }
                Op::Confirm(n) => confirm(&name(*n)),
                Op::Cancel(n) => cancel(&name(*n)),
                Op::Release(n) => release(&name(*n)),
                Op::Extend(n, ttl_ms) => extend(&name(*n), *ttl_ms),
                Op::Set(sku, units) => set(SKUS[*sku as usize], *units),
                Op::Change(sku, units) => adjust(SKUS[*sku as usize], Adjustment::Change(*units), None),
                Op::Begin(n, payment, cap_ms) => begin(&name(*n), PAYMENTS[*payment as usize], *cap_ms),
                Op::Abort(n, payment) => abort(&name(*n), PAYMENTS[*payment as usize]),
                Op::ConfirmBy(n, payment) => confirm_by(&name(*n), PAYMENTS[*payment as usize]),
                Op::Ship(n) => ship(&name(*n)),
                Op::Unallocate(n) => unallocate(&name(*n)),
                Op::TakeBack(sku, units) => take_back(SKUS[*sku as usize], *units),
                Op::RequireRefund(n, payment) => require_refund(&name(*n), PAYMENTS[*payment as usize]),
                Op::Configure(sku, safety, max) => configure(SKUS[*sku as usize], *safety, *max),
                Op::Wait(ms) => { books.now += ms; continue; }
            };
            waiting.push(books.entry(body));
            if waiting.len() >= batch {
                books.apply(&std::mem::take(&mut waiting));
            }
        }
        if !waiting.is_empty() {
            books.apply(&waiting);
        }
        books.assert_agree();
    }
}
