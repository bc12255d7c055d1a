//! Ceilings and baselines: the engines alone, and the services that people write instead.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

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

/// Measures each, with a database and keys of their own.
pub async fn run(
    connections: &Connections,
    plan: &Plan,
    scenarios: impl Iterator<Item = &Scenario>,
    step: &mut impl FnMut(&str),
    samples: &mut Vec<Sample>,
) -> anyhow::Result<()> {
    let apart = world::apart(connections)?;
    world::create_database(&apart).await?;
    for scenario in scenarios {
        step(scenario.name);
        match scenario.load {
            Load::Produce => kafka(&apart, plan, samples).await?,
            Load::BareLoop => bare_loop(&apart, plan, samples).await?,
            Load::PostgresBatches => {
                let pairs = plan.records as usize;
                let meter = Meter::start(&engines(&apart), &[]);
                let rate = ceilings::batches(&apart.postgres_url, pairs).await?;
                samples.push(Sample::of_rate(scenario.name, rate).with_usage(meter.stop(pairs as u64)));
            }
            Load::Baseline(which, skus, connections) => {
                samples.push(baseline(&apart, plan, scenario.name, which, (skus, connections)).await?);
            }
            Load::Http { .. } | Load::Storm | Load::Log { .. } => {}
        }
    }
    world::clear(&apart).await
}

async fn kafka(apart: &Connections, plan: &Plan, samples: &mut Vec<Sample>) -> anyhow::Result<()> {
    let log = Log::create(&apart.kafka_brokers, &format!("{}raw", apart.topic_prefix)).await?;
    let (records, used) = (u64::from(plan.records), log.clone());
    let (produced, consumed) = task::thread("raw-kafka", move || {
        anyhow::Ok((ceilings::produce(&used, records)?, ceilings::consume(&used, records)?))
    })
    .await??;
    samples.push(Sample::of_rate("kafka-produce", produced));
    samples.push(Sample::of_rate("kafka-consume", consumed));
    log.delete().await
}

async fn bare_loop(apart: &Connections, plan: &Plan, samples: &mut Vec<Sample>) -> anyhow::Result<()> {
    let brokers = &apart.kafka_brokers;
    let from = Log::create(brokers, &format!("{}from", apart.topic_prefix)).await?;
    let to = Log::create(brokers, &format!("{}to", apart.topic_prefix)).await?;
    let records = u64::from(plan.records);
    let (source, target) = (from.clone(), to.clone());
    let (url, prefix) = (apart.redis_url.expose().to_owned(), apart.redis_prefix.clone());
    let processes = engines(apart);
    let sample = task::thread("bare-loop", move || {
        ceilings::produce(&source, records)?;
        let meter = Meter::start(&processes, &[]);
        let rate = ceilings::bare_loop(&source, &target, &url, &prefix, records)?;
        anyhow::Ok(Sample::of_rate("bare-loop", rate).with_usage(meter.stop(records)))
    })
    .await??;
    samples.push(sample);
    from.delete().await?;
    to.delete().await
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
