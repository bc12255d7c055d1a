//! A reserver is killed in the middle of a sale, and the page shows who takes its lane over.
//!
//! ```text
//! a second reserver, a process of its own -> it gets lanes -> a sale in one of them -> SIGKILL -> the buyers wait
//! -> another owner opens the lane -> the rest is decided -> counters and verify
//! ```

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{Json, extract::State, response::IntoResponse};
use domain::{Lane, Sku};
use futures::{StreamExt, stream};
use plumbing::{task, time};
use serde_json::{Value, json};
use tokio::process::Child;

use super::{admit, buy, read, restock};
use crate::{
    App, Console,
    access::Person,
    audit::Action,
    checks,
    problem::{Answer, Problem},
};

const UNITS: usize = 120;
const BUYERS: usize = 300;
/// Buyers who ask at the same moment.
const AT_ONCE: usize = 30;
/// After so many answers the reserver is killed.
const KILLED_AFTER: usize = 60;
/// How long anything may take to come up or be taken over.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often a buyer asks again, under the same key, while nothing is decided.
const ASKED_MAX: usize = 4;

/// What the page is shown of the last takeover. One at a time.
pub struct Stage(Mutex<Value>);

impl Default for Stage {
    fn default() -> Self {
        Self(Mutex::new(json!({"phase": "none"})))
    }
}

impl Stage {
    fn lock(&self) -> MutexGuard<'_, Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the stage; false when somebody is on it.
    fn enter(&self) -> bool {
        let mut now = self.lock();
        let is_free = matches!(now["phase"].as_str(), Some("none" | "done" | "failed"));
        if is_free {
            *now = json!({"phase": "starting", "buyers": BUYERS, "units": UNITS});
        }
        is_free
    }

    fn show(&self, phase: &str, more: Value) {
        let mut now = self.lock();
        now["phase"] = phase.into();
        if let (Value::Object(now), Value::Object(more)) = (&mut *now, more) {
            now.extend(more);
        }
    }
}

/// How it goes, or went.
pub async fn look(State(app): State<App>, _person: Person) -> Answer {
    Ok(Json(app.stage.lock().clone()).into_response())
}

/// Begins one, and answers at once: the page looks how it goes.
pub async fn begin(State(app): State<App>, person: Person) -> Answer {
    admit(&app, &person)?;
    if !app.stage.enter() {
        return Err(Problem::refused("a takeover is under way already: look at it"));
    }
    let detail = json!({"units": UNITS, "buyers": BUYERS, "killed_after": KILLED_AFTER});
    let begun = Action::of(&person, "tour_takeover", "reserver", detail)
        .begin(&app)
        .await;
    let begun = begun.inspect_err(|_| app.stage.show("failed", json!({"error": "it could not be audited"})))?;
    let playing = app.clone();
    drop(task::spawn("tour-takeover", async move {
        let app = playing;
        let played = app.stop.unless_requested(play(&app, &person)).await;
        let outcome = match played {
            Some(Ok(told)) => {
                app.stage.show("done", told);
                "ok"
            }
            Some(Err(problem)) => {
                app.stage.show("failed", json!({"error": problem.detail()}));
                "failed"
            }
            None => "unknown",
        };
        begun.end(outcome).await;
    }));
    Ok(Json(app.stage.lock().clone()).into_response())
}

async fn play(app: &App, person: &Person) -> Result<Value, Problem> {
    let mut reserver = app.tools.start("reserver")?;
    let pid = reserver.id().unwrap_or_default();
    app.stage.show("joining", json!({"process": pid}));
    let before = lane_where(app, "the second reserver got no lane", |row| owner_is(row, pid)).await?;
    let lanes = before["lanes"].as_u64().unwrap_or(1);
    let number = before["lane"].as_u64().unwrap_or_default();
    let sku = sku_in(number, lanes)?;
    restock(app, person, &sku, UNITS).await?;
    app.stage.show(
        "selling",
        json!({"sku": sku, "lane": number, "owner_before": before["owner"], "epoch_before": before["epoch"]}),
    );

    let sold = sell(app, &sku, &mut reserver).await;
    app.stage.show("checking", json!({}));
    let epoch = before["epoch"].as_i64().unwrap_or_default();
    let is_taken = |row: &Value| {
        row["lane"].as_u64() == Some(number) && row["epoch"].as_i64() > Some(epoch) && !owner_is(row, pid)
    };
    let after = lane_where(app, "nobody took the lane over", is_taken).await?;
    let stock = read(app, &sku).await?;
    let verified = checks::run(app, person).await?;
    let mut told = json!({
        "owner_after": after["owner"], "epoch_after": after["epoch"], "stock": stock,
        "agrees": verified["agrees"], "differences": verified["report"]["differences"],
    });
    if let (Value::Object(told), Value::Object(sold)) = (&mut told, sold) {
        told.extend(sold);
    }
    Ok(told)
}

/// The sale, and the kill in the middle of it.
async fn sell(app: &Console, sku: &str, reserver: &mut Child) -> Value {
    let sale = time::now_ms();
    let mut buying = stream::iter(0..BUYERS)
        .map(async |buyer| {
            let (key, user) = (format!("takeover-{sale}-{buyer}"), format!("visitor-{buyer}"));
            let mut status = 202;
            for _ in 0..ASKED_MAX {
                status = buy(app, sku, &key, &user).await;
                if status != 202 {
                    break;
                }
            }
            status
        })
        .buffer_unordered(AT_ONCE);
    let (mut held, mut sold_out, mut answers) = (0, 0, 0);
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while let Some(status) = buying.next().await {
        answers += 1;
        match status {
            200 | 201 => held += 1,
            409 => sold_out += 1,
            _ => {}
        }
        let now = Instant::now();
        longest = longest.max(now.duration_since(last));
        last = now;
        if answers == KILLED_AFTER {
            let killed = reserver.kill().await;
            let phase = if killed.is_ok() { "killed" } else { "selling" };
            app.stage
                .show(phase, json!({"answered_before": answers, "killed_at": time::now_ms()}));
        }
    }
    json!({
        "held": held, "sold_out": sold_out, "unknown": BUYERS - held - sold_out,
        "pause_ms": u64::try_from(longest.as_millis()).unwrap_or(u64::MAX),
    })
}

/// Waits for a lane that fits, and says how many there are.
async fn lane_where(app: &Console, otherwise: &str, fits: impl Fn(&Value) -> bool) -> Result<Value, Problem> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let rows = app.tools.run(&["lanes", "--json"]).await?.json()?;
        let rows = rows.as_array().cloned().unwrap_or_default();
        let lanes = rows.len();
        if let Some(mut row) = rows.into_iter().find(|row| fits(row)) {
            row["lanes"] = lanes.into();
            return Ok(row);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Problem::unavailable(otherwise))
}

/// An owner is `host/process`.
fn owner_is(row: &Value, pid: u32) -> bool {
    let owner = row["owner"].as_str().and_then(|owner| owner.rsplit_once('/'));
    owner.is_some_and(|(_, process)| process.parse() == Ok(pid))
}

/// A SKU of the lane, always the same one.
fn sku_in(lane: u64, lanes: u64) -> Result<String, Problem> {
    let lanes = u16::try_from(lanes).unwrap_or(1);
    (0..10_000)
        .map(|number| format!("tour-seat-{number}"))
        .find(|sku| Sku::parse(sku).is_ok_and(|sku| u64::from(Lane::of_sku(&sku, lanes).number()) == lane))
        .ok_or_else(|| Problem::unavailable("no SKU lives in this lane"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_known_by_its_process() {
        assert!(owner_is(&json!({"owner": "a/b/77"}), 77) && !owner_is(&json!({"owner": "a/177"}), 77));
        assert!(!owner_is(&json!({"owner": null}), 77));
    }

    #[test]
    fn every_lane_has_a_seat_and_one_at_a_time_is_on_the_stage() {
        for lane in 0..16 {
            let sku = Sku::parse(&sku_in(lane, 16).unwrap()).unwrap();
            assert_eq!(u64::from(Lane::of_sku(&sku, 16).number()), lane);
        }
        let stage = Stage::default();
        assert!(stage.enter() && !stage.enter());
        stage.show("done", json!({"held": 1}));
        assert!(stage.enter());
    }
}
