//! The lane protocol (docs/ARCHITECTURE.md, "Lanes"), searched exhaustively: owners that pause anywhere, a Redis that
//! loses what it wrote, produces whose fate is unknown. What is valid is asked of the real fold (`domain::LaneState`).
//!
//! `books`, `redis`, `world`   a state: stock, Redis with its scripts, log and turns
//! `owner`, `steps`            what may happen next, to an owner and around it
//! `promises`                  what must hold in every state
//! `search`                    every state once, the nearest violation first; the relay's model is searched by it too
//!
//! docs/model.md says what is modelled, how far, and what each rule is for: without it, this search finds a violation.

mod books;
mod bounds;
mod owner;
mod promises;
mod redis;
#[path = "../search/mod.rs"]
mod search;
mod steps;
mod world;

use books::{
    Command,
    Command::{Cancel, Reserve},
};
use bounds::{Bounds, Faults, Mutant};
use search::search;
use steps::Model;
use world::Broken;

/// Two buyers and one unit.
const RIVALS: &[Command] = &[Reserve, Reserve];
/// A unit that is given back is sold again, maybe in the same script.
const SOLD_AGAIN: &[Command] = &[Reserve, Cancel(0), Reserve];

const fn singly(commands: &'static [Command], turns: u8, faults: u8) -> Bounds {
    Bounds {
        commands,
        turns,
        batch: 1,
        unread: 2,
        faults: Faults::any(faults),
    }
}

const fn in_pairs(commands: &'static [Command], turns: u8, faults: u8) -> Bounds {
    Bounds {
        batch: 2,
        unread: 3,
        ..singly(commands, turns, faults)
    }
}

/// The larger world where `HOLDFAST_TEST_FULL` is set.
fn either(quick: Bounds, full: Bounds) -> Bounds {
    if std::env::var_os("HOLDFAST_TEST_FULL").is_some() {
        full
    } else {
        quick
    }
}

/// No state breaks a promise.
fn holds(bounds: Bounds) {
    let model = Model {
        bounds,
        mutant: Mutant::Nothing,
    };
    let found = search(&model, |_| true);
    let (turns, faults) = (bounds.turns, bounds.faults.all);
    println!(
        "{} states, the farthest after {} steps: {turns} turns, {faults} misfortunes, {:?} in batches of {}",
        found.states, found.depth, bounds.commands, bounds.batch
    );
    if let Some(violation) = found.violation {
        panic!("{}", violation.tell(&model));
    }
}

#[test]
fn three_turns_and_two_buyers_keep_every_promise() {
    holds(either(singly(RIVALS, 3, 2), singly(RIVALS, 3, 3)));
}

#[test]
fn three_turns_with_batches_and_a_unit_sold_again_keep_every_promise() {
    holds(either(in_pairs(SOLD_AGAIN, 3, 1), in_pairs(SOLD_AGAIN, 3, 2)));
}

#[test]
fn two_turns_and_many_misfortunes_keep_every_promise() {
    holds(either(singly(RIVALS, 2, 4), singly(RIVALS, 2, 9)));
}

#[test]
fn four_turns_keep_every_promise() {
    holds(either(singly(RIVALS, 4, 0), singly(RIVALS, 4, 1)));
}

/// Without a rule, the search finds what the rule prevents, and no sooner than after so many steps.
fn breaks(mutant: Mutant, broken: Broken, steps: usize) {
    let model = Model {
        bounds: singly(RIVALS, 3, 2),
        mutant,
    };
    let found = search(&model, |found| found == broken);
    let violation = found.violation.unwrap_or_else(|| panic!("{mutant:?} is not caught"));
    println!("{mutant:?}, {} states: {}", found.states, violation.tell(&model));
    assert_eq!(
        violation.trace.len(),
        steps,
        "docs/model.md has another number of steps"
    );
}

#[test]
fn a_claim_that_forgets_the_last_decider_oversells() {
    breaks(Mutant::ClaimForgetsLastDecider, Broken::Oversold, 18);
}

#[test]
fn a_claim_that_forgets_the_fence_leaves_the_lane_stuck() {
    breaks(Mutant::ClaimForgetsFence, Broken::Stuck, 11);
}

#[test]
fn a_turn_that_connects_again_oversells() {
    breaks(Mutant::Reconnects, Broken::Oversold, 15);
}

#[test]
fn epochs_in_redis_alone_oversell() {
    breaks(Mutant::EpochsOnlyInRedis, Broken::Oversold, 16);
}

#[test]
fn without_the_chain_a_command_is_skipped_for_ever() {
    breaks(Mutant::NoChain, Broken::Stuck, 13);
}

#[test]
fn reading_the_last_decision_before_owning_oversells() {
    breaks(Mutant::ReadsBeforeOwning, Broken::Oversold, 16);
}

#[test]
fn an_apply_that_forgets_the_epoch_oversells() {
    breaks(Mutant::ApplyForgetsEpoch, Broken::Oversold, 15);
}

#[test]
fn an_apply_that_forgets_the_previous_command_oversells() {
    breaks(Mutant::ApplyForgetsPrevious, Broken::Oversold, 11);
}

#[test]
fn without_the_building_mark_a_torn_script_hides_a_unit() {
    breaks(Mutant::NoBuildingMark, Broken::Untrue, 12);
}

#[test]
fn a_finish_that_forgets_the_chunks_hides_a_unit() {
    breaks(Mutant::FinishForgetsChunks, Broken::Untrue, 9);
}

#[test]
fn replies_on_acknowledgement_tell_what_the_log_does_not_say() {
    breaks(Mutant::RepliesOnAcknowledgement, Broken::ToldOtherwise, 14);
}

#[test]
fn a_journal_trimmed_on_acknowledgement_loses_decisions() {
    breaks(Mutant::TrimsOnAcknowledgement, Broken::RedisIsNotTheFold, 12);
}
