//! A lane as the design describes it, in plain Rust: the model that `apply` is played against.
//!
//! It shares no code with the script and none with `pack`: what both say of the same commands must be the same event.

mod sales;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::{
    Adjustment, Command, CommandBody, Event, EventBody, EventId, EventLine, Fingerprint, HoldId, HoldState, HoldTerms,
    Key, Payment, Reason, Reserve, Shortage, Sku, Source, Stock, Tenant, Text, UserId, hold::Step, ledger::LedgerHold,
    limits,
};
use reserver::pack::{Asked, Entry, Rules};

use crate::books::lane;

/// What a batch comes to.
#[derive(Debug, PartialEq)]
pub enum Expected {
    Events(Vec<Event>),
    Gap,
    Damaged,
}

/// One lane.
#[derive(Debug, Clone)]
pub struct Model {
    pub rules: Rules,
    pub epoch: i64,
    pub fence: i64,
    pub log_time: i64,
    pub stock: BTreeMap<(Tenant, Sku), Stock>,
    /// What each hold was last; one that is over may be forgotten.
    pub holds: HashMap<HoldId, LedgerHold>,
    pub counted: HashMap<(Tenant, Sku, UserId), i64>,
    pub commands: HashMap<(Tenant, Key), (Fingerprint, i64)>,
    pub sources: HashMap<Source, i64>,
    /// Requests that had an outcome which a second record of theirs must not change.
    pub requests: HashMap<(Tenant, String), i64>,
    pub journal: BTreeMap<i64, Event>,
    /// Keys that somebody has deleted behind the lane's back.
    pub lost_stock: BTreeSet<(Tenant, Sku)>,
    pub lost_holds: BTreeSet<HoldId>,
}

/// A decision before it is an event.
struct Decision {
    body: EventBody,
    hold: Option<HoldTerms>,
    lines: Vec<EventLine>,
}

impl From<EventBody> for Decision {
    fn from(body: EventBody) -> Self {
        Self {
            body,
            hold: None,
            lines: Vec::new(),
        }
    }
}

fn no(reason: Reason) -> Decision {
    let message = Text::parse("message", "").expect("empty");
    EventBody::CommandRefused { reason, message }.into()
}

/// A key that its own index names is not there.
struct Damage;

impl Model {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            epoch: 0,
            fence: -1,
            log_time: 0,
            stock: BTreeMap::new(),
            holds: HashMap::new(),
            counted: HashMap::new(),
            commands: HashMap::new(),
            sources: HashMap::new(),
            requests: HashMap::new(),
            journal: BTreeMap::new(),
            lost_stock: BTreeSet::new(),
            lost_holds: BTreeSet::new(),
        }
    }

    /// Decides a batch; a batch that is not decided whole changes nothing.
    pub fn apply(&mut self, entries: &[Entry], trim: &[i64], busy: bool) -> Expected {
        if !self.lost_holds.is_empty() {
            return Expected::Damaged;
        }
        let mut after = self.clone();
        let mut events = Vec::new();
        for entry in entries {
            if entry.offset <= self.fence {
                match after.journal.get(&entry.offset) {
                    Some(event) => events.push(Event {
                        event_id: EventId::of(lane(), self.epoch, entry.offset),
                        epoch: self.epoch,
                        ..event.clone()
                    }),
                    None => return Expected::Damaged,
                }
                continue;
            }
            if entry.previous < after.fence {
                return Expected::Damaged;
            } else if entry.previous > after.fence {
                return Expected::Gap;
            }
            let Ok(event) = after.decide(entry, busy) else {
                return Expected::Damaged;
            };
            after.fence = entry.offset;
            after.log_time = event.decided_at;
            after.journal.insert(entry.offset, event.clone());
            events.push(event);
        }
        for offset in trim {
            after.journal.remove(offset);
        }
        *self = after;
        Expected::Events(events)
    }

    pub fn is_old(&self, at: i64) -> bool {
        at + self.rules.remember_ms <= self.log_time
    }

    fn decide(&mut self, entry: &Entry, busy: bool) -> Result<Event, Damage> {
        self.log_time = self.log_time.max(entry.timestamp);
        let command = match &entry.asked {
            Asked::Command(command) | Asked::Misrouted(command, _) => Some(&**command),
            Asked::Refused { .. } | Asked::Skip => None,
        };
        let mut source = None;
        let decision = match &entry.asked {
            Asked::Command(command) if self.is_repeated(command)? => no(Reason::AlreadyApplied),
            Asked::Command(command) => match self.seen_before(command) {
                Some(reason) => no(reason),
                None => {
                    source = command.source.clone();
                    self.decide_command(command, entry, busy)?
                }
            },
            Asked::Misrouted(_, to) => EventBody::CommandForwarded {
                to_lane: to.partition(),
            }
            .into(),
            Asked::Refused { reason, message, .. } => EventBody::CommandRefused {
                reason: *reason,
                message: message.clone(),
            }
            .into(),
            Asked::Skip => EventBody::OffsetsSkipped.into(),
        };
        let (request_id, command_id) = match (&entry.asked, command) {
            (_, Some(command)) => (command.request_id.to_string(), command.command_id.to_string()),
            (
                Asked::Refused {
                    command_id, request_id, ..
                },
                _,
            ) => (request_id.clone(), command_id.clone()),
            _ => Default::default(),
        };
        let tenant = command.map_or_else(crate::books::tenant, |command| command.tenant.clone());
        if !request_id.is_empty() && ends_request(&decision.body) {
            self.requests
                .insert((tenant.clone(), request_id.clone()), self.log_time);
        }
        Ok(Event {
            event_id: EventId::of(lane(), self.epoch, entry.offset),
            request_id,
            epoch: self.epoch,
            command_offset: entry.offset,
            previous_command_offset: entry.previous,
            command_id,
            tenant,
            hold_id: match &entry.asked {
                Asked::Command(command) => named_hold(command),
                _ => None,
            },
            decided_at: self.log_time,
            source,
            hold: decision.hold,
            part: None,
            lines: decision.lines,
            body: decision.body,
        })
    }

    /// Whether a record is the second of a request that was refused, or whose outcome would not show otherwise.
    fn is_repeated(&self, command: &Command) -> Result<bool, Damage> {
        let request = (command.tenant.clone(), command.request_id.to_string());
        let recent = |at: &i64| at + self.rules.request_ms > self.log_time;
        if !self.requests.get(&request).is_some_and(recent) {
            return Ok(false);
        }
        match &command.body {
            // A hold that is there answers for itself.
            CommandBody::Reserve(reserve) => {
                let id = HoldId::of(lane(), &command.tenant, &reserve.idempotency_key);
                Ok(self.hold(id)?.is_none())
            }
            _ => Ok(true),
        }
    }

    /// Why a forwarded command is not applied; one that is, is remembered.
    fn seen_before(&mut self, command: &Command) -> Option<Reason> {
        let source = command.source.as_ref()?;
        if self.is_old(source.log_time) {
            return Some(Reason::Stale);
        }
        // The record's place names it, whatever time the copy says.
        let named = Source {
            log_time: 0,
            ..source.clone()
        };
        if self.sources.get(&named).is_some_and(|at| !self.is_old(*at)) {
            return Some(Reason::AlreadyApplied);
        }
        self.sources.insert(named, self.log_time);
        None
    }

    fn decide_command(&mut self, command: &Command, entry: &Entry, busy: bool) -> Result<Decision, Damage> {
        let tenant = &command.tenant;
        match &command.body {
            CommandBody::Reserve(reserve) => self.reserve(tenant, reserve, entry.offset, busy),
            CommandBody::Relay { .. }
            | CommandBody::RelayDone { .. }
            | CommandBody::RelayFailed { .. }
            | CommandBody::Follow { .. } => panic!("these stories have one lane: {command:?}"),
            CommandBody::Confirm { hold_id, payment_ref } => {
                if let Some(hold) = self.hold(*hold_id)?
                    && hold.tenant == *tenant
                    && matches!(hold.terms.state, HoldState::Confirmed | HoldState::Shipped)
                    && hold.terms.payment_ref.as_ref() == Some(payment_ref)
                {
                    return self.about(*hold_id, EventBody::HoldReplayed);
                }
                let known = self.hold(*hold_id)?;
                let payment = known.map_or(Payment::Other, |hold| sales::payment(&hold.terms, payment_ref));
                let step = Step::Confirm(payment);
                self.end(tenant, *hold_id, step, EventBody::HoldConfirmed, |terms| {
                    terms.payment_ref = Some(payment_ref.clone());
                })
            }
            CommandBody::Cancel { hold_id, reason } => {
                if let Some(hold) = self.hold(*hold_id)?
                    && hold.tenant == *tenant
                    && hold.terms.state == HoldState::Cancelled
                {
                    return self.about(*hold_id, EventBody::HoldReplayed);
                }
                self.end(tenant, *hold_id, Step::Cancel, EventBody::HoldCancelled, |terms| {
                    terms.reason = Some(reason.clone())
                })
            }
            CommandBody::Release { hold_id, attempt } => {
                if let Some(hold) = self.hold(*hold_id)?
                    && hold.tenant == *tenant
                    && hold.terms.state.is_live()
                    && attempt.is_some_and(|attempt| attempt != hold.terms.attempt)
                {
                    return Ok(no(Reason::HoldNotFound));
                }
                self.end(tenant, *hold_id, Step::Expire, EventBody::HoldExpired, |_| {})
            }
            CommandBody::Extend { hold_id, ttl_ms } => self.extend(command, *hold_id, *ttl_ms),
            CommandBody::AdjustStock {
                sku,
                adjustment,
                expected_on_hand,
                reason,
                reference,
                actor,
            } => {
                let fingerprint =
                    Fingerprint::of_adjustment(sku, *adjustment, *expected_on_hand, reason, reference.as_ref(), actor);
                self.on_sku(command, sku, fingerprint, |stock| {
                    let target = match adjustment {
                        Adjustment::Set(units) => *units,
                        Adjustment::Change(units) => stock.on_hand + units,
                    };
                    let committed = stock.held + stock.allocated;
                    if expected_on_hand.is_some_and(|expected| expected != stock.on_hand) {
                        Err(Reason::VersionConflict)
                    } else if target > limits::ON_HAND_MAX || (target < 0 && committed == 0) {
                        Err(Reason::InvalidRequest)
                    } else if target < committed {
                        Err(Reason::StockCommitted)
                    } else {
                        let change = target - stock.on_hand;
                        stock.on_hand = target;
                        Ok(EventBody::StockAdjusted {
                            change,
                            reason: reason.clone(),
                            reference: reference.clone(),
                            actor: actor.clone(),
                            fingerprint,
                        })
                    }
                })
            }
            CommandBody::BeginPayment { .. }
            | CommandBody::AbortPayment { .. }
            | CommandBody::Ship { .. }
            | CommandBody::Unallocate { .. }
            | CommandBody::ReturnStock { .. }
            | CommandBody::RequireRefund { .. } => self.sale(command),
            CommandBody::ConfigureSku { sku, policy } => {
                let fingerprint = Fingerprint::of_policy(sku, policy);
                self.on_sku(command, sku, fingerprint, |stock| {
                    stock.policy = *policy;
                    Ok(EventBody::SkuConfigured {
                        policy: *policy,
                        fingerprint,
                    })
                })
            }
        }
    }

    /// A hold that is not forgotten.
    fn hold(&self, id: HoldId) -> Result<Option<LedgerHold>, Damage> {
        if self.lost_holds.contains(&id) {
            return Err(Damage);
        }
        let known = self.holds.get(&id);
        Ok(known
            .filter(|hold| {
                matches!(
                    hold.terms.state,
                    HoldState::Held | HoldState::Paying | HoldState::Confirmed
                ) || !self.is_old(hold.terms.changed_at)
            })
            .cloned())
    }

    fn stock_of(&self, tenant: &Tenant, sku: &Sku) -> Result<Option<Stock>, Damage> {
        let key = (tenant.clone(), sku.clone());
        if self.lost_stock.contains(&key) {
            return Err(Damage);
        }
        Ok(self.stock.get(&key).copied())
    }

    fn line(&self, tenant: &Tenant, sku: &Sku, quantity: i64, user: Option<&UserId>) -> Result<EventLine, Damage> {
        let stock = self.stock_of(tenant, sku)?.unwrap_or_default();
        let counted = user.map_or(0, |user| self.counted_of(tenant, sku, user));
        Ok(EventLine {
            sku: sku.clone(),
            quantity,
            counted,
            on_hand: stock.on_hand,
            held: stock.held,
            allocated: stock.allocated,
            sku_version: stock.version,
        })
    }

    fn counted_of(&self, tenant: &Tenant, sku: &Sku, user: &UserId) -> i64 {
        let key = (tenant.clone(), sku.clone(), user.clone());
        self.counted.get(&key).copied().unwrap_or(0)
    }

    fn lines(&self, hold: &LedgerHold) -> Result<Vec<EventLine>, Damage> {
        let user = Some(&hold.terms.user_id);
        hold.lines
            .iter()
            .map(|(sku, units)| self.line(&hold.tenant, sku, *units, user))
            .collect()
    }

    /// A decision that shows a hold as it is now.
    fn about(&self, id: HoldId, body: EventBody) -> Result<Decision, Damage> {
        let hold = &self.holds[&id];
        Ok(Decision {
            body,
            hold: Some(hold.terms.clone()),
            lines: self.lines(hold)?,
        })
    }

    /// Moves each line by its units times: on hand, held, allocated, counted.
    fn move_units(&mut self, hold: &LedgerHold, moves: [i64; 4]) -> Result<(), Damage> {
        let [on_hand, held, allocated, counted] = moves;
        for (sku, units) in &hold.lines {
            self.stock_of(&hold.tenant, sku)?;
            let key = (hold.tenant.clone(), sku.clone());
            let stock = self.stock.get_mut(&key).expect("a hold's SKU exists");
            stock.on_hand += on_hand * units;
            stock.held += held * units;
            stock.allocated += allocated * units;
            stock.version += 1;
            let key = (key.0, key.1, hold.terms.user_id.clone());
            let count = self.counted.entry(key.clone()).or_default();
            *count += counted * units;
            if *count == 0 {
                self.counted.remove(&key);
            }
        }
        Ok(())
    }

    fn reserve(&mut self, tenant: &Tenant, reserve: &Reserve, offset: i64, busy: bool) -> Result<Decision, Damage> {
        let id = HoldId::of(lane(), tenant, &reserve.idempotency_key);
        let fingerprint = Fingerprint::of_reserve(reserve);
        if let Some(known) = self.hold(id)? {
            return if known.terms.fingerprint == fingerprint {
                self.about(id, EventBody::HoldReplayed)
            } else {
                Ok(no(Reason::IdempotencyKeyReused))
            };
        }
        let now = self.log_time;
        let mut hold = LedgerHold {
            tenant: tenant.clone(),
            terms: HoldTerms {
                attempt: offset,
                state: HoldState::Held,
                user_id: reserve.user_id.clone(),
                idempotency_key: reserve.idempotency_key.clone(),
                fingerprint,
                created_at: now,
                expires_at: now + reserve.ttl_ms.unwrap_or(self.rules.default_ttl_ms),
                changed_at: now,
                policy: reserve.policy,
                external_ref: reserve.external_ref.clone(),
                payment_ref: None,
                reason: None,
                remaining_ms: None,
                cart: None,
                asked: Vec::new(),
            },
            lines: reserve
                .lines
                .into_iter()
                .map(|line| (line.sku.clone(), line.quantity.units()))
                .collect(),
        };
        let (reasons, shortages) = self.shortages(&hold)?;
        // The worst reason is told: what never can be, then what this buyer may not, then what is not there.
        let reason = [Reason::UnknownSku, Reason::LimitExceeded]
            .into_iter()
            .find(|reason| reasons.contains(reason))
            .or(busy.then_some(Reason::Busy))
            .or(reasons.first().copied());
        if let Some(reason) = reason {
            (hold.terms.state, hold.terms.expires_at) = (HoldState::Rejected, now);
            return Ok(Decision {
                body: EventBody::HoldRejected { reason, shortages },
                lines: self.lines(&hold)?,
                hold: Some(hold.terms),
            });
        }
        self.move_units(&hold, [0, 1, 0, 1])?;
        self.holds.insert(id, hold);
        self.about(id, EventBody::HoldCreated)
    }

    fn shortages(&self, hold: &LedgerHold) -> Result<(Vec<Reason>, Vec<Shortage>), Damage> {
        let (mut reasons, mut shortages) = (Vec::new(), Vec::new());
        for (sku, units) in &hold.lines {
            let known = self.stock_of(&hold.tenant, sku)?;
            let counted = self.counted_of(&hold.tenant, sku, &hold.terms.user_id);
            let (reason, available) = match known {
                None => (Reason::UnknownSku, 0),
                Some(stock) => match stock.policy.max_per_user {
                    Some(max) if counted + units > max => {
                        (Reason::LimitExceeded, stock.available().min((max - counted).max(0)))
                    }
                    _ if stock.available() < *units => (Reason::InsufficientStock, stock.available()),
                    _ => continue,
                },
            };
            reasons.push(reason);
            shortages.push(Shortage {
                sku: sku.clone(),
                requested: *units,
                available,
                retry: false,
            });
        }
        Ok((reasons, shortages))
    }

    /// The hold's step, or its refusal with the hold as it is.
    fn end(
        &mut self,
        tenant: &Tenant,
        id: HoldId,
        step: Step,
        body: EventBody,
        note: impl FnOnce(&mut HoldTerms),
    ) -> Result<Decision, Damage> {
        let Some(mut hold) = self.hold(id)?.filter(|hold| hold.tenant == *tenant) else {
            return Ok(no(Reason::HoldNotFound));
        };
        match hold.terms.state.step(step, self.log_time, hold.terms.expires_at) {
            Err(reason) => {
                let message = Text::parse("message", "").expect("empty");
                self.about(id, EventBody::CommandRefused { reason, message })
            }
            Ok(state) => {
                (hold.terms.state, hold.terms.changed_at) = (state, self.log_time);
                hold.terms.remaining_ms = None;
                note(&mut hold.terms);
                let moves = match step {
                    Step::Confirm(_) => [0, -1, 1, 0],
                    Step::Ship => [-1, 0, -1, 0],
                    Step::Unallocate => [0, 0, -1, -1],
                    _ => [0, -1, 0, -1],
                };
                self.move_units(&hold, moves)?;
                self.holds.insert(id, hold);
                self.about(id, body)
            }
        }
    }

    fn memory_of(&self, command: &Command) -> Option<Fingerprint> {
        let key = (command.tenant.clone(), command.command_id.clone());
        let (fingerprint, at) = self.commands.get(&key)?;
        (!self.is_old(*at)).then_some(*fingerprint)
    }

    fn remember(&mut self, command: &Command, fingerprint: Fingerprint) {
        let key = (command.tenant.clone(), command.command_id.clone());
        self.commands.insert(key, (fingerprint, self.log_time));
    }

    fn extend(&mut self, command: &Command, id: HoldId, ttl_ms: i64) -> Result<Decision, Damage> {
        let fingerprint = Fingerprint::of_extend(id, ttl_ms);
        let known = self.hold(id)?;
        if let Some(remembered) = self.memory_of(command) {
            return if remembered == fingerprint && known.is_some() {
                self.about(id, EventBody::HoldReplayed)
            } else {
                Ok(no(Reason::IdempotencyKeyReused))
            };
        }
        let Some(mut hold) = known.filter(|hold| hold.tenant == command.tenant) else {
            return Ok(no(Reason::HoldNotFound));
        };
        let until = self.log_time + ttl_ms;
        let may = match hold
            .terms
            .state
            .step(Step::Extend, self.log_time, hold.terms.expires_at)
        {
            Ok(_) if until > hold.terms.created_at + self.rules.max_hold_ms => Err(Reason::LifetimeExceeded),
            Ok(_) => Ok(()),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = may {
            let message = Text::parse("message", "").expect("empty");
            return self.about(id, EventBody::CommandRefused { reason, message });
        }
        hold.terms.expires_at = hold.terms.expires_at.max(until);
        hold.terms.changed_at = self.log_time;
        self.holds.insert(id, hold);
        self.remember(command, fingerprint);
        self.about(id, EventBody::HoldExtended { fingerprint })
    }

    fn on_sku(
        &mut self,
        command: &Command,
        sku: &Sku,
        fingerprint: Fingerprint,
        change: impl FnOnce(&mut Stock) -> Result<EventBody, Reason>,
    ) -> Result<Decision, Damage> {
        let tenant = &command.tenant;
        if let Some(remembered) = self.memory_of(command) {
            if remembered != fingerprint {
                return Ok(no(Reason::IdempotencyKeyReused));
            }
            return Ok(Decision {
                body: EventBody::StockReplayed,
                hold: None,
                lines: vec![self.line(tenant, sku, 0, None)?],
            });
        }
        let mut stock = self.stock_of(tenant, sku)?.unwrap_or_default();
        let body = match change(&mut stock) {
            Ok(body) => {
                stock.version += 1;
                self.stock.insert((tenant.clone(), sku.clone()), stock);
                self.remember(command, fingerprint);
                body
            }
            Err(reason) => {
                let text = match reason {
                    Reason::InvalidRequest => "stock on hand must stay from 0 to 10^12",
                    _ => "",
                };
                let message = Text::parse("message", text).expect("short");
                EventBody::CommandRefused { reason, message }
            }
        };
        Ok(Decision {
            body,
            hold: None,
            lines: vec![self.line(tenant, sku, 0, None)?],
        })
    }
}

fn ends_request(body: &EventBody) -> bool {
    match body {
        EventBody::CommandRefused { reason, .. } | EventBody::HoldRejected { reason, .. } => {
            !matches!(reason, Reason::Busy | Reason::Stale | Reason::AlreadyApplied)
        }
        EventBody::PaymentBegun | EventBody::PaymentAborted { .. } => true,
        _ => false,
    }
}

fn named_hold(command: &Command) -> Option<HoldId> {
    match &command.body {
        CommandBody::Reserve(reserve) => Some(HoldId::of(lane(), &command.tenant, &reserve.idempotency_key)),
        other => other.hold_id(),
    }
}
