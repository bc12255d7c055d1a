//! One lane's events, read in order into a ledger, with every contradiction noted (I1, I4, I7, and I2's chain).

use std::{
    collections::{BTreeMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use domain::{Event, EventBody, EventId, HoldId, Lane, LaneState, Ledger, PartId, Reason, Stamp, Text, Verdict};
use schemas::picture::Checkpoint;

use super::report::{Differences, Place};
use crate::log::{Decoder, LogReader, Record, Step};

/// A command that the log decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// The command's offset.
    pub command: i64,
    /// The event's offset.
    pub event: i64,
    /// A hash of the command's id, to find an event that answers another command; `None` where the event does not name it.
    pub id: Option<u64>,
    /// Whether it says that there is no record at that offset.
    pub skipped: bool,
}

/// The books of one lane: its log, and what was read of it.
pub struct Books {
    log: LogReader,
    /// What was read.
    pub pages: Pages,
}

impl std::fmt::Debug for Books {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Books({:?})", self.log)
    }
}

impl Books {
    /// Books that begin where the log does, or at a checkpoint with its ledger.
    #[must_use]
    pub fn begin(lane: Lane, lanes: u16, log: LogReader, decoder: Decoder, from: Option<(Checkpoint, Ledger)>) -> Self {
        let (state, ledger) = from
            .map(|(checkpoint, ledger)| (checkpoint.state, ledger))
            .unwrap_or_default();
        let pages = Pages {
            lane,
            lanes,
            decoder,
            decided_before: state.last_command_offset,
            state,
            ledger,
            decided: Vec::new(),
            events: BTreeMap::new(),
            void: 0,
            refunds: HashSet::new(),
        };
        Self { log, pages }
    }

    /// The offset after the last event read.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.log.next_offset()
    }

    /// Reads up to an event offset (not including it).
    ///
    /// # Errors
    /// Kafka or the registry does not answer.
    pub fn read_to_offset(&mut self, offset: i64, differences: &mut Differences) -> anyhow::Result<()> {
        let mut heard = Instant::now();
        while self.log.next_offset() < offset {
            match self.log.step()? {
                Step::Record(record) => {
                    heard = Instant::now();
                    self.pages.take(&record, differences)?;
                }
                // Offsets without a record, in front of the one that is asked for.
                Step::End => return Ok(()),
                Step::Nothing => anyhow::ensure!(heard.elapsed() < crate::log::PATIENCE, "Kafka does not answer"),
            }
        }
        Ok(())
    }

    /// Reads up to the end that the log has now.
    ///
    /// # Errors
    /// Kafka or the registry does not answer.
    pub fn read_to_end(&mut self, differences: &mut Differences) -> anyhow::Result<()> {
        let pages = &mut self.pages;
        self.log.read_to_end(|record| pages.take(&record, differences))
    }

    /// Reads on until the log decides a command, or the time is up; returns whether it does.
    ///
    /// # Errors
    /// Kafka or the registry does not answer.
    pub fn read_to_command(
        &mut self,
        command: i64,
        patience: Duration,
        differences: &mut Differences,
    ) -> anyhow::Result<bool> {
        let begun = Instant::now();
        while self.pages.state.last_command_offset < command {
            match self.log.step()? {
                Step::Record(record) => self.pages.take(&record, differences)?,
                Step::End | Step::Nothing if begun.elapsed() > patience => return Ok(false),
                Step::End | Step::Nothing => {}
            }
        }
        Ok(true)
    }
}

/// What was read of a lane's log.
#[derive(Debug)]
pub struct Pages {
    lane: Lane,
    lanes: u16,
    decoder: Decoder,
    /// The fold's state after the last record read.
    pub state: LaneState,
    /// What the valid events add up to.
    pub ledger: Ledger,
    /// Decisions from the beginning of these books on, in order.
    pub decided: Vec<Decided>,
    /// The last command that was decided before these books begin.
    pub decided_before: i64,
    /// Valid events by type.
    pub events: BTreeMap<String, u64>,
    /// Void events.
    pub void: u64,
    /// Payments that have to be given back, by hold.
    refunds: HashSet<(HoldId, Text)>,
}

impl Pages {
    /// Takes one record into the books.
    fn take(&mut self, record: &Record, differences: &mut Differences) -> anyhow::Result<()> {
        match record.verdict(&mut self.state) {
            Verdict::Void => {
                self.void += 1;
                return Ok(());
            }
            Verdict::Opened => {
                self.count("LaneOpened");
                return Ok(());
            }
            Verdict::Valid => {}
        }
        let place = || format!("event {}", record.offset);
        let event = match self.decoder.event(record.value.as_deref())? {
            Ok(event) => event,
            Err(error) => {
                differences.note(
                    Place::Log,
                    format!("{} is valid but cannot be decoded: {error}", place()),
                );
                self.decided.push(Decided {
                    command: self.state.last_command_offset,
                    event: record.offset,
                    id: None,
                    skipped: false,
                });
                return Ok(());
            }
        };
        self.count(event.body.name());
        self.decided.push(decided(record.offset, &event));
        if let Some(problem) = self.paid_and_refunded(&event) {
            differences.note(Place::Log, format!("{} {problem}", place()));
        }
        for problem in self.form(record, &event) {
            differences.note(Place::Log, format!("{} {problem}", place()));
        }
        if let Err(contradiction) = self.ledger.apply(&event) {
            differences.note(
                Place::Log,
                format!(
                    "{} ({}{}): {contradiction}",
                    place(),
                    event.body.name(),
                    event.hold_id.map(|id| format!(" of hold {id}")).unwrap_or_default()
                ),
            );
            self.adopt(&event);
        }
        Ok(())
    }

    /// I7: a payment that has to be given back confirms nothing. (The other way round the ledger looks.)
    fn paid_and_refunded(&mut self, event: &Event) -> Option<String> {
        let hold_id = event.hold_id?;
        match &event.body {
            EventBody::RefundRequired { payment_ref, .. } => {
                self.refunds.insert((hold_id, payment_ref.clone()));
                None
            }
            EventBody::HoldConfirmed => {
                let payment_ref = event.hold.as_ref()?.payment_ref.clone()?;
                let named = format!("confirms hold {hold_id} by payment {payment_ref}, which has to be given back");
                self.refunds.contains(&(hold_id, payment_ref)).then_some(named)
            }
            _ => None,
        }
    }

    fn count(&mut self, name: &str) {
        match self.events.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                self.events.insert(name.to_owned(), 1);
            }
        }
    }

    /// What is wrong with a valid event's form: headers and body must say the same, in the right lane.
    fn form(&self, record: &Record, event: &Event) -> Vec<String> {
        let mut problems = Vec::new();
        let says = Stamp::Decision {
            epoch: event.epoch,
            command: event.command_offset,
            previous: event.previous_command_offset,
            time: event.decided_at,
        };
        if record.stamp() != Some(says) {
            problems.push(format!("has other numbers in its headers than in its body ({says:?})"));
        }
        if record.type_name() != Some(event.body.name()) {
            problems.push(format!(
                "is a {} but its headers call it {:?}",
                event.body.name(),
                record.type_name()
            ));
        }
        let id = EventId::of(self.lane, event.epoch, event.command_offset);
        if event.event_id != id {
            problems.push(format!("has the id {} instead of {id}", event.event_id));
        }
        let elsewhere = event.hold_id.is_some_and(|hold_id| hold_id.lane() != self.lane)
            && !matches!(
                event.body,
                EventBody::CommandForwarded { .. }
                    | EventBody::CommandRefused { .. }
                    | EventBody::PartHeld
                    | EventBody::PartRefused { .. }
                    | EventBody::PartFollowed { .. }
                    | EventBody::RelayIgnored
            );
        if elsewhere {
            problems.push("is about a hold of another lane".to_owned());
        }
        if changes_stock(&event.body) {
            for line in &event.lines {
                let home = Lane::of_sku(&line.sku, self.lanes);
                if home != self.lane {
                    problems.push(format!("moves {}, which lives in lane {home}", line.sku));
                }
            }
        }
        problems
    }

    /// After a contradiction the log is believed, so that each is reported once and not with all that follows from it.
    fn adopt(&mut self, event: &Event) {
        if let (Some(hold_id), Some(terms)) = (event.hold_id, &event.hold)
            && let Some(hold) = self.ledger.holds.get_mut(&hold_id)
        {
            hold.terms = terms.clone();
        }
        if let (Some(hold_id), Some(terms)) = (event.hold_id, &event.part) {
            let attempt = terms.attempt;
            if let Some(part) = self.ledger.parts.get_mut(&PartId { hold_id, attempt }) {
                part.terms = terms.clone();
            }
        }
        for line in &event.lines {
            let stock = self
                .ledger
                .stock
                .entry((event.tenant.clone(), line.sku.clone()))
                .or_default();
            stock.on_hand = line.on_hand;
            stock.held = line.held;
            stock.allocated = line.allocated;
            stock.version = line.sku_version;
            let buyer = match (&event.hold, &event.part) {
                (Some(terms), _) => Some(&terms.user_id),
                (None, Some(terms)) => terms.user_id.as_ref(),
                (None, None) => None,
            };
            if let Some(user_id) = buyer {
                let key = (event.tenant.clone(), line.sku.clone(), user_id.clone());
                if line.counted == 0 {
                    self.ledger.counted.remove(&key);
                } else {
                    self.ledger.counted.insert(key, line.counted);
                }
            }
        }
    }
}

fn changes_stock(body: &EventBody) -> bool {
    match body {
        EventBody::HoldPending
        | EventBody::PartHeld
        | EventBody::PartFollowed { .. }
        | EventBody::HoldCreated
        | EventBody::HoldConfirmed
        | EventBody::HoldCancelled
        | EventBody::HoldExpired
        | EventBody::HoldShipped { .. }
        | EventBody::HoldUnallocated { .. }
        | EventBody::StockAdjusted { .. }
        | EventBody::StockReturned { .. }
        | EventBody::SkuConfigured { .. } => true,
        EventBody::LaneOpened { .. }
        | EventBody::HoldRejected { .. }
        | EventBody::PartRefused { .. }
        | EventBody::RelayIgnored
        | EventBody::HoldExtended { .. }
        | EventBody::HoldReplayed
        | EventBody::PaymentBegun
        | EventBody::PaymentAborted { .. }
        | EventBody::RefundRequired { .. }
        | EventBody::StockReplayed
        | EventBody::CommandForwarded { .. }
        | EventBody::OffsetsSkipped
        | EventBody::CommandRefused { .. } => false,
    }
}

fn decided(offset: i64, event: &Event) -> Decided {
    let unnamed = event.command_id.is_empty()
        || matches!(
            event.body,
            EventBody::CommandRefused {
                reason: Reason::Malformed | Reason::InvalidRequest,
                ..
            }
        );
    Decided {
        command: event.command_offset,
        event: offset,
        id: (!unnamed).then(|| hash_of(&event.command_id)),
        skipped: matches!(event.body, EventBody::OffsetsSkipped),
    }
}

/// A hash of a command's id: eight bytes instead of two hundred for each command of a lane.
#[must_use]
pub fn hash_of(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}
