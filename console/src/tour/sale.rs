//! A flash sale: four hundred buyers, fifty tickets, one moment.

use std::time::Instant;

use axum::{Json, extract::State, response::IntoResponse};
use futures::{StreamExt, stream};
use plumbing::time;
use serde_json::{Value, json};

use super::{admit, buy, read, restock};
use crate::{
    App, Console,
    access::Person,
    audit::Action,
    problem::{Answer, Problem},
};

/// What is sold, to whom.
const SKU: &str = "tour-ticket";
const UNITS: usize = 50;
const BUYERS: usize = 400;
/// Buyers who ask at the same moment.
const AT_ONCE: usize = 40;

/// More buyers than units, at once; answers what each was told, and what the counters say afterwards.
pub async fn sale(State(app): State<App>, person: Person) -> Answer {
    admit(&app, &person)?;
    let detail = json!({"units": UNITS, "buyers": BUYERS});
    let begun = Action::of(&person, "tour_sale", SKU, detail).begin(&app).await?;
    let sold = run(&app, &person).await;
    begun.end(if sold.is_ok() { "ok" } else { "unknown" }).await;
    Ok(Json(sold?).into_response())
}

async fn run(app: &Console, person: &Person) -> Result<Value, Problem> {
    let stock = restock(app, person, SKU, UNITS).await?;
    let sale = time::now_ms();
    let begun = Instant::now();
    let outcomes: Vec<u16> = stream::iter(0..BUYERS)
        .map(async |buyer| buy(app, SKU, &format!("tour-{sale}-{buyer}"), &format!("visitor-{buyer}")).await)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let count = |status: u16| outcomes.iter().filter(|outcome| **outcome == status).count();
    let (held, sold_out) = (count(201), count(409));
    Ok(json!({
        "sku": SKU, "units": stock["available"], "buyers": BUYERS, "held": held, "sold_out": sold_out,
        "unknown": BUYERS - held - sold_out, "took_ms": begun.elapsed().as_millis() as u64, "stock": read(app, SKU).await?,
    }))
}
