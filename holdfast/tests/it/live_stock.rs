//! Live stock of the whole system: idle viewers by the thousand, and what each is sent in its rooms.

use std::time::Duration;

use domain::Lane;
use futures::{SinkExt, StreamExt, future::join_all};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::world::{PATIENCE, Setup, World, play, times};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const SKUS: usize = 50;
/// Rooms of an ordinary viewer: what a page of a shop shows.
const ROOMS: usize = 3;

/// A viewer in these rooms, after its snapshots.
async fn watch(world: &World, skus: &[String]) -> Socket {
    let url = format!("{}/v1/live", world.url.replacen("http", "ws", 1));
    let (mut socket, _) = connect_async(url).await.expect("a seat");
    let ask = json!({"subscribe": skus}).to_string();
    socket.send(Message::text(ask)).await.expect("asked");
    for _ in 0..=skus.len() {
        hear(&mut socket).await;
    }
    socket
}

async fn hear(socket: &mut Socket) -> (Value, usize) {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await;
        match message
            .expect("a message comes")
            .expect("it lives")
            .expect("it is whole")
        {
            Message::Text(text) => return (serde_json::from_str(&text).expect("JSON"), text.len()),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Reads until every SKU has its last version; the messages and bytes that it took.
async fn read_to(socket: &mut Socket, last: &[(String, i64)]) -> (usize, usize) {
    let (mut messages, mut bytes) = (0, 0);
    let mut missing: Vec<&(String, i64)> = last.iter().collect();
    while !missing.is_empty() {
        let (heard, length) = hear(socket).await;
        let stock = &heard["stock"];
        let (sku, version) = (stock["sku"].as_str(), stock["version"].as_i64());
        assert!(
            last.iter().any(|(of, _)| Some(of.as_str()) == sku),
            "not its room: {heard}"
        );
        missing.retain(|(of, at)| sku != Some(of) || version != Some(*at));
        (messages, bytes) = (messages + 1, bytes + length);
    }
    (messages, bytes)
}

/// Resident memory of a process, in kB.
fn memory_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse().ok())
        .expect("kB")
}

/// Processor time that a process has used, in milliseconds.
fn used_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    // Fields 14 and 15 of proc(5), in ticks of 10 ms; the name was the second.
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().expect("ticks"));
    ticks.sum::<u64>() * 10
}

#[test]
fn a_thousand_viewers_cost_little_and_each_gets_only_its_rooms() {
    play(async {
        let viewers = times(1_000, 10_000);
        let world = Setup::new().apart().start().await;
        let skus: Vec<String> = Lane::all(world.lanes)
            .flat_map(|lane| world.skus_in(lane, "live", SKUS.div_ceil(usize::from(world.lanes))))
            .take(SKUS)
            .collect();
        for sku in &skus {
            world.stock(sku, 1_000).await;
        }
        let pid = world.pid("ingress").await;
        let before_kb = memory_kb(pid);
        let mut idle = Vec::new();
        for first in (0..viewers).step_by(200) {
            let rooms_of = |viewer: usize| -> Vec<String> {
                (0..ROOMS)
                    .map(|room| skus[(viewer + room * 7) % SKUS].clone())
                    .collect()
            };
            let some = (first..viewers.min(first + 200)).map(async |viewer| {
                let rooms = rooms_of(viewer);
                (watch(&world, &rooms).await, rooms)
            });
            idle.extend(join_all(some).await);
        }
        // Who is sent everything, as a broadcast would.
        let mut all = watch(&world, &skus).await;
        let before_ms = used_ms(pid);
        let idle_for = Duration::from_secs(times(2, 20) as u64);
        tokio::time::sleep(idle_for).await;
        let idle_ms = used_ms(pid) - before_ms;
        let each_bytes = (memory_kb(pid).saturating_sub(before_kb)) * 1_024 / viewers as u64;

        let sold = join_all(skus.iter().map(async |sku| {
            let mut version = 0;
            for _ in 0..times(5, 20) {
                let request = json!({"sku": sku, "change": -1, "reason": "sold"});
                let answer = world.post("/v1/stock/adjustments", &request).await;
                version = answer.body["version"].as_i64().expect("a version");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            (sku.clone(), version)
        }))
        .await;
        let everything = read_to(&mut all, &sold).await;
        let of_viewers = join_all(idle.iter_mut().map(async |(socket, rooms)| {
            let last: Vec<_> = sold.iter().filter(|(sku, _)| rooms.contains(sku)).cloned().collect();
            read_to(socket, &last).await
        }))
        .await;
        let (messages, bytes) = of_viewers
            .iter()
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let (per_messages, per_bytes) = (messages as f64 / viewers as f64, bytes as f64 / viewers as f64);
        let saved = 100.0 * (1.0 - per_messages / everything.0 as f64);
        println!(
            "{viewers} viewers in {ROOMS} of {SKUS} rooms: {per_messages:.1} messages and {per_bytes:.0} bytes each; broadcasting all: {} and {} ({saved:.0} % less); {each_bytes} bytes of memory each; all of them idle: {:.1} ms of processor time a second",
            everything.0,
            everything.1,
            idle_ms as f64 / idle_for.as_secs_f64(),
        );
        assert!(saved > 80.0, "{saved}");
        assert!(each_bytes < 60_000, "{each_bytes} bytes for a viewer");
    });
}
