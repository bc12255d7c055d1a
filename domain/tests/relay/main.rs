//! The relay of carts over several lanes (docs/ARCHITECTURE.md, "A cart over three lanes"), searched exhaustively: records
//! that come late, twice, in any order or never, lanes that die, deadlines that pass in each lane when they like.
//!
//! `shop`          how large a world is, and what it leaves out
//! `world`         a state: what the lanes decided, and what was ever sent between them
//! `forwards`      which records an event sends, asked of the real relay
//! `lane`, `steps` what a lane decides, and what may happen next
//! `promises`      what must hold in every state
//! `search`        every state once, the nearest violation first; the lane's model is searched by it too
//!
//! docs/model.md says what is modelled, how far, and what each rule is for: without it, this search finds a violation.

mod forwards;
mod lane;
mod promises;
#[path = "../search/mod.rs"]
mod search;
mod shop;
mod steps;
mod world;

use lane::Relay;
use search::search;
use shop::{Mutant, Perils, Shop, Try};
use world::Broken;

const fn cart(key: u8, lanes: &'static [u8]) -> Try {
    Try { key, lanes }
}

/// Two lanes with one unit each, which two carts want, the first of them twice if need be; a third buyer wants one.
const TWO_LANES: Shop = Shop {
    lanes: 2,
    units: 1,
    tries: &[cart(0, &[0, 1]), cart(0, &[0, 1]), cart(1, &[0, 1])],
    rival: Some(1),
    perils: Perils::ALL,
};
/// Each of the two carts twice, without the third buyer.
const TWO_LANES_LONGER: Shop = Shop {
    tries: &[cart(0, &[0, 1]), cart(0, &[0, 1]), cart(1, &[0, 1]), cart(1, &[0, 1])],
    rival: None,
    ..TWO_LANES
};
/// One cart, and the same again under its key; nobody ever pays.
const TRIED_AGAIN: Shop = Shop {
    tries: &[cart(0, &[0, 1]), cart(0, &[0, 1])],
    perils: Perils {
        ends: false,
        ..Perils::ALL
    },
    ..TWO_LANES
};
/// Two carts over three lanes; a third buyer wants one unit of the last.
const THREE_LANES: Shop = Shop {
    lanes: 3,
    tries: &[cart(0, &[0, 1, 2]), cart(1, &[0, 1, 2])],
    rival: Some(2),
    ..TWO_LANES
};
/// One of them twice, without the third buyer.
const THREE_LANES_LONGER: Shop = Shop {
    tries: &[cart(0, &[0, 1, 2]), cart(0, &[0, 1, 2]), cart(1, &[1, 2])],
    rival: None,
    ..THREE_LANES
};
/// Three carts in a ring: each wants a unit that the next wants too.
const RING: Shop = Shop {
    lanes: 3,
    tries: &[cart(0, &[0, 1]), cart(1, &[1, 2]), cart(2, &[0, 2])],
    rival: None,
    ..TWO_LANES
};
/// Two carts for the same units, and nothing goes wrong.
const RACE: Shop = Shop {
    tries: &[cart(0, &[0, 1]), cart(1, &[0, 1])],
    rival: None,
    perils: Perils::NONE,
    ..TWO_LANES
};
/// Four carts, overlapping as they can.
const RACE_OF_FOUR: Shop = Shop {
    lanes: 3,
    tries: &[
        cart(0, &[0, 1]),
        cart(1, &[1, 2]),
        cart(2, &[0, 2]),
        cart(3, &[0, 1, 2]),
    ],
    ..RACE
};

/// No state breaks a promise.
fn holds(shop: Shop) {
    let relay = Relay::new(shop, Mutant::Nothing);
    let found = search(&relay, |_| true);
    println!(
        "{} states, the farthest after {} steps: {shop:?}",
        found.states, found.depth
    );
    if let Some(violation) = found.violation {
        panic!("{}", violation.tell(&relay));
    }
}

fn full() -> bool {
    std::env::var_os("HOLDFAST_TEST_FULL").is_some()
}

#[test]
fn two_lanes_two_carts_and_a_second_attempt_keep_every_promise() {
    holds(TWO_LANES);
    if full() {
        holds(TWO_LANES_LONGER);
    }
}

#[test]
fn three_lanes_and_two_carts_keep_every_promise() {
    holds(THREE_LANES);
    if full() {
        holds(THREE_LANES_LONGER);
    }
}

#[test]
fn three_carts_in_a_ring_keep_every_promise() {
    holds(RING);
}

#[test]
fn two_units_and_two_carts_in_three_lanes_keep_every_promise() {
    holds(Shop {
        units: 2,
        ..THREE_LANES
    });
}

/// Of carts that fight for the same last units, not all lose.
#[test]
fn of_carts_that_race_for_the_last_units_one_wins() {
    for race in [RACE, RACE_OF_FOUR] {
        assert!(race.is_race());
        holds(race);
    }
}

/// Without a rule, the search finds what the rule prevents, and no sooner than after so many steps.
fn breaks(shop: Shop, mutant: Mutant, broken: Broken, steps: usize) {
    let relay = Relay::new(shop, mutant);
    let found = search(&relay, |found| found == broken);
    let violation = found.violation.unwrap_or_else(|| panic!("{mutant:?} is not caught"));
    println!("{mutant:?}, {} states: {}", found.states, violation.tell(&relay));
    assert_eq!(
        violation.trace.len(),
        steps,
        "docs/model.md has another number of steps"
    );
}

#[test]
fn an_undo_that_leaves_no_mark_strands_what_a_late_relay_holds() {
    breaks(TWO_LANES, Mutant::NoMark, Broken::Stranded, 6);
}

#[test]
fn an_undo_to_known_holders_alone_strands_what_a_late_relay_holds() {
    breaks(TWO_LANES, Mutant::UndoesOnlyHolders, Broken::Stranded, 5);
}

#[test]
fn a_part_with_a_timeout_of_its_own_leaves_a_hold_without_units() {
    breaks(TWO_LANES, Mutant::PartsTimeOut, Broken::HeldWithoutUnits, 5);
}

#[test]
fn carts_that_ask_their_lanes_in_different_orders_kill_each_other() {
    breaks(RACE, Mutant::LanesOutOfOrder, Broken::NobodyWins, 6);
}

#[test]
fn a_forward_before_its_event_is_in_the_log_leaves_a_hold_without_units() {
    breaks(TWO_LANES, Mutant::ForwardsEarly, Broken::HeldWithoutUnits, 4);
}

#[test]
fn a_cursor_that_passes_what_is_not_sent_strands_a_part() {
    breaks(TWO_LANES, Mutant::CursorPassesUnsent, Broken::Stranded, 6);
}

#[test]
fn a_late_relay_done_that_revives_breaks_the_one_end_of_a_hold() {
    breaks(TWO_LANES, Mutant::DoneRevives, Broken::CameBack, 5);
}

#[test]
fn marks_forgotten_before_the_deadline_strand_what_a_late_relay_holds() {
    breaks(TWO_LANES, Mutant::ForgetsEarly, Broken::Stranded, 7);
}

#[test]
fn a_part_held_after_the_deadline_is_stranded() {
    breaks(TWO_LANES, Mutant::HoldsTooLate, Broken::Stranded, 6);
}

#[test]
fn without_attempts_the_late_records_of_one_decide_the_next() {
    breaks(TRIED_AGAIN, Mutant::NoAttempt, Broken::HeldWithoutUnits, 7);
}
