//! `/v1/holds`: reserve, read, confirm, cancel, extend.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use domain::{CommandBody, HoldId, HoldState, Key, Reason, Reserve, Sku, UserId};
use schemas::picture::{HoldCursor, HoldFilter};

use crate::{
    answer::{self, About},
    app::{App, Live, hold_not_found, tenant},
    bodies::{self, HoldBody, HoldsBody},
    commands::{Address, Reply},
    memory::HoldView,
    openapi::{ClosedHold, CommandProblems, HoldInPath, KeyHeader, NotEnough, PreferHeader, ReadProblems},
    problem::{Answer, Problem},
    request::{HoldPath, IdempotencyKey, JsonBody, Manner, OptionalJsonBody, Params},
    requests::{CancelRequest, ConfirmRequest, ExtendRequest, ReserveRequest},
};

/// Holds on a page where the client does not say.
const PAGE_DEFAULT: u32 = 50;
/// Holds on a page, at most.
const PAGE_MAX: i64 = 500;

/// Asks for a hold.
///
/// # Errors
/// A problem when the lines or the key stand in the way before anything is sent.
pub async fn ask_reserve(live: &Live, reserve: Reserve, manner: &Manner) -> Result<(HoldId, Reply), Problem> {
    let lane = live.home_lane(&reserve.lines, reserve.policy)?;
    let hold_id = HoldId::of(lane, &tenant(), &reserve.idempotency_key);
    let _waiting = live.sold_out.join(&live.memory, lane, hold_id, &reserve)?;
    live.claim_key(hold_id)?;
    let subject = hold_id.to_string();
    // A SKU of its home lane: the record's key says its lane, as from any producer.
    let lines = reserve.lines.as_slice();
    let at_home = lines.iter().find(|line| live.lane_of(&line.sku) == lane);
    let key = at_home.unwrap_or(&lines[0]).sku.clone();
    let address = Address {
        lane,
        key: key.as_str(),
        subject: &subject,
    };
    let reply = live
        .commands
        .ask(address, CommandBody::Reserve(reserve), None, manner)
        .await;
    if let Reply::Unacknowledged { maybe_sent: false, .. } = &reply {
        live.memory.release_key(hold_id);
    }
    Ok((hold_id, reply))
}

/// Asks something of a hold.
///
/// # Errors
/// 404 when its lane does not exist.
pub async fn ask_hold(
    live: &Live,
    hold_id: HoldId,
    body: CommandBody,
    command_id: Option<Key>,
    manner: &Manner,
) -> Result<Reply, Problem> {
    let key = hold_id.to_string();
    let address = Address {
        lane: live.lane_of_hold(hold_id)?,
        key: &key,
        subject: &key,
    };
    Ok(live.commands.ask(address, body, command_id, manner).await)
}

/// Hold units until a deadline
///
/// The same `Idempotency-Key` with the same body gives the same hold, however often it is sent; with another body it is
/// refused. A request that was refused may be tried again under its key.
#[utoipa::path(
    post, path = "/v1/holds", tag = "holds", operation_id = "reserve",
    request_body = ReserveRequest,
    params(
        KeyHeader,
        PreferHeader,
    ),
    responses(
        (status = 201, description = "The units are held", body = HoldBody,
            headers(("Location", description = "The hold"), ("Idempotency-Key", description = "The key that names the hold"))),
        (status = 200, description = "The hold that this key made before, as it is now", body = HoldBody,
            headers(("Idempotent-Replayed", description = "true"), ("Idempotency-Key", description = "The key that names the hold"))),
        (status = 202, description = "Not decided yet; the outcome is still coming", body = HoldBody,
            headers(("Location", description = "Where the outcome will be"), ("Preference-Applied", description = "The preference that was honoured"))),
        NotEnough, CommandProblems,
    ),
)]
pub async fn reserve(
    State(app): State<Arc<App>>,
    key: IdempotencyKey,
    manner: Manner,
    JsonBody(body): JsonBody<ReserveRequest>,
) -> Answer {
    let key = key.or_made();
    let reserve = body.parse(key.clone())?;
    let live = app.live()?;
    let (hold_id, reply) = ask_reserve(live, reserve, &manner).await?;
    answer::reply(live, reply, &About::Hold(hold_id), Some(&key), &manner).await
}

/// Read a hold
///
/// With `command`, the offset from a 202's `Location`, the state is `pending` until that command is decided.
#[utoipa::path(
    get, path = "/v1/holds/{hold_id}", tag = "holds", operation_id = "get_hold",
    params(
        HoldInPath,
        ("command" = Option<i64>, Query, description = "Offset of a command that is waited for", minimum = 0),
    ),
    responses((status = 200, description = "The hold", body = HoldBody), ReadProblems),
)]
pub async fn get_hold(State(app): State<Arc<App>>, HoldPath(hold_id): HoldPath, params: Params) -> Answer {
    params.only(&["command"])?;
    let command = params.number("command", 0..=i64::MAX)?;
    let live = app.live()?;
    let lane = live.lane_of_hold(hold_id)?;
    if let Some(command) = command
        && live.memory.last_command(lane) < command
    {
        return Ok(bodies::json(StatusCode::OK, &HoldBody::pending(hold_id, command)));
    }
    if let Some(view) = live.memory.hold(hold_id) {
        return Ok(bodies::json(StatusCode::OK, &HoldBody::of(&view)));
    }
    let stored = live.reads.hold(&live.memory, hold_id).await?;
    // An event that came while the database was asked is newer than its row.
    if let Some(view) = live.memory.hold(hold_id) {
        return Ok(bodies::json(StatusCode::OK, &HoldBody::of(&view)));
    }
    match stored.filter(|stored| stored.hold.tenant == tenant()) {
        Some(stored) => Ok(bodies::json(StatusCode::OK, &HoldBody::of(&HoldView::from(stored)))),
        None => Err(hold_not_found(hold_id)),
    }
}

/// List holds, newest first
///
/// From the database: it follows the log by some milliseconds.
#[utoipa::path(
    get, path = "/v1/holds", tag = "holds", operation_id = "list_holds",
    params(
        ("user_id" = Option<String>, Query, description = "Only of this buyer", min_length = 1, max_length = 128),
        ("sku" = Option<String>, Query, description = "Only with a line of this SKU", pattern = "^[A-Za-z0-9._~-]{1,64}$"),
        ("state" = Option<String>, Query, description = "Only in this state",
            pattern = "^(pending|held|paying|confirmed|shipped|unallocated|cancelled|expired|rejected)$"),
        ("limit" = Option<u32>, Query, description = "Holds on a page; 50 when absent", minimum = 1, maximum = 500),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page of holds", body = HoldsBody), ReadProblems),
)]
pub async fn list_holds(State(app): State<Arc<App>>, params: Params) -> Answer {
    params.only(&["user_id", "sku", "state", "limit", "cursor"])?;
    let state = params.one("state")?.map(|name| {
        HoldState::from_name(name).ok_or_else(|| {
            let names = HoldState::ALL.map(HoldState::name).join(", ");
            Problem::invalid(format!("state: must be one of {names}"))
        })
    });
    let filter = HoldFilter {
        tenant: tenant(),
        user_id: params.one("user_id")?.map(UserId::parse).transpose()?,
        sku: params.one("sku")?.map(Sku::parse).transpose()?,
        state: state.transpose()?,
    };
    let after = params.one("cursor")?.map(HoldCursor::parse).transpose()?;
    let limit = params
        .number("limit", 1..=PAGE_MAX)?
        .map_or(PAGE_DEFAULT, |limit| u32::try_from(limit).expect("at most 500"));
    let live = app.live()?;
    let mut found = live.reads.holds(filter, after, limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| more).map(|last| last.cursor().to_string());
    let views: Vec<HoldView> = found.into_iter().map(Into::into).collect();
    let body = HoldsBody {
        holds: views.iter().map(HoldBody::of).collect(),
        next_cursor,
    };
    Ok(bodies::json(StatusCode::OK, &body))
}

/// Confirm a hold: it is paid
///
/// Confirm wins over expiry when it comes first, even past the deadline. The same payment again: 200.
#[utoipa::path(
    post, path = "/v1/holds/{hold_id}/confirm", tag = "holds", operation_id = "confirm",
    request_body = ConfirmRequest,
    params(
        HoldInPath,
        PreferHeader,
    ),
    responses(
        (status = 200, description = "The hold is confirmed", body = HoldBody),
        (status = 202, description = "Not decided yet", body = HoldBody, headers(("Location", description = "Where the outcome will be"))),
        ClosedHold, CommandProblems,
    ),
)]
pub async fn confirm(
    State(app): State<Arc<App>>,
    HoldPath(hold_id): HoldPath,
    IdempotencyKey(key): IdempotencyKey,
    manner: Manner,
    JsonBody(body): JsonBody<ConfirmRequest>,
) -> Answer {
    let body = CommandBody::Confirm {
        hold_id,
        payment_ref: body.parse()?,
    };
    change(&app, hold_id, body, key, &manner).await
}

/// Cancel a hold: its units go back on sale
///
/// The body may be absent. Again: 200.
#[utoipa::path(
    post, path = "/v1/holds/{hold_id}/cancel", tag = "holds", operation_id = "cancel",
    request_body = Option<CancelRequest>,
    params(
        HoldInPath,
        PreferHeader,
    ),
    responses(
        (status = 200, description = "The hold is cancelled", body = HoldBody),
        (status = 202, description = "Not decided yet", body = HoldBody, headers(("Location", description = "Where the outcome will be"))),
        ClosedHold, CommandProblems,
    ),
)]
pub async fn cancel(
    State(app): State<Arc<App>>,
    HoldPath(hold_id): HoldPath,
    IdempotencyKey(key): IdempotencyKey,
    manner: Manner,
    OptionalJsonBody(body): OptionalJsonBody<CancelRequest>,
) -> Answer {
    let body = CommandBody::Cancel {
        hold_id,
        reason: body.parse()?,
    };
    change(&app, hold_id, body, key, &manner).await
}

/// Extend a hold: its deadline moves to `ttl_seconds` from now, never closer
///
/// The same `Idempotency-Key` with the same body counts once. A refused change never extends.
#[utoipa::path(
    post, path = "/v1/holds/{hold_id}/extend", tag = "holds", operation_id = "extend",
    request_body = ExtendRequest,
    params(
        HoldInPath,
        KeyHeader,
        PreferHeader,
    ),
    responses(
        (status = 200, description = "The hold with its new deadline", body = HoldBody),
        (status = 202, description = "Not decided yet", body = HoldBody, headers(("Location", description = "Where the outcome will be"))),
        ClosedHold, CommandProblems,
    ),
)]
pub async fn extend(
    State(app): State<Arc<App>>,
    HoldPath(hold_id): HoldPath,
    key: IdempotencyKey,
    manner: Manner,
    JsonBody(body): JsonBody<ExtendRequest>,
) -> Answer {
    let body = CommandBody::Extend {
        hold_id,
        ttl_ms: body.parse()?,
    };
    change(&app, hold_id, body, Some(key.or_made()), &manner).await
}

async fn change(app: &App, hold_id: HoldId, body: CommandBody, key: Option<Key>, manner: &Manner) -> Answer {
    let live = app.live()?;
    let reply = ask_hold(live, hold_id, body, key.clone(), manner).await?;
    answer::reply(live, reply, &About::Hold(hold_id), key.as_ref(), manner).await
}

/// The refusal of a hold that has ended in another way than the caller thinks, as the short form needs it.
#[must_use]
pub fn ended(view: &HoldView) -> Option<Problem> {
    let reason = match view.terms.state {
        HoldState::Pending | HoldState::Held | HoldState::Paying | HoldState::Confirmed | HoldState::Shipped => {
            return None;
        }
        HoldState::Unallocated => Reason::AlreadyUnallocated,
        HoldState::Cancelled => Reason::AlreadyCancelled,
        HoldState::Expired => Reason::HoldExpired,
        HoldState::Rejected => Reason::HoldNotFound,
    };
    let state = view.terms.state.name();
    Some(Problem::refused(reason, format!("the hold of this key is {state}")).hold_id(view.hold_id))
}
