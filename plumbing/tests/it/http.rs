//! Serving: health over a real socket, and an end in order.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use plumbing::health::{Health, router};
use plumbing::telemetry::MetricsHandle;
use plumbing::{http, stop, task, tls};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn get_from(addr: SocketAddr, path: &str) -> reqwest::Result<reqwest::Response> {
    let client = tls::plain_client().build().expect("a client");
    client.get(format!("http://{addr}{path}")).send().await
}

async fn fetch(addr: SocketAddr, path: &str) -> (u16, String) {
    let response = get_from(addr, path).await.expect("the server answers");
    (
        response.status().as_u16(),
        response.text().await.expect("the body is text"),
    )
}

#[tokio::test]
async fn readyz_names_what_is_not_ready() {
    let health = Health::new();
    let (stopper, stop) = stop::pair();
    let (addr, serving) = http::serve(ANY_PORT, router(health.clone(), MetricsHandle::install()), stop)
        .await
        .unwrap();
    let serving = task::spawn("health", serving);

    assert_eq!(fetch(addr, "/livez").await, (200, "ok".to_owned()));
    let (status, body) = fetch(addr, "/readyz").await;
    assert!(status == 503 && body.contains("starting"), "{body}");

    let kafka = health.component("kafka");
    health.component("redis").up();
    kafka.down("no broker answers at 127.0.0.1:19092");
    let (status, body) = fetch(addr, "/readyz").await;
    assert_eq!(status, 503);
    assert!(
        body.contains(r#"{"name":"kafka","ready":false,"reason":"no broker answers at 127.0.0.1:19092","since_ms":"#),
        "{body}"
    );
    assert!(body.contains(r#"{"name":"redis","ready":true,"since_ms":"#), "{body}");

    kafka.up();
    let (status, body) = fetch(addr, "/readyz").await;
    assert!(status == 200 && body.starts_with(r#"{"ready":true,"#), "{body}");
    let (status, body) = fetch(addr, "/metrics").await;
    assert!(
        status == 200 && body.contains(r#"holdfast_component_ready{component="kafka"} 1"#),
        "{body}"
    );

    stopper.stop();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_taken_port_says_what_to_do() {
    let (_stopper, stop) = stop::pair();
    let (addr, _serving) = http::serve(ANY_PORT, Router::new(), stop.clone()).await.unwrap();
    let error = http::serve(addr, Router::new(), stop.clone())
        .await
        .err()
        .expect("the port is taken")
        .to_string();
    assert!(
        error.contains(&format!("{addr} is taken")) && error.contains("ss -ltnp"),
        "{error}"
    );
    let foreign = "192.0.2.1:0".parse().unwrap(); // TEST-NET-1 (RFC 5737): nobody's address.
    let error = http::serve(foreign, Router::new(), stop)
        .await
        .err()
        .expect("not our address")
        .to_string();
    assert!(error.contains("cannot listen on 192.0.2.1:0"), "{error}");
}

#[tokio::test]
async fn a_stop_lets_requests_in_flight_be_answered() {
    let slow = get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        peer.ip().to_string()
    });
    let (stopper, stop) = stop::pair();
    let (addr, serving) = http::serve(ANY_PORT, Router::new().route("/slow", slow), stop)
        .await
        .unwrap();
    let serving = task::spawn("slow", serving);
    let request = task::spawn("request", async move { fetch(addr, "/slow").await });
    tokio::time::sleep(Duration::from_millis(100)).await;

    let started = Instant::now();
    stopper.stop();
    assert_eq!(request.await.unwrap(), (200, "127.0.0.1".to_owned()));
    serving.await.unwrap().unwrap();
    assert!(
        started.elapsed() < http::DRAIN,
        "idle connections do not hold the drain"
    );
    assert!(get_from(addr, "/slow").await.is_err(), "nothing is accepted any more");
}

/// Found by the bench's storm: past a queue of 128, the default, the kernel drops who comes, and they ask again after a second.
#[tokio::test]
async fn buyers_who_come_all_at_once_are_kept_until_they_are_taken() {
    const BUYERS: usize = 600;
    let (stopper, stop) = stop::pair();
    let router = Router::new().route("/", get(|| async { "here" }));
    // Nobody is taken before the future runs.
    let (addr, serving) = http::serve(ANY_PORT, router, stop).await.unwrap();
    let come = || std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(900));
    let buyers: Result<Vec<_>, _> = (0..BUYERS).map(|_| come()).collect();
    assert_eq!(buyers.map(|buyers| buyers.len()).ok(), Some(BUYERS), "one was dropped");
    let serving = task::spawn("health", serving);
    assert_eq!(fetch(addr, "/").await, (200, "here".to_owned()));
    stopper.stop();
    serving.await.unwrap().unwrap();
}
