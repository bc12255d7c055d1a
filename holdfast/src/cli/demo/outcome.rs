//! What the sale left everywhere, told in tables, and checked.

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table};
use domain::{Lane, Sku, Stock, Tenant};
use plumbing::{config::Connections, task};
use schemas::{cells, picture};

use super::{
    catalogue::{self, Counters, MUG, VIP, WARES},
    paid::Receipt,
    sale::{End, Ended},
};
use crate::{
    cli::table,
    http::Api,
    log,
    redis_lane::{RedisLanes, hash_of},
    verify::Report,
};

/// The wares after the sale, as each side has them.
pub struct After {
    http: Vec<Counters>,
    redis: Vec<Option<Stock>>,
    postgres: Vec<Option<Stock>>,
    rows: Vec<(&'static str, i64)>,
    /// From the deadline of the hold that nobody paid to its release, in milliseconds.
    released_after_ms: Option<i64>,
    /// Of the one who paid by checkout.
    receipt: Option<Receipt>,
}

impl After {
    /// Asks every side.
    pub async fn read(
        api: &Api,
        connections: &Connections,
        ended: &[Ended],
        receipt: Option<Receipt>,
    ) -> anyhow::Result<Self> {
        let tenant = Tenant::parse("default")?;
        let skus = WARES
            .iter()
            .map(|ware| Sku::parse(ware.sku))
            .collect::<Result<Vec<_>, _>>()?;
        let (asked, of, wanted) = (connections.clone(), tenant.clone(), skus.clone());
        let redis = task::thread("demo-redis", move || in_redis(&asked, &of, &wanted)).await??;
        let pool = plumbing::postgres::connect_lazy(&connections.postgres_url, "holdfast demo", 1)?;
        let found = picture::find_stock(&pool, &tenant, &skus).await?;
        let of_sku = |sku: &Sku| found.iter().find(|(name, _)| name == sku).map(|(_, stock)| *stock);
        let expired = ended.iter().find_map(|one| match one.end {
            End::Expired(hold_id) => Some(hold_id),
            End::Refused(_) | End::Confirmed | End::Cancelled => None,
        });
        let released_after_ms = match expired {
            Some(hold_id) => picture::find_hold(&pool, hold_id)
                .await?
                .map(|stored| stored.hold.terms.changed_at - stored.hold.terms.expires_at),
            None => None,
        };
        Ok(Self {
            http: catalogue::stock(api).await?,
            redis,
            postgres: skus.iter().map(of_sku).collect(),
            rows: rows(&pool).await?,
            released_after_ms,
            receipt,
        })
    }
}

async fn rows(pool: &sqlx::PgPool) -> anyhow::Result<Vec<(&'static str, i64)>> {
    let (holds, orders, movements, events): (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM holds), (SELECT count(*) FROM orders), \
                (SELECT count(*) FROM stock_movements), (SELECT count(*) FROM processed_events)",
    )
    .fetch_one(pool)
    .await?;
    Ok(vec![
        ("holds", holds),
        ("orders", orders),
        ("stock_movements", movements),
        ("processed_events", events),
    ])
}

fn in_redis(connections: &Connections, tenant: &Tenant, skus: &[Sku]) -> anyhow::Result<Vec<Option<Stock>>> {
    let lanes = log::lanes(connections)?;
    let mut redis = RedisLanes::open(connections)?;
    skus.iter()
        .map(|sku| {
            let lane = Lane::of_sku(sku, lanes);
            let Some(cell) = redis.lane(lane)? else { return Ok(None) };
            let mut reads = redis::pipe();
            reads
                .cmd("HGETALL")
                .arg(redis.keys(lane).generation(cell.generation).stock(tenant, sku));
            let (_, answers) = redis.at_once(lane, &reads)?;
            let fields = hash_of(answers.into_iter().next().context("Redis gave no answer")?)?;
            Ok((!fields.is_empty()).then(|| cells::read_stock(&fields)).transpose()?)
        })
        .collect()
}

/// The sale of one SKU in numbers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sold {
    buyers: usize,
    winners: usize,
    out_of_stock: usize,
    over_limit: usize,
    confirmed: usize,
    cancelled: usize,
    expired: usize,
    confirmed_units: i64,
}

impl Sold {
    fn of(sku: &str, ended: &[Ended]) -> Self {
        let mut sold = Self::default();
        for one in ended.iter().filter(|one| one.buyer.sku == sku) {
            sold.buyers += 1;
            match &one.end {
                End::Refused(code) if code == "limit_exceeded" => sold.over_limit += 1,
                End::Refused(_) => sold.out_of_stock += 1,
                End::Confirmed => {
                    sold.confirmed += 1;
                    sold.confirmed_units += one.buyer.quantity;
                }
                End::Cancelled => sold.cancelled += 1,
                End::Expired(_) => sold.expired += 1,
            }
        }
        sold.winners = sold.confirmed + sold.cancelled + sold.expired;
        sold
    }
}

/// The whole story, and whether it ended as it should.
pub fn tell(before: &[Counters], ended: &[Ended], after: &After, report: &Report) -> (String, bool) {
    let mut out = format!("\nthe sale\n{}\n", right(sale_table(before, ended)));
    if let Some(receipt) = &after.receipt {
        out += &format!("\npaid by checkout\n{}\n", receipt_table(receipt));
    }
    out += &format!("\nthe stock now\n{}\n", right(stock_table(after)));
    let counts = |counts: &mut dyn Iterator<Item = (String, i64)>| {
        let texts: Vec<String> = counts.map(|(name, count)| format!("{name} {count}")).collect();
        texts.join(" · ")
    };
    let events = report.events();
    let mut events = events
        .into_iter()
        .map(|(name, count)| (name, i64::try_from(count).unwrap_or(i64::MAX)));
    out += &format!("\nevents in the log   {}\n", counts(&mut events));
    let mut rows = after.rows.iter().map(|(name, count)| ((*name).to_owned(), *count));
    out += &format!("rows in Postgres    {}\n", counts(&mut rows));
    if let Some(late_ms) = after.released_after_ms {
        out += &format!("the hold that nobody paid was back on sale {late_ms} ms after its deadline\n");
    }

    let problems = problems(before, ended, after, report);
    out.push('\n');
    for problem in &problems {
        out += &format!("✗ {problem}\n");
    }
    if problems.is_empty() {
        let vip = Sold::of(VIP, ended);
        let events: u64 = report.lanes.iter().map(|lane| lane.valid).sum();
        out += &format!(
            "✓ {} units, {} buyers, {} winners: nothing sold twice; {events} events, Redis and Postgres agree\n",
            before[0].available, vip.buyers, vip.winners
        );
    }
    (out, problems.is_empty())
}

fn sale_table(before: &[Counters], ended: &[Ended]) -> Table {
    let mut sale = table(&[
        "SKU",
        "for sale",
        "buyers",
        "winners",
        "sold out",
        "over limit",
        "confirmed",
        "cancelled",
        "expired",
    ]);
    for (ware, before) in WARES.iter().zip(before) {
        let sold = Sold::of(ware.sku, ended);
        let mut row = vec![ware.sku.to_owned(), before.available.to_string()];
        let numbers = [
            sold.buyers,
            sold.winners,
            sold.out_of_stock,
            sold.over_limit,
            sold.confirmed,
            sold.cancelled,
            sold.expired,
        ];
        row.extend(numbers.map(|number| number.to_string()));
        sale.add_row(row);
    }
    sale
}

fn receipt_table(receipt: &Receipt) -> Table {
    let mut paid = table(&["buyer", "SKU", "price", "payment", "order", "parcel", "took"]);
    paid.add_row([
        receipt.buyer.clone(),
        MUG.to_owned(),
        format!(
            "{}.{:02} {}",
            receipt.amount / 100,
            receipt.amount % 100,
            receipt.currency
        ),
        receipt.intent.clone(),
        receipt.order.clone(),
        receipt
            .parcel
            .clone()
            .unwrap_or_else(|| "no carrier ships here".to_owned()),
        format!("{:.1} s", receipt.took.as_secs_f64()),
    ]);
    paid
}

fn stock_table(after: &After) -> Table {
    let available = |stock: Option<Stock>| stock.map_or_else(|| "-".to_owned(), |stock| stock.available().to_string());
    let mut stock = table(&[
        "SKU",
        "on hand",
        "held",
        "allocated",
        "kept back",
        "available",
        "in Redis",
        "in Postgres",
    ]);
    for (index, ware) in WARES.iter().enumerate() {
        let http = after.http[index];
        stock.add_row([
            ware.sku.to_owned(),
            http.on_hand.to_string(),
            http.held.to_string(),
            http.allocated.to_string(),
            ware.safety_stock.to_string(),
            http.available.to_string(),
            available(after.redis[index]),
            available(after.postgres[index]),
        ]);
    }
    stock
}

fn right(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// What is not as it should be.
fn problems(before: &[Counters], ended: &[Ended], after: &After, report: &Report) -> Vec<String> {
    let mut problems = Vec::new();
    let vip = Sold::of(VIP, ended);
    let expected = usize::try_from(before[0].available).unwrap_or(0).min(vip.buyers);
    if vip.winners != expected {
        problems.push(format!(
            "{expected} {VIP} were for sale, {} buyers won one",
            vip.winners
        ));
    }
    for (index, ware) in WARES.iter().enumerate() {
        let sold = Sold::of(ware.sku, ended);
        let left = before[index].available - sold.confirmed_units;
        let sides = [
            ("HTTP", Some(after.http[index].available)),
            ("Redis", after.redis[index].map(|stock| stock.available())),
            ("Postgres", after.postgres[index].map(|stock| stock.available())),
        ];
        for (side, available) in sides {
            if available != Some(left) {
                let available = available.map_or_else(|| "none".to_owned(), |units| units.to_string());
                problems.push(format!("{left} {} should be left, {side} has {available}", ware.sku));
            }
        }
    }
    for difference in &report.differences {
        problems.push(format!(
            "lane {} {}: {}",
            difference.lane,
            difference.place.name(),
            difference.what
        ));
    }
    if report.more_differences > 0 {
        problems.push(format!("and {} more differences", report.more_differences));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::sale::buyers;
    use super::*;

    /// Forty buyers, five tickets, four paid and one cancelled; everything else sold but to those over the limit.
    fn story() -> (Vec<Counters>, Vec<Ended>, After) {
        let mut left = 5;
        let ended: Vec<Ended> = buyers("t", 40)
            .into_iter()
            .map(|buyer| {
                let end = match (buyer.sku, buyer.quantity) {
                    (VIP, _) if left == 0 => End::Refused("insufficient_stock".to_owned()),
                    (VIP, _) => {
                        left -= 1;
                        if left == 0 { End::Cancelled } else { End::Confirmed }
                    }
                    (_, 3) => End::Refused("limit_exceeded".to_owned()),
                    _ => End::Confirmed,
                };
                Ended { buyer, end }
            })
            .collect();
        let counters = |available| Counters {
            on_hand: available,
            held: 0,
            allocated: 0,
            available,
        };
        let before: Vec<Counters> = [5, 1_000, 40, 20].map(counters).to_vec();
        let left: Vec<i64> = WARES
            .iter()
            .zip(&before)
            .map(|(ware, before)| before.available - Sold::of(ware.sku, &ended).confirmed_units)
            .collect();
        let stock = |units: &i64| {
            Some(Stock {
                on_hand: *units,
                ..Stock::default()
            })
        };
        let after = After {
            http: left.iter().map(|units| counters(*units)).collect(),
            redis: left.iter().map(stock).collect(),
            postgres: left.iter().map(stock).collect(),
            rows: vec![("holds", 64)],
            released_after_ms: Some(12),
            receipt: None,
        };
        (before, ended, after)
    }

    #[test]
    fn a_good_sale_ends_with_a_tick_and_a_bad_one_says_why() {
        let (before, ended, mut after) = story();
        let (text, fine) = tell(&before, &ended, &after, &Report::default());
        assert!(fine, "{text}");
        assert!(text.contains("✓ 5 units, 40 buyers, 5 winners"), "{text}");
        after.redis[3] = None;
        let (text, fine) = tell(&before, &ended, &after, &Report::default());
        assert!(!fine && text.contains("Redis has none"), "{text}");
    }

    #[test]
    fn a_sixth_winner_is_seen() {
        let (before, mut ended, after) = story();
        let loser = ended
            .iter_mut()
            .find(|one| one.buyer.sku == VIP && matches!(one.end, End::Refused(_)))
            .unwrap();
        loser.end = End::Confirmed;
        let (text, fine) = tell(&before, &ended, &after, &Report::default());
        assert!(!fine && text.contains("6 buyers won one"), "{text}");
    }
}
