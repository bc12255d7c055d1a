//! `stock`.

use anyhow::bail;
use clap::{Args, Subcommand};
use domain::{HoldId, Sku};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Outcome, table};
use crate::http::{Api, HttpOptions};

/// Look at stock and change it, over HTTP.
#[derive(Args, Debug)]
pub struct Stock {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Set the units on hand; makes a new SKU too
    Set(Set),
    /// Add or take units on hand, such as `adjust mug -2`; makes a new SKU too
    Adjust(Adjust),
    /// Take units back that were sold, as a movement of its own
    Return(Return),
    /// Replace a SKU's policy
    Policy(Policy),
    /// Show SKUs, or all of them
    Get(Get),
}

/// What every change says about itself.
#[derive(Args, Debug)]
struct Why {
    /// Why, for the books
    #[arg(long)]
    reason: String,

    /// The document behind it, such as a delivery note
    #[arg(long)]
    reference: Option<String>,

    /// Refuse unless so many units are on hand now
    #[arg(long, value_name = "UNITS")]
    expected: Option<i64>,
}

#[derive(Args, Debug)]
struct Set {
    #[arg(value_parser = |text: &str| Sku::parse(text))]
    sku: Sku,
    /// Units on hand from now on
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    units: i64,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    call: Call,
}

#[derive(Args, Debug)]
struct Adjust {
    #[arg(value_parser = |text: &str| Sku::parse(text))]
    sku: Sku,
    /// Units to add, or to take with a minus
    #[arg(allow_negative_numbers = true)]
    change: i64,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    call: Call,
}

#[derive(Args, Debug)]
struct Return {
    #[arg(value_parser = |text: &str| Sku::parse(text))]
    sku: Sku,
    /// Units that came back
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    units: i64,
    /// Why, for the books
    #[arg(long)]
    reason: String,
    /// The document behind it
    #[arg(long)]
    reference: Option<String>,
    /// The hold that they were sold by
    #[arg(long, value_name = "ID", value_parser = |text: &str| HoldId::parse(text))]
    hold: Option<HoldId>,
    #[command(flatten)]
    call: Call,
}

#[derive(Args, Debug)]
struct Policy {
    #[arg(value_parser = |text: &str| Sku::parse(text))]
    sku: Sku,
    /// Units on hand that are never sold
    #[arg(long, default_value_t = 0, value_name = "UNITS", value_parser = clap::value_parser!(i64).range(0..))]
    safety_stock: i64,
    /// Most units that one user may hold and buy; no limit when absent
    #[arg(long, value_name = "UNITS", value_parser = clap::value_parser!(i64).range(1..))]
    max_per_user: Option<i64>,
    #[command(flatten)]
    call: Call,
}

#[derive(Args, Debug)]
struct Get {
    #[arg(value_parser = |text: &str| Sku::parse(text))]
    skus: Vec<Sku>,
    #[command(flatten)]
    call: Call,
}

#[derive(Args, Debug)]
struct Call {
    /// Print the API's own JSON
    #[arg(long)]
    json: bool,

    /// Names the change: the same key again changes nothing [default: a new one]
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    /// Who changes it, for the books
    #[arg(long, env = "USER", default_value = "cli", value_name = "NAME")]
    actor: String,

    #[command(flatten)]
    http: HttpOptions,
}

impl Stock {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        match self.what {
            What::Set(set) => {
                let body = json!({"sku": set.sku.as_str(), "set": set.units});
                set.call.change(with_why(body, set.why)).await?;
            }
            What::Adjust(adjust) => {
                let body = json!({"sku": adjust.sku.as_str(), "change": adjust.change});
                adjust.call.change(with_why(body, adjust.why)).await?;
            }
            What::Return(returned) => {
                let mut body =
                    json!({"sku": returned.sku.as_str(), "quantity": returned.units, "reason": returned.reason});
                if let Some(reference) = returned.reference {
                    body["reference"] = reference.into();
                }
                if let Some(hold_id) = returned.hold {
                    body["hold_id"] = hold_id.to_string().into();
                }
                returned.call.command(Method::POST, "/v1/stock/returns", body).await?;
            }
            What::Policy(policy) => {
                let mut body = json!({"safety_stock": policy.safety_stock});
                if let Some(units) = policy.max_per_user {
                    body["max_per_user"] = units.into();
                }
                let path = format!("/v1/skus/{}", policy.sku);
                policy.call.command(Method::PUT, &path, body).await?;
            }
            What::Get(get) => get.run().await?,
        }
        Ok(Outcome::Fine)
    }
}

fn with_why(mut body: Value, why: Why) -> Value {
    body["reason"] = why.reason.into();
    if let Some(reference) = why.reference {
        body["reference"] = reference.into();
    }
    if let Some(units) = why.expected {
        body["expected"] = units.into();
    }
    body
}

impl Call {
    async fn change(&self, body: Value) -> anyhow::Result<()> {
        self.command(Method::POST, "/v1/stock/adjustments", body).await
    }

    async fn command(&self, method: Method, path: &str, body: Value) -> anyhow::Result<()> {
        let key = self
            .idempotency_key
            .clone()
            .unwrap_or_else(|| plumbing::id::random().to_string());
        let stock = Api::new(&self.http)?
            .acting_as(&self.actor)
            .command(method, path, &key, &body)
            .await?
            .success()?;
        self.show(vec![stock])
    }

    fn show(&self, stock: Vec<Value>) -> anyhow::Result<()> {
        let text = if self.json {
            let all = if stock.len() == 1 {
                serde_json::to_string_pretty(&stock[0])?
            } else {
                serde_json::to_string_pretty(&stock)?
            };
            format!("{all}\n")
        } else {
            format!("{}\n", render(&stock))
        };
        super::print(&text);
        Ok(())
    }
}

impl Get {
    async fn run(self) -> anyhow::Result<()> {
        let api = Api::new(&self.call.http)?;
        let mut found = Vec::new();
        let mut unknown = Vec::new();
        // A query is as long as a URL may be anywhere, and without SKUs it is all of them, page by page.
        let mut queries: Vec<String> = self.skus.chunks(50).map(query_of).collect();
        if queries.is_empty() {
            queries.push("limit=100".to_owned());
        }
        for query in queries {
            let mut page = api.get(&format!("/v1/stock?{query}")).await?.success()?;
            loop {
                found.extend(list(&page, "stock"));
                unknown.extend(list(&page, "unknown"));
                let Some(cursor) = page.get("next_cursor").and_then(Value::as_str) else {
                    break;
                };
                page = api.get(&format!("/v1/stock?cursor={cursor}")).await?.success()?;
            }
        }
        self.call.show(found)?;
        let unknown: Vec<&str> = unknown.iter().filter_map(Value::as_str).collect();
        if !unknown.is_empty() {
            bail!("never stocked: {}", unknown.join(", "));
        }
        Ok(())
    }
}

fn query_of(skus: &[Sku]) -> String {
    let asked: Vec<String> = skus.iter().map(|sku| format!("sku={sku}")).collect();
    asked.join("&")
}

fn list(page: &Value, name: &str) -> Vec<Value> {
    page.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn render(stock: &[Value]) -> comfy_table::Table {
    const COLUMNS: [&str; 8] = [
        "sku",
        "on_hand",
        "held",
        "allocated",
        "available",
        "version",
        "safety_stock",
        "max_per_user",
    ];
    let mut table = table(&COLUMNS);
    for one in stock {
        table.add_row(COLUMNS.map(|name| match one.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => "-".to_owned(),
            Some(other) => other.to_string(),
        }));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_is_a_table_and_what_is_absent_is_a_dash() {
        let text =
            render(&[json!({"sku": "mug", "on_hand": 25, "held": 1, "allocated": 2, "available": 17, "version": 4})])
                .to_string();
        assert!(
            text.contains("mug") && text.contains("17") && text.contains('-'),
            "{text}"
        );
    }
}
