//! Ceilings and baselines: the engines alone, and the services that people write instead.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use anyhow::bail;
use bench::{
    baselines::Baseline,
    ceilings::{self, Log},
    load::{self, Length, Pace},
};
use plumbing::{config::Connections, task};

use super::{
    meter::{Meter, Sample, engines},
    plan::{Load, Plan, Scenario, sku},
    world,
};

/// Measures one.
pub async fn run(place: &Connections, plan: &Plan, scenario: &Scenario) -> anyhow::Result<Vec<Sample>> {
    match scenario.load {
        Load::Produce => kafka(place, plan).await,
        Load::BareLoop => Ok(vec![bare_loop(place, plan).await?]),
        Load::PostgresBatches => {
            world::create_database(place).await?;
            let pairs = plan.records as usize;
            let meter = Meter::start(&engines(place), &[]);
            let rate = ceilings::batches(&place.postgres_url, pairs).await?;
            Ok(vec![
                Sample::of_rate(scenario.name, rate).with_usage(meter.stop(pairs as u64)),
            ])
        }
        Load::Baseline(which, skus, connections) => {
            world::create_database(place).await?;
            Ok(vec![
                baseline(place, plan, scenario.name, which, (skus, connections)).await?,
            ])
        }
        Load::Http { .. } | Load::Storm { .. } | Load::Log { .. } | Load::Carts { .. } => {
            bail!("{} needs a pipeline", scenario.name)
        }
    }
}

async fn logs(place: &Connections) -> anyhow::Result<(Log, Log)> {
    let [from, to] = world::raw_topics(place);
    Ok((
        Log::create(&place.kafka_brokers, &from).await?,
        Log::create(&place.kafka_brokers, &to).await?,
    ))
}

async fn kafka(place: &Connections, plan: &Plan) -> anyhow::Result<Vec<Sample>> {
    let (log, _) = logs(place).await?;
    // They are so many a second that fewer would measure the start.
    let records = u64::from(plan.records) * 4;
    let processes = engines(place);
    task::thread("raw-kafka", move || {
        let meter = Meter::start(&processes, &[]);
        let produced = Sample::of_rate("kafka-produce", ceilings::produce(&log, records)?);
        let produced = produced.with_usage(meter.stop(records));
        let meter = Meter::start(&processes, &[]);
        let consumed = Sample::of_rate("kafka-consume", ceilings::consume(&log, records)?);
        Ok(vec![produced, consumed.with_usage(meter.stop(records))])
    })
    .await?
}

async fn bare_loop(place: &Connections, plan: &Plan) -> anyhow::Result<Sample> {
    let (from, to) = logs(place).await?;
    let records = u64::from(plan.records);
    let (url, prefix) = (place.redis_url.expose().to_owned(), place.redis_prefix.clone());
    let processes = engines(place);
    task::thread("bare-loop", move || {
        ceilings::produce(&from, records)?;
        let meter = Meter::start(&processes, &[]);
        let rate = ceilings::bare_loop(&from, &to, &url, &prefix, records)?;
        Ok(Sample::of_rate("bare-loop", rate).with_usage(meter.stop(records)))
    })
    .await?
}

async fn baseline(
    apart: &Connections,
    plan: &Plan,
    name: &'static str,
    which: Baseline,
    (skus, connections): (usize, usize),
) -> anyhow::Result<Sample> {
    let (role, addr) = world::baseline(apart, which.name())?;
    let run = load::Plan {
        addr,
        connections,
        pace: Pace::Closed,
        warm_up: Duration::from_secs(1),
        length: Length::For(Duration::from_secs(plan.seconds.into())),
    };
    let meter = Meter::start(&engines(apart), &[(role.name.clone(), role.pid())]);
    let salt = plumbing::id::random().simple().to_string();
    let tally = task::thread("load", move || {
        load::run(run, &mut |number, out| request(out, addr, skus, number, &salt))
    })
    .await??;
    let sample = Sample::of_load(name, &tally).with_usage(meter.stop(tally.all_answers));
    role.end()?;
    Ok(sample)
}

fn request(out: &mut Vec<u8>, addr: SocketAddr, skus: usize, number: u64, salt: &str) {
    let sku = sku((number % skus as u64) as usize);
    let body = format!(r#"{{"sku":"{sku}","quantity":1,"user_id":"buyer-{number}","key":"{salt}-{number}"}}"#);
    let mut head = String::with_capacity(128);
    write!(
        head,
        "POST /reserve HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .expect("a String takes all");
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body.as_bytes());
}
