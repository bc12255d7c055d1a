//! `failed`.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use domain::HoldId;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Outcome, call::Call, table};
use crate::http::Api;

/// Orders that could not be shipped.
#[derive(Args, Debug)]
pub struct Failed {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// All of them, newest first
    List(Call),
    /// One, with every try and what people did
    Show(Show),
    /// Try again, from the first try
    Retry(Act),
    /// Give the money and the units back
    Cancel(Act),
}

#[derive(Args, Debug)]
struct Show {
    /// The order's hold
    #[arg(value_parser = |text: &str| HoldId::parse(text))]
    hold_id: HoldId,
    #[command(flatten)]
    call: Call,
}

#[derive(Args, Debug)]
struct Act {
    /// The order's hold
    #[arg(value_parser = |text: &str| HoldId::parse(text))]
    hold_id: HoldId,
    /// Why, for the books
    #[arg(long)]
    reason: String,
    /// Who, for the books
    #[arg(long, env = "USER", default_value = "cli", value_name = "NAME")]
    actor: String,
    #[command(flatten)]
    call: Call,
}

impl Failed {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        match self.what {
            What::List(call) => {
                let orders = Api::new(&call.http)?.list("/v1/admin/failed", "orders").await?;
                let shown = || format!("{}\n", render(&orders));
                call.print(&Value::Array(orders.clone()), shown)?;
            }
            What::Show(show) => {
                let api = Api::new(&show.call.http)?;
                let order = api
                    .get(&format!("/v1/admin/failed/{}", show.hold_id))
                    .await?
                    .success()?;
                show.call.print(&order, || tell(&order))?;
            }
            What::Retry(act) => act.run("retry").await?,
            What::Cancel(act) => act.run("cancel").await?,
        }
        Ok(Outcome::Fine)
    }
}

impl Act {
    async fn run(&self, what: &str) -> anyhow::Result<()> {
        let path = format!("/v1/admin/failed/{}/{what}", self.hold_id);
        let body = json!({"reason": self.reason, "actor": self.actor});
        let api = Api::new(&self.call.http)?;
        let order = api.call(Method::POST, &path, None, Some(&body)).await?.success()?;
        self.call
            .print(&order, || format!("✓ {} is {}\n", self.hold_id, text(&order, "state")))
    }
}

fn text(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn render(orders: &[Value]) -> comfy_table::Table {
    let mut table = table(&["hold", "user", "tries", "failed", "payment"]);
    for order in orders {
        table.add_row([
            text(order, "hold_id"),
            text(order, "user_id"),
            text(order, "tries"),
            text(order, "failed_at"),
            text(order, "payment_ref"),
        ]);
    }
    table
}

/// An order, its tries and its timeline.
fn tell(order: &Value) -> String {
    let mut out = String::new();
    let rows = |name: &str| order[name].as_array().cloned().unwrap_or_default();
    for name in ["hold_id", "state", "user_id", "payment_ref", "payment_state", "reason"] {
        let _infallible = writeln!(out, "{name:<14} {}", text(order, name));
    }
    for line in rows("lines") {
        let _infallible = writeln!(
            out,
            "{:<14} {} x {}",
            "line",
            text(&line, "sku"),
            text(&line, "quantity")
        );
    }
    let mut tries = table(&["tried", "carrier", "parcel", "error"]);
    for tried in rows("tries") {
        let columns = ["started_at", "carrier", "reference", "error"].map(|name| text(&tried, name));
        tries.add_row(columns);
    }
    let mut timeline = table(&["at", "who", "what", "why"]);
    for entry in rows("timeline") {
        let why = text(&entry["detail"], "reason");
        let [at, actor, action] = ["at", "actor", "action"].map(|name| text(&entry, name));
        timeline.add_row([at, actor, action, why]);
    }
    let _infallible = writeln!(out, "{tries}\n{timeline}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_told_with_its_tries_and_who_did_what() {
        let order = json!({"hold_id": "h", "state": "failed", "lines": [{"sku": "mug", "quantity": 2}],
            "tries": [{"started_at": "1970-01-01T00:00:00.000Z", "carrier": "http", "error": "503: on strike"}],
            "timeline": [{"at": "1970-01-01T00:00:00.000Z", "actor": "eve", "action": "order.retry", "detail": {"reason": "they are back"}}]});
        let told = tell(&order);
        for part in [
            "failed",
            "mug x 2",
            "503: on strike",
            "eve",
            "they are back",
            "1970-01-01",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
