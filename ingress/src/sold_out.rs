//! "Sold out" from the tail's state, while a lane is behind: for a sale in which many more come than can be served.
//!
//! Off by default. A lane is behind when many calls of this ingress wait for it. Then a hold that the stock, as the tail has read
//! it, cannot give is refused before it reaches the log, and the answer says at which offset that was so (I2). Units that come
//! back afterwards are for who asks afterwards, as they would be behind a longer queue.
//!
//! What it may get wrong: a retry of an accepted hold is answered by that hold only as long as the tail remembers its key; whoever
//! comes back later than `HOLDFAST_TAIL_HOLDS` holds, while the lane is behind, is told "sold out", and the hold again afterwards.

use std::sync::atomic::{AtomicUsize, Ordering};

use domain::{HoldId, Lane, Policy, Reason, Reserve, Shortage};

use crate::{
    answer,
    memory::Memory,
    problem::{AsOfBody, Problem},
};

/// Calls that wait for a lane before it counts as behind: two batches of its owner.
const BEHIND: usize = 256;

/// Who waits for which lane.
#[derive(Debug)]
pub struct SoldOut {
    is_on: bool,
    lanes: u16,
    waiting: Box<[AtomicUsize]>,
}

/// One call that waits for a lane; until it is dropped.
#[derive(Debug)]
pub struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SoldOut {
    /// For so many lanes.
    #[must_use]
    pub fn new(is_on: bool, lanes: u16) -> Self {
        Self {
            is_on,
            lanes,
            waiting: Lane::all(lanes).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    /// Joins those who wait for a lane.
    ///
    /// # Errors
    /// 409 `insufficient_stock` with `as_of` when the lane is behind and its newest known stock does not suffice.
    pub fn join(
        &self,
        memory: &Memory,
        lane: Lane,
        hold_id: HoldId,
        reserve: &Reserve,
    ) -> Result<Waiting<'_>, Problem> {
        let waiting = &self.waiting[usize::from(lane.number())];
        if self.is_on && waiting.load(Ordering::Relaxed) >= BEHIND {
            refuse(memory, (lane, self.lanes), hold_id, reserve)?;
        }
        waiting.fetch_add(1, Ordering::Relaxed);
        Ok(Waiting(waiting))
    }
}

/// Refuses what the tail's state of the lane, one of so many, cannot give. What it does not know, and what is another lane's, goes
/// its way through the log.
fn refuse(memory: &Memory, (lane, lanes): (Lane, u16), hold_id: HoldId, reserve: &Reserve) -> Result<(), Problem> {
    // Other policies are content with less.
    if reserve.policy != Policy::AllOrNothing || memory.knows_key(hold_id) {
        return Ok(());
    }
    // Read before the stock, which may only be newer.
    let event_offset = memory.last_event(lane);
    let is_here = |line: &&domain::Line| Lane::of_sku(&line.sku, lanes) == lane;
    let short = |line: &domain::Line| {
        let known = memory.stock(&line.sku)?;
        let (requested, available) = (line.quantity.units(), known.stock.available());
        (requested > available).then(|| Shortage {
            sku: line.sku.clone(),
            requested,
            available,
            retry: false,
        })
    };
    let shortages: Vec<Shortage> = reserve.lines.into_iter().filter(is_here).filter_map(short).collect();
    if shortages.is_empty() {
        return Ok(());
    }
    metrics::counter!("holdfast_ingress_sold_out_from_tail_total", "lane" => lane.to_string()).increment(1);
    Err(Problem::refused(Reason::InsufficientStock, answer::named(&shortages))
        .shortages(&shortages)
        .hold_id(hold_id)
        .read_to(AsOfBody {
            lane: lane.number(),
            event_offset,
        }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tenant;
    use domain::{Event, EventBody, EventLine, Key, Line, Lines, Quantity, Sku, UserId};

    fn reserve(key: &str, units: i64) -> Reserve {
        Reserve {
            idempotency_key: Key::parse("key", key).unwrap(),
            user_id: UserId::parse("buyer").unwrap(),
            lines: Lines::parse(vec![Line {
                sku: Sku::parse("ticket").unwrap(),
                quantity: Quantity::parse(units).unwrap(),
            }])
            .unwrap(),
            ttl_ms: None,
            policy: Policy::AllOrNothing,
            external_ref: None,
        }
    }

    fn memory_with(units: i64) -> (Memory, Lane) {
        let memory = Memory::new(tenant(), 1, 10, 10);
        let lane = Lane::new(0).unwrap();
        let event = Event {
            event_id: domain::EventId::of(lane, 0, 0),
            request_id: "one".to_owned(),
            epoch: 0,
            command_offset: 0,
            previous_command_offset: -1,
            command_id: "one".to_owned(),
            tenant: tenant(),
            hold_id: None,
            source: None,
            decided_at: 1,
            hold: None,
            part: None,
            lines: vec![EventLine {
                sku: Sku::parse("ticket").unwrap(),
                quantity: units,
                counted: 0,
                on_hand: units,
                held: 0,
                allocated: 0,
                sku_version: 1,
            }],
            body: EventBody::OffsetsSkipped,
        };
        memory.take(lane, 7, event);
        (memory, lane)
    }

    #[test]
    fn only_a_lane_that_is_behind_is_answered_for_and_only_what_is_known_to_be_short() {
        let (memory, lane) = memory_with(2);
        let ask = |sold_out: &SoldOut, key: &str, units| {
            let hold_id = HoldId::of(lane, &tenant(), &Key::parse("key", key).unwrap());
            sold_out
                .join(&memory, lane, hold_id, &reserve(key, units))
                .map(std::mem::forget)
        };
        let sold_out = SoldOut::new(true, 1);
        for number in 0..BEHIND {
            ask(&sold_out, &number.to_string(), 3).expect("the lane is not behind yet");
        }
        ask(&sold_out, "fits", 2).expect("it may be there");
        let refused = ask(&sold_out, "short", 3).unwrap_err();
        let body = serde_json::from_str::<serde_json::Value>(&refused.json()).unwrap();
        assert_eq!(body["code"], "insufficient_stock");
        assert_eq!(body["as_of"]["event_offset"], 7);
        assert_eq!(body["shortages"][0]["available"], 2);

        // Sent a moment ago, and not decided: it may become a hold.
        let sent = HoldId::of(lane, &tenant(), &Key::parse("key", "sent").unwrap());
        memory.claim_key(sent).unwrap();
        ask(&sold_out, "sent", 3).expect("a retry goes its way");

        let off = SoldOut::new(false, 1);
        for number in 0..=BEHIND {
            ask(&off, &number.to_string(), 3).expect("it is off");
        }
    }

    #[test]
    fn whoever_has_its_answer_waits_no_longer() {
        let (memory, lane) = memory_with(0);
        let sold_out = SoldOut::new(true, 1);
        let hold_id = HoldId::of(lane, &tenant(), &Key::parse("key", "a").unwrap());
        for _ in 0..3 * BEHIND {
            drop(
                sold_out
                    .join(&memory, lane, hold_id, &reserve("a", 1))
                    .expect("nobody waits"),
            );
        }
    }
}
