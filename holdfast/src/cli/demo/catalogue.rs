//! What the demonstration sells.

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::http::Api;

/// One SKU of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Ware {
    pub sku: &'static str,
    /// Units that should be for sale when a run begins.
    pub for_sale: i64,
    /// More than this may be left from before; `false` where the story needs the exact number.
    pub may_be_more: bool,
    pub safety_stock: i64,
    pub max_per_user: Option<i64>,
}

/// The SKU that everybody wants.
pub const VIP: &str = "ticket-vip";
pub const CONCERT: &str = "concert-a";
pub const SHIRT: &str = "shirt-m";
pub const MUG: &str = "mug";

pub const WARES: [Ware; 4] = [
    Ware {
        sku: VIP,
        for_sale: 5,
        may_be_more: false,
        safety_stock: 0,
        max_per_user: None,
    },
    Ware {
        sku: CONCERT,
        for_sale: 1_000,
        may_be_more: true,
        safety_stock: 0,
        max_per_user: None,
    },
    Ware {
        sku: SHIRT,
        for_sale: 40,
        may_be_more: true,
        safety_stock: 0,
        max_per_user: Some(2),
    },
    Ware {
        sku: MUG,
        for_sale: 20, // Of 25.
        may_be_more: true,
        safety_stock: 5,
        max_per_user: None,
    },
];

/// One SKU's counters, as some side has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    pub on_hand: i64,
    pub held: i64,
    pub allocated: i64,
    pub available: i64,
}

/// Adds what is missing and restocks what is short; returns a line about each change.
pub async fn seed(api: &Api, run: &str) -> anyhow::Result<Vec<String>> {
    let mut told = Vec::new();
    let found = find(api).await?;
    for ware in &WARES {
        let known = found.iter().find(|stock| stock["sku"] == ware.sku);
        if ware.safety_stock > 0 || ware.max_per_user.is_some() {
            let policy = known.map(|stock| {
                (
                    stock["safety_stock"].as_i64().unwrap_or(0),
                    stock["max_per_user"].as_i64(),
                )
            });
            if policy != Some((ware.safety_stock, ware.max_per_user)) {
                let mut body = json!({"safety_stock": ware.safety_stock});
                if let Some(units) = ware.max_per_user {
                    body["max_per_user"] = units.into();
                }
                let path = format!("/v1/skus/{}", ware.sku);
                change(
                    api,
                    Method::PUT,
                    &path,
                    &format!("demo-{run}-policy-{}", ware.sku),
                    &body,
                )
                .await?;
            }
        }
        let number = |name: &str| known.and_then(|stock| stock[name].as_i64()).unwrap_or(0);
        // Not `available`, which is never negative.
        let free = number("on_hand") - number("held") - number("allocated") - ware.safety_stock;
        let lacking = ware.for_sale - free;
        if lacking == 0 || (lacking < 0 && ware.may_be_more) || (lacking < ware.for_sale / 2 && ware.may_be_more) {
            continue;
        }
        let body = json!({
            "sku": ware.sku, "change": lacking, "reason": "the demonstration restocks", "reference": format!("demo-{run}")
        });
        change(
            api,
            Method::POST,
            "/v1/stock/adjustments",
            &format!("demo-{run}-stock-{}", ware.sku),
            &body,
        )
        .await?;
        told.push(match known {
            None => format!("{}: new, {} units for sale", ware.sku, ware.for_sale),
            Some(_) => format!("{}: {lacking:+} units, {} for sale again", ware.sku, ware.for_sale),
        });
    }
    Ok(told)
}

async fn change(api: &Api, method: Method, path: &str, key: &str, body: &Value) -> anyhow::Result<()> {
    api.command(method, path, key, body)
        .await?
        .success()
        .with_context(|| format!("the catalogue cannot be made ({path})"))?;
    Ok(())
}

/// The wares' counters as HTTP tells them, in the catalogue's order.
pub async fn stock(api: &Api) -> anyhow::Result<Vec<Counters>> {
    let found = find(api).await?;
    WARES
        .iter()
        .map(|ware| {
            let stock = found
                .iter()
                .find(|stock| stock["sku"] == ware.sku)
                .with_context(|| format!("{} was never stocked: run without --no-seed", ware.sku))?;
            let number = |name: &str| {
                stock[name]
                    .as_i64()
                    .with_context(|| format!("{} has no {name}", ware.sku))
            };
            Ok(Counters {
                on_hand: number("on_hand")?,
                held: number("held")?,
                allocated: number("allocated")?,
                available: number("available")?,
            })
        })
        .collect()
}

async fn find(api: &Api) -> anyhow::Result<Vec<Value>> {
    let query: Vec<String> = WARES.iter().map(|ware| format!("sku={}", ware.sku)).collect();
    let page = api.get(&format!("/v1/stock?{}", query.join("&"))).await?.success()?;
    Ok(page["stock"].as_array().cloned().unwrap_or_default())
}
