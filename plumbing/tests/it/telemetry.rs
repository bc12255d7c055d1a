//! One trace from a header, through a span of ours, to the collector.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use plumbing::config::Telemetry;
use plumbing::telemetry::{TRACE, current_traceparent, init, set_parent_from_traceparent, tracing_enabled};
use plumbing::{http, stop, task};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACE_ID_BYTES: [u8; 16] = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_the_collector_under_the_trace_that_came_in() {
    assert!(
        !tracing_enabled() && current_traceparent().is_none(),
        "nothing is traced without a collector"
    );
    let received = Arc::new(Mutex::new(Vec::new()));
    let store = Arc::clone(&received);
    let collect = post(move |body: Bytes| async move { store.lock().unwrap().extend_from_slice(&body) });
    let (_stopper, stop) = stop::pair();
    let routes = Router::new().route("/v1/traces", collect);
    let (addr, serving) = http::serve("127.0.0.1:0".parse().unwrap(), routes, stop).await.unwrap();
    let _serving = task::spawn("collector", serving);

    let telemetry = Telemetry {
        otlp_endpoint: Some(format!("http://{addr}/")),
        ..Telemetry::default()
    };
    let guard = init("test", &telemetry).unwrap();
    assert!(tracing_enabled());
    drop(init("again", &telemetry).unwrap()); // Another service of the same process.
    assert!(tracing_enabled());

    let outside = tracing::info_span!("lane-3"); // Not of the road: context for logs, no parent, never exported.
    let _outside = outside.enter();
    assert!(current_traceparent().is_none());
    let request = tracing::info_span!(target: TRACE, "the_request");
    set_parent_from_traceparent(&request, &format!("00-{TRACE_ID}-00f067aa0ba902b7-01"));
    let header = request.in_scope(|| {
        tracing::info!("a line inside of a trace");
        let step = tracing::info_span!(target: TRACE, "the_step", rows = 3);
        step.in_scope(|| current_traceparent().expect("the span is traced"))
    });
    assert!(
        header.starts_with(&format!("00-{TRACE_ID}-")) && header.ends_with("-01"),
        "{header}"
    );
    assert!(
        !header.contains("00f067aa0ba902b7"),
        "the header names our span, not our caller's"
    );

    let orphan = tracing::info_span!(target: TRACE, "the_orphan");
    set_parent_from_traceparent(&orphan, "garbage");
    let own = orphan.in_scope(current_traceparent).expect("a trace of its own");
    assert!(!own.contains(TRACE_ID));
    drop((request, orphan));

    tokio::task::spawn_blocking(|| guard.flush()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let received = received.lock().unwrap();
    for name in ["the_request", "the_step", "the_orphan", "holdfast-test"] {
        assert!(contains(&received, name.as_bytes()), "{name} has not arrived");
    }
    assert!(contains(&received, &TRACE_ID_BYTES));
    assert!(!contains(&received, b"lane-3"));
    assert!(
        !tracing_enabled() && current_traceparent().is_none(),
        "after the flush nothing is traced"
    );
}

#[test]
fn a_wrong_configuration_says_what_to_change() {
    let wrong = Telemetry {
        log: "info,=x=y".to_owned(),
        ..Telemetry::default()
    };
    let error = init("test", &wrong).unwrap_err().to_string();
    assert!(
        error.contains("HOLDFAST_LOG") && error.contains("try `info`"),
        "{error}"
    );
}
