//! `prices`.

use clap::{Args, Subcommand};
use domain::Sku;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Outcome, call::Call, table};
use crate::http::Api;

/// What SKUs cost, over HTTP.
#[derive(Args, Debug)]
pub struct Prices {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Set what one unit costs from now on; payments that were begun keep their amount
    Set(Set),
    /// Show what one unit costs
    Get(Get),
    /// Show all prices
    List(Call),
}

#[derive(Args, Debug)]
struct Set {
    #[arg(value_parser = |text: &str| Sku::parse(text))]
    sku: Sku,
    /// In the currency's smallest coin: 1250 is 12.50 euros
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    amount: i64,
    /// Three letters, as Stripe knows it
    #[arg(default_value = "eur")]
    currency: String,
    #[command(flatten)]
    call: Call,
}

#[derive(Args, Debug)]
struct Get {
    #[arg(value_parser = |text: &str| Sku::parse(text))]
    sku: Sku,
    #[command(flatten)]
    call: Call,
}

impl Prices {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        match self.what {
            What::Set(set) => {
                let api = Api::new(&set.call.http)?;
                let body = json!({"amount": set.amount, "currency": set.currency.to_ascii_lowercase()});
                let path = format!("/v1/prices/{}", set.sku);
                let price = api.call(Method::PUT, &path, None, Some(&body)).await?.success()?;
                show(&set.call, vec![price])?;
            }
            What::Get(get) => {
                let api = Api::new(&get.call.http)?;
                let price = api.get(&format!("/v1/prices/{}", get.sku)).await?.success()?;
                show(&get.call, vec![price])?;
            }
            What::List(call) => {
                let prices = Api::new(&call.http)?.list("/v1/prices", "prices").await?;
                show(&call, prices)?;
            }
        }
        Ok(Outcome::Fine)
    }
}

/// An array, whatever was asked for.
fn show(call: &Call, prices: Vec<Value>) -> anyhow::Result<()> {
    let table = format!("{}\n", render(&prices));
    call.print(&Value::Array(prices), || table)
}

fn render(prices: &[Value]) -> comfy_table::Table {
    let mut table = table(&["sku", "amount", "currency"]);
    for price in prices {
        let text = |name: &str| price[name].as_str().unwrap_or("-").to_owned();
        table.add_row([text("sku"), price["amount"].to_string(), text("currency")]);
    }
    table
}
