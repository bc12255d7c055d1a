//! The tour: a flash sale against the local system, which the page shows live.

use std::time::Instant;

use axum::{Json, extract::State, response::IntoResponse};
use futures::{StreamExt, stream};
use plumbing::time;
use serde_json::{Value, json};

use crate::{
    App, Console,
    access::Person,
    audit, pass,
    problem::{Answer, Problem},
    users::Role,
};

/// What is sold, to whom.
const SKU: &str = "tour-ticket";
const UNITS: usize = 50;
const BUYERS: usize = 400;
/// Buyers who ask at the same moment.
const AT_ONCE: usize = 40;

/// More buyers than units, at once; answers what each was told, and what the counters say afterwards.
pub async fn sale(State(app): State<App>, person: Person) -> Answer {
    if !app.options.tour {
        return Err(Problem::forbidden("the tour is for a local system: HOLDFAST_TOUR"));
    }
    person.must_be(Role::Operator)?;
    let detail = json!({"units": UNITS, "buyers": BUYERS});
    let begun = audit::begin(&app, &person, "tour_sale", SKU, detail).await?;
    let sold = run(&app, &person).await;
    begun.end(if sold.is_ok() { "ok" } else { "unknown" }).await;
    Ok(Json(sold?).into_response())
}

async fn run(app: &Console, person: &Person) -> Result<Value, Problem> {
    let stock = restock(app, person).await?;
    let sale = time::now_ms();
    let begun = Instant::now();
    let outcomes: Vec<u16> = stream::iter(0..BUYERS)
        .map(|buyer| async move {
            let body = json!({"lines": [{"sku": SKU, "quantity": 1}], "user_id": format!("visitor-{buyer}"), "ttl_seconds": 30});
            let request = app
                .client
                .post(format!("{}/v1/holds", app.api.url))
                .header("idempotency-key", format!("tour-{sale}-{buyer}"))
                .header("prefer", "wait=20")
                .json(&body);
            pass::send(app, request).await.map_or(0, |answer| answer.status().as_u16())
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let count = |status: u16| outcomes.iter().filter(|outcome| **outcome == status).count();
    let (held, sold_out) = (count(201), count(409));
    Ok(json!({
        "sku": SKU, "units": stock["available"], "buyers": BUYERS, "held": held, "sold_out": sold_out,
        "unknown": BUYERS - held - sold_out, "took_ms": begun.elapsed().as_millis() as u64, "stock": read(app).await?,
    }))
}

/// So many units for sale, whatever earlier sales left.
async fn restock(app: &Console, person: &Person) -> Result<Value, Problem> {
    let now = read(app).await?;
    let taken = now["held"].as_u64().unwrap_or(0) + now["allocated"].as_u64().unwrap_or(0);
    let body = json!({"sku": SKU, "set": taken + UNITS as u64, "reason": "the tour's sale"});
    let request = app
        .client
        .post(format!("{}/v1/stock/adjustments", app.api.url))
        .header("x-actor", person.actor())
        .header("prefer", "wait=20")
        .json(&body);
    let answer = pass::send(app, request).await?;
    if answer.status() != 200 {
        return Err(Problem::refused(format!(
            "the stock could not be set: {}",
            answer.status()
        )));
    }
    answer
        .json()
        .await
        .map_err(|_| Problem::unavailable("the HTTP API broke off its answer"))
}

async fn read(app: &Console) -> Result<Value, Problem> {
    let answer = pass::send(app, app.client.get(format!("{}/v1/stock/{SKU}", app.api.url))).await?;
    if !answer.status().is_success() {
        return Ok(Value::Null);
    }
    answer
        .json()
        .await
        .map_err(|_| Problem::unavailable("the HTTP API broke off its answer"))
}
