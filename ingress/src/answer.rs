//! Events as HTTP: what the log says, in a status and a body. Total: every event has its answer.

use std::time::Duration;

use axum::{http::StatusCode, response::Response};
use domain::{Event, EventBody, HoldId, Key, Reason, Shortage, Sku, Stock};
use plumbing::time;

use crate::{
    app::{Live, tenant},
    bodies::{self, HoldBody, PendingStockBody, StockBody},
    commands::Reply,
    memory::{Decided, HoldView},
    meters::Outcome,
    problem::{Answer, Code, Problem},
    request::{IDEMPOTENCY_KEY, Manner},
};

/// The header of an answer that was given before.
const REPLAYED: &str = "idempotent-replayed";
/// Most lines that a sentence names; `shortages` has all.
const NAMED_MAX: usize = 5;
/// An answer to a change does not wait longer than this for the policy from Postgres.
const POLICY_WAIT: Duration = Duration::from_secs(1);

/// What a command is about.
#[derive(Debug, Clone)]
pub enum About {
    /// A hold.
    Hold(HoldId),
    /// A SKU.
    Sku(Sku),
}

impl About {
    fn location(&self, command: i64) -> String {
        match self {
            Self::Hold(hold_id) => format!("/v1/holds/{hold_id}?command={command}"),
            Self::Sku(sku) => format!("/v1/stock/{sku}?command={command}"),
        }
    }
}

/// The answer to a command. `key` goes back with it, whatever the answer: whoever sent none needs it to repeat the request.
///
/// # Errors
/// The problem, when the log says no or Kafka did not acknowledge.
pub async fn reply(live: &Live, reply: Reply, about: &About, key: Option<&Key>, manner: &Manner) -> Answer {
    let headers = [
        (IDEMPOTENCY_KEY, key.map(Key::as_str)),
        ("preference-applied", manner.applied.as_deref()),
    ];
    let headers = headers.into_iter().filter_map(|(name, value)| Some((name, value?)));
    match told(live, reply, about, manner).await {
        Ok(mut response) => {
            headers.for_each(|(name, value)| bodies::set(&mut response, name, value));
            Ok(response)
        }
        Err(problem) => Err(headers.fold(problem, |problem, (name, value)| problem.header(name, value))),
    }
}

async fn told(live: &Live, reply: Reply, about: &About, manner: &Manner) -> Answer {
    match reply {
        Reply::Decided(decided) => self::decided(live, &decided).await,
        Reply::Accepted(command) => Ok(accepted(about, command, manner)),
        Reply::Unacknowledged {
            request_id,
            why,
            maybe_sent,
        } => {
            let problem = unacknowledged(&request_id, &why, maybe_sent);
            Err(match about {
                About::Hold(hold_id) => problem.hold_id(hold_id),
                About::Sku(_) => problem,
            })
        }
    }
}

/// 503: no promise was made, and the same request is safe to repeat.
#[must_use]
pub fn unacknowledged(request_id: &Key, why: &str, maybe_sent: bool) -> Problem {
    let advice = if maybe_sent {
        "the request may still be decided: repeat it with the same Idempotency-Key, which counts once"
    } else {
        "nothing was sent: repeat it"
    };
    Problem::unavailable(format!("Kafka has not acknowledged the command ({why}); {advice}"))
        .request_id(request_id.as_str())
}

fn accepted(about: &About, command: i64, manner: &Manner) -> Response {
    let mut response = match about {
        About::Hold(hold_id) => bodies::json(StatusCode::ACCEPTED, &HoldBody::pending(*hold_id, command)),
        About::Sku(sku) => bodies::json(
            StatusCode::ACCEPTED,
            &PendingStockBody {
                sku: sku.as_str(),
                state: "pending",
                command,
            },
        ),
    };
    bodies::set(&mut response, "location", &about.location(command));
    let word = if manner.wait.is_zero() { "accepted" } else { "late" };
    response.extensions_mut().insert(Outcome(word));
    response
}

async fn decided(live: &Live, decided: &Decided) -> Answer {
    let event = &decided.event;
    match &event.body {
        EventBody::HoldCreated => {
            let mut response = hold(decided, StatusCode::CREATED, "created")?;
            if let Some(hold_id) = event.hold_id {
                bodies::set(&mut response, "location", &format!("/v1/holds/{hold_id}"));
            }
            Ok(response)
        }
        EventBody::HoldReplayed => {
            let mut response = hold(decided, StatusCode::OK, "replayed")?;
            bodies::set(&mut response, REPLAYED, "true");
            Ok(response)
        }
        EventBody::HoldConfirmed => hold(decided, StatusCode::OK, "confirmed"),
        EventBody::HoldCancelled => hold(decided, StatusCode::OK, "cancelled"),
        EventBody::HoldExpired => hold(decided, StatusCode::OK, "expired"),
        EventBody::HoldExtended { .. } => hold(decided, StatusCode::OK, "extended"),
        EventBody::PaymentBegun => hold(decided, StatusCode::OK, "payment_begun"),
        EventBody::PaymentAborted { .. } => hold(decided, StatusCode::OK, "payment_aborted"),
        EventBody::HoldShipped { .. } => hold(decided, StatusCode::OK, "shipped"),
        EventBody::HoldUnallocated { .. } => hold(decided, StatusCode::OK, "unallocated"),
        EventBody::StockAdjusted { .. } => stock(live, decided, "adjusted").await,
        EventBody::StockReturned { .. } => stock(live, decided, "returned").await,
        EventBody::SkuConfigured { .. } => stock(live, decided, "configured").await,
        EventBody::StockReplayed => {
            let mut response = stock(live, decided, "replayed").await?;
            bodies::set(&mut response, REPLAYED, "true");
            Ok(response)
        }
        EventBody::HoldRejected { .. } | EventBody::CommandRefused { .. } => Err(refusal(decided)),
        // Nobody asks for these over HTTP.
        EventBody::RefundRequired { .. }
        | EventBody::LaneOpened { .. }
        | EventBody::HoldPending
        | EventBody::PartHeld
        | EventBody::PartRefused { .. }
        | EventBody::PartFollowed { .. }
        | EventBody::RelayIgnored
        | EventBody::CommandForwarded { .. }
        | EventBody::OffsetsSkipped => Err(unexpected(event)),
    }
}

/// An event that answers no request; the tail resolves nobody with it.
fn unexpected(event: &Event) -> Problem {
    Problem::new(Code::Internal, format!("the log answers with {}", event.body.name()))
        .request_id(event.request_id.as_str())
}

fn hold(decided: &Decided, status: StatusCode, word: &'static str) -> Answer {
    let view = decided.hold.as_deref().ok_or_else(|| unexpected(&decided.event))?;
    let mut response = bodies::json(status, &HoldBody::of(view));
    response.extensions_mut().insert(Outcome(word));
    Ok(response)
}

async fn stock(live: &Live, decided: &Decided, word: &'static str) -> Answer {
    let [line] = decided.event.lines.as_slice() else {
        return Err(unexpected(&decided.event));
    };
    let counters = Stock {
        on_hand: line.on_hand,
        held: line.held,
        allocated: line.allocated,
        version: line.sku_version,
        ..Stock::default()
    };
    let policy = match decided.policy {
        Some(policy) => Some(policy),
        None => {
            let asked = live
                .reads
                .stock(&live.memory, tenant(), vec![(decided.lane, line.sku.clone())]);
            // The read goes on as a task of its own, and the change is decided: no reason to keep the client waiting.
            let found = tokio::time::timeout(POLICY_WAIT, asked).await.ok().and_then(Result::ok);
            found
                .and_then(|found| found.into_iter().next())
                .map(|(sku, stored)| live.memory.with_stored(&sku, stored).policy)
        }
    };
    let mut response = bodies::json(StatusCode::OK, &StockBody::of(&line.sku, counters, policy));
    response.extensions_mut().insert(Outcome(word));
    Ok(response)
}

/// The problem of a refusal.
#[must_use]
pub fn refusal(decided: &Decided) -> Problem {
    let event = &decided.event;
    let problem = match &event.body {
        EventBody::HoldRejected { reason, shortages } => {
            Problem::refused(*reason, rejected(event, *reason, shortages)).shortages(shortages)
        }
        EventBody::CommandRefused { reason, message } if message.as_str().is_empty() => {
            Problem::refused(*reason, refused(event, decided.hold.as_deref(), *reason))
        }
        EventBody::CommandRefused { reason, message } => Problem::refused(*reason, message.as_str()),
        _ => return unexpected(event),
    };
    let problem = problem.request_id(event.request_id.as_str());
    match event.hold_id {
        Some(hold_id) => problem.hold_id(hold_id),
        None => problem,
    }
}

fn rejected(event: &Event, reason: Reason, shortages: &[Shortage]) -> String {
    let is_unknown = |sku: &Sku| event.lines.iter().any(|line| line.sku == *sku && line.sku_version == 0);
    let sentence = |shortage: &Shortage| {
        let Shortage {
            sku,
            requested,
            available,
            retry,
        } = shortage;
        match reason {
            Reason::UnknownSku if is_unknown(sku) => format!("{sku} has never had stock or a policy"),
            Reason::LimitExceeded => format!("{sku}: {requested} asked for, {available} may still be had"),
            _ if *retry => {
                format!(
                    "{sku}: {requested} asked for, {available} available; more are in carts that are not decided yet"
                )
            }
            _ => format!("{sku}: {requested} asked for, {available} available"),
        }
    };
    list(shortages, sentence).unwrap_or_else(|| format!("the hold was rejected: {reason}"))
}

/// Units that were short, in a sentence, where no event says more.
pub fn named(shortages: &[Shortage]) -> String {
    let sentence = |short: &Shortage| {
        format!(
            "{}: {} asked for, {} available",
            short.sku, short.requested, short.available
        )
    };
    list(shortages, sentence).unwrap_or_default()
}

/// The first few, and how many more; `None` for none.
fn list(shortages: &[Shortage], sentence: impl Fn(&Shortage) -> String) -> Option<String> {
    let named: Vec<_> = shortages.iter().take(NAMED_MAX).map(sentence).collect();
    match (named.is_empty(), shortages.len().saturating_sub(NAMED_MAX)) {
        (true, _) => None,
        (false, 0) => Some(named.join("; ")),
        (false, more) => Some(format!("{}; and {more} more", named.join("; "))),
    }
}

fn refused(event: &Event, view: Option<&HoldView>, reason: Reason) -> String {
    let hold = event
        .hold_id
        .map(|hold_id| format!("hold {hold_id}"))
        .unwrap_or_default();
    match (reason, view, event.lines.first()) {
        (Reason::HoldNotFound, ..) => format!("there is no {hold}, or it is forgotten"),
        (Reason::AlreadyConfirmed, ..) => format!("{hold} is confirmed, with another payment or for good"),
        (Reason::AlreadyCancelled, ..) => format!("{hold} was cancelled"),
        (Reason::AlreadyShipped, ..) => format!("{hold} has been shipped"),
        (Reason::AlreadyUnallocated, ..) => format!("{hold} was paid and given back before it was shipped"),
        (Reason::PaymentInProgress, Some(view), _) => format!(
            "a payment of {hold} is being made; it ends at the latest at {}",
            time::text(view.terms.expires_at)
        ),
        (Reason::NotConfirmed, ..) => format!("{hold} is not confirmed"),
        (Reason::NotPaying, ..) => format!("{hold} is not being paid"),
        (Reason::HoldExpired, Some(view), _) => {
            format!("{hold} expired at {}", time::text(view.terms.expires_at))
        }
        (Reason::LifetimeExceeded, Some(view), _) => format!(
            "{hold} lives since {}; it would live longer than a hold may",
            time::text(view.terms.created_at)
        ),
        (Reason::IdempotencyKeyReused, ..) => "the Idempotency-Key was used before with another body".to_owned(),
        (Reason::UnknownSku, _, Some(line)) => format!("{} has never had stock or a policy", line.sku),
        (Reason::VersionConflict, _, Some(line)) => format!("{}: {} on hand", line.sku, line.on_hand),
        (Reason::StockCommitted, _, Some(line)) => format!(
            "{}: {} on hand, of which {} are held and {} sold",
            line.sku, line.on_hand, line.held, line.allocated
        ),
        _ => format!("the command was refused: {reason}"),
    }
}
