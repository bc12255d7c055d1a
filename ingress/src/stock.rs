//! `/v1/stock` and `/v1/skus`: read counters, adjust them, set a policy.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
};
use domain::{CommandBody, Invalid, Key, Sku, Stock, Text};

use crate::{
    answer::{self, About},
    app::{App, Live, tenant, unknown_sku},
    bodies::{self, PendingStockBody, StockBody, StockListBody, StockOrPending},
    commands::Address,
    openapi::{CommandProblems, KeyHeader, PreferHeader, ReadProblems, SkuInPath, StockConflicts},
    problem::{Answer, Problem},
    request::{IdempotencyKey, JsonBody, Manner, Params, SkuPath},
    requests::{AdjustRequest, PolicyRequest},
};

/// SKUs that one call may name.
const SKUS_MAX: usize = 100;
/// SKUs on a page where the client does not say.
const PAGE_DEFAULT: u32 = 100;
/// SKUs on a page, at most.
const PAGE_MAX: i64 = 1_000;

/// Read a SKU's stock
///
/// With `command`, the offset from a 202's `Location`, the answer is `pending` until that command is decided.
#[utoipa::path(
    get, path = "/v1/stock/{sku}", tag = "stock", operation_id = "get_stock",
    params(
        SkuInPath,
        ("command" = Option<i64>, Query, description = "Offset of a command that is waited for", minimum = 0),
    ),
    responses((status = 200, description = "The counters, or that the command is pending", body = StockOrPending), ReadProblems),
)]
pub async fn get_stock(State(app): State<Arc<App>>, SkuPath(sku): SkuPath, params: Params) -> Answer {
    params.only(&["command"])?;
    let command = params.number("command", 0..=i64::MAX)?;
    let live = app.live()?;
    if let Some(command) = command
        && live.memory.last_command(live.lane_of(&sku)) < command
    {
        let pending = PendingStockBody {
            sku: sku.as_str(),
            state: "pending",
            command,
        };
        return Ok(bodies::json(StatusCode::OK, &pending));
    }
    let [(sku, Some(stock))] = find(live, vec![sku.clone()])
        .await?
        .try_into()
        .unwrap_or([(sku.clone(), None)])
    else {
        return Err(unknown_sku(&sku));
    };
    Ok(bodies::json(
        StatusCode::OK,
        &StockBody::of(&sku, stock, Some(stock.policy)),
    ))
}

/// Read the stock of some SKUs, or of all, page by page
#[utoipa::path(
    get, path = "/v1/stock", tag = "stock", operation_id = "list_stock",
    params(
        ("sku" = Option<Vec<String>>, Query, description = "These SKUs: repeat the parameter, up to 100 times", explode = true, max_items = 100),
        ("limit" = Option<u32>, Query, description = "Without `sku`: SKUs on a page; 100 when absent", minimum = 1, maximum = 1_000),
        ("cursor" = Option<String>, Query, description = "Without `sku`: `next_cursor` of the page before", pattern = "^[A-Za-z0-9._~-]{1,64}$"),
    ),
    responses((status = 200, description = "The counters, ascending by SKU", body = StockListBody), ReadProblems),
)]
pub async fn list_stock(State(app): State<Arc<App>>, params: Params) -> Answer {
    params.only(&["sku", "limit", "cursor"])?;
    let mut skus = params.all("sku").map(Sku::parse).collect::<Result<Vec<_>, _>>()?;
    let cursor = params.one("cursor")?.map(Sku::parse).transpose()?;
    let limit = params.number("limit", 1..=PAGE_MAX)?;
    let live = app.live()?;
    if skus.is_empty() {
        let limit = limit.map_or(PAGE_DEFAULT, |limit| u32::try_from(limit).expect("at most 1000"));
        return page(live, cursor, limit).await;
    }
    if cursor.is_some() || limit.is_some() {
        return Err(Problem::invalid("sku: goes with neither `limit` nor `cursor`"));
    }
    if skus.len() > SKUS_MAX {
        return Err(Problem::invalid(format!("sku: must be given at most {SKUS_MAX} times")));
    }
    skus.sort_unstable();
    skus.dedup();
    let found = find(live, skus).await?;
    let known = |(sku, stock): &'_ (Sku, Option<Stock>)| stock.map(|stock| (sku.clone(), stock));
    let stock: Vec<(Sku, Stock)> = found.iter().filter_map(known).collect();
    let body = StockListBody {
        stock: list(&stock),
        unknown: found
            .iter()
            .filter(|(_, stock)| stock.is_none())
            .map(|(sku, _)| sku.as_str())
            .collect(),
        next_cursor: None,
    };
    Ok(bodies::json(StatusCode::OK, &body))
}

fn list(stock: &[(Sku, Stock)]) -> Vec<StockBody<'_>> {
    stock
        .iter()
        .map(|(sku, stock)| StockBody::of(sku, *stock, Some(stock.policy)))
        .collect()
}

async fn page(live: &Live, cursor: Option<Sku>, limit: u32) -> Answer {
    let mut found = live.reads.all_stock(tenant(), cursor, limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    for (sku, stock) in &mut found {
        *stock = live.memory.with_stored(sku, *stock);
    }
    let body = StockListBody {
        next_cursor: found.last().filter(|_| more).map(|(sku, _)| sku.as_str()),
        stock: list(&found),
        unknown: Vec::new(),
    };
    Ok(bodies::json(StatusCode::OK, &body))
}

/// What is known of each SKU, in the order given: from the tail where it knows all, else completed by Postgres.
///
/// # Errors
/// 503 when Postgres is needed and does not answer, or is behind.
pub async fn find(live: &Live, skus: Vec<Sku>) -> Result<Vec<(Sku, Option<Stock>)>, Problem> {
    let mut found: Vec<(Sku, Option<Stock>)> = skus
        .into_iter()
        .map(|sku| {
            let known = live.memory.stock(&sku).filter(|known| known.policy_known);
            (sku, known.map(|known| known.stock))
        })
        .collect();
    let missing: Vec<_> = found
        .iter()
        .filter(|(_, stock)| stock.is_none())
        .map(|(sku, _)| (live.lane_of(sku), sku.clone()))
        .collect();
    if missing.is_empty() {
        return Ok(found);
    }
    let stored = live.reads.stock(&live.memory, tenant(), missing).await?;
    for (sku, stock) in found.iter_mut().filter(|(_, stock)| stock.is_none()) {
        let row = stored.iter().find(|(stored, _)| stored == sku).map(|(_, stock)| *stock);
        *stock = match row {
            Some(row) => Some(live.memory.with_stored(sku, row)),
            // It may have been made while the database was asked.
            None => live
                .memory
                .stock(sku)
                .filter(|known| known.policy_known)
                .map(|known| known.stock),
        };
    }
    Ok(found)
}

/// Change stock on hand; a new SKU is made
///
/// The same `Idempotency-Key` with the same body counts once.
#[utoipa::path(
    post, path = "/v1/stock/adjustments", tag = "stock", operation_id = "adjust_stock",
    request_body = AdjustRequest,
    params(
        KeyHeader,
        ("X-Actor" = Option<String>, Header, description = "Who changes it, for the record of movements", nullable = false),
        PreferHeader,
    ),
    responses(
        (status = 200, description = "The counters after the change", body = StockBody,
            headers(("Idempotent-Replayed", description = "true, when it was applied before"))),
        (status = 202, description = "Not decided yet", body = PendingStockBody, headers(("Location", description = "Where the outcome will be"))),
        StockConflicts, CommandProblems,
    ),
)]
pub async fn adjust_stock(
    State(app): State<Arc<App>>,
    key: IdempotencyKey,
    manner: Manner,
    headers: HeaderMap,
    JsonBody(body): JsonBody<AdjustRequest>,
) -> Answer {
    let asked = body.parse()?;
    let actor = actor(&app, &headers)?;
    let body = CommandBody::AdjustStock {
        sku: asked.sku.clone(),
        adjustment: asked.adjustment,
        expected_on_hand: asked.expected_on_hand,
        reason: asked.reason,
        reference: asked.reference,
        actor,
    };
    change(&app, asked.sku, body, key.or_made(), &manner).await
}

/// Who changes stock: whom the client names, else the option.
///
/// # Errors
/// [`Invalid`] when the name is not allowed.
pub fn actor(app: &App, headers: &HeaderMap) -> Result<Text, Invalid> {
    match headers.get("x-actor") {
        Some(value) => Text::parse_some("X-Actor", value.to_str().unwrap_or_default()),
        None => Text::parse_some("actor", &app.options.actor),
    }
}

/// Replace a SKU's policy; a new SKU is made
///
/// The same `Idempotency-Key` with the same body counts once.
#[utoipa::path(
    put, path = "/v1/skus/{sku}", tag = "stock", operation_id = "configure_sku",
    request_body = PolicyRequest,
    params(
        SkuInPath,
        KeyHeader,
        PreferHeader,
    ),
    responses(
        (status = 200, description = "The counters with the new policy", body = StockBody,
            headers(("Idempotent-Replayed", description = "true, when it was applied before"))),
        (status = 202, description = "Not decided yet", body = PendingStockBody, headers(("Location", description = "Where the outcome will be"))),
        CommandProblems,
    ),
)]
pub async fn configure_sku(
    State(app): State<Arc<App>>,
    SkuPath(sku): SkuPath,
    key: IdempotencyKey,
    manner: Manner,
    JsonBody(body): JsonBody<PolicyRequest>,
) -> Answer {
    let body = CommandBody::ConfigureSku {
        sku: sku.clone(),
        policy: body.parse()?,
    };
    change(&app, sku, body, key.or_made(), &manner).await
}

/// Asks for a change of one SKU, once by its key.
///
/// # Errors
/// The problem, when the log says no or Kafka did not acknowledge.
pub async fn change(app: &App, sku: Sku, body: CommandBody, key: Key, manner: &Manner) -> Answer {
    let live = app.live()?;
    let address = Address {
        lane: live.lane_of(&sku),
        key: sku.as_str(),
        subject: sku.as_str(),
    };
    let reply = live.commands.ask(address, body, Some(key.clone()), manner).await;
    answer::reply(live, reply, &About::Sku(sku), Some(&key), manner).await
}
